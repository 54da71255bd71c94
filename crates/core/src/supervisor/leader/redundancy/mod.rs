//! Redundancy: decides when a task needs another attempt, whether a first one again or a redundant one. No other
//! module decides on redundant attempts.
//!
//! Copies of critical tasks that a job asks for in advance are offered to workers before first attempts. For further
//! copies, a [`Policy`] is evaluated whenever workers are idle that no ready task can use.

mod evaluation;
mod policies;
mod policy;
mod survival;

pub use policies::{Auto, AutoSettings, Fill, Speculate};

pub use crate::supervisor::durable::beliefs::Beliefs;

pub use policy::{
    CopyOrder, Kind, Policy, ProgressReport, SeenAttempt, SeenJob, SeenTask, SeenWorker, TIMES_MAX,
    View,
};

pub(crate) use crate::supervisor::durable::beliefs::above;
pub(crate) use evaluation::{Evaluations, YieldingCopies};
pub(crate) use survival::Survival;

use policies::{SHIPPED, Shipped, shipped};

use crate::supervisor::CriticalSet;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::attempts::active::ActiveTask;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::spec::Redundancy;
use hedge_model::{JobId, JobSpec, TaskId};
use std::borrow::Cow;

impl Leadership<'_> {
    /// Updates the offers for a task that had an attempt, from the attempts that it has and should have.
    pub(crate) fn update_task_offers(&mut self, task: TaskId) {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return;
        };
        let group = job.spec.group_of(task.number);
        let offset = task.number - job.spec.first(group);
        let known = self.leader.tasks.get(&task);
        let active = known.map_or(0, ActiveTask::active);
        let committing = known.is_some_and(|known| known.committing().is_some());
        let stranded = job.spec.groups()[group].once && self.view().is_stranded(task, job);
        let delayed = known.is_some_and(|known| known.retried_at().is_some());
        let open = || {
            job.tasks[task.number as usize].is_open()
                && self.view().element_may_start(task, job, group)
        };
        let (mut first, mut copy) = (false, false);
        if job.active() && !committing {
            first = active == 0 && !delayed && !stranded && open();
            copy = active > 0 && active < self.view().attempts_wanted(task) && open();
        }
        let leader = &mut *self.leader;
        let offers = leader.jobs.group_mut(task.job, group);
        if offers.is_some_and(|offers| offers.set_wanted(offset, first, copy)) {
            self.refresh_offers(task.job, group);
        }
    }
}

/// Explains to users why the policy of a kind of redundancy orders copies.
pub(crate) fn why(redundancy: Redundancy) -> &'static str {
    shipped(redundancy).why
}

impl LeaderView<'_> {
    /// Returns a job's critical set. For an ended job it is computed on each call.
    pub(crate) fn critical(&self, id: JobId, job: &Job) -> Cow<'_, CriticalSet> {
        match self.leader.jobs.get(id) {
            Some(active_job) => Cow::Borrowed(active_job.critical()),
            None => Cow::Owned(CriticalSet::find_with(&job.spec, &self.state.learned)),
        }
    }

    /// Returns whether a policy decides for a job while it runs.
    pub(crate) fn watches(&self, spec: &JobSpec) -> bool {
        self.policy.is_some() || shipped(spec.qos().redundancy).policy.is_some()
    }

    /// Returns how many attempts of a task should be active at once: `copies` for a critical task that is copied in
    /// advance, otherwise 1. One more is wanted if an attempt's worker drains or its owner keeps the attempt from
    /// running. In jobs with redundancy, one more is also wanted if the worker is suspected or the attempt is
    /// stalled, or if a policy wants the copy ahead of tasks that wait. A group may rule copies out.
    pub(crate) fn attempts_wanted(&self, task: TaskId) -> usize {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return 0;
        };
        let qos = job.spec.qos();
        let group = job.spec.group_of(task.number);
        let leader = self.leader;
        let Some(active_job) = leader.jobs.get(task.job) else {
            return 0;
        };
        let known = leader.tasks.get(&task);
        // A copy would submit the nested job again.
        let nested = known.is_some_and(|known| known.waits_for().is_some());
        if nested || !job.spec.groups()[group].may_be_copied() {
            return 1;
        }
        let critical = active_job.critical().contains(&job.spec, task.number);
        let in_advance = critical
            && !self.over_budget(task.job, job)
            // A policy that decides in the place of what jobs ask for is compared on its own.
            && self.policy.is_none()
            && (shipped(qos.redundancy).in_advance)(&job.spec, group);
        let copies = if in_advance { qos.copies as usize } else { 1 };
        let on_liveness = qos.redundancy != Redundancy::None;
        // Its worker saves a checkpoint, from which the task resumes elsewhere.
        let saves = job.spec.groups()[group].checkpoint.is_some();
        let one_more = known.is_some_and(|known| {
            known.attempts().iter().any(|attempt| {
                let worker = &leader.pool[attempt.worker()];
                let suspected =
                    on_liveness && (worker.state().suspected() || attempt.stalled().is_some());
                let leaving = worker.leaving() && !(saves && worker.gives_up());
                attempt.state().active() && (leaving || suspected)
            })
        });
        let ahead = leader.evaluations.is_ahead(task) && !self.over_budget(task.job, job);
        copies + usize::from(one_more || ahead)
    }
}
