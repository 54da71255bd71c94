//! The progress of jobs and their estimated time remaining.

use crate::monitor::Progress;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::attempts::active::{ActiveTask, Attempt};
use crate::supervisor::leader::jobs::critical;
use hedge_model::view::ProgressView;
use hedge_model::{JobId, TaskId};

/// Completed tasks of a kind from which on its times support an estimate.
const DONE_MIN: f64 = 4.0;
/// Fraction of its work that an attempt must report as done before its report supports an estimate.
const SHARE_MIN: f64 = 0.05;
/// Minimum time remaining of an attempt that is overdue, as a fraction of its expected time.
const OVERDUE: f64 = 0.1;

impl LeaderView<'_> {
    /// Returns the fraction of a job's tasks that is done. Running tasks count with the progress that they report.
    pub(crate) fn progress(&self, id: JobId, job: &Job) -> f64 {
        let running = self.undecided_tasks(id, job);
        let said = running
            .filter_map(|(_, known)| known.attempts().iter().filter_map(share).reduce(f64::max));
        let done = f64::from(job.done) + said.sum::<f64>();
        let share = done / f64::from(job.spec.task_count()).max(1.0);
        (share * 1e3).round() / 1e3
    }

    /// Returns whether there is enough evidence to estimate a job's end. This requires that no task waits for a
    /// worker (`waits` is empty), that no other job shares the workers, and for each group: enough tasks of its kind
    /// were done in similar times, or all its remaining tasks run and report progress. A client's estimate alone is
    /// not evidence.
    pub(crate) fn supports_estimate(&self, id: JobId, job: &Job, waits: &[String]) -> bool {
        if !job.active() {
            return false;
        }
        let shared = self
            .leader
            .jobs
            .iter()
            .any(|(other, active_job)| other != id && !active_job.is_ending());
        if shared || !waits.is_empty() {
            return false;
        }
        let groups = job.spec.groups();
        let mut told = vec![0_u32; groups.len()];
        for (task, known) in self.undecided_tasks(id, job) {
            let said = known.attempts().iter().filter_map(share);
            let far = said
                .reduce(f64::max)
                .is_some_and(|share| share >= SHARE_MIN);
            told[job.spec.group_of(task.number)] += u32::from(far);
        }
        groups.iter().enumerate().all(|(at, group)| {
            told[at] >= job.remaining_of(at) || self.state.learned.has_seen(group, DONE_MIN)
        })
    }

    /// Returns the estimated time remaining of a running job, in seconds; none if the pool has no capacity. It is the
    /// larger of the critical path from running and waiting tasks, and the remaining work divided by the pool's
    /// throughput. Reported progress takes precedence over the times of earlier tasks of the same kind.
    pub(crate) fn remaining_s(&self, id: JobId, job: &Job) -> Option<f64> {
        if !job.active() {
            return None;
        }
        let leader = self.leader;
        let groups = job.spec.groups();
        let expected = |group: usize| self.state.learned.expect(&groups[group]).work_s;
        let b_levels = critical::b_levels(&job.spec, expected);
        let pool = leader.pool.throughput();
        if pool <= 0.0 {
            return None;
        }
        let (mut path_s, mut work) = (0.0_f64, 0.0);
        let mut begun = vec![0_u32; groups.len()];
        for (task, known) in self.undecided_tasks(id, job) {
            let group = job.spec.group_of(task.number);
            let alive = known
                .attempts()
                .iter()
                .filter(|attempt| attempt.state().alive());
            let remaining = alive.map(|attempt| {
                let speed = leader.pool[attempt.worker()].speed().max(1e-3);
                let begun_at = begun_at(attempt);
                let nominal = expected(group) * (1.0 - begun_at) / speed;
                let elapsed = self.now.since(attempt.since()).as_secs_f64();
                match share(attempt) {
                    Some(share) if share > begun_at => elapsed * (1.0 - share) / (share - begun_at),
                    _ => (nominal - elapsed).max(nominal * OVERDUE),
                }
            });
            if let Some(remaining) = remaining.reduce(f64::min) {
                path_s = path_s.max(remaining + b_levels[group]);
                work += remaining;
                begun[group] += 1;
            }
        }
        for (group, begun) in begun.into_iter().enumerate() {
            let waiting = job.remaining_of(group).saturating_sub(begun);
            if waiting > 0 {
                path_s = path_s.max(expected(group) + b_levels[group]);
                work += f64::from(waiting) * expected(group);
            }
        }
        Some(path_s.max(work / pool))
    }

    fn undecided_tasks<'a>(
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

/// Returns the fraction of its work that a live attempt reports as done.
fn share(attempt: &Attempt) -> Option<f64> {
    let permille = attempt
        .progress()
        .permille
        .filter(|_| attempt.state().alive())?;
    Some((f64::from(permille) / 1e3).min(1.0))
}

/// Returns the fraction of the task's work that was done in the checkpoint from which an attempt resumed.
fn begun_at(attempt: &Attempt) -> f64 {
    let permille = attempt.from().and_then(|from| from.permille);
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
