//! Attempts of tasks that are not over: where each runs and how far it is.

pub(crate) mod charges;
pub(crate) mod faults;
pub(crate) mod hints;
pub(crate) mod nested;
pub(crate) mod reports;

use crate::monitor::Progress;
use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::Ending;
use hedge_model::capacity::Class;
use hedge_model::ledger::Charge;
use hedge_model::msg::Usage;
use hedge_model::record::Record;
use hedge_model::{AttemptId, JobId, TaskId, Time};
use smallvec::SmallVec;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct ActiveTask {
    pub attempts: SmallVec<[Attempt; 2]>,
    pub last_number: u32,
    /// Where it failed.
    pub avoid: SmallVec<[WorkerIx; 2]>,
    /// Times that a worker could not fetch its inputs.
    pub input_faults: u8,
    /// Times that a worker or its machine failed it, and the first of these workers.
    pub faults: u8,
    pub faulted: Option<WorkerIx>,
    /// The attempt whose success is on its way through the journal.
    pub committing: Option<AttemptId>,
}

#[derive(Debug)]
pub(crate) struct Attempt {
    pub id: AttemptId,
    pub worker: WorkerIx,
    pub redundant: bool,
    pub state: AttemptState,
    /// Whether it takes resources of its worker; not while it is queued or given up.
    pub holds: bool,
    /// Its end is on its way through the journal.
    pub reported: bool,
    pub since: Time,
    pub why: Why,
    /// The class of its worker when it was given.
    pub class: Class,
    /// What it is charged, once it was told to stop.
    pub stopped: Option<Charge>,
    /// As far as it was told of.
    pub progress: Progress,
    /// Since when it has run and got nowhere, where that is too long.
    pub stalled: Option<Time>,
}

/// Why an attempt was given to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    MostRoom,
    Faster,
    /// Its inputs are there soonest.
    Data,
    Queued,
    Elsewhere,
    AgainThere,
    Adopted,
    Policy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptState {
    /// Sent ahead.
    Queued,
    /// Sent, not known to run.
    Assigned,
    Running,
    /// Runs and waits for this job; its part of its worker is given back.
    Waiting(JobId),
    /// Told to stop, not yet stopped.
    Cancelling,
    /// Given up with its worker.
    Lost,
    /// Given to its worker by an earlier leader; the worker has not spoken of it yet.
    Expected,
}

impl Attempt {
    /// Whether it may still succeed and its end is not heard of.
    pub fn alive(&self) -> bool {
        self.state.active() && !self.reported
    }
}

impl AttemptState {
    /// Whether the attempt may still succeed and nobody gave it up.
    pub fn active(self) -> bool {
        matches!(
            self,
            Self::Queued | Self::Assigned | Self::Running | Self::Waiting(_) | Self::Expected
        )
    }

    /// Whether its process runs.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Waiting(_))
    }

    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Waiting(_) => "waiting",
            Self::Cancelling => "cancelling",
            Self::Lost => "lost",
            Self::Expected => "expected",
        }
    }

    /// Whether its worker is known to have it.
    pub fn in_hand(self) -> bool {
        !matches!(self, Self::Lost | Self::Expected)
    }
}

impl ActiveTask {
    /// Attempts that may still succeed.
    pub fn active(&self) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| attempt.state.active())
            .count()
    }

    /// Attempts whose end is not heard of.
    pub fn alive(&self) -> usize {
        self.attempts
            .iter()
            .filter(|attempt| attempt.alive())
            .count()
    }

    /// The job that an attempt which may still succeed waits for.
    pub fn waits_for(&self) -> Option<(AttemptId, JobId)> {
        self.attempts
            .iter()
            .find_map(|attempt| match attempt.state {
                AttemptState::Waiting(job) => Some((attempt.id, job)),
                _ => None,
            })
    }

    pub fn attempt(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.attempts.iter_mut().find(|attempt| attempt.id == id)
    }
}

/// An attempt, wherever it stands; apart from the leader, so that its worker can be changed beside it.
pub(crate) fn find_attempt(
    tasks: &mut BTreeMap<TaskId, ActiveTask>,
    id: AttemptId,
) -> Option<&mut Attempt> {
    tasks.get_mut(&id.task)?.attempt(id)
}

impl Leadership<'_> {
    /// Gives up all attempts of a worker but those in `kept`.
    pub(crate) fn lose_attempts(&mut self, ix: WorkerIx, kept: Option<&[AttemptId]>) {
        let heard = self.view().last_heard(ix);
        let worker = &mut self.leader.pool[ix];
        let peer = worker.peer;
        let in_hand = std::mem::take(&mut worker.in_hand);
        worker.critical.clear();
        worker.queued.clear();
        self.leader.attend.insert(ix);
        for id in in_hand {
            let leader = &mut *self.leader;
            let Some(attempt) = find_attempt(&mut leader.tasks, id) else {
                continue;
            };
            let (active, redundant) = (attempt.state.active(), attempt.redundant);
            let charge = attempt.stopped.or(Some(attempt.charge_until(heard)));
            attempt.state = AttemptState::Lost;
            leader.yielding.remove(&id);
            leader.making_room.remove(&id);
            let held = std::mem::replace(&mut attempt.holds, false);
            self.give_share(id, held, ix);
            self.leader.pool[ix].lost.insert(id);
            if !active {
                self.detach_lost(id);
            } else if kept.is_none_or(|kept| !kept.contains(&id)) {
                self.leader.pool[ix].lost_count += 1;
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
                self.append(record, None);
            }
            self.settle_wants(id.task);
            self.tell_soon(id.task.job);
        }
    }

    /// An attempt is over: it gives back what it took, and those queued behind it move up.
    pub(crate) fn detach(&mut self, id: AttemptId) {
        let leader = &mut *self.leader;
        let Some(known) = leader.tasks.get_mut(&id.task) else {
            return;
        };
        let Some(at) = known.attempts.iter().position(|attempt| attempt.id == id) else {
            return;
        };
        let attempt = known.attempts.remove(at);
        let ix = attempt.worker;
        if !leader.yielding.is_empty() || !leader.making_room.is_empty() {
            leader.yielding.remove(&id);
            leader.making_room.remove(&id);
        }
        if !attempt.state.in_hand() {
            leader.pool[ix].lost.remove(&id);
            leader.pool[ix].expected.remove(&id);
            return;
        }
        let worker = &mut leader.pool[ix];
        worker.in_hand.remove(&id);
        worker.critical.remove(&id);
        leader.leaving_due |= worker.draining;
        if !attempt.holds {
            worker.queued.retain(|queued| *queued != id);
        }
        self.leader.attend.insert(ix);
        self.give_share(id, attempt.holds, ix);
        self.move_up(ix);
        let leader = &mut *self.leader;
        leader.pool.reindex(ix);
        leader.unblock(ix);
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
        let leader = &mut *self.leader;
        if held {
            leader.pool[ix].free.give(need);
        }
        leader.ready.gave(job.client, need.cpus_milli);
    }

    /// Queued attempts take the resources that became free, in their order, as the worker itself does.
    pub(crate) fn move_up(&mut self, ix: WorkerIx) {
        let now = self.now;
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
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
            if let Some(attempt) = find_attempt(&mut leader.tasks, id) {
                attempt.holds = true;
                attempt.since = now;
                if attempt.state == AttemptState::Queued {
                    attempt.state = AttemptState::Assigned;
                }
            }
        }
    }

    /// A task that is done or whose job has ended needs no state at the leader once its last attempt is over.
    pub(crate) fn forget_task_if_over(&mut self, id: TaskId) {
        let over = self
            .state
            .jobs
            .get(&id.job)
            .is_none_or(|job| !job.active() || job.tasks[id.number as usize].done.is_some());
        let leader = &mut *self.leader;
        if over
            && leader
                .tasks
                .get(&id)
                .is_some_and(|known| known.attempts.is_empty())
        {
            leader.tasks.remove(&id);
        }
    }
}
