//! The tasks that have or had an attempt, and their attempts.

use super::state::{AttemptEvent, AttemptState};
use crate::monitor::Progress;
use crate::supervisor::leader::WorkerIx;
use hedge_model::capacity::Class;
use hedge_model::spec::{Group, with_memory};
use hedge_model::{AttemptId, Checkpoint, JobId, Resources, TaskId, Time};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::ops::RangeBounds;
use std::sync::Arc;
use std::time::Duration;

/// Tasks that have or had an attempt and are not done, or that are done but have attempts which have not ended.
///
/// Two levels, because a task is looked up dozens of times while it runs: there are few jobs, and their tasks' numbers
/// are compared faster than pairs of job and number. Boxed, because the map moves its entries.
#[derive(Debug, Default)]
pub(crate) struct ActiveTasks(BTreeMap<JobId, BTreeMap<u32, Box<ActiveTask>>>);

impl ActiveTasks {
    pub fn get(&self, id: &TaskId) -> Option<&ActiveTask> {
        Some(self.0.get(&id.job)?.get(&id.number)?)
    }

    pub fn get_mut(&mut self, id: &TaskId) -> Option<&mut ActiveTask> {
        Some(self.0.get_mut(&id.job)?.get_mut(&id.number)?)
    }

    /// Returns a task, which it adds if necessary.
    pub fn get_or_insert(&mut self, id: TaskId) -> &mut ActiveTask {
        let tasks = self.0.entry(id.job).or_default();
        tasks.entry(id.number).or_default()
    }

    /// Returns all tasks in their order.
    /// Returns the jobs that have tasks here.
    pub fn jobs(&self) -> impl Iterator<Item = JobId> {
        self.0.keys().copied()
    }

    pub fn iter(&self) -> impl Iterator<Item = (TaskId, &ActiveTask)> {
        self.0.keys().flat_map(|job| self.of_job(*job))
    }

    /// Returns the tasks of a job in their order.
    pub fn of_job(&self, job: JobId) -> impl Iterator<Item = (TaskId, &ActiveTask)> {
        self.range(job, ..)
    }

    /// Returns those tasks of a job whose numbers are in a range, in their order.
    pub fn range(
        &self,
        job: JobId,
        numbers: impl RangeBounds<u32>,
    ) -> impl Iterator<Item = (TaskId, &ActiveTask)> {
        let tasks = self.0.get(&job).map(|tasks| tasks.range(numbers));
        let tasks = tasks.into_iter().flatten();
        tasks.map(move |(number, task)| {
            let number = *number;
            (TaskId { job, number }, &**task)
        })
    }

    pub fn attempt(&self, id: AttemptId) -> Option<&Attempt> {
        let mut attempts = self.get(&id.task)?.attempts.iter();
        attempts.find(|attempt| attempt.id == id)
    }

    pub fn attempt_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        let mut attempts = self.get_mut(&id.task)?.attempts.iter_mut();
        attempts.find(|attempt| attempt.id == id)
    }

    /// Removes a task that has no attempts left.
    pub fn forget_idle(&mut self, id: TaskId) {
        let Some(tasks) = self.0.get_mut(&id.job) else {
            return;
        };
        if let btree_map::Entry::Occupied(task) = tasks.entry(id.number)
            && task.get().attempts.is_empty()
        {
            task.remove();
            if tasks.is_empty() {
                self.0.remove(&id.job);
            }
        }
    }

    /// Adds an attempt, with its memory in bytes if that is not the one of its group.
    pub(super) fn begin(&mut self, new: NewAttempt, memory: Option<u64>) {
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
            memory,
            progress: Progress::default(),
            heard: None,
            stalled: None,
        });
    }

    /// Changes the state of an attempt. Returns the old state, and the attempt.
    pub(super) fn transition(
        &mut self,
        now: Time,
        id: AttemptId,
        event: AttemptEvent,
    ) -> Option<(AttemptState, &Attempt)> {
        let attempt = self.attempt_mut(id)?;
        let old = attempt.state;
        attempt.state = old.after(event);
        if event == AttemptEvent::MovedUp {
            attempt.since = now;
        }
        Some((old, attempt))
    }

    /// Removes an attempt that is over.
    pub(super) fn end(&mut self, id: AttemptId) -> Option<Attempt> {
        let attempts = &mut self.get_mut(&id.task)?.attempts;
        let at = attempts.iter().position(|attempt| attempt.id == id)?;
        Some(attempts.remove(at))
    }
}

/// The most copies of one task that policies may start within [`POLICY_COPIES_WINDOW`]: a policy whose copies do not last
/// must not fill the journal and the network. Workers of a large idle pool are filled over a few seconds.
pub(crate) const POLICY_COPIES_MAX: usize = 4;
/// See [`POLICY_COPIES_MAX`].
pub(crate) const POLICY_COPIES_WINDOW: Duration = Duration::from_secs(1);

/// A task that has or had an attempt.
#[derive(Debug, Default)]
pub(crate) struct ActiveTask {
    attempts: SmallVec<[Attempt; 2]>,
    last_number: u32,
    /// Workers where it failed.
    avoid: SmallVec<[WorkerIx; 2]>,
    /// How often a worker could not fetch its inputs.
    input_faults: u8,
    /// How often it failed by the fault of a worker or a machine, and the first of these workers.
    faults: u8,
    faulted: Option<WorkerIx>,
    /// The proposed record that decides it, until that is committed.
    committing: Option<Verdict>,
    /// Its attempt whose loss is proposed, until that is committed, if it may not run again.
    losing: Option<AttemptId>,
    /// When it is retried after a failure; none if at once.
    retried_at: Option<Time>,
    /// When policies started its last [`POLICY_COPIES_MAX`] copies, oldest first.
    policy_copies: Vec<Time>,
}

/// How a task is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This attempt succeeded.
    Done(AttemptId),
    /// The task failed for good.
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

    /// How the proposed record decides it, until that is committed.
    pub fn committing(&self) -> Option<Verdict> {
        self.committing
    }

    /// Its attempt whose loss is proposed, until that is committed, if it may not run again. The worker may be back
    /// by then, with the attempt or without it.
    pub fn losing(&self) -> Option<AttemptId> {
        self.losing
    }

    /// Records that the loss of this attempt is proposed, or none, because the record is committed.
    pub fn lose(&mut self, attempt: Option<AttemptId>) {
        self.losing = attempt;
    }

    /// When it is retried after a failure; none if at once.
    pub fn retried_at(&self) -> Option<Time> {
        self.retried_at
    }

    /// Delays its retry until `at`; none means at once.
    pub fn retry_at(&mut self, at: Option<Time>) {
        self.retried_at = at;
    }

    /// The number of its attempts that may still succeed.
    pub fn active(&self) -> usize {
        let active = |attempt: &&Attempt| attempt.state.active();
        self.attempts.iter().filter(active).count()
    }

    /// The number of its attempts that may still succeed and have not reported their end.
    pub fn alive(&self) -> usize {
        let alive = |attempt: &&Attempt| attempt.state.alive();
        self.attempts.iter().filter(alive).count()
    }

    /// Returns an attempt that waits for a nested job, and that job.
    pub fn waits_for(&self) -> Option<(AttemptId, JobId)> {
        let waits = |attempt: &Attempt| Some((attempt.id, attempt.state.waits_for()?));
        self.attempts.iter().find_map(waits)
    }

    /// Returns from when on a policy may start one more copy of it.
    pub fn next_policy_copy(&self, now: Time) -> Time {
        let oldest = self.policy_copies.first();
        let full = oldest.filter(|_| self.policy_copies.len() >= POLICY_COPIES_MAX);
        full.map_or(now, |oldest| now.max(*oldest + POLICY_COPIES_WINDOW))
    }

    /// Records that a policy started a copy of it.
    pub fn note_policy_copy(&mut self, now: Time) {
        if self.policy_copies.len() >= POLICY_COPIES_MAX {
            self.policy_copies.remove(0);
        }
        self.policy_copies.push(now);
    }

    /// Checks that policies started no more copies of it within the window than they may: by what is recorded, and by
    /// the attempts that are not over.
    pub fn check_policy_copies(&self) -> bool {
        let copies = self.attempts.iter().filter(|copy| copy.why == Why::Policy);
        let mut since: Vec<Time> = copies.map(|copy| copy.since).collect();
        since.sort_unstable();
        let mut windows = since.windows(POLICY_COPIES_MAX + 1);
        let spread = windows.all(|of| of[POLICY_COPIES_MAX].since(of[0]) >= POLICY_COPIES_WINDOW);
        let newest = since.last().copied();
        spread
            && self.policy_copies.len() <= POLICY_COPIES_MAX
            && self.policy_copies.is_sorted()
            // A later one may be over by now.
            && newest.is_none_or(|newest| self.policy_copies.last() >= Some(&newest))
    }

    /// Returns the number for its next attempt.
    pub fn next_number(&mut self) -> u32 {
        self.last_number += 1;
        self.last_number
    }

    /// Records that it failed on a worker by its own fault.
    pub fn note_failure(&mut self, ix: WorkerIx) {
        if !self.avoid.contains(&ix) {
            self.avoid.push(ix);
        }
    }

    /// Records that a worker could not fetch its inputs. Returns how often that has happened.
    pub fn note_input_fault(&mut self, ix: WorkerIx) -> u8 {
        self.note_failure(ix);
        self.input_faults = self.input_faults.saturating_add(1);
        self.input_faults
    }

    /// Records a failure by the fault of a worker or its machine. Returns how often that has happened, and whether
    /// the first such worker was another one.
    pub fn note_worker_fault(&mut self, ix: WorkerIx) -> (u8, bool) {
        let elsewhere = *self.faulted.get_or_insert(ix) != ix;
        self.faults = self.faults.saturating_add(1);
        (self.faults, elsewhere)
    }

    /// Records that its deciding record is proposed.
    pub fn commit(&mut self, verdict: Verdict) {
        self.committing = Some(verdict);
    }

    /// Records that its deciding record is committed, or stale.
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
    memory: Option<u64>,
    progress: Progress,
    heard: Option<Heard>,
    stalled: Option<Time>,
}

/// When an attempt reported progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard {
    /// Its first report, and when.
    pub first: (Time, Progress),
    /// When it last reported.
    pub last: Time,
}

impl Attempt {
    pub fn id(&self) -> AttemptId {
        self.id
    }

    pub fn worker(&self) -> WorkerIx {
        self.worker
    }

    /// Whether it was started as a redundant attempt.
    pub fn redundant(&self) -> bool {
        self.redundant
    }

    pub fn state(&self) -> AttemptState {
        self.state
    }

    /// When it was assigned, or when it left the worker's queue.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Why this worker was chosen.
    pub fn why(&self) -> Why {
        self.why
    }

    /// The class of its worker, `higher` or `normal`, when it was assigned.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The checkpoint from which it resumes, if this leader sent one.
    pub fn from(&self) -> Option<&Arc<Checkpoint>> {
        self.from.as_ref()
    }

    /// Its memory in bytes, if that is not the one of its group.
    pub fn memory(&self) -> Option<u64> {
        self.memory
    }

    /// What it takes of its worker, as a task of this group.
    pub fn need<'a>(&self, group: &'a Group) -> Cow<'a, Resources> {
        with_memory(&group.resources, self.memory)
    }

    /// Its progress, as last reported.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    /// Since when it has made no progress, if that is long enough to count as stalled.
    pub fn stalled(&self) -> Option<Time> {
        self.stalled
    }

    /// When it reported progress; none if it never did.
    pub fn heard(&self) -> Option<Heard> {
        self.heard
    }

    pub fn note_progress(&mut self, now: Time, progress: Progress) {
        self.progress = progress;
        let first = self.heard.map_or((now, progress), |heard| heard.first);
        self.heard = Some(Heard { first, last: now });
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

/// Why an attempt was assigned to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Of the workers with free slots it ranks first.
    BestFree,
    /// The same, and it is of the higher class.
    HigherClass,
    /// Its inputs arrive there soonest.
    Data,
    /// It is busy, and the attempt is short.
    Queued,
    /// It is for a redundant attempt, away from the others.
    Elsewhere,
    /// The task failed there before, but no other worker could run it.
    AgainThere,
    /// An earlier leader assigned it.
    Adopted,
    /// A redundancy policy ordered it.
    Policy,
}
