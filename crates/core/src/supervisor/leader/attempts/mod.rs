//! Attempts of tasks that are not over: where each runs and how far it is.

pub(crate) mod charges;
pub(crate) mod faults;
pub(crate) mod hints;
pub(crate) mod load;
pub(crate) mod nested;
pub(crate) mod reports;
pub(crate) mod state;

use crate::monitor::Progress;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::send;
use hedge_model::Ending;
use hedge_model::capacity::Class;
use hedge_model::ledger::Charge;
use hedge_model::msg::{ToWorker, Usage};
use hedge_model::record::Record;
use hedge_model::{AttemptId, JobId, TaskId, Time};
use smallvec::SmallVec;
use state::{AttemptEvent, AttemptState};
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

/// One execution of a task on one worker that is not over.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub id: AttemptId,
    pub worker: WorkerIx,
    pub redundant: bool,
    state: AttemptState,
    /// When it was given to its worker, or took its part of it.
    pub since: Time,
    pub why: Why,
    /// The class of its worker when it was given.
    pub class: Class,
    /// As far as it was told of.
    pub progress: Progress,
    /// Since when it has run and got nowhere, where that is too long.
    pub stalled: Option<Time>,
}

impl Attempt {
    /// Where it stands.
    pub fn state(&self) -> AttemptState {
        self.state
    }
}

/// An attempt that a worker is given, has, or is expected to have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewAttempt {
    pub id: AttemptId,
    pub worker: WorkerIx,
    pub redundant: bool,
    pub state: AttemptState,
    pub since: Time,
    pub why: Why,
    pub class: Class,
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
            .filter(|attempt| attempt.state.alive())
            .count()
    }

    /// The job that an attempt which may still succeed waits for.
    pub fn waits_for(&self) -> Option<(AttemptId, JobId)> {
        let mut waits = self
            .attempts
            .iter()
            .filter_map(|attempt| Some((attempt.id, attempt.state.waits_for()?)));
        waits.next()
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
    /// Notes an attempt with its task, its worker and its client's share of the pool.
    pub(crate) fn begin_attempt(&mut self, new: NewAttempt) {
        let NewAttempt {
            id,
            worker,
            redundant,
            state,
            since,
            why,
            class,
        } = new;
        let known = self.leader.tasks.entry(id.task).or_default();
        known.attempts.push(Attempt {
            id,
            worker,
            redundant,
            state,
            since,
            why,
            class,
            progress: Progress::default(),
            stalled: None,
        });
        self.follow_attempt(id, worker, None, Some(state));
    }

    /// The only place that changes where an attempt stands; brings all that follows from that in line. Says whether
    /// the event changed anything.
    pub(crate) fn transition(&mut self, id: AttemptId, event: AttemptEvent) -> bool {
        let Some(attempt) = find_attempt(&mut self.leader.tasks, id) else {
            return false;
        };
        let (old, new) = (attempt.state, attempt.state.after(event));
        attempt.state = new;
        if event == AttemptEvent::MovedUp {
            attempt.since = self.now;
        }
        let ix = attempt.worker;
        let matters = |state: AttemptState| (state.in_hand(), state.share(), state.active());
        if matters(old) != matters(new) {
            self.follow_attempt(id, ix, Some(old), Some(new));
        }
        old != new
    }

    /// Brings what follows from an attempt's state in line with it: its worker's load, its client's share, whom the
    /// monitor watches how closely, and which copies give way.
    fn follow_attempt(
        &mut self,
        id: AttemptId,
        ix: WorkerIx,
        old: Option<AttemptState>,
        new: Option<AttemptState>,
    ) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
        let leader = &mut *self.leader;
        let critical = leader.jobs.get(&id.task.job);
        let critical = critical.is_some_and(|of| of.critical.contains(&job.spec, id.task.number));
        leader.pool[ix].load.follow(id, old, new, need, critical);
        let (before, after) = (
            old.is_some_and(AttemptState::in_hand),
            new.is_some_and(AttemptState::in_hand),
        );
        match (before, after) {
            (false, true) => leader.ready.took(job.client, need.cpus_milli),
            (true, false) => leader.ready.gave(job.client, need.cpus_milli),
            _ => {}
        }
        if before != after {
            leader.attend.insert(ix);
        }
        if !leader.yielding.is_empty() && !new.is_some_and(AttemptState::active) {
            leader.yielding.remove(&id);
        }
        if !leader.making_room.is_empty() && !after {
            leader.making_room.remove(&id);
        }
    }

    /// An attempt that may have been lost is there. It takes its part of the worker if that is free.
    pub(crate) fn take_back_attempt(&mut self, id: AttemptId) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let group = job.spec.group_of(id.task.number);
        let need = &job.spec.groups()[group].resources;
        let leader = &mut *self.leader;
        let Some(attempt) = find_attempt(&mut leader.tasks, id) else {
            return;
        };
        let room = leader.pool[attempt.worker].load.free().covers(need);
        self.transition(id, AttemptEvent::Found { room });
        self.pass_fresh(id.task);
        self.refresh_offers(id.task.job, group);
    }

    /// An attempt is told to stop: nothing later is charged.
    pub(crate) fn cancel_attempt(&mut self, id: AttemptId) {
        let now = self.now;
        let Some(attempt) = find_attempt(&mut self.leader.tasks, id) else {
            return;
        };
        let charge = attempt.charge_until(now);
        self.transition(id, AttemptEvent::Cancelled(charge));
        self.tell_cancelled(id);
    }

    /// Tells the worker of an attempt, if it is there, to stop it.
    pub(crate) fn tell_cancelled(&mut self, id: AttemptId) {
        let attempt = find_attempt(&mut self.leader.tasks, id);
        let Some(ix) = attempt.map(|attempt| attempt.worker) else {
            return;
        };
        let worker = &self.leader.pool[ix];
        if worker.state().connected() {
            send(worker.peer, ToWorker::Cancel(id), self.out);
        }
    }

    /// Gives up all attempts of a worker but those in `kept`.
    pub(crate) fn lose_attempts(&mut self, ix: WorkerIx, kept: Option<&[AttemptId]>) {
        let heard = self.view().last_heard(ix);
        let in_hand = self.leader.pool[ix].load.in_hand().clone();
        self.leader.attend.insert(ix);
        for id in in_hand {
            let Some(attempt) = find_attempt(&mut self.leader.tasks, id) else {
                continue;
            };
            let active = attempt.state.active();
            let (redundant, charge) = (attempt.redundant, attempt.charge_until(heard));
            self.transition(id, AttemptEvent::Lost);
            if !active {
                self.detach_lost(id);
            } else if kept.is_none_or(|kept| !kept.contains(&id)) {
                self.record_loss(id, ix, redundant, charge);
            }
            self.settle_wants(id.task);
            self.tell_soon(id.task.job);
        }
    }

    /// Proposes the record of an attempt that is lost with its worker.
    pub(crate) fn record_loss(
        &mut self,
        attempt: AttemptId,
        ix: WorkerIx,
        redundant: bool,
        charge: Charge,
    ) {
        let worker = &mut self.leader.pool[ix];
        worker.lost_count += 1;
        let record = Record::AttemptEnded {
            attempt,
            redundant,
            worker: worker.peer,
            end: Ending::Lost,
            usage: Usage::default(),
            charge,
            log: None,
            at: self.now,
        };
        self.append(record, None);
    }

    /// An attempt is over: it gives back what it took, and those queued behind it move up.
    pub(crate) fn detach(&mut self, id: AttemptId) {
        let Some(known) = self.leader.tasks.get_mut(&id.task) else {
            return;
        };
        let Some(at) = known.attempts.iter().position(|attempt| attempt.id == id) else {
            return;
        };
        let attempt = known.attempts.remove(at);
        let ix = attempt.worker;
        self.follow_attempt(id, ix, Some(attempt.state), None);
        if attempt.state.in_hand() {
            let leader = &mut *self.leader;
            leader.leaving_due |= leader.pool[ix].draining;
            self.move_up(ix);
            let leader = &mut *self.leader;
            leader.pool.reindex(ix);
            leader.unblock(ix);
        }
    }

    pub(crate) fn detach_lost(&mut self, id: AttemptId) {
        self.detach(id);
        self.forget_task_if_over(id.task);
    }

    /// Queued attempts take the resources that became free, in their order, as the worker itself does.
    pub(crate) fn move_up(&mut self, ix: WorkerIx) {
        let mut next = || {
            let load = &self.leader.pool[ix].load;
            let id = load.queued().front().copied()?;
            let job = self.state.jobs.get(&id.task.job)?;
            let need = &job.spec.groups()[job.spec.group_of(id.task.number)].resources;
            let room = load.free().covers(need);
            (room && self.transition(id, AttemptEvent::MovedUp)).then_some(())
        };
        while next().is_some() {}
    }

    /// A job's critical set has changed: notes which attempts in hand are of it now, and gives the tasks of those for
    /// which that is new.
    pub(crate) fn follow_critical(&mut self, id: JobId) -> Vec<TaskId> {
        let leader = &mut *self.leader;
        let job = self.state.jobs.get(&id);
        let (Some(job), Some(active_job)) = (job, leader.jobs.get(&id)) else {
            return Vec::new();
        };
        let mut tasks = Vec::new();
        for (task, known) in leader.tasks.range(id.tasks()) {
            let critical = active_job.critical.contains(&job.spec, task.number);
            for attempt in known.attempts.iter().filter(|of| of.state.in_hand()) {
                let load = &mut leader.pool[attempt.worker].load;
                if load.set_critical(attempt.id, critical) {
                    leader.attend.insert(attempt.worker);
                    tasks.push(*task);
                }
            }
        }
        tasks
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
