//! Attempts that are not over: where each one runs, its state and its progress.

pub(crate) mod active;
pub(crate) mod charges;
pub(crate) mod checkpoints;
pub(crate) mod faults;
pub(crate) mod hints;
pub(crate) mod load;
pub(crate) mod nested;
pub(crate) mod reports;
pub(crate) mod state;

use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::send;
use active::NewAttempt;
use hedge_model::Ending;
use hedge_model::ledger::Charge;
use hedge_model::msg::{ToWorker, Usage};
use hedge_model::record::Record;
use hedge_model::spec::with_memory;
use hedge_model::{AttemptId, JobId, TaskId};
use state::{AttemptEvent, AttemptState};

impl Leadership<'_> {
    /// Adds an attempt to its task, its worker's load and its client's share of the pool.
    pub(crate) fn begin_attempt(&mut self, new: NewAttempt) {
        let (id, worker, state) = (new.id, new.worker, new.state);
        let job = self.state.jobs.get(&id.task.job);
        let memory = job.and_then(|job| job.memory_of_attempt(id));
        self.leader.tasks.begin(new, memory);
        self.update_indexes(id, worker, memory, (None, Some(state)));
    }

    /// Changes the state of an attempt and everything derived from it. No other procedure does. Returns whether the
    /// state changed.
    pub(crate) fn transition(&mut self, id: AttemptId, event: AttemptEvent) -> bool {
        let changed = self.leader.tasks.transition(self.now, id, event);
        let Some((old, attempt)) = changed else {
            return false;
        };
        let (ix, memory, new) = (attempt.worker(), attempt.memory(), attempt.state());
        let matters = |state: AttemptState| (state.in_hand(), state.share(), state.active());
        if matters(old) != matters(new) {
            self.update_indexes(id, ix, memory, (Some(old), Some(new)));
        }
        old != new
    }

    /// Updates everything that is derived from an attempt's state, the old one and the new one: its worker's load, its
    /// client's share, the attention that the monitor gives to the worker, and the copies that yield.
    fn update_indexes(
        &mut self,
        id: AttemptId,
        ix: WorkerIx,
        memory: Option<u64>,
        (old, new): (Option<AttemptState>, Option<AttemptState>),
    ) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let group = &job.spec.groups()[job.spec.group_of(id.task.number)];
        let need = with_memory(&group.resources, memory);
        let leader = &mut *self.leader;
        let critical = leader.jobs.get(id.task.job);
        let critical = critical.is_some_and(|of| of.critical().contains(&job.spec, id.task.number));
        let load = leader.pool[ix].load_mut();
        load.follow(id, old, new, &need, critical);
        let (before, after) = (
            old.is_some_and(AttemptState::in_hand),
            new.is_some_and(AttemptState::in_hand),
        );
        match (before, after) {
            (false, true) => leader.ready.charge(job.client, need.cpus_milli),
            (true, false) => leader.ready.refund(job.client, need.cpus_milli),
            _ => {}
        }
        if before != after {
            leader.attention.changed(ix);
        }
        let active = new.is_some_and(AttemptState::active);
        leader.yielding.follow(id, active, after);
    }

    /// Restores an attempt that its worker reports, although it may have been lost. It holds its resources again if
    /// they are free; otherwise it is queued.
    pub(crate) fn recover_attempt(&mut self, id: AttemptId) {
        let Some(job) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let group = job.spec.group_of(id.task.number);
        let leader = &mut *self.leader;
        let Some(attempt) = leader.tasks.attempt(id) else {
            return;
        };
        let need = attempt.need(&job.spec.groups()[group]);
        let room = leader.pool[attempt.worker()].load().free().covers(&need);
        self.transition(id, AttemptEvent::Found { room });
        self.requeue_passed(id.task);
        self.refresh_offers(id.task.job, group);
    }

    /// Tells a worker to stop an attempt, and fixes its charge.
    pub(crate) fn cancel_attempt(&mut self, id: AttemptId) {
        let now = self.now;
        let Some(attempt) = self.leader.tasks.attempt(id) else {
            return;
        };
        let charge = attempt.charge_until(now);
        self.transition(id, AttemptEvent::Cancelled(charge));
        self.send_cancel(id);
    }

    /// Sends a cancellation to the worker of an attempt, if it is connected.
    pub(crate) fn send_cancel(&mut self, id: AttemptId) {
        let attempt = self.leader.tasks.attempt(id);
        let Some(ix) = attempt.map(|attempt| attempt.worker()) else {
            return;
        };
        let worker = &self.leader.pool[ix];
        if worker.state().connected() {
            send(worker.peer(), ToWorker::Cancel(id), self.out);
        }
    }

    /// Marks the attempts of a worker as lost and proposes records of their loss. Those in `kept` are not recorded:
    /// their worker still has them.
    pub(crate) fn lose_attempts(&mut self, ix: WorkerIx, kept: Option<&[AttemptId]>) {
        let heard = self.view().last_heard(ix);
        let in_hand = self.leader.pool[ix].load().in_hand().clone();
        self.leader.attention.changed(ix);
        for id in in_hand {
            let Some(attempt) = self.leader.tasks.attempt(id) else {
                continue;
            };
            let active = attempt.state().active();
            let (redundant, charge) = (attempt.redundant(), attempt.charge_until(heard));
            self.transition(id, AttemptEvent::Lost);
            if !active {
                self.detach_lost(id);
            } else if kept.is_none_or(|kept| !kept.contains(&id)) {
                self.record_loss(id, ix, redundant, charge);
            }
            self.update_task_offers(id.task);
            self.notify_watchers_soon(id.task.job);
        }
    }

    /// Proposes the record of an attempt that was lost with its worker. A task that may not run again is kept from
    /// that until the record decides.
    pub(crate) fn record_loss(
        &mut self,
        attempt: AttemptId,
        ix: WorkerIx,
        redundant: bool,
        charge: Charge,
    ) {
        if self.view().runs_once(attempt.task) {
            let task = self.leader.tasks.get_or_insert(attempt.task);
            task.lose(Some(attempt));
        }
        let worker = &mut self.leader.pool[ix];
        worker.reliability_mut().note_lost();
        let record = Record::AttemptEnded {
            attempt,
            redundant,
            worker: worker.peer(),
            end: Ending::Lost,
            usage: Usage::default(),
            charge,
            log: None,
            at: self.now,
        };
        self.append(record, None);
    }

    /// Removes an attempt that is over: frees its resources and gives them to attempts that are queued at the worker.
    pub(crate) fn detach(&mut self, id: AttemptId) {
        let Some(attempt) = self.leader.tasks.end(id) else {
            return;
        };
        let (ix, state) = (attempt.worker(), attempt.state());
        self.update_indexes(id, ix, attempt.memory(), (Some(state), None));
        if state.in_hand() {
            let leader = &mut *self.leader;
            if leader.pool[ix].draining() {
                leader.leaving.recheck();
            }
            self.start_queued(ix);
            let leader = &mut *self.leader;
            leader.pool.reindex(ix);
            leader.retry_lanes(ix);
        }
    }

    pub(crate) fn detach_lost(&mut self, id: AttemptId) {
        self.detach(id);
        self.forget_task_if_over(id.task);
    }

    /// Gives free resources to queued attempts in their order, as the worker itself does.
    pub(crate) fn start_queued(&mut self, ix: WorkerIx) {
        let mut next = || {
            let load = self.leader.pool[ix].load();
            let id = load.queued().front().copied()?;
            let job = self.state.jobs.get(&id.task.job)?;
            let group = &job.spec.groups()[job.spec.group_of(id.task.number)];
            let need = self.leader.tasks.attempt(id)?.need(group);
            let room = load.free().covers(&need);
            (room && self.transition(id, AttemptEvent::MovedUp)).then_some(())
        };
        while next().is_some() {}
    }

    /// Updates which attempts in hand are critical after a job's critical set has changed. Returns the tasks for
    /// which that changed.
    pub(crate) fn mark_critical(&mut self, id: JobId) -> Vec<TaskId> {
        let leader = &mut *self.leader;
        let job = self.state.jobs.get(&id);
        let (Some(job), Some(active_job)) = (job, leader.jobs.get(id)) else {
            return Vec::new();
        };
        let mut tasks = Vec::new();
        for (task, known) in leader.tasks.of_job(id) {
            let critical = active_job.critical().contains(&job.spec, task.number);
            for attempt in known.attempts().iter().filter(|of| of.state().in_hand()) {
                let load = leader.pool[attempt.worker()].load_mut();
                if load.set_critical(attempt.id(), critical) {
                    leader.attention.changed(attempt.worker());
                    tasks.push(task);
                }
            }
        }
        tasks
    }

    /// Removes the leader's state of a task that is decided or whose job has ended, once its last attempt is over.
    pub(crate) fn forget_task_if_over(&mut self, id: TaskId) {
        let over = self
            .state
            .jobs
            .get(&id.job)
            .is_none_or(|job| !job.active() || !job.tasks[id.number as usize].is_open());
        if over {
            self.leader.tasks.forget_idle(id);
        }
    }
}
