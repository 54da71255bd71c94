//! A group of a job's tasks, as the leader works on it: what of it can start, and what it offers to workers.

use crate::supervisor::leader::placement::body::ReadyBody;
use crate::supervisor::leader::placement::queue::{Class, Lane};
use hedge_model::Time;
use hedge_model::spec::Group;
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tasks of one group that are tried for a worker before the next group's turn.
const TRIES_MAX: usize = 4;

/// The weight of the newest attempt in the moving mean of what attempts take.
const MEAN_WEIGHT: f64 = 0.2;

/// A group of a job that has not ended.
#[derive(Debug, Default)]
pub(crate) struct ActiveGroup {
    /// Groups it waits for as a whole that are not done.
    waiting: u32,
    /// Offset of the first task that never had an attempt; all behind it are fresh too. Their count, where each task
    /// waits for one at its own place.
    fresh: u32,
    /// Offsets of tasks that need a first attempt again, or for the first time where those at their own place are done.
    to_rerun: BTreeSet<u32>,
    /// Offsets of tasks that need one more redundant attempt.
    copies: BTreeSet<u32>,
    body: Option<Arc<ReadyBody>>,
    version: u32,
    /// Moving mean of what an attempt takes, seconds.
    mean: Option<f64>,
    rank: u32,
    shape: u32,
    /// Whether its tasks are offered to be sent ahead.
    short: bool,
    /// Since when its next task waits for a faster worker, where it does.
    deferred_since: Option<Time>,
    /// Which classes it offers now, one bit each.
    offered: u8,
}

/// What decides on a group's offers beside the group itself.
pub(crate) struct OfferTerms<'a> {
    pub spec: &'a Group,
    /// Whether its tasks may start at all.
    pub startable: bool,
    /// How many of its tasks are critical: the first so many.
    pub critical: u32,
    /// Tasks whose attempts take at most so many seconds may be sent ahead.
    pub short_max_s: f64,
}

/// An offer that is made (`true`) or withdrawn.
pub(crate) type OfferChange = (Class, Lane, bool);

impl ActiveGroup {
    /// A group that waits for `waiting` others, of which the tasks before `fresh` had their turn, those of `again`
    /// excepted.
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

    /// Enough of a group it waits for is done.
    pub fn dependency_met(&mut self) {
        self.waiting -= 1;
        self.body = None;
    }

    /// A group it waits for has lost outputs; `again` says that it is not done enough any more.
    pub fn dependency_lost(&mut self, again: bool) {
        self.waiting += u32::from(again);
        self.body = None;
    }

    /// Tasks that need a first attempt: of `count` those that never had one, and those that need one again.
    pub fn remaining(&self, count: u32) -> u32 {
        count - self.fresh + self.to_rerun.len() as u32
    }

    /// Whether the task at an offset needs a first attempt.
    pub fn needs_first(&self, offset: u32) -> bool {
        offset >= self.fresh || self.to_rerun.contains(&offset)
    }

    /// The offset of the next of `count` tasks that needs a first attempt.
    pub fn next_unassigned(&self, count: u32) -> Option<u32> {
        let fresh = (self.fresh < count).then_some(self.fresh);
        self.to_rerun.first().copied().or(fresh)
    }

    /// Offsets of tasks that need a first attempt again.
    pub fn to_rerun(&self) -> impl Iterator<Item = u32> + '_ {
        self.to_rerun.iter().copied()
    }

    /// Offsets of tasks that are to be tried next for an offer: a few, in order.
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

    /// All tasks up to an offset had their turn; those without an attempt are due again.
    pub fn requeue_until(&mut self, offset: u32) {
        self.to_rerun.extend(self.fresh..=offset);
        self.fresh = self.fresh.max(offset + 1);
    }

    /// The task at an offset was assigned.
    pub fn assigned(&mut self, offset: u32, redundant: bool) {
        if offset == self.fresh {
            self.fresh += 1;
        }
        if !redundant {
            self.deferred_since = None;
        }
    }

    /// Notes whether the task at an offset needs a first attempt, or one more. Says whether that changed anything; of
    /// a fresh task nothing does.
    pub fn set_wanted(&mut self, offset: u32, first: bool, copy: bool) -> bool {
        if offset >= self.fresh {
            return false;
        }
        let first = set(&mut self.to_rerun, offset, first);
        let copy = set(&mut self.copies, offset, copy);
        first || copy
    }

    /// Since when its next task waits for a faster worker, where it does.
    pub fn deferred_since(&self) -> Option<Time> {
        self.deferred_since
    }

    /// Its next task waits for a faster worker.
    pub fn note_deferred(&mut self, now: Time) {
        self.deferred_since.get_or_insert(now);
    }

    /// What its tasks are told to do, where it is at hand.
    pub fn body(&self) -> Option<&Arc<ReadyBody>> {
        self.body.as_ref()
    }

    /// The version of the next body.
    pub fn next_version(&self) -> u32 {
        self.version + 1
    }

    pub fn set_body(&mut self, ready: Arc<ReadyBody>) {
        self.version = ready.body.version;
        self.body = Some(ready);
    }

    /// The body is built again where `stale` holds of it.
    pub fn drop_body_if(&mut self, stale: impl FnOnce(&ReadyBody) -> bool) {
        if self.body.as_ref().is_some_and(|ready| stale(ready)) {
            self.body = None;
        }
    }

    /// Moving mean of what an attempt takes, seconds.
    pub fn mean_s(&self) -> Option<f64> {
        self.mean
    }

    /// An attempt took so many seconds.
    pub fn note_time(&mut self, took_s: f64) {
        let mean = self.mean;
        let moved = |mean: f64| mean * (1.0 - MEAN_WEIGHT) + took_s * MEAN_WEIGHT;
        self.mean = Some(mean.map_or(took_s, moved));
    }

    /// Its turn within the job: those of the highest bottom level come first.
    pub fn rank(&self) -> u32 {
        self.rank
    }

    /// Gives it another turn. It must offer nothing.
    pub fn set_rank(&mut self, rank: u32) {
        self.rank = rank;
    }

    /// What its tasks need, by number in [`crate::supervisor::leader::Leader::shapes`].
    pub fn shape(&self) -> u32 {
        self.shape
    }

    pub fn set_shape(&mut self, shape: u32) {
        self.shape = shape;
    }

    /// Brings what it offers in line with what it has; returns what changed.
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

/// Puts an offset into a set, or takes it out; says whether that changed anything.
fn set(offsets: &mut BTreeSet<u32>, offset: u32, present: bool) -> bool {
    if present {
        offsets.insert(offset)
    } else {
        offsets.remove(&offset)
    }
}
