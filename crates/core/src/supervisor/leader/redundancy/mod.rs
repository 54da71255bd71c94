//! When a task needs another attempt: a first one again, or a copy elsewhere. Nothing else decides on copies.
//!
//! Copies in advance are offered to workers before first attempts. Beyond them a [`Policy`] is asked whenever
//! machines are idle that nothing ready can use.

mod evaluation;
mod policies;
mod policy;
mod survival;

pub use policies::{Auto, AutoSettings, Fill, Speculate};

pub use crate::supervisor::durable::beliefs::Beliefs;

pub use policy::{
    CopyOrder, Kind, Policy, SeenAttempt, SeenJob, SeenTask, SeenWorker, TIMES_MAX, View,
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
    /// Brings the offers for a task that had an attempt in line with what it has and what it wants.
    pub(crate) fn update_task_offers(&mut self, task: TaskId) {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return;
        };
        let group = job.spec.group_of(task.number);
        let offset = task.number - job.spec.first(group);
        let known = self.leader.tasks.get(&task);
        let active = known.map_or(0, ActiveTask::active);
        let committing = known.is_some_and(|known| known.committing().is_some());
        let delayed = known.is_some_and(|known| known.retried_at().is_some());
        let open = job.active()
            && !committing
            && job.tasks[task.number as usize].is_open()
            && self.view().element_may_start(task, job, group);
        let first = open && active == 0 && !delayed;
        let copy = open && active > 0 && active < self.view().attempts_wanted(task);
        let leader = &mut *self.leader;
        let offers = leader.jobs.group_mut(task.job, group);
        if offers.is_some_and(|offers| offers.set_wanted(offset, first, copy)) {
            self.refresh_offers(task.job, group);
        }
    }
}

/// Why the policy of a kind of redundancy wants a copy, for people.
pub(crate) fn why(redundancy: Redundancy) -> &'static str {
    shipped(redundancy).why
}

impl LeaderView<'_> {
    /// A job's critical set as it is known now; that of an ended job is found when it is asked for.
    pub(crate) fn critical(&self, id: JobId, job: &Job) -> Cow<'_, CriticalSet> {
        match self.leader.jobs.get(id) {
            Some(active_job) => Cow::Borrowed(active_job.critical()),
            None => Cow::Owned(CriticalSet::find_with(&job.spec, &self.state.learned)),
        }
    }

    /// Whether a policy is asked about a job while it runs.
    pub(crate) fn watches(&self, spec: &JobSpec) -> bool {
        self.policy.is_some() || shipped(spec.qos().redundancy).asked.is_some()
    }

    /// How many attempts of a task are to be active at once: `copies` for a critical one, and one more
    /// where a worker that has it is about to leave, has its owner back or is silent, or an attempt is stalled; on
    /// mere suspicion only where the job asks for redundancy at all.
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
        // A copy would submit the job that is waited for once more.
        if known.is_some_and(|known| known.waits_for().is_some()) {
            return 1;
        }
        let critical = active_job.critical().contains(&job.spec, task.number);
        let in_advance = critical
            && !self.over_budget(task.job, job)
            && match self.policy {
                Some(policy) => policy.in_advance(&job.spec, group),
                None => (shipped(qos.redundancy).in_advance)(&job.spec, group),
            };
        let copies = if in_advance { qos.copies as usize } else { 1 };
        let on_liveness = qos.redundancy != Redundancy::None;
        // One that has to leave saves how far it is, and goes on elsewhere from there.
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
        copies + usize::from(one_more)
    }
}
