//! Task failures: when a task is retried or fails for good, what its failure means for its job, and how a failed job
//! is retried.

use crate::supervisor::durable::job::{Job, Task};
use crate::supervisor::follower::Hints;
use crate::supervisor::leader::attempts::active::{ActiveTask, Verdict};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::blobs::retention::kept_while_failed;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::ending::Fault;
use hedge_model::record::Record;
use hedge_model::{AttemptId, Ending, Hash, JobId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// From this record format on, a task can fail without ending its job. Before, the first failed task ends it.
const TASKS_FAIL_SINCE: u32 = 3;

impl Leadership<'_> {
    /// Retries a task or fails it for good, after its attempts failed for the `failures`th time by its own fault. A
    /// retry may wait for the group's `retry_delay`.
    pub(crate) fn after_failure(&mut self, id: TaskId, failures: u32, end: &Ending) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let group = &job.spec.groups()[job.spec.group_of(id.number)];
        let (retries, delay) = (group.retries, group.retry_delay);
        let known = self.leader.tasks.get(&id);
        let decided = known.is_some_and(|known| known.committing().is_some());
        if decided || !job.active() || !job.tasks[id.number as usize].is_open() {
            return;
        }
        if failures > retries {
            let label = job.spec.label(id.number);
            let why = given_up(&label, failures, &end.to_string());
            return self.give_up(id, why);
        }
        if let Some(delay) = delay {
            let at = self.now + delay;
            self.leader.tasks.get_or_insert(id).retry_at(Some(at));
            self.leader.timers.set(at, Timer::Retry(id));
        }
    }

    /// Handles the recorded loss of an attempt.
    pub(crate) fn after_loss_recorded(&mut self, id: AttemptId) {
        if let Some(known) = self.leader.tasks.get_mut(&id.task)
            && known.losing() == Some(id)
        {
            known.lose(None);
        }
        self.after_attempt_lost(id.task);
    }

    /// Fails a task for good if an attempt of it was lost with its worker and it may not run again.
    pub(crate) fn after_attempt_lost(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let known = self.leader.tasks.get(&id);
        let carried = known.is_some_and(|one| one.active() > 0 || one.committing().is_some());
        let task = job.tasks.get(id.number as usize);
        let open = job.active() && task.is_some_and(Task::is_open);
        if open && !carried && job.may_not_rerun(id.number) {
            let why = lost(&job.spec.label(id.number));
            self.give_up(id, why);
        }
    }

    /// Fails the tasks of a job that an earlier leader lost, and did not fail, and that may not run again.
    pub(crate) fn fail_stranded(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        if !job.spec.groups().iter().any(|group| group.once) {
            return;
        }
        let tried: BTreeSet<TaskId> = job.history.keys().map(|attempt| attempt.task).collect();
        let stranded = tried
            .into_iter()
            .filter(|task| job.may_not_rerun(task.number));
        for task in stranded.collect::<Vec<_>>() {
            self.requeue_passed(task);
            self.after_attempt_lost(task);
            self.update_task_offers(task);
        }
    }

    /// Makes a task that waited for its retry delay available again.
    pub(crate) fn retry_task(&mut self, id: TaskId) {
        if let Some(known) = self.leader.tasks.get_mut(&id) {
            known.retry_at(None);
        }
        self.update_task_offers(id);
    }

    /// Fails a task for good. `why` is the reason of the job's failure if the supervisors still write an older record
    /// format, in which a failed task ends its job.
    pub(crate) fn give_up(&mut self, id: TaskId, why: String) {
        if self.state.format() < TASKS_FAIL_SINCE {
            return self.fail_job(id.job, Some(id), why);
        }
        let Some(task) = self.state.task(id) else {
            return;
        };
        let record = Record::TaskFailed {
            task: id,
            generation: task.generation,
            stopped: self.view().stopped_of_task(id, None),
            at: self.now,
        };
        self.leader.tasks.get_or_insert(id).commit(Verdict::Failed);
        self.append(record, None);
    }

    /// Handles a committed failure of a task: cancels its attempts, and ends the job if too many tasks have failed or
    /// no other can run.
    pub(crate) fn after_task_failed(&mut self, id: TaskId) {
        if let Some(known) = self.leader.tasks.get_mut(&id) {
            known.committed(Verdict::Failed);
            known.retry_at(None);
        }
        self.leader.timers.clear(Timer::Retry(id));
        self.end_checkpoints(id, Vec::new());
        self.cancel_attempts(id);
        self.update_task_offers(id);
        self.forget_task_if_over(id);
        self.notify_of_ends_soon(id.job);
        self.notify_watchers_soon(id.job);
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        if job.failed_too_often() {
            return self.fail_for_tasks(id.job);
        }
        self.finish_if_done(id.job);
    }

    /// Ends a job because of its failed tasks.
    pub(crate) fn fail_for_tasks(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let mut failed = (0..).zip(&job.tasks).filter(|(_, task)| task.has_failed());
        let first = failed.next().map(|(number, _)| TaskId { job: id, number });
        let why = first.map_or_else(String::new, |first| job.why_failed(first));
        self.fail_job(id, first, why);
    }

    /// Resumes a failed job that a client retries. The blobs that were retained for it are in use again.
    pub(crate) fn after_job_retried(&mut self, id: JobId) {
        let kept: Vec<Hash> = match self.state.jobs.get(&id) {
            Some(job) => kept_while_failed(job).collect(),
            None => return,
        };
        self.activate(id, &Hints::default());
        for hash in &kept {
            self.leader.blobs.release_retention(*hash, id);
        }
        self.drop_unused(kept);
    }
}

impl LeaderView<'_> {
    /// Returns whether a task may not run again once an attempt of it may have begun and was lost.
    pub(crate) fn runs_once(&self, id: TaskId) -> bool {
        let job = self.state.jobs.get(&id.job);
        job.is_some_and(|job| job.spec.groups()[job.spec.group_of(id.number)].once)
    }

    /// Returns whether an open task may not run again because an attempt of it was lost with its worker. Its failure
    /// is being recorded, unless the worker returns with the attempt.
    pub(crate) fn is_stranded(&self, id: TaskId, job: &Job) -> bool {
        if !job.spec.groups()[job.spec.group_of(id.number)].once {
            return false;
        }
        let known = self.leader.tasks.get(&id);
        let lost = |known: &ActiveTask| {
            let mut attempts = known.attempts().iter();
            known.losing().is_some() || attempts.any(|one| one.state() == AttemptState::Lost)
        };
        known.is_some_and(lost) || job.may_not_rerun(id.number)
    }

    /// Returns whether the loss of an attempt is recorded, or proposed, though its worker has it.
    pub(crate) fn counts_as_lost(&self, id: AttemptId) -> bool {
        let known = self.leader.tasks.get(&id.task);
        let job = self.state.jobs.get(&id.task.job);
        known.is_some_and(|known| known.losing() == Some(id))
            || job.is_some_and(|job| job.history.contains_key(&id))
    }

    /// Returns whether a job with failed tasks can make no more progress: none of its attempts is active, and no task
    /// that is left can run.
    pub(crate) fn is_stuck(&self, id: JobId) -> bool {
        let job = self.state.jobs.get(&id);
        let failing = |job: &&Arc<Job>| job.active() && job.failures.total() > 0;
        let Some(job) = job.filter(failing) else {
            return false;
        };
        let mut known = self.tasks_of(id).map(|(_, known)| known);
        let mut runs = || known.any(|one| one.active() > 0 || one.committing().is_some());
        // Usually the first task that is checked runs. The check of all groups is costly and comes last.
        !job.is_open() && !runs() && job.exhausted()
    }
}

impl Job {
    /// Returns in a sentence why a job failed whose first failed task is `first`.
    fn why_failed(&self, first: TaskId) -> String {
        let label = self.spec.label(first.number);
        let failures = self.tasks[first.number as usize].failures();
        let last = self.why_task_failed(first);
        let count = self.failures.total();
        if count == 1 && self.tasks[first.number as usize].is_lost() {
            return lost(&label);
        }
        if count == 1 {
            return given_up(&label, failures, &last);
        }
        let allowed = self.failures_allowed();
        let exceeded = allowed.filter(|allowed| count > *allowed && *allowed > 0);
        let limit = exceeded.map_or_else(String::new, |allowed| {
            format!(", more than the {allowed} that it allows")
        });
        let all = self.spec.task_count();
        format!("{count} of its {all} tasks failed{limit}, the first of them {label}: {last}")
    }

    /// Returns how a failed task's last attempt ended, not counting attempts that were stopped.
    pub(crate) fn why_task_failed(&self, id: TaskId) -> String {
        if self.tasks[id.number as usize].is_lost() {
            return format!("it was {LOST}");
        }
        let why = self.ending_of_failed(id);
        why.map_or_else(|| "it was cancelled".to_owned(), Ending::to_string)
    }

    /// The same; none for a task that was cancelled.
    pub(crate) fn ending_of_failed(&self, id: TaskId) -> Option<&Ending> {
        let mut ended = self.ended_attempts(id).rev().map(|ended| &ended.end);
        ended.find(|end| end.fault() != Fault::Nobody)
    }
}

/// Says what became of a task that may not run again, or of its outputs.
pub(crate) const LOST: &str = "lost with its worker, and rerun = false keeps it from running again";

/// Returns why a job failed, if only one of its tasks did, because it was lost.
fn lost(label: &str) -> String {
    format!("task {label} was {LOST}")
}

/// Returns why a job failed, if only one of its tasks did, after this many failures of that task.
fn given_up(label: &str, failures: u32, last: &str) -> String {
    match failures {
        0 => format!("task {label} was given up: {last}"),
        1 => format!("task {label} failed: {last}"),
        _ => format!("task {label} failed {failures} times, at last: {last}"),
    }
}
