//! The tasks that have or had an attempt, and their attempts.

use super::state::{AttemptEvent, AttemptState};
use crate::monitor::Progress;
use crate::supervisor::leader::WorkerIx;
use hedge_model::capacity::Class;
use hedge_model::{AttemptId, Checkpoint, JobId, TaskId, Time};
use smallvec::SmallVec;
use std::collections::{BTreeMap, btree_map};
use std::ops::RangeBounds;
use std::sync::Arc;

/// Tasks that have or had an attempt and are not done, or are done with attempts left to end.
#[derive(Debug, Default)]
pub(crate) struct ActiveTasks(BTreeMap<TaskId, ActiveTask>);

impl ActiveTasks {
    pub fn get(&self, id: &TaskId) -> Option<&ActiveTask> {
        self.0.get(id)
    }

    pub fn get_mut(&mut self, id: &TaskId) -> Option<&mut ActiveTask> {
        self.0.get_mut(id)
    }

    /// A task, which is known from now on.
    pub fn get_or_insert(&mut self, id: TaskId) -> &mut ActiveTask {
        self.0.entry(id).or_default()
    }

    pub fn iter(&self) -> btree_map::Iter<'_, TaskId, ActiveTask> {
        self.0.iter()
    }

    pub fn values(&self) -> btree_map::Values<'_, TaskId, ActiveTask> {
        self.0.values()
    }

    pub fn range(
        &self,
        range: impl RangeBounds<TaskId>,
    ) -> btree_map::Range<'_, TaskId, ActiveTask> {
        self.0.range(range)
    }

    pub fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        let mut attempts = self.get(&id.task)?.attempts.iter();
        attempts.find(|attempt| attempt.id == id)
    }

    pub fn attempt_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        let mut attempts = self.get_mut(&id.task)?.attempts.iter_mut();
        attempts.find(|attempt| attempt.id == id)
    }

    /// Forgets a task that has no attempts left.
    pub fn forget_idle(&mut self, id: TaskId) {
        if self.get(&id).is_some_and(|known| known.attempts.is_empty()) {
            self.0.remove(&id);
        }
    }

    /// An attempt begins.
    pub(super) fn begin(&mut self, new: NewAttempt) {
        let NewAttempt {
            id,
            worker,
            redundant,
            state,
            since,
            why,
            class,
            from,
        } = new;
        self.get_or_insert(id.task).attempts.push(Attempt {
            id,
            worker,
            redundant,
            state,
            since,
            why,
            class,
            from,
            progress: Progress::default(),
            stalled: None,
        });
    }

    /// Changes where an attempt stands; gives its worker, and where it stood and stands.
    pub(super) fn transition(
        &mut self,
        now: Time,
        id: AttemptId,
        event: AttemptEvent,
    ) -> Option<(WorkerIx, AttemptState, AttemptState)> {
        let attempt = self.attempt_mut(id)?;
        let old = attempt.state;
        attempt.state = old.after(event);
        if event == AttemptEvent::MovedUp {
            attempt.since = now;
        }
        Some((attempt.worker, old, attempt.state))
    }

    /// Takes out an attempt that is over.
    pub(super) fn end(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempts = &mut self.get_mut(&id.task)?.attempts;
        let at = attempts.iter().position(|attempt| attempt.id == id)?;
        Some(attempts.remove(at))
    }
}

/// A task that has or had an attempt.
#[derive(Debug, Default)]
pub(crate) struct ActiveTask {
    attempts: SmallVec<[Attempt; 2]>,
    last_number: u32,
    /// Where it failed.
    avoid: SmallVec<[WorkerIx; 2]>,
    /// Times that a worker could not fetch its inputs.
    input_faults: u8,
    /// Times that a worker or its machine failed it, and the first of these workers.
    faults: u8,
    faulted: Option<WorkerIx>,
    /// What decides it, while that is on its way through the journal.
    committing: Option<Verdict>,
    /// When it is tried again after a failure, where that is not at once.
    retried_at: Option<Time>,
}

/// What decides a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This attempt succeeded.
    Done(AttemptId),
    /// It is given up.
    Failed,
}

impl ActiveTask {
    /// Its attempts that are not over, oldest first.
    pub fn attempts(&self) -> &[Attempt] {
        &self.attempts
    }

    /// Workers where it failed.
    pub fn avoid(&self) -> &[WorkerIx] {
        &self.avoid
    }

    /// What decides it, while that is on its way through the journal.
    pub fn committing(&self) -> Option<Verdict> {
        self.committing
    }

    /// When it is tried again after a failure, where that is not at once.
    pub fn retried_at(&self) -> Option<Time> {
        self.retried_at
    }

    /// It is not tried again before this time; none: at once.
    pub fn retry_at(&mut self, at: Option<Time>) {
        self.retried_at = at;
    }

    /// Attempts that may still succeed.
    pub fn active(&self) -> usize {
        let active = |attempt: &&Attempt| attempt.state.active();
        self.attempts.iter().filter(active).count()
    }

    /// Attempts whose end is not heard of.
    pub fn alive(&self) -> usize {
        let alive = |attempt: &&Attempt| attempt.state.alive();
        self.attempts.iter().filter(alive).count()
    }

    /// The job that an attempt which may still succeed waits for.
    pub fn waits_for(&self) -> Option<(AttemptId, JobId)> {
        let waits = |attempt: &Attempt| Some((attempt.id, attempt.state.waits_for()?));
        self.attempts.iter().find_map(waits)
    }

    /// The number of its next attempt.
    pub fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    /// It failed on a worker by its own fault.
    pub fn note_failure(&mut self, ix: WorkerIx) {
        if !self.avoid.contains(&ix) {
            self.avoid.push(ix);
        }
    }

    /// A worker could not fetch its inputs; gives how often that has happened.
    pub fn note_input_fault(&mut self, ix: WorkerIx) -> u8 {
        self.note_failure(ix);
        self.input_faults = self.input_faults.saturating_add(1);
        self.input_faults
    }

    /// A worker or its machine failed it; gives how often that has happened, and whether another worker did before.
    pub fn note_worker_fault(&mut self, ix: WorkerIx) -> (u8, bool) {
        let elsewhere = *self.faulted.get_or_insert(ix) != ix;
        self.faults = self.faults.saturating_add(1);
        (self.faults, elsewhere)
    }

    /// What decides it is on its way through the journal.
    pub fn commit(&mut self, verdict: Verdict) {
        self.committing = Some(verdict);
    }

    /// This is committed, or turned out to be stale.
    pub fn committed(&mut self, verdict: Verdict) {
        self.committing.take_if(|committing| *committing == verdict);
    }
}

/// One execution of a task on one worker that is not over.
#[derive(Debug)]
pub(crate) struct Attempt {
    id: AttemptId,
    worker: WorkerIx,
    redundant: bool,
    state: AttemptState,
    since: Time,
    why: Why,
    class: Class,
    from: Option<Arc<Checkpoint>>,
    progress: Progress,
    stalled: Option<Time>,
}

impl Attempt {
    pub fn id(&self) -> AttemptId {
        self.id
    }

    pub fn worker(&self) -> WorkerIx {
        self.worker
    }

    /// Whether its task was meant to have another when it was given to its worker.
    pub fn redundant(&self) -> bool {
        self.redundant
    }

    /// Where it stands.
    pub fn state(&self) -> AttemptState {
        self.state
    }

    /// When it was given to its worker, or took its part of it.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Why it was given to its worker.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The class of its worker when it was given.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The checkpoint that it goes on from, where this leader gave it one.
    pub fn from(&self) -> Option<&Arc<Checkpoint>> {
        self.from.as_ref()
    }

    /// How far it is, as far as it was told of.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Since when it has run and got nowhere, where that is too long.
    pub fn stalled(&self) -> Option<Time> {
        self.stalled
    }

    pub fn note_progress(&mut self, progress: Progress) {
        self.progress = progress;
    }

    pub fn note_stalled(&mut self, since: Option<Time>) {
        self.stalled = since;
    }
}

/// An attempt that a worker is given, has, or is expected to have.
#[derive(Clone, Debug)]
pub(crate) struct NewAttempt {
    pub id: AttemptId,
    pub worker: WorkerIx,
    pub redundant: bool,
    pub state: AttemptState,
    pub since: Time,
    pub why: Why,
    pub class: Class,
    pub from: Option<Arc<Checkpoint>>,
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
