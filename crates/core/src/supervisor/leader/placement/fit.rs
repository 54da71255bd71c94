//! Which needs of tasks any worker that is here could meet.

use crate::supervisor::leader::placement::queue::Lane;
use std::collections::{BTreeMap, BTreeSet};

/// What is known of the shapes that are offered.
#[derive(Debug, Default)]
pub(crate) struct ShapeFit {
    /// Shapes that some worker could take, by the version of the pool that was looked at.
    possible: BTreeMap<u32, u64>,
    /// Lanes of which it is not known yet whether any worker could take them.
    unchecked: BTreeSet<Lane>,
}

impl ShapeFit {
    /// A lane has a new offer; `pool` is the version of the pool.
    pub fn offered(&mut self, lane: Lane, pool: u64) {
        if self.possible.get(&lane.shape) != Some(&pool) {
            self.unchecked.insert(lane);
        }
    }

    /// The pool has changed: these lanes are to be looked at anew.
    pub fn recheck(&mut self, lanes: BTreeSet<Lane>) {
        self.unchecked = lanes;
    }

    /// Whether any lane is to be looked at.
    pub fn is_unchecked(&self) -> bool {
        !self.unchecked.is_empty()
    }

    /// Takes out the lanes that are to be looked at.
    pub fn take_unchecked(&mut self) -> BTreeSet<Lane> {
        std::mem::take(&mut self.unchecked)
    }

    /// Some worker of this version of the pool could take a shape.
    pub fn fits(&mut self, shape: u32, pool: u64) {
        self.possible.insert(shape, pool);
    }
}
