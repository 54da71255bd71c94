//! When a task needs another attempt: a first one again, or a copy elsewhere. Nothing else decides on copies.

use super::Supervisor;
use hedge_model::TaskId;
use hedge_model::spec::Redundancy;
use std::collections::BTreeSet;

impl Supervisor {
    /// How many attempts of a task are to be active at once: `copies` for a critical one, and one more
    /// where a worker that has it is about to leave.
    pub(crate) fn attempts_wanted(&self, task: TaskId) -> usize {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return 0;
        };
        let copies = match job.spec.qos().redundancy {
            Redundancy::Critical if job.critical.contains(&job.spec, task.number) => {
                job.spec.qos().copies as usize
            }
            _ => 1,
        };
        let Some(live) = &self.live else {
            return copies;
        };
        let leaving = live.tasks.get(&task).is_some_and(|known| {
            known.attempts.iter().any(|attempt| {
                attempt.state.active() && live.workers[attempt.worker as usize].draining
            })
        });
        copies + usize::from(leaving)
    }

    /// Brings the offers for a task that had an attempt in line with what it has and what it wants.
    pub(crate) fn settle_wants(&mut self, task: TaskId) {
        let Some(job) = self.state.jobs.get(&task.job) else {
            return;
        };
        let spec = job.spec.clone();
        let group = spec.group_of(task.number);
        let offset = task.number - spec.first(group);
        let over = !job.active() || job.tasks[task.number as usize].done.is_some();
        let wanted = self.attempts_wanted(task);
        let Some(live) = &mut self.live else { return };
        let Some(live_job) = live.jobs.get_mut(&task.job) else {
            return;
        };
        let known = live.tasks.get(&task);
        let active = known.map_or(0, super::live::LiveTask::active);
        let committing = known.is_some_and(|known| known.committing.is_some());
        let offers = &mut live_job.groups[group];
        if offset >= offers.fresh {
            return;
        }
        let open = !over && !committing;
        let first = set(&mut offers.again, offset, open && active == 0);
        let copy = set(
            &mut offers.copies,
            offset,
            open && active > 0 && active < wanted,
        );
        if first || copy {
            self.refresh_offers(task.job, group);
        }
    }
}

/// Puts an offset into a set, or takes it out; says whether that changed anything.
fn set(offsets: &mut BTreeSet<u32>, offset: u32, present: bool) -> bool {
    if present {
        offsets.insert(offset)
    } else {
        offsets.remove(&offset)
    }
}
