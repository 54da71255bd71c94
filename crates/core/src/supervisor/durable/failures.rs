//! What of a job cannot be done any more: tasks that were given up, and groups that wait for more of such a group than
//! it can still give.

use crate::supervisor::durable::job::Job;
use imbl::{OrdMap, OrdSet};

/// How many tasks of a job were given up, and what that cuts off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    /// Tasks that were given up, by group.
    of: OrdMap<u32, u32>,
    total: u32,
    /// Groups that will never have enough of what they wait for.
    cut_off: OrdSet<u32>,
}

impl Failures {
    /// Notes that a task of a group was given up.
    pub fn count(&mut self, group: usize) {
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

    /// How many tasks of a group are not done and still may be.
    pub(crate) fn left_of(&self, group: usize) -> u32 {
        if self.cut_off(group) || self.closed(group) {
            return 0;
        }
        let lost = self.failed_of(group) + self.blocked_of(group);
        self.open[group].saturating_sub(lost)
    }

    /// How many tasks of a group wait at their own place for one that cannot be done any more.
    fn blocked_of(&self, group: usize) -> u32 {
        if self.failures.total == 0 {
            return 0;
        }
        let others = self.spec.each(group).iter().map(|other| *other as usize);
        let lost = others.map(|other| self.spec.groups()[other].count() - self.possible_of(other));
        lost.max().unwrap_or(0)
    }

    /// Whether nothing of the job that is not done can be done any more.
    pub(crate) fn exhausted(&self) -> bool {
        self.failures.total > 0
            && (0..self.spec.groups().len()).all(|group| self.left_of(group) == 0)
    }

    /// The group that a group waits for in vain, where it does.
    pub(crate) fn waits_in_vain_for(&self, group: usize) -> Option<usize> {
        let others = self.spec.waits_for(group).iter();
        let whole = |other: &usize| !self.spec.is_each(group, *other);
        let mut others = others.map(|other| *other as usize).filter(whole);
        others.find(|other| self.possible_of(*other) < self.spec.needed(group, *other))
    }

    /// How many tasks of a group are done or still may be.
    fn possible_of(&self, group: usize) -> u32 {
        if self.cut_off(group) {
            return self.done_of(group);
        }
        let lost = self.failed_of(group) + self.blocked_of(group);
        self.spec.groups()[group].count().saturating_sub(lost)
    }

    /// Less of a group can be done than before: those that wait for it in vain now are cut off.
    pub(crate) fn note_less_possible(&mut self, group: usize) {
        if self.failures.total == 0 {
            return;
        }
        let mut lessened = vec![group];
        while let Some(at) = lessened.pop() {
            for next in self.spec.clone().waited_by(at) {
                if self.spec.is_each(*next as usize, at) {
                    lessened.push(*next as usize);
                    continue;
                }
                let vain = self.possible_of(at) < self.spec.needed(*next as usize, at);
                if vain && self.failures.cut_off.insert(*next).is_none() {
                    lessened.push(*next as usize);
                }
            }
        }
    }

    /// A task of a group is done. One that was cut off can give more now than was thought.
    pub(crate) fn note_more_done(&mut self, group: usize) {
        if self.cut_off(group) {
            self.find_cut_off();
        }
    }

    /// What cannot be done any more, found from the tasks alone.
    pub(crate) fn find_failures(&mut self) {
        self.failures = Failures::default();
        for group in 0..self.spec.groups().len() {
            let failed = self.tasks_of(group).filter(|task| task.has_failed());
            (0..failed.count()).for_each(|_| self.failures.count(group));
        }
        self.find_cut_off();
    }

    fn find_cut_off(&mut self) {
        self.failures.cut_off = OrdSet::new();
        let groups = self.failures.of.clone();
        let groups = groups.keys().map(|group| *group as usize);
        groups.for_each(|group| self.note_less_possible(group));
    }
}
