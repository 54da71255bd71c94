//! Handles what workers report of attempts.

use crate::supervisor::contract::Pending;
use crate::supervisor::durable::job::left;
use crate::supervisor::durable::ledger;
use crate::supervisor::leader::attempts::active::{Attempt, Verdict};
use crate::supervisor::leader::attempts::state::AttemptEvent;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::send;
use hedge_model::msg::{Outcome, Report, ToWorker};
use hedge_model::record::Record;
use hedge_model::{AttemptId, Data, Ending, FileEntry, PeerId};
use std::sync::Arc;

impl Leadership<'_> {
    /// Handles a worker's report that an attempt has started. The worker then holds the inputs of the group.
    pub(crate) fn on_started(&mut self, ix: WorkerIx, id: AttemptId) {
        let leader = &mut *self.leader;
        let Some(attempt) = leader.tasks.attempt(id) else {
            return;
        };
        if attempt.worker() != ix || !attempt.state().active() {
            return;
        }
        let from = attempt.from().cloned();
        // An attempt that waits for a job may report its start again.
        self.transition(id, AttemptEvent::Started);
        if let Some(from) = from {
            self.checkpoint_staged(ix, &from);
        }
        let leader = &mut *self.leader;
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let group = job.spec.group_of(id.task.number);
        let offers = leader.jobs.group(id.task.job, group);
        let Some(ready) = offers.and_then(|offers| offers.body().cloned()) else {
            return;
        };
        let body = &ready.body;
        let worker = &mut leader.pool[ix];
        let bodies = worker.bodies_mut();
        if bodies.stage(id.task.job, body.group, body.version) {
            let inputs = body.inputs.iter().map(|file| &file.data).chain(&body.stdin);
            for data in inputs {
                if let Data::Blob { hash, size } = data {
                    self.note_holder(*hash, Some(*size), ix);
                }
            }
        }
    }

    /// Handles a worker's report of how an attempt ended, once. The record of an unsuccessful end waits for a pending
    /// checkpoint of the attempt, for a minute at most.
    pub(crate) fn on_report(&mut self, ix: WorkerIx, report: Report) {
        let known = self.leader.tasks.attempt(report.attempt);
        let repeated =
            known.is_some_and(|attempt| attempt.worker() == ix && attempt.state().reported());
        if !repeated && !self.awaits_checkpoint(ix, &report) {
            self.record_report(ix, report);
        }
    }

    /// Proposes the record of how an attempt ended.
    pub(crate) fn record_report(&mut self, ix: WorkerIx, report: Report) {
        let Report {
            attempt: id,
            outcome,
            usage,
            log,
        } = report;
        let job = self.state.jobs.get(&id.task.job);
        let age = job.map(|job| self.now.since(job.accepted));
        let usage = ledger::plausible(usage, age.unwrap_or_default());
        let worker = self.leader.pool[ix].peer();
        let known = self.leader.tasks.attempt(id);
        let mine = |attempt: &&Attempt| attempt.worker() == ix && attempt.state().in_hand();
        let Some(attempt) = known.filter(mine) else {
            send(worker, ToWorker::Settled(id), self.out);
            if let Outcome::Done(outputs) = &outcome {
                self.drop_unwanted(worker, outputs);
            }
            return;
        };
        let (redundant, class) = (attempt.redundant(), attempt.class());
        let stopped = attempt.state().stopped();
        self.transition(id, AttemptEvent::Reported);
        let mut charge = ledger::used(class, &usage);
        if let Some(stopped) = stopped {
            charge.occupied = charge.occupied.min(stopped.occupied);
        }
        let known = self.leader.tasks.get(&id.task);
        let committing = known.and_then(|known| known.committing());
        let outcome = self.checked(id, worker, outcome);
        let ended = match outcome {
            Outcome::Done(_) if committing == Some(Verdict::Done(id)) => return,
            Outcome::Done(outputs) if committing.is_none() && self.state.wants(id) => {
                let stopped = self.view().stopped_of_task(id.task, Some(id));
                let outputs: Arc<[FileEntry]> = outputs.into();
                self.commits(id);
                let blobs: Vec<_> = left(&outputs, log.as_deref()).collect();
                let record = Record::TaskDone {
                    attempt: id,
                    redundant,
                    worker,
                    outputs,
                    usage,
                    class,
                    stopped,
                    log,
                    at: self.now,
                };
                self.append(record, None);
                return self.finish_with_success(id.task, &blobs);
            }
            other => self.undecided(id, worker, other),
        };
        let Some((end, pending)) = ended else {
            return;
        };
        let record = Record::AttemptEnded {
            attempt: id,
            redundant,
            worker,
            end,
            usage,
            charge,
            log,
            at: self.now,
        };
        self.append(record, pending);
    }

    /// Returns the reported outcome. If the worker reports success with wrong or missing outputs, the attempt failed
    /// instead, and the worker drops its outputs.
    fn checked(&mut self, id: AttemptId, worker: PeerId, outcome: Outcome) -> Outcome {
        let Outcome::Done(outputs) = &outcome else {
            return outcome;
        };
        let Some(why) = self.view().wrong_outputs(id, outputs) else {
            return outcome;
        };
        self.drop_unwanted(worker, outputs);
        Outcome::Ended(Ending::worker(why))
    }

    /// Returns the ending of an attempt that does not decide its task, and what to do once that is recorded. Returns
    /// none if the worker returned the attempt unstarted, because then nothing is recorded, unless the attempt counts
    /// as lost.
    fn undecided(
        &mut self,
        id: AttemptId,
        worker: PeerId,
        outcome: Outcome,
    ) -> Option<(Ending, Option<Pending>)> {
        let end = match outcome {
            Outcome::Done(outputs) => {
                return Some((
                    Ending::Cancelled,
                    Some(Pending::Unwanted { worker, outputs }),
                ));
            }
            // A worker that is connected cannot report these.
            Outcome::Ended(Ending::Lost | Ending::Recorded { .. }) => {
                Ending::worker("it reported an end that only a supervisor can record")
            }
            Outcome::Ended(mut ending) => {
                let missing = ending.trim().into_iter();
                missing.for_each(|hash| self.distrust(hash));
                ending
            }
            // The record says that it never ran, so that a task which runs once may run elsewhere.
            Outcome::Returned if self.view().counts_as_lost(id) => Ending::Vacated,
            Outcome::Returned => {
                self.given_back(id, worker);
                return None;
            }
        };
        Some((end, None))
    }

    /// Handles an attempt that its worker returned unstarted: the task is offered again, and nothing is recorded.
    fn given_back(&mut self, id: AttemptId, worker: PeerId) {
        send(worker, ToWorker::Settled(id), self.out);
        self.hint_end(id, worker);
        self.detach(id);
        self.update_task_offers(id.task);
        self.forget_task_if_over(id.task);
    }

    /// Marks the success of an attempt as proposed: its task gets no further attempts.
    fn commits(&mut self, id: AttemptId) {
        let verdict = Verdict::Done(id);
        self.leader.tasks.get_or_insert(id.task).commit(verdict);
        self.update_task_offers(id.task);
    }
}
