//! When enough is done: of a group for those that wait for it, and of a job for its results to be compiled.

use crate::supervisor::durable::job::{Job, Task};

impl Job {
    /// The task at `offset` of a group, which is below its count.
    pub(crate) fn element(&self, group: usize, offset: u32) -> &Task {
        &self.tasks[(self.spec.first(group) + offset) as usize]
    }

    /// Whether the tasks are done that the task at `offset` of a group waits for at its own place.
    pub(crate) fn element_ready(&self, group: usize, offset: u32) -> bool {
        let mut others = self.spec.each(group).iter();
        others.all(|other| self.element(*other as usize, offset).done().is_some())
    }

    /// How many tasks of a group at least wait for one at their own place.
    pub(crate) fn waiting_elements(&self, group: usize) -> u32 {
        let others = self.spec.each(group).iter();
        let open = others.map(|other| self.open[*other as usize]);
        open.max().unwrap_or(0).min(self.open[group])
    }

    /// Whether nobody is to read any more what the task at `offset` of a group leaves: it is no result, all that read it
    /// have, and some of them at that place alone, or it is released.
    pub(crate) fn released(&self, group: usize, offset: u32) -> bool {
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

    /// How many tasks of a group are done.
    pub(crate) fn done_of(&self, group: usize) -> u32 {
        self.spec.groups()[group].count() - self.open[group]
    }

    /// Whether so much of `other` is done that tasks of `group`, which wait for it, may start.
    pub(crate) fn satisfied(&self, group: usize, other: usize) -> bool {
        self.open[other] == 0 || self.done_of(other) >= self.spec.needed(group, other)
    }

    /// How many groups a group waits for as a whole.
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

    /// Whether the tasks of a group that are not done need not be: all that wait for it have enough of it.
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

    /// Whether enough is done for the results to be compiled. Of an open job nobody knows how much that is.
    pub(crate) fn threshold_met(&self) -> bool {
        self.threshold_met_with(0)
    }

    /// The same once so many more tasks are done.
    pub(crate) fn threshold_met_with(&self, coming: u32) -> bool {
        !self.is_open() && self.done + coming >= self.needed()
    }
}
