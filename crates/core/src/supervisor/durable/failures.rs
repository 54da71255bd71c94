//! Derives what can no longer be done in a job: failed tasks, tasks with a failed element-wise dependency, and groups
//! that need more of a dependency than can still be done. All of it follows from the tasks, so snapshots do not hold
//! it.

use crate::supervisor::durable::job::Job;
use imbl::{OrdMap, OrdSet};

/// How many tasks of a job have failed for good, and what can never start because of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Failed tasks, by group.
    of: OrdMap<u32, u32>,
    total: u32,
    /// How many of them were lost with their workers and may not run again.
    lost: u32,
    /// Open tasks with an element-wise dependency that will never be done, and their number by group.
    blocked: OrdSet<u32>,
    blocked_of: OrdMap<u32, u32>,
    /// Groups of which a dependency can never be satisfied.
    cut_off: OrdSet<u32>,
}

impl Failures {
    fn count(&mut self, group: usize, lost: bool) {
        *self.of.entry(group as u32).or_default() += 1;
        self.total += 1;
        self.lost += u32::from(lost);
    }

    /// Returns how many tasks have failed.
    pub fn total(&self) -> u32 {
        self.total
    }

    /// Returns how many of them were lost with their workers and may not run again.
    pub fn lost(&self) -> u32 {
        self.lost
    }
}

impl Job {
    /// Returns how many tasks of a group have failed.
    pub(crate) fn failed_of(&self, group: usize) -> u32 {
        self.failures.of.get(&(group as u32)).copied().unwrap_or(0)
    }

    /// Returns whether a group can never start, because too few tasks of a dependency can still be done.
    pub(crate) fn cut_off(&self, group: usize) -> bool {
        self.failures.cut_off.contains(&(group as u32))
    }

    /// Returns whether an open task has an element-wise dependency that will never be done.
    pub(crate) fn blocked(&self, number: u32) -> bool {
        self.failures.blocked.contains(&number)
    }

    /// Returns how many tasks of a group are not done and still may be.
    pub(crate) fn remaining_of(&self, group: usize) -> u32 {
        if self.cut_off(group) || self.closed(group) {
            return 0;
        }
        self.open[group] - self.failed_of(group) - self.blocked_of(group)
    }

    fn blocked_of(&self, group: usize) -> u32 {
        let of = &self.failures.blocked_of;
        of.get(&(group as u32)).copied().unwrap_or(0)
    }

    /// Returns whether more tasks have failed than the job allows.
    pub(crate) fn failed_too_often(&self) -> bool {
        let allowed = self.failures_allowed();
        allowed.is_some_and(|allowed| self.failures.total > allowed)
    }

    /// Returns how many tasks may fail before the job is stopped; none means no limit.
    pub(crate) fn failures_allowed(&self) -> Option<u32> {
        let max = self.spec.qos().max_failures?;
        Some(max.of(self.spec.task_count()))
    }

    /// Returns how many tasks of the job are done or still may be.
    pub(crate) fn possible(&self) -> u32 {
        let groups = 0..self.spec.groups().len();
        if self.spec.is_relaxed() {
            return self.done + groups.map(|group| self.remaining_of(group)).sum::<u32>();
        }
        // A job may have very many groups, of which few are cut off.
        let cut_off = self.failures.cut_off.iter().map(|group| {
            let group = *group as usize;
            self.open[group] - self.failed_of(group) - self.blocked_of(group)
        });
        let lost = self.failures.total + self.failures.blocked.len() as u32 + cut_off.sum::<u32>();
        self.spec.task_count() - lost
    }

    /// Returns whether nothing that is not done can still be done.
    pub(crate) fn exhausted(&self) -> bool {
        (0..self.spec.groups().len()).all(|group| self.remaining_of(group) == 0)
    }

    /// Returns a dependency of the group that can never be satisfied, if there is one.
    pub(crate) fn unsatisfiable_dependency(&self, group: usize) -> Option<usize> {
        let others = self.spec.waits_for(group).iter();
        let mut others = others.map(|other| *other as usize);
        others.find(|other| match self.spec.is_each(group, *other) {
            true => self.cut_off(*other),
            false => self.possible_of(*other) < self.spec.needed(group, *other),
        })
    }

    /// Returns how many tasks of a group are done or still may be.
    pub(crate) fn possible_of(&self, group: usize) -> u32 {
        if self.cut_off(group) {
            return self.done_of(group);
        }
        self.spec.groups()[group].count() - self.failed_of(group) - self.blocked_of(group)
    }

    /// Accounts for a task that has failed.
    pub(crate) fn note_failed(&mut self, number: u32) {
        if self.blocked(number) {
            return self.recount_failures();
        }
        let group = self.spec.group_of(number);
        let lost = self.tasks[number as usize].is_lost();
        self.failures.count(group, lost);
        let mut lessened = self.block_dependents(group, number - self.spec.first(group));
        lessened.push(group);
        self.cut_off_dependents(lessened);
    }

    /// Accounts for a task that is done. If it was thought to be unable to start, its dependents may start after all.
    pub(crate) fn note_done(&mut self, number: u32) {
        let lost = || self.blocked(number) || self.cut_off(self.spec.group_of(number));
        if self.failures.total > 0 && lost() {
            self.recount_failures();
        }
    }

    /// Accounts for a done task that is open again.
    pub(crate) fn note_open_again(&mut self) {
        if self.failures.total > 0 {
            self.recount_failures();
        }
    }

    /// Accounts for groups added from this position on: those with a dependency that can never be satisfied will
    /// never start.
    pub(crate) fn note_added(&mut self, from: usize) {
        if self.failures.total == 0 {
            return;
        }
        let spec = self.spec.clone();
        let added = from..spec.groups().len();
        let mut lessened: Vec<usize> = Vec::new();
        for group in added {
            let others = spec.waits_for(group).iter().map(|other| *other as usize);
            for other in others.filter(|other| *other < from) {
                if spec.is_each(group, other) {
                    for offset in 0..spec.groups()[other].count() {
                        let number = spec.first(other) + offset;
                        let lost = self.blocked(number) || self.tasks[number as usize].has_failed();
                        if lost {
                            lessened.extend(self.block_dependents(other, offset));
                        }
                    }
                }
                if self.cut_off(other) || self.possible_of(other) < spec.groups()[other].count() {
                    lessened.push(other);
                }
            }
        }
        self.cut_off_dependents(lessened);
    }

    /// Derives all failures anew from the tasks.
    pub(crate) fn recount_failures(&mut self) {
        self.failures = Failures::default();
        let failed = (0..).zip(&self.tasks).filter(|(_, task)| task.has_failed());
        let failed: Vec<u32> = failed.map(|(number, _)| number).collect();
        for number in failed {
            let group = self.spec.group_of(number);
            let lost = self.tasks[number as usize].is_lost();
            self.failures.count(group, lost);
            self.block_dependents(group, number - self.spec.first(group));
        }
        let groups = self
            .failures
            .of
            .keys()
            .chain(self.failures.blocked_of.keys());
        let lessened = groups.map(|group| *group as usize).collect();
        self.cut_off_dependents(lessened);
    }

    /// Marks the tasks that depend element-wise on the one at `offset` of a group, directly or not, as never able to
    /// start. Returns their groups.
    fn block_dependents(&mut self, group: usize, offset: u32) -> Vec<usize> {
        let spec = self.spec.clone();
        let (mut lost, mut blocked) = (vec![group], Vec::new());
        while let Some(at) = lost.pop() {
            for next in spec.waited_by(at).iter().map(|next| *next as usize) {
                if !spec.is_each(next, at) || !self.element(next, offset).is_open() {
                    continue;
                }
                let number = spec.first(next) + offset;
                if self.failures.blocked.insert(number).is_none() {
                    *self.failures.blocked_of.entry(next as u32).or_default() += 1;
                    lost.push(next);
                    blocked.push(next);
                }
            }
        }
        blocked
    }

    /// Cuts off groups of which a dependency among `lessened` can no longer be satisfied, and in turn their
    /// dependents.
    fn cut_off_dependents(&mut self, mut lessened: Vec<usize>) {
        let spec = self.spec.clone();
        while let Some(at) = lessened.pop() {
            for next in spec.waited_by(at).iter().map(|next| *next as usize) {
                let vain = match spec.is_each(next, at) {
                    true => self.cut_off(at),
                    false => self.possible_of(at) < spec.needed(next, at),
                };
                if vain && self.failures.cut_off.insert(next as u32).is_none() {
                    lessened.push(next);
                }
            }
        }
    }
}
