//! The view of a job, computed from the state on request.

use crate::supervisor::api::views::ms;
use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::ledger::cost_view;
use crate::supervisor::durable::open::Growth;
use crate::supervisor::leader::LeaderView;
use crate::supervisor::leader::jobs::forecast::Remaining;
use hedge_model::ending::Fault;
use hedge_model::record::{ClosedBy, JobEnd};
use hedge_model::view::{BudgetView, JobState, JobView, OpenView};
use hedge_model::{JobId, TaskId};
use std::collections::BTreeSet;

/// How many tasks of a job are in which state. With the done ones they add up to all tasks.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    running: u32,
    ready: u32,
    waiting: u32,
    failed: u32,
    lost: u32,
    skipped: u32,
}

impl Job {
    /// The tasks that failed or were lost, and are not done.
    pub(crate) fn failed_tasks(&self) -> BTreeSet<u32> {
        let ended = match &self.ended {
            Some((JobEnd::Failed { task, .. }, _)) => task.map(|task| task.number),
            _ => None,
        };
        let history = self.history.values();
        let failed = history.filter(|ended| ended.end.fault() == Fault::Task);
        let any_lost = self.failures.lost() > 0;
        let tasks = (0..).zip(&self.tasks).take_while(|_| any_lost);
        let lost = tasks.filter(|(_, task)| task.is_lost());
        failed
            .map(|ended| ended.attempt.task.number)
            .chain(ended)
            .chain(lost.map(|(number, _)| number))
            .filter(|number| self.tasks[*number as usize].done().is_none())
            .collect()
    }
}

impl LeaderView<'_> {
    /// Returns the view of a job.
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        let job = self.state.jobs.get(&id)?;
        let counts = self.counts(id, job);
        let mut attempts = job.counts;
        for attempt in self.tasks_of(id).flat_map(|(_, known)| known.attempts()) {
            let counted = job.history.contains_key(&attempt.id());
            attempts.total += u64::from(!counted);
            attempts.redundant += u64::from(!counted && attempt.redundant());
        }
        let waits = self.waits(id, job, counts.running);
        let remaining = self.remaining(id);
        let estimate_ms = |of: fn(&Remaining) -> f64| remaining.map(|it| (of(&it) * 1e3).round());
        let (state, why) = match &job.ended {
            None if counts.running == 0 => (JobState::Waiting, None),
            None => (JobState::Running, None),
            Some((JobEnd::Done, _)) => (JobState::Done, None),
            Some((JobEnd::Failed { why, .. }, _)) => (JobState::Failed, Some(why.clone())),
            Some((JobEnd::Cancelled, _)) => (JobState::Cancelled, None),
        };
        let until = job.ended.as_ref().map_or(self.now, |(_, at)| *at);
        Some(JobView {
            id,
            name: job.spec.name().to_owned(),
            state,
            why,
            tasks: job.spec.task_count(),
            needed: job.needed(),
            critical: self.critical(id, job).total(),
            done: job.done,
            running: counts.running,
            ready: counts.ready,
            waiting: counts.waiting,
            failed: counts.failed,
            lost: counts.lost,
            skipped: counts.skipped,
            attempts,
            elapsed_ms: ms(until.since(job.accepted)),
            cpu_ms: ms(job.cpu),
            waits,
            result_bytes: job.result_bytes,
            cost: cost_view(job),
            budget: self.budget_view(id, job),
            deadline: self.deadline_view(id, job, remaining),
            progress: self.progress(id, job),
            left_ms: estimate_ms(|it| it.likely_s),
            left_low_ms: estimate_ms(|it| it.low_s),
            left_high_ms: estimate_ms(|it| it.high_s),
            owner: job.client.to_string(),
            age_ms: ms(self.now.since(job.accepted)),
            open: self.open_view(id, job),
        })
    }

    fn counts(&self, id: JobId, job: &Job) -> Counts {
        let open = job.spec.task_count() - job.done;
        let (failed, lost) = (job.failures.total(), job.failures.lost());
        if !job.active() {
            let failed = match open {
                0 => 0,
                // The job failed without giving up a task for good, or before the failure of the task was recorded.
                _ if failed == 0 => job.failed_tasks().len() as u32,
                _ => failed,
            };
            let lost = lost.min(failed);
            return Counts {
                failed: failed - lost,
                lost,
                skipped: open - failed,
                ..Counts::default()
            };
        }
        let undone = |task: &TaskId| job.tasks[task.number as usize].is_open();
        let running = self.tasks_of(id);
        let running = running.filter(|(task, known)| known.active() > 0 && undone(task));
        let running = running.count() as u32;
        let active_job = self.leader.jobs.get(id);
        let groups = 0..job.spec.groups().len();
        let (mut startable, mut skipped) = (0, 0);
        for group in groups {
            let (undecided, left) = (
                job.open[group] - job.failed_of(group),
                job.remaining_of(group),
            );
            skipped += undecided - left;
            if left > 0 && active_job.is_some_and(|job| job.group(group).waiting() == 0) {
                startable += left.min(undecided.saturating_sub(job.waiting_elements(group)));
            }
        }
        Counts {
            running,
            ready: startable.saturating_sub(running),
            waiting: open.saturating_sub(failed + skipped + startable.max(running)),
            failed: failed - lost,
            lost,
            skipped,
        }
    }

    fn open_view(&self, id: JobId, job: &Job) -> Option<OpenView> {
        let by = match &job.growth {
            Growth::None => return None,
            Growth::Closed { by, .. } => *by,
            Growth::Open { .. } => {
                let seen = self.leader.jobs.get(id)?.client_seen();
                let timeout = job.spec.qos().open_timeout?;
                let left = timeout.saturating_sub(self.now.since(seen));
                return Some(OpenView::Open {
                    closes_in_ms: ms(left),
                });
            }
        };
        Some(match by {
            Some(ClosedBy::Timeout) => OpenView::TimedOut,
            Some(ClosedBy::Request) | None => OpenView::Closed,
        })
    }

    fn budget_view(&self, id: JobId, job: &Job) -> Option<BudgetView> {
        let limit_micro = job.spec.qos().budget?;
        let spent_micro = if job.active() {
            self.spent(id, job)
        } else {
            job.cost.total()
        };
        Some(BudgetView {
            limit_micro,
            spent_micro,
            exceeded: spent_micro > limit_micro,
        })
    }
}
