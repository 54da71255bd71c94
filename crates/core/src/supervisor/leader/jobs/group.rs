//! The leader's state of one group of a job: which tasks can start, and which offers to workers are in the ready
//! queues.

use crate::supervisor::leader::placement::body::ReadyBody;
use crate::supervisor::leader::placement::queue::{Class, Lane};
use hedge_model::Time;
use hedge_model::spec::Group;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tasks of one group to try for a worker before the next group is tried.
const TRIES_MAX: usize = 4;

/// Weight of the newest attempt in the moving mean of attempt times.
const MEAN_WEIGHT: f64 = 0.2;

/// A group of a job that has not ended.
#[derive(Debug, Default)]
pub(crate) struct ActiveGroup {
    /// Groups that it waits for as a whole, of which too few tasks are done.
    waiting: u32,
    /// Offset of the first task that never had an attempt; all later ones had none either. In a group with
    /// element-wise dependencies it is the number of tasks: there `to_rerun` holds the tasks that can start.
    fresh: u32,
    /// Offsets of tasks that need a first attempt again, or, with element-wise dependencies, whose inputs are done.
    to_rerun: BTreeSet<u32>,
    /// Offsets of tasks that need one more redundant attempt.
    copies: BTreeSet<u32>,
    body: Option<Arc<ReadyBody>>,
    version: u32,
    /// Moving mean of attempt times, in seconds.
    mean: Option<f64>,
    rank: u32,
    shape: u32,
    /// Whether its tasks are offered as short ones, which are also queued at busy workers.
    short: bool,
    /// Since when its next task has been deferred to wait for a faster worker.
    deferred_since: Option<Time>,
    /// The classes that it offers now, one bit each.
    offered: u8,
}

/// What a group's offers depend on besides the group itself.
pub(crate) struct OfferTerms<'a> {
    pub spec: &'a Group,
    /// Whether its tasks may start.
    pub startable: bool,
    /// How many of its leading tasks are critical.
    pub critical: u32,
    /// Tasks whose attempts take at most this many seconds on average may be queued at busy workers.
    pub short_max_s: f64,
}

/// An offer that is made (`true`) or withdrawn (`false`).
pub(crate) type OfferChange = (Class, Lane, bool);

impl ActiveGroup {
    /// Creates a group that waits for `waiting` others. Its tasks before offset `fresh` need no first attempt, except
    /// those in `to_rerun`.
    pub fn new(waiting: u32, fresh: u32, to_rerun: BTreeSet<u32>) -> Self {
        Self {
            waiting,
            fresh,
            to_rerun,
            ..Self::default()
        }
    }

    /// How many groups it waits for as a whole.
    pub fn waiting(&self) -> u32 {
        self.waiting
    }

    /// Records that enough tasks of a group it waits for are done.
    pub fn dependency_met(&mut self) {
        self.waiting -= 1;
        self.body = None;
    }

    /// Records that a group it waits for has lost outputs. `again` says that too few of that group's tasks are done
    /// now.
    pub fn dependency_lost(&mut self, again: bool) {
        self.waiting += u32::from(again);
        self.body = None;
    }

    /// Returns how many of its `count` tasks need a first attempt: those that never had one, and those in `to_rerun`.
    pub fn remaining(&self, count: u32) -> u32 {
        count - self.fresh + self.to_rerun.len() as u32
    }

    /// Returns whether the task at an offset needs a first attempt.
    pub fn needs_first(&self, offset: u32) -> bool {
        offset >= self.fresh || self.to_rerun.contains(&offset)
    }

    /// Returns the offset of the next of `count` tasks that needs a first attempt.
    pub fn next_unassigned(&self, count: u32) -> Option<u32> {
        let fresh = (self.fresh < count).then_some(self.fresh);
        self.to_rerun.first().copied().or(fresh)
    }

    /// Offsets of tasks that need a first attempt again.
    pub fn to_rerun(&self) -> impl Iterator<Item = u32> + '_ {
        self.to_rerun.iter().copied()
    }

    /// Returns the offsets of the next tasks to try for an offer, in order: at most [`TRIES_MAX`] and one fresh task.
    pub fn candidates(&self, class: Class, critical: u32, count: u32) -> SmallVec<[u32; 8]> {
        let again = match class {
            Class::Copy => self.copies.range(..),
            Class::Critical => self.to_rerun.range(..critical),
            Class::Normal => self.to_rerun.range(critical..),
        };
        let fresh = match class {
            Class::Copy => None,
            Class::Critical => (self.fresh < critical).then_some(self.fresh),
            Class::Normal => (self.fresh >= critical && self.fresh < count).then_some(self.fresh),
        };
        again.copied().take(TRIES_MAX).chain(fresh).collect()
    }

    /// Moves all fresh tasks up to `offset` to `to_rerun`, so that each can be handled on its own.
    pub fn requeue_until(&mut self, offset: u32) {
        self.to_rerun.extend(self.fresh..=offset);
        self.fresh = self.fresh.max(offset + 1);
    }

    /// Records that the task at an offset was assigned.
    pub fn assigned(&mut self, offset: u32, redundant: bool) {
        if offset == self.fresh {
            self.fresh += 1;
        }
        if !redundant {
            self.deferred_since = None;
        }
    }

    /// Records whether the task at an offset needs a first attempt or one more redundant attempt. Returns whether
    /// that changed anything; it never does for a fresh task.
    pub fn set_wanted(&mut self, offset: u32, first: bool, copy: bool) -> bool {
        if offset >= self.fresh {
            return false;
        }
        let first = set(&mut self.to_rerun, offset, first);
        let copy = set(&mut self.copies, offset, copy);
        first || copy
    }

    /// Since when its next task has been deferred to wait for a faster worker.
    pub fn deferred_since(&self) -> Option<Time> {
        self.deferred_since
    }

    /// Records that its next task is deferred to wait for a faster worker.
    pub fn note_deferred(&mut self, now: Time) {
        self.deferred_since.get_or_insert(now);
    }

    /// The cached task body, which tells workers what to run.
    pub fn body(&self) -> Option<&Arc<ReadyBody>> {
        self.body.as_ref()
    }

    /// The version that the next body gets.
    pub fn next_version(&self) -> u32 {
        self.version + 1
    }

    pub fn set_body(&mut self, ready: Arc<ReadyBody>) {
        self.version = ready.body.version;
        self.body = Some(ready);
    }

    /// Drops the cached body if `stale` holds for it; it is built again when needed.
    pub fn drop_body_if(&mut self, stale: impl FnOnce(&ReadyBody) -> bool) {
        if self.body.as_ref().is_some_and(|ready| stale(ready)) {
            self.body = None;
        }
    }

    /// Moving mean of attempt times, in seconds.
    pub fn mean_s(&self) -> Option<f64> {
        self.mean
    }

    /// Adds the time of one attempt, in seconds, to the moving mean.
    pub fn note_time(&mut self, took_s: f64) {
        let mean = self.mean;
        let moved = |mean: f64| mean * (1.0 - MEAN_WEIGHT) + took_s * MEAN_WEIGHT;
        self.mean = Some(mean.map_or(took_s, moved));
    }

    /// Its rank within the job: groups with a higher bottom level have a lower rank and start first.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Sets the rank. The group must have no offers.
    pub fn set_rank(&mut self, rank: u32) {
        self.rank = rank;
    }

    /// The number of its tasks' resource shape in [`crate::supervisor::leader::Leader::shapes`].
    pub fn shape(&self) -> u32 {
        self.shape
    }

    pub fn set_shape(&mut self, shape: u32) {
        self.shape = shape;
    }

    /// Updates the offers from the tasks that can start; returns what changed.
    pub fn refresh_offers(&mut self, terms: &OfferTerms<'_>) -> SmallVec<[OfferChange; 4]> {
        let mut changes = SmallVec::new();
        let short = self.mean.is_some_and(|mean| mean <= terms.short_max_s);
        if short != self.short {
            self.change(terms.spec, Class::Normal, false, &mut changes);
            self.short = short;
        }
        let count = terms.spec.count();
        let critical = terms.critical;
        let critical_left =
            self.to_rerun.range(..critical).next().is_some() || self.fresh < critical;
        let normal_left = self.to_rerun.range(critical..).next().is_some()
            || (self.fresh >= critical && self.fresh < count);
        for (class, present) in [
            (Class::Critical, critical_left),
            (Class::Copy, !self.copies.is_empty()),
            (Class::Normal, normal_left),
        ] {
            self.change(terms.spec, class, present && terms.startable, &mut changes);
        }
        changes
    }

    /// Withdraws all offers; returns what changed.
    pub fn withdraw_offers(&mut self, spec: &Group) -> SmallVec<[OfferChange; 4]> {
        let mut changes = SmallVec::new();
        for class in [Class::Copy, Class::Critical, Class::Normal] {
            self.change(spec, class, false, &mut changes);
        }
        changes
    }

    fn change(
        &mut self,
        spec: &Group,
        class: Class,
        present: bool,
        changes: &mut SmallVec<[OfferChange; 4]>,
    ) {
        let bit = 1 << class as u8;
        if (self.offered & bit != 0) != present {
            self.offered ^= bit;
            let lane = Lane {
                short: class == Class::Normal && self.short,
                cpus_milli: spec.resources.cpus_milli,
                shape: self.shape,
            };
            changes.push((class, lane, present));
        }
    }
}

/// Adds an offset to a set or removes it. Returns whether that changed anything.
fn set(offsets: &mut BTreeSet<u32>, offset: u32, present: bool) -> bool {
    if present {
        offsets.insert(offset)
    } else {
        offsets.remove(&offset)
    }
}
