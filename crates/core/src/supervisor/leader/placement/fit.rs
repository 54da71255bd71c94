//! Tracks which resource shapes at least one connected worker could ever run.

use crate::supervisor::leader::placement::queue::Lane;
use std::collections::{BTreeMap, BTreeSet};

/// What is known about the shapes of the offers.
#[derive(Debug, Default)]
pub(crate) struct ShapeFit {
    /// Shapes that some worker could run, with the version of the pool that was checked.
    possible: BTreeMap<u32, u64>,
    /// Lanes that have not been checked against the pool yet.
    unchecked: BTreeSet<Lane>,
}

impl ShapeFit {
    /// Marks a lane with a new offer for a check, unless its shape fitted this version `pool` of the pool.
    pub fn offered(&mut self, lane: Lane, pool: u64) {
        if self.possible.get(&lane.shape) != Some(&pool) {
            self.unchecked.insert(lane);
        }
    }

    /// Marks these lanes for a check after the pool has changed.
    pub fn recheck(&mut self, lanes: BTreeSet<Lane>) {
        self.unchecked = lanes;
    }

    /// Returns whether any lane has to be checked.
    pub fn is_unchecked(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// Removes and returns the lanes that have to be checked.
    pub fn take_unchecked(&mut self) -> BTreeSet<Lane> {
        std::mem::take(&mut self.unchecked)
    }

    /// Records that some worker of this version of the pool could run a shape.
    pub fn fits(&mut self, shape: u32, pool: u64) {
        self.possible.insert(shape, pool);
    }
}
