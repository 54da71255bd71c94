//! What of a job cannot be done any more: tasks that were given up, tasks that wait for such a one at their own place, and
//! groups that wait for more of a group than it can still give.

use crate::supervisor::durable::job::Job;
use imbl::{OrdMap, OrdSet};

/// How many tasks of a job were given up, and what can never start because of that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Tasks that were given up, by group.
    of: OrdMap<u32, u32>,
    total: u32,
    /// Open tasks that wait at their own place for one that will never be done, and how many each group has.
    blocked: OrdSet<u32>,
    blocked_of: OrdMap<u32, u32>,
    /// Groups that will never have enough of what they wait for.
    cut_off: OrdSet<u32>,
}

impl Failures {
    fn count(&mut self, group: usize) {
        *self.of.entry(group as u32).or_default() += 1;
        self.total += 1;
    }

    /// How many tasks were given up.
    pub fn total(&self) -> u32 {
        self.total
    }
}

impl Job {
    /// How many tasks of a group were given up.
    pub(crate) fn failed_of(&self, group: usize) -> u32 {
        self.failures.of.get(&(group as u32)).copied().unwrap_or(0)
    }

    /// Whether a group waits for more of another than that can still give, so that its tasks will never start.
    pub(crate) fn cut_off(&self, group: usize) -> bool {
        self.failures.cut_off.contains(&(group as u32))
    }

    /// Whether an open task waits at its own place for one that will never be done.
    pub(crate) fn blocked(&self, number: u32) -> bool {
        self.failures.blocked.contains(&number)
    }

    /// How many tasks of a group are not done and still may be.
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

    /// Whether more tasks were given up than the job allows.
    pub(crate) fn failed_too_often(&self) -> bool {
        let allowed = self.failures_allowed();
        allowed.is_some_and(|allowed| self.failures.total > allowed)
    }

    /// How many tasks may be given up before the job is stopped, where that is limited.
    pub(crate) fn failures_allowed(&self) -> Option<u32> {
        let max = self.spec.qos().max_failures?;
        Some(max.of(self.spec.task_count()))
    }

    /// Whether nothing of the job that is not done can be done any more.
    pub(crate) fn exhausted(&self) -> bool {
        (0..self.spec.groups().len()).all(|group| self.remaining_of(group) == 0)
    }

    /// The group that a group waits for in vain, where it does.
    pub(crate) fn unsatisfiable_dependency(&self, group: usize) -> Option<usize> {
        let others = self.spec.waits_for(group).iter();
        let mut others = others.map(|other| *other as usize);
        others.find(|other| match self.spec.is_each(group, *other) {
            true => self.cut_off(*other),
            false => self.possible_of(*other) < self.spec.needed(group, *other),
        })
    }

    /// How many tasks of a group are done or still may be.
    pub(crate) fn possible_of(&self, group: usize) -> u32 {
        if self.cut_off(group) {
            return self.done_of(group);
        }
        self.spec.groups()[group].count() - self.failed_of(group) - self.blocked_of(group)
    }

    /// A task was given up.
    pub(crate) fn note_failed(&mut self, number: u32) {
        if self.blocked(number) {
            return self.recount_failures();
        }
        let group = self.spec.group_of(number);
        self.failures.count(group);
        let mut lessened = self.block_dependents(group, number - self.spec.first(group));
        lessened.push(group);
        self.cut_off_dependents(lessened);
    }

    /// A task is done. One that never was to start can give more now than was thought.
    pub(crate) fn note_done(&mut self, number: u32) {
        let lost = || self.blocked(number) || self.cut_off(self.spec.group_of(number));
        if self.failures.total > 0 && lost() {
            self.recount_failures();
        }
    }

    /// A task that was done is open again.
    pub(crate) fn note_open_again(&mut self) {
        if self.failures.total > 0 {
            self.recount_failures();
        }
    }

    /// Groups were added, from this position on: those that wait for what cannot be done any more will never start.
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

    /// What cannot be done any more, found from the tasks alone.
    pub(crate) fn recount_failures(&mut self) {
        self.failures = Failures::default();
        let failed = (0..).zip(&self.tasks).filter(|(_, task)| task.has_failed());
        let failed: Vec<u32> = failed.map(|(number, _)| number).collect();
        for number in failed {
            let group = self.spec.group_of(number);
            self.failures.count(group);
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

    /// Tasks that wait for the one at `offset` of a group at their own place will never start, nor will those that wait
    /// for these. Gives their groups.
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

    /// Less of these groups can be done than before: those that wait for one of them in vain now are cut off.
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
