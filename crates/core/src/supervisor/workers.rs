//! Workers come, report, fall silent, return and leave.

use super::live::{AttemptState, Submission, Timer, WorkerIx, find_attempt};
use super::{Action, Pending, Supervisor, send};
use hedge_model::msg::{FromWorker, Outcome, Report, ToWorker, Usage};
use hedge_model::record::Record;
use hedge_model::{AttemptId, Data, Ending, FileEntry, Hash, PeerId, TaskId};
use std::sync::Arc;
use std::time::Duration;

/// A worker whose connection was lost, though nobody ended it, goes on with what it has in hand and connects again:
/// this is five times the longest pause between two tries. Where it was found dead before, it was given up then; so
/// this is for a supervisor that was frozen itself, and for workers that are seldom heard.
const RETURNS_WITHIN: Duration = Duration::from_secs(10);

impl Supervisor {
    pub(crate) fn on_worker(&mut self, peer: PeerId, msg: FromWorker, out: &mut Vec<Action>) {
        // It may have been on its way when the worker was shut out.
        if self.state.revoked.contains_key(&peer) {
            return;
        }
        if let FromWorker::Attach(info) = msg {
            return self.on_attach(peer, *info, out);
        }
        let live = self.live();
        let known = live.by_peer.get(&peer).copied();
        let Some(ix) = known.filter(|ix| live.workers[*ix as usize].connected) else {
            return;
        };
        self.hear_from(ix, out);
        match msg {
            FromWorker::Attach(_) => {}
            FromWorker::Holds(held) => self.on_holds(ix, held, out),
            FromWorker::Started(id) => self.on_started(ix, id),
            FromWorker::Ended(report) => self.on_report(ix, *report, out),
            FromWorker::Draining => self.drain(ix, out),
            FromWorker::Owner(state) => self.on_owner(ix, state),
            FromWorker::Probed(arrived) => self.link_said(ix, arrived, out),
            FromWorker::Fetched { bytes, took } => self.link_showed(ix, bytes, took, out),
            FromWorker::Waits(id, job) => self.on_waits(ix, id, job),
            FromWorker::Benchmarked(scores) => self.on_benchmarked(ix, scores, out),
        }
    }

    fn on_started(&mut self, ix: WorkerIx, id: AttemptId) {
        let live = self.live.get_or_insert_default();
        let Some(attempt) = find_attempt(&mut live.tasks, id) else {
            return;
        };
        if attempt.worker != ix || !attempt.state.active() {
            return;
        }
        // It may wait for a job, and say again that it started.
        if !matches!(attempt.state, AttemptState::Waiting(_)) {
            attempt.state = AttemptState::Running;
        }
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let group = job.spec.group_of(id.task.number);
        let body = live
            .jobs
            .get(&id.task.job)
            .and_then(|job| job.groups[group].body.clone());
        let Some(body) = body else { return };
        let worker = &mut live.workers[ix as usize];
        if worker
            .staged
            .insert((id.task.job, body.group, body.version))
        {
            let inputs = body.inputs.iter().map(|file| &file.data).chain(&body.stdin);
            for data in inputs {
                if let Data::Blob { hash, size } = data {
                    self.held_by(*hash, Some(*size), ix);
                }
            }
        }
    }

    fn on_report(&mut self, ix: WorkerIx, report: Report, out: &mut Vec<Action>) {
        let Report {
            attempt: id,
            outcome,
            usage,
            log,
        } = report;
        let job = self.state.jobs.get(&id.task.job);
        let age = job.map(|job| self.now.since(job.accepted));
        let usage = super::ledger::plausible(usage, age.unwrap_or_default());
        let worker = self.live().workers[ix as usize].peer;
        let known = find_attempt(&mut self.live().tasks, id);
        let Some(attempt) = known.filter(|attempt| attempt.worker == ix) else {
            send(worker, ToWorker::Settled(id), out);
            if let Outcome::Done(outputs) = &outcome {
                self.drop_unwanted(worker, outputs, out);
            }
            return;
        };
        if std::mem::replace(&mut attempt.reported, true) {
            return;
        }
        let (redundant, class) = (attempt.redundant, attempt.class);
        let mut charge = super::ledger::used(class, &usage);
        if let Some(stopped) = attempt.stopped {
            charge.occupied = charge.occupied.min(stopped.occupied);
        }
        let at = self.now;
        let known = self.live().tasks.get(&id.task);
        let committing = known.and_then(|known| known.committing);
        let outcome = self.checked(id, worker, outcome, out);
        let ended = match outcome {
            Outcome::Done(_) if committing == Some(id) => return,
            Outcome::Done(outputs) if committing.is_none() && self.state.wants(id) => {
                let stopped = self.stopping(id.task, id);
                let outputs: Arc<[FileEntry]> = outputs.into();
                self.commits(id);
                let left: Vec<_> = super::durable::left(&outputs, log.as_deref()).collect();
                let record = Record::TaskDone {
                    attempt: id,
                    redundant,
                    worker,
                    outputs,
                    usage,
                    class,
                    stopped,
                    log,
                    at,
                };
                self.append(record, None, out);
                return self.finish_after(id.task, &left, out);
            }
            other => self.undecided(id, worker, other, out),
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
            at,
        };
        self.append(record, pending, out);
    }

    /// What a worker reports, unless it calls a success what lacks declared outputs: then it failed, and may drop
    /// what it made.
    fn checked(
        &mut self,
        id: AttemptId,
        worker: PeerId,
        outcome: Outcome,
        out: &mut Vec<Action>,
    ) -> Outcome {
        let Outcome::Done(outputs) = &outcome else {
            return outcome;
        };
        let Some(why) = self.wrong_outputs(id, outputs) else {
            return outcome;
        };
        self.drop_unwanted(worker, outputs, out);
        Outcome::Ended(Ending::worker(why))
    }

    /// How an attempt ended that does not decide its task, and what is to be done once that is recorded;
    /// nothing where there is no end to record, as it was given back.
    fn undecided(
        &mut self,
        id: AttemptId,
        worker: PeerId,
        outcome: Outcome,
        out: &mut Vec<Action>,
    ) -> Option<(Ending, Option<Pending>)> {
        let end = match outcome {
            Outcome::Done(outputs) => {
                return Some((
                    Ending::Cancelled,
                    Some(Pending::Unwanted { worker, outputs }),
                ));
            }
            // What a worker that is heard cannot report.
            Outcome::Ended(Ending::Lost | Ending::Recorded { .. }) => {
                Ending::worker("it reported an end that only a supervisor can record")
            }
            Outcome::Ended(mut ending) => {
                let missing = ending.trim().into_iter();
                missing.for_each(|hash| self.distrust(hash, out));
                ending
            }
            Outcome::Returned => {
                self.given_back(id, worker, out);
                return None;
            }
        };
        Some((end, None))
    }

    /// An attempt had not started: its task waits again, and nothing of it is recorded.
    fn given_back(&mut self, id: AttemptId, worker: PeerId, out: &mut Vec<Action>) {
        send(worker, ToWorker::Settled(id), out);
        self.hint_over(id, worker, out);
        self.detach(id);
        self.settle_wants(id.task);
        self.forget_task_if_over(id.task);
    }

    /// A success is on its way through the journal: its task wants no other attempt.
    fn commits(&mut self, id: AttemptId) {
        self.live().tasks.entry(id.task).or_default().committing = Some(id);
        self.settle_wants(id.task);
    }

    /// A worker could not fetch this from anybody it was told of: if it is fetched into the own store, all
    /// is well, else nobody has it.
    fn distrust(&mut self, hash: Hash, out: &mut Vec<Action>) {
        let live = self.live();
        let own = live.content.get(&hash).is_some_and(|content| content.own);
        live.jobs
            .values_mut()
            .flat_map(|job| &mut job.groups)
            .for_each(|group| {
                if group
                    .body
                    .as_ref()
                    .is_some_and(|body| body.blobs.contains(&hash))
                {
                    group.body = None;
                }
            });
        if let (false, Some(content)) = (own, live.content.get_mut(&hash)) {
            content.doubted = true;
            self.lose_if_gone(hash, out);
            self.pull(hash, out);
        }
    }

    pub(crate) fn on_gone(&mut self, peer: PeerId, silent: bool, out: &mut Vec<Action>) {
        self.linked.remove(&peer);
        self.colleague_gone(peer);
        self.unhear(peer);
        let live = self.live();
        let its = |submit: &mut Submission| submit.client == peer;
        let gone: Vec<Submission> = live.submits.extract_if(.., its).collect();
        for submit in gone {
            self.release_inputs(&submit.spec, out);
        }
        self.live()
            .jobs
            .values_mut()
            .for_each(|job| job.watchers.retain(|(watcher, _)| *watcher != peer));
        let Some(ix) = self.live().by_peer.get(&peer).copied() else {
            return;
        };
        let now = self.now;
        let live = self.live();
        let worker = &mut live.workers[ix as usize];
        if std::mem::replace(&mut worker.connected, false) {
            if silent && !worker.dead {
                (worker.gone_at, worker.quiet_since) = (now, Some(now));
                worker.returns_by = Some(now + RETURNS_WITHIN);
                live.set_timer(now + RETURNS_WITHIN, Timer::Returns(ix));
                live.pool_changed(ix);
            } else {
                self.give_up(ix, out);
            }
        } else if !silent && worker.returns_by.take().is_some() {
            self.give_up(ix, out);
        }
        self.unwatch(ix, out);
    }

    /// A worker whose connection was lost has not come back in time. It may still come.
    pub(crate) fn give_up_silent(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        let now = self.now;
        let worker = &mut self.live().workers[ix as usize];
        if worker.returns_by.take_if(|by| *by <= now).is_some() {
            self.give_up(ix, out);
        }
    }

    /// What a worker had in hand is assigned elsewhere; it may still come back with it and win.
    pub(crate) fn give_up(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        self.lose_attempts(ix, None, out);
        let (now, grace) = (self.now, self.config.content_grace);
        let live = self.live();
        live.workers[ix as usize].gone_at = now;
        live.set_timer(now + grace, Timer::ContentLost(ix));
        live.pool_changed(ix);
        let peer = live.workers[ix as usize].peer;
        for group in live.jobs.values_mut().flat_map(|job| &mut job.groups) {
            if group
                .body
                .as_ref()
                .is_some_and(|body| body.sources.iter().any(|source| source.peer == peer))
            {
                group.body = None;
            }
        }
    }

    /// Gives up all attempts of a worker but those in `kept`.
    pub(crate) fn lose_attempts(
        &mut self,
        ix: WorkerIx,
        kept: Option<&[AttemptId]>,
        out: &mut Vec<Action>,
    ) {
        let heard = self.last_heard(ix);
        let worker = &mut self.live().workers[ix as usize];
        let peer = worker.peer;
        let in_hand = std::mem::take(&mut worker.in_hand);
        worker.critical.clear();
        worker.queued.clear();
        self.live().attend.insert(ix);
        for id in in_hand {
            let live = self.live.get_or_insert_default();
            let Some(attempt) = find_attempt(&mut live.tasks, id) else {
                continue;
            };
            let (active, redundant) = (attempt.state.active(), attempt.redundant);
            let charge = attempt.stopped.or(Some(attempt.charge_until(heard)));
            attempt.state = AttemptState::Lost;
            live.yielding.remove(&id);
            live.making_room.remove(&id);
            let held = std::mem::replace(&mut attempt.holds, false);
            self.give_share(id, held, ix);
            self.live().workers[ix as usize].lost.insert(id);
            if !active {
                self.detach_lost(id);
            } else if kept.is_none_or(|kept| !kept.contains(&id)) {
                self.live().workers[ix as usize].lost_count += 1;
                let (end, at) = (Ending::Lost, self.now);
                let (usage, log) = (Usage::default(), None);
                let charge = charge.unwrap_or_default();
                let record = Record::AttemptEnded {
                    attempt: id,
                    redundant,
                    worker: peer,
                    end,
                    usage,
                    charge,
                    log,
                    at,
                };
                self.append(record, None, out);
            }
            self.settle_wants(id.task);
            self.tell_soon(id.task.job);
        }
    }

    pub(crate) fn drain(&mut self, ix: WorkerIx, out: &mut Vec<Action>) {
        let live = self.live();
        let worker = &mut live.workers[ix as usize];
        if std::mem::replace(&mut worker.draining, true) {
            return;
        }
        let (peer, in_hand) = (worker.peer, worker.in_hand.clone());
        live.leaving.insert(ix);
        send(peer, ToWorker::Drain, out);
        live.pool_changed(ix);
        for id in in_hand {
            self.settle_wants(id.task);
        }
        self.live().leaving_due = true;
    }

    /// Draining workers that have nothing in hand, and nothing that only they hold, may go.
    pub(crate) fn let_leave(&mut self, out: &mut Vec<Action>) {
        let Some(live) = &self.live else { return };
        let idle = |ix: &WorkerIx| {
            let worker = &live.workers[*ix as usize];
            worker.reachable() && worker.in_hand.is_empty()
        };
        let draining: Vec<WorkerIx> = live.leaving.iter().copied().filter(idle).collect();
        for ix in draining {
            let live = self.live();
            let only_here = |hash: &&Hash| {
                live.content.get(*hash).is_some_and(|content| {
                    let other = |at: &WorkerIx| {
                        let worker = &live.workers[*at as usize];
                        *at != ix && worker.reachable() && !worker.draining
                    };
                    !content.own
                        && (!content.producers.is_empty() || !content.kept.is_empty())
                        && !content.workers.iter().any(other)
                })
            };
            let rescue: Vec<Hash> = live.workers[ix as usize]
                .held
                .iter()
                .filter(only_here)
                .copied()
                .collect();
            if rescue.is_empty() {
                self.live().leaving.remove(&ix);
                let live = self.live();
                send(live.workers[ix as usize].peer, ToWorker::Leave, out);
            }
            rescue.into_iter().for_each(|hash| self.pull(hash, out));
        }
    }

    /// An attempt is over: it gives back what it took, and those queued behind it move up.
    pub(crate) fn detach(&mut self, id: AttemptId) {
        let live = self.live();
        let Some(known) = live.tasks.get_mut(&id.task) else {
            return;
        };
        let Some(at) = known.attempts.iter().position(|attempt| attempt.id == id) else {
            return;
        };
        let attempt = known.attempts.remove(at);
        let ix = attempt.worker;
        if !live.yielding.is_empty() || !live.making_room.is_empty() {
            live.yielding.remove(&id);
            live.making_room.remove(&id);
        }
        if !attempt.state.in_hand() {
            live.workers[ix as usize].lost.remove(&id);
            live.workers[ix as usize].expected.remove(&id);
            return;
        }
        let worker = &mut live.workers[ix as usize];
        worker.in_hand.remove(&id);
        worker.critical.remove(&id);
        live.leaving_due |= worker.draining;
        if !attempt.holds {
            worker.queued.retain(|queued| *queued != id);
        }
        self.live().attend.insert(ix);
        self.give_share(id, attempt.holds, ix);
        self.move_up(ix);
        let live = self.live();
        live.reindex(ix);
        live.unblock(ix);
    }

    pub(crate) fn detach_lost(&mut self, id: AttemptId) {
        self.detach(id);
        self.forget_task_if_over(id.task);
    }

    fn give_share(&mut self, id: AttemptId, held: bool, ix: WorkerIx) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
        let live = self.live.get_or_insert_default();
        if held {
            live.workers[ix as usize].free.give(need);
        }
        live.ready.gave(job.client, need.cpus_milli);
    }

    /// Queued attempts take the resources that became free, in their order, as the worker itself does.
    pub(crate) fn move_up(&mut self, ix: WorkerIx) {
        let now = self.now;
        let live = self.live.get_or_insert_default();
        let worker = &mut live.workers[ix as usize];
        while let Some(id) = worker.queued.front().copied() {
            let Some(job) = self.state.jobs.get(&id.task.job) else {
                break;
            };
            let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
            if !worker.free.covers(need) {
                break;
            }
            worker.queued.pop_front();
            worker.free.take(need);
            if let Some(attempt) = find_attempt(&mut live.tasks, id) {
                attempt.holds = true;
                attempt.since = now;
                if attempt.state == AttemptState::Queued {
                    attempt.state = AttemptState::Assigned;
                }
            }
        }
    }

    /// A task that is done or whose job has ended needs no live state once its last attempt is over.
    pub(crate) fn forget_task_if_over(&mut self, id: TaskId) {
        let over = self
            .state
            .jobs
            .get(&id.job)
            .is_none_or(|job| !job.active() || job.tasks[id.number as usize].done.is_some());
        let live = self.live();
        if over
            && live
                .tasks
                .get(&id)
                .is_some_and(|known| known.attempts.is_empty())
        {
            live.tasks.remove(&id);
        }
    }
}
