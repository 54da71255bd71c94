//! Completion thresholds: when enough of a group is done for its dependents, and enough of a job to end it. Also
//! element-wise dependencies.

use crate::supervisor::durable::job::{Job, Task};

impl Job {
    /// Returns the task at `offset` of a group; `offset` must be below the group's count.
    pub(crate) fn element(&self, group: usize, offset: u32) -> &Task {
        &self.tasks[(self.spec.first(group) + offset) as usize]
    }

    /// Returns whether all element-wise dependencies of the task at `offset` of a group are done.
    pub(crate) fn element_ready(&self, group: usize, offset: u32) -> bool {
        let mut others = self.spec.each(group).iter();
        others.all(|other| self.element(*other as usize, offset).done().is_some())
    }

    /// Returns a lower bound for the number of tasks of a group that wait for an element-wise dependency.
    pub(crate) fn waiting_elements(&self, group: usize) -> u32 {
        let others = self.spec.each(group).iter();
        let open = others.map(|other| self.open[*other as usize]);
        open.max().unwrap_or(0).min(self.open[group])
    }

    /// Returns whether no task will read the outputs of the task at `offset` of a group any more: they are not
    /// results, all readers are done, and a reader depends element-wise on it or the client released it.
    pub(crate) fn outputs_unneeded(&self, group: usize, offset: u32) -> bool {
        let spec = &self.spec;
        if self.keeps(spec.first(group) + offset) {
            return false;
        }
        let next = spec.waited_by(group).iter().map(|next| *next as usize);
        let mut readers = next.filter(|next| spec.reads(*next, group));
        let read = |next: usize| match spec.is_each(next, group) {
            true => self.element(next, offset).done().is_some(),
            false => self.group_done(next),
        };
        let some = readers.clone().any(|next| spec.is_each(next, group));
        (some || self.element(group, offset).is_released()) && readers.all(read)
    }

    /// Returns how many tasks of a group are done.
    pub(crate) fn done_of(&self, group: usize) -> u32 {
        self.spec.groups()[group].count() - self.open[group]
    }

    /// Returns whether enough of `other` is done for the tasks of `group`, which depends on it.
    pub(crate) fn satisfied(&self, group: usize, other: usize) -> bool {
        self.open[other] == 0 || self.done_of(other) >= self.spec.needed(group, other)
    }

    /// Returns how many dependencies of a group on whole groups are not satisfied.
    pub(crate) fn waiting_groups(&self, group: usize) -> u32 {
        let others = self
            .spec
            .waits_for(group)
            .iter()
            .map(|other| *other as usize);
        let waiting = others
            .filter(|other| !self.spec.is_each(group, *other))
            .filter(|other| !self.satisfied(group, *other));
        waiting.count() as u32
    }

    /// Returns whether the remaining tasks of a group are not needed, because all its dependents are satisfied.
    pub(crate) fn closed(&self, group: usize) -> bool {
        let waiting = self.spec.waited_by(group);
        self.spec.is_relaxed()
            && !self.is_open()
            && self.open[group] > 0
            && !waiting.is_empty()
            && waiting
                .iter()
                .all(|next| self.satisfied(*next as usize, group))
    }

    /// Returns how many of the job's tasks must be done before the job can end.
    pub(crate) fn needed(&self) -> u32 {
        let all = self.spec.task_count();
        if self.spec.qos().tolerate_failures {
            return self.possible();
        }
        if !self.spec.is_relaxed() {
            return self.spec.qos().need.of(all);
        }
        let groups = 0..self.spec.groups().len();
        let closed = groups.filter(|group| self.closed(*group));
        let skipped: u32 = closed.map(|group| self.open[group]).sum();
        self.spec.qos().need.of(all - skipped)
    }

    /// Returns whether the job's completion threshold is met. It never is while the job is open, because more tasks
    /// may be added.
    pub(crate) fn threshold_met(&self) -> bool {
        self.threshold_met_with(0)
    }

    /// Returns whether the threshold would be met if `coming` more tasks were done.
    pub(crate) fn threshold_met_with(&self, coming: u32) -> bool {
        !self.is_open() && self.done + coming >= self.needed()
    }
}
