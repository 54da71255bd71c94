//! The capacity index: workers with free CPUs in the order in which they get work. The fastest come first; of equally
//! fast ones, the one with most free CPUs. Speeds are rounded to speed classes, so that small measurement differences
//! do not crowd one machine while its equals are idle.

use crate::supervisor::leader::pool::WorkerIx;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Logarithmic width of a speed class: speeds within about a tenth, by which benchmarks of one machine differ, count
/// as equal.
const CLASS_WIDTH: f64 = 0.1;

/// Number of speed classes on either side of the standard machine.
const CLASSES: i64 = 100;
/// Maximum of the free CPUs that count, in thousandths: the speed class uses the bits above.
const FREE_MAX: u64 = (1 << 48) - 1;

/// A worker's sort key: its speed class and free CPUs combined, attempts queued there, and its index. The lowest comes
/// first.
pub(crate) type Rank = (u64, u32, WorkerIx);

/// Returns the speed class of a speed; 0 is that of the standard machine.
pub(crate) fn speed_class(speed: f64) -> i64 {
    let class = (speed.max(1e-6).ln() / CLASS_WIDTH).round() as i64;
    class.clamp(-CLASSES, CLASSES)
}

/// Returns the sort key of a worker with `free_milli` thousandths of CPUs free.
pub(crate) fn rank(speed: f64, free_milli: u64, queued: u32, ix: WorkerIx) -> Rank {
    let behind = (CLASSES - speed_class(speed)) as u64;
    let taken = FREE_MAX - free_milli.min(FREE_MAX);
    ((behind << 48) | taken, queued, ix)
}

fn free(rank: &Rank) -> u64 {
    FREE_MAX - (rank.0 & FREE_MAX)
}

/// The workers that may be given work and have CPUs free.
#[derive(Debug, Default)]
pub(crate) struct CapacityIndex {
    ranks: BTreeSet<Rank>,
    /// How many workers have this many thousandths of CPUs free.
    free: BTreeMap<u64, u32>,
}

impl CapacityIndex {
    /// Moves a worker from its old key to its new one.
    pub fn update(&mut self, from: Option<Rank>, to: Option<Rank>) {
        if let Some(rank) = from {
            self.ranks.remove(&rank);
            if let Some(count) = self.free.get_mut(&free(&rank)) {
                *count -= 1;
                if *count == 0 {
                    self.free.remove(&free(&rank));
                }
            }
        }
        if let Some(rank) = to {
            self.ranks.insert(rank);
            *self.free.entry(free(&rank)).or_default() += 1;
        }
    }

    /// The most free CPUs of any worker, in thousandths.
    pub fn free_max(&self) -> u64 {
        self.free.last_key_value().map_or(0, |(free, _)| *free)
    }

    /// Returns whether no worker has CPUs free.
    pub fn is_empty(&self) -> bool {
        self.ranks.is_empty()
    }

    /// The number of workers with CPUs free.
    pub fn len(&self) -> usize {
        self.ranks.len()
    }

    /// All of them, best first.
    pub fn iter(&self) -> impl Iterator<Item = WorkerIx> + '_ {
        self.ranks.iter().map(|(_, _, ix)| *ix)
    }

    /// Those with at least `need` thousandths of CPUs free, best first.
    pub fn with(&self, need: u64) -> impl Iterator<Item = WorkerIx> + '_ {
        let mut rest = self.ranks.range(..);
        std::iter::from_fn(move || {
            loop {
                let rank = rest.next()?;
                if free(rank) >= need {
                    return Some(rank.2);
                }
                let behind = (rank.0 | FREE_MAX, u32::MAX, WorkerIx::MAX);
                rest = self
                    .ranks
                    .range((Bound::Excluded(behind), Bound::Unbounded));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_workers_come_first_then_those_with_most_room() {
        let mut room = CapacityIndex::default();
        let rank = |speed, free, ix| rank(speed, free, 0, ix);
        for (speed, free, ix) in [
            (1.0, 4000, 0),
            (1.02, 8000, 1),
            (2.0, 1000, 2),
            (0.5, 8000, 3),
        ] {
            room.update(None, Some(rank(speed, free, ix)));
        }
        assert_eq!(room.iter().collect::<Vec<_>>(), [2, 1, 0, 3]);
        assert_eq!(room.with(2000).collect::<Vec<_>>(), [1, 0, 3]);
        assert_eq!(room.with(8000).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(room.with(8001).count(), 0);
        assert_eq!(room.free_max(), 8000);
        room.update(Some(rank(1.02, 8000, 1)), Some(rank(1.02, 500, 1)));
        room.update(Some(rank(0.5, 8000, 3)), None);
        assert_eq!(room.iter().collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!((room.free_max(), room.len()), (4000, 3));
    }
}
