//! When enough is done: of a group for those that wait for it, and of a job for its results to be compiled.

use crate::supervisor::durable::job::Job;

impl Job {
    /// How many tasks of a group are done.
    pub(crate) fn done_of(&self, group: usize) -> u32 {
        self.spec.groups()[group].count() - self.open[group]
    }

    /// Whether so much of `other` is done that tasks of `group`, which wait for it, may start.
    pub(crate) fn satisfied(&self, group: usize, other: usize) -> bool {
        self.open[other] == 0 || self.done_of(other) >= self.spec.needed(group, other)
    }

    /// Whether the tasks of a group that are not done need not be: all that wait for it have enough of it.
    pub(crate) fn closed(&self, group: usize) -> bool {
        let waiting = self.spec.waited_by(group);
        self.spec.is_relaxed()
            && self.open[group] > 0
            && !waiting.is_empty()
            && waiting
                .iter()
                .all(|next| self.satisfied(*next as usize, group))
    }

    /// How many of the job's tasks must be done before its results are compiled.
    pub(crate) fn needed(&self) -> u32 {
        let all = self.spec.task_count();
        if !self.spec.is_relaxed() {
            return self.spec.qos().need.of(all);
        }
        let groups = 0..self.spec.groups().len();
        let closed = groups.filter(|group| self.closed(*group));
        let skipped: u32 = closed.map(|group| self.open[group]).sum();
        self.spec.qos().need.of(all - skipped)
    }

    /// Whether enough is done for the results to be compiled.
    pub(crate) fn enough(&self) -> bool {
        self.enough_with(0)
    }

    /// The same once so many more tasks are done.
    pub(crate) fn enough_with(&self, coming: u32) -> bool {
        self.done + coming >= self.needed()
    }
}
