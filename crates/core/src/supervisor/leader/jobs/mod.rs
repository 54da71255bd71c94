//! Jobs that have not ended: what of them can start, what is critical, and when they are done.

pub(crate) mod activation;
pub(crate) mod completion;
pub(crate) mod critical;
pub(crate) mod deadline;
pub(crate) mod estimate;
pub(crate) mod failure;
pub(crate) mod places;
pub(crate) mod retention;

use crate::supervisor::leader::WorkerIx;
use crate::supervisor::leader::jobs::critical::CriticalSet;
use crate::supervisor::leader::placement::body::ReadyBody;
use crate::supervisor::leader::placement::queue::Class as Turn;
use crate::supervisor::leader::redundancy::Kind;
use hedge_model::{Hash, PeerId, Time};
use smallvec::SmallVec;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Tasks of one group that are tried for a worker before the next group's turn.
const TRIES_MAX: usize = 4;

/// A job that has not ended, as the leader works on it.
#[derive(Debug)]
pub(crate) struct ActiveJob {
    pub groups: Vec<ActiveGroup>,
    pub watchers: Vec<(PeerId, u64)>,
    pub told: Time,
    pub ending: bool,
    /// Results that this supervisor does not hold yet.
    pub missing_results: BTreeSet<Hash>,
    /// Outputs of generations that were lost; attempts that run may still read what is left of them.
    pub stale: BTreeSet<Hash>,
    /// Workers that have or had something of it.
    pub touched: BTreeSet<WorkerIx>,
    /// Its critical set, as it is known now.
    pub critical: CriticalSet,
    /// It is found again when so many tasks are done.
    pub refind_at: u32,
    /// Kinds of its tasks, and the kind of each group.
    pub kinds: Vec<Kind>,
    pub kind_of: Vec<u32>,
    /// For each group the longest way from a task's end to the job's end, seconds at standard speed.
    pub tails: Vec<f64>,
    /// Worker time of attempts that won, seconds.
    pub won_s: f64,
    /// Length of its specification, encoded.
    pub spec_bytes: u64,
}

#[derive(Debug, Default)]
pub(crate) struct ActiveGroup {
    /// Groups it waits for as a whole that are not done.
    pub waiting: u32,
    /// Offset of the first task that never had an attempt; all behind it are fresh too. Their count, where each task
    /// waits for one at its own place.
    pub fresh: u32,
    /// Offsets of tasks that need a first attempt again, or for the first time where those at their own place are done.
    pub again: BTreeSet<u32>,
    /// Offsets of tasks that need one more redundant attempt.
    pub copies: BTreeSet<u32>,
    pub body: Option<Arc<ReadyBody>>,
    pub version: u32,
    /// Moving mean of what an attempt takes, seconds.
    pub mean: Option<f64>,
    /// Its turn within the job: those with the longest way to the job's end come first.
    pub rank: u32,
    /// What its tasks need, by number in [`super::Leader::shapes`].
    pub shape: u32,
    /// Whether its tasks are offered to be sent ahead.
    pub short: bool,
    /// Since when its next task waits for a faster worker, where it does.
    pub held: Option<Time>,
    /// Which classes it offers now, one bit each.
    pub offered: u8,
}

impl ActiveGroup {
    /// Offsets of tasks that are to be tried next for an offer: a few, in order.
    pub fn candidates(&self, class: Turn, critical: u32, count: u32) -> SmallVec<[u32; 8]> {
        let again = match class {
            Turn::Copy => self.copies.range(..),
            Turn::Critical => self.again.range(..critical),
            Turn::Normal => self.again.range(critical..),
        };
        let fresh = match class {
            Turn::Copy => None,
            Turn::Critical => (self.fresh < critical).then_some(self.fresh),
            Turn::Normal => (self.fresh >= critical && self.fresh < count).then_some(self.fresh),
        };
        again.copied().take(TRIES_MAX).chain(fresh).collect()
    }
}
