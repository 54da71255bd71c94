//! When a task needs another attempt: a first one again, or a copy elsewhere. Nothing else decides on copies.
//!
//! Copies in advance are offered to workers before first attempts. Beyond them a [`Policy`] is asked whenever
//! machines are idle that nothing ready can use.

mod auto;
mod evaluation;
mod fill;
mod policy;
mod speculate;
mod survival;

pub use auto::{Auto, AutoSettings};
pub use fill::Fill;
pub use speculate::Speculate;

pub use crate::supervisor::durable::beliefs::Beliefs;

pub use policy::{
    CopyOrder, Kind, Policy, SeenAttempt, SeenJob, SeenTask, SeenWorker, TIMES_MAX, View,
};

pub(crate) use crate::supervisor::durable::beliefs::above;
pub(crate) use evaluation::{Evaluations, YieldingCopies, kinds};
pub(crate) use survival::Survival;

use crate::supervisor::CriticalSet;
use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::attempts::active::ActiveTask;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::spec::Redundancy;
use hedge_model::{JobId, JobSpec, TaskId};
use std::borrow::Cow;

/// How one kind of redundancy is decided.
struct Shipped {
    redundancy: Redundancy,
    /// Whether critical tasks of a group get their copies before any task is slow.
    in_advance: fn(&JobSpec, usize) -> bool,
    /// Makes the policy that is asked while a job runs; none where nothing more is decided then.
    asked: Option<fn() -> Box<dyn Policy>>,
}

/// Every kind of redundancy, in the order in which the policies are asked: what fills the rest comes last.
const SHIPPED: [Shipped; Redundancy::WORDS.len()] = [
    Shipped {
        redundancy: Redundancy::None,
        in_advance: |_, _| false,
        asked: None,
    },
    Shipped {
        redundancy: Redundancy::Critical,
        in_advance: |_, _| true,
        asked: None,
    },
    Shipped {
        redundancy: Redundancy::Auto,
        in_advance: |job, group| Auto::default().in_advance(job, group),
        asked: Some(|| Box::new(Auto::default())),
    },
    Shipped {
        redundancy: Redundancy::Speculate,
        in_advance: |_, _| false,
        asked: Some(|| Box::new(Speculate)),
    },
    Shipped {
        redundancy: Redundancy::Fill,
        in_advance: |_, _| false,
        asked: Some(|| Box::new(Fill)),
    },
];

/// How this kind of redundancy is decided.
fn shipped(redundancy: Redundancy) -> &'static Shipped {
    let found = SHIPPED.iter().find(|one| one.redundancy == redundancy);
    found.unwrap_or(&SHIPPED[0])
}

impl Leadership<'_> {
    /// Brings the offers for a task that had an attempt in line with what it has and what it wants.
    pub(crate) fn settle_wants(&mut self, task: TaskId) {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return;
        };
        let spec = job.spec.clone();
        let group = spec.group_of(task.number);
        let offset = task.number - spec.first(group);
        let over = !job.active() || !job.tasks[task.number as usize].is_open();
        let wanted = self.view().attempts_wanted(task);
        let may_start = self.view().may_start_at_place(task, job, group);
        let leader = &mut *self.leader;
        let known = leader.tasks.get(&task);
        let active = known.map_or(0, ActiveTask::active);
        let committing = known.is_some_and(|known| known.committing().is_some());
        let delayed = known.is_some_and(|known| known.retried_at().is_some());
        let open = !over && !committing && may_start;
        let first = open && active == 0 && !delayed;
        let copy = open && active > 0 && active < wanted;
        let offers = leader.jobs.group_mut(task.job, group);
        if offers.is_some_and(|offers| offers.settle(offset, first, copy)) {
            self.refresh_offers(task.job, group);
        }
    }
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
        let doubt = qos.redundancy != Redundancy::None;
        let one_more = known.is_some_and(|known| {
            known.attempts().iter().any(|attempt| {
                let worker = &leader.pool[attempt.worker()];
                let suspected =
                    doubt && (worker.state().suspected() || attempt.stalled().is_some());
                attempt.state().active() && (worker.leaving() || suspected)
            })
        });
        copies + usize::from(one_more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_redundancy_is_shipped() {
        for (word, redundancy) in Redundancy::WORDS {
            assert_eq!(shipped(redundancy).redundancy, redundancy, "{word}");
        }
    }
}
