//! Progress of jobs, and whether their completion time can be estimated.

use crate::monitor::Progress;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::attempts::active::{ActiveTask, Attempt};
use crate::supervisor::leader::jobs::active::ActiveJob;
use hedge_model::view::ProgressView;
use hedge_model::{Checkpoint, JobId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Completed tasks of a kind from which on its times support an estimate.
const DONE_MIN: f64 = 4.0;
/// Fraction of its work that an attempt must report as done before its report supports an estimate.
const SHARE_MIN: f64 = 0.05;

impl LeaderView<'_> {
    /// Returns the fraction of a job's tasks that is done. Running tasks count with the progress that they report.
    pub(crate) fn progress(&self, id: JobId, job: &Job) -> f64 {
        let running = self.tracked_open_tasks(id, job);
        let reported = running
            .filter_map(|(_, known)| known.attempts().iter().filter_map(share).reduce(f64::max));
        let done = f64::from(job.done) + reported.sum::<f64>();
        let share = done / f64::from(job.spec.task_count()).max(1.0);
        (share * 1e3).round() / 1e3
    }

    /// Returns the jobs that have not ended and whose end is not proposed.
    pub(crate) fn unfinished_jobs(&self) -> impl Iterator<Item = (JobId, &Job, &ActiveJob)> {
        let jobs = self.leader.jobs.iter();
        let jobs = jobs.filter(|(_, active_job)| !active_job.is_ending());
        let jobs = jobs.filter_map(|(id, active_job)| {
            let job = self.state.jobs.get(&id)?;
            Some((id, &**job, active_job))
        });
        jobs.filter(|(_, job, _)| job.active())
    }

    /// Returns the active jobs whose end can be estimated: nothing keeps their tasks from running but their turn, and
    /// enough is known of their times and of those of jobs that may come first.
    pub(crate) fn estimable(&self) -> BTreeSet<JobId> {
        let jobs = self.unfinished_jobs().map(|(id, job, _)| (id, job));
        let (known, unknown): (Vec<_>, Vec<_>) =
            jobs.partition(|(id, job)| self.knows_times(*id, job));
        let first_unknown = unknown.iter().filter_map(|(_, job)| priority(job)).max();
        let estimable = known.into_iter().filter(|(id, job)| {
            first_unknown.is_none_or(|unknown| priority(job) > Some(unknown))
                && !self.is_held_up(*id, job)
        });
        estimable.map(|(id, _)| id).collect()
    }

    /// Returns whether of each kind of task that remains, enough were done in similar times, or each task runs and
    /// reports its progress. An estimate that the client gave is not evidence.
    fn knows_times(&self, id: JobId, job: &Job) -> bool {
        let groups = job.spec.groups();
        let mut reporting = vec![0_u32; groups.len()];
        for (task, known) in self.tracked_open_tasks(id, job) {
            let shares = known.attempts().iter().filter_map(share);
            let highest = shares.reduce(f64::max);
            let supports_estimate = highest.is_some_and(|share| share >= SHARE_MIN);
            reporting[job.spec.group_of(task.number)] += u32::from(supports_estimate);
        }
        groups.iter().enumerate().all(|(at, group)| {
            reporting[at] >= job.remaining_of(at) || self.state.learned.has_seen(group, DONE_MIN)
        })
    }

    /// Returns the tasks of a job that have not ended and of which the leader has attempts or other state.
    fn tracked_open_tasks<'a>(
        &'a self,
        id: JobId,
        job: &'a Job,
    ) -> impl Iterator<Item = (TaskId, &'a ActiveTask)> {
        let open = |task: &TaskId| job.active() && job.tasks[task.number as usize].is_open();
        self.tasks_of(id).filter(move |(task, _)| open(task))
    }

    /// Describes the state of a task that has an active attempt.
    pub(crate) fn running_text(&self, known: Option<&ActiveTask>) -> String {
        let attempts = known.into_iter().flat_map(ActiveTask::attempts);
        let stalled = attempts
            .filter(|attempt| attempt.state().active())
            .filter_map(|attempt| attempt.stalled().map(|since| (attempt, since)))
            .next();
        let waits = known.and_then(ActiveTask::waits_for);
        if let (None, Some((id, job))) = (&stalled, waits) {
            return format!("attempt {id}: {}", self.waits_text(job));
        }
        match stalled {
            None => "an attempt is assigned".to_owned(),
            Some((attempt, since)) => format!(
                "attempt {} has made no progress for {:.1} s and is taken for stalled; another is wanted elsewhere, \
                 and the first to succeed wins",
                attempt.id(),
                self.now.since(since).as_secs_f64()
            ),
        }
    }
}

/// Returns the highest priority of the tasks that remain.
fn priority(job: &Job) -> Option<i32> {
    let groups = job.spec.groups().iter().enumerate();
    let groups = groups.filter(|(at, _)| job.remaining_of(*at) > 0);
    groups.map(|(_, group)| group.priority).max()
}

/// Returns the fraction of its work that a live attempt reports as done.
pub(super) fn share(attempt: &Attempt) -> Option<f64> {
    let permille = attempt
        .progress()
        .permille
        .filter(|_| attempt.state().alive())?;
    Some((f64::from(permille) / 1e3).min(1.0))
}

/// Returns the fraction of the task's work that was done in the checkpoint from which an attempt resumed.
pub(crate) fn begun_at(attempt: &Attempt) -> f64 {
    share_in(attempt.from())
}

/// Returns the fraction of a task's work that is done in a checkpoint; 0 without one, or if it does not tell.
pub(crate) fn share_in(checkpoint: Option<&Arc<Checkpoint>>) -> f64 {
    let permille = checkpoint.and_then(|from| from.permille);
    (f64::from(permille.unwrap_or(0)) / 1e3).min(1.0)
}

pub(crate) fn progress_view(attempt: &Attempt) -> Option<ProgressView> {
    let heard = attempt.progress();
    (heard != Progress::default()).then(|| ProgressView {
        share: share(attempt),
        cpu_ms: heard.cpu.as_secs_f64() * 1e3,
        written_bytes: heard.written,
        waits: heard.waits,
    })
}
