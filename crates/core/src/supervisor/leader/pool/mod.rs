//! The workers: what each offers and has in hand, how closely it is watched, and how it attaches and leaves.

pub(crate) mod attach;
pub(crate) mod attention;
pub(crate) mod capacity;
pub(crate) mod departure;
pub(crate) mod index;
pub(crate) mod link;
pub(crate) mod owner;
pub(crate) mod reliability;
pub(crate) mod sent;
pub(crate) mod state;
pub(crate) mod worker;

use hedge_model::PeerId;
use index::{CapacityIndex, Rank, rank, speed_class};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use worker::Worker;

/// A worker's index in the [`Pool`], which never changes during the leader's lifetime.
pub(crate) type WorkerIx = u32;

/// All workers that this leader knows, with the indexes that placement uses.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    workers: Vec<Worker>,
    by_peer: BTreeMap<PeerId, WorkerIx>,
    /// Workers that may be given work and have CPUs free.
    capacity: CapacityIndex,
    /// All workers that may be given work, by the number of attempts queued there.
    queues: BTreeSet<(u32, WorkerIx)>,
    /// The same workers by speed class, the fastest first.
    by_speed_class: BTreeSet<(i64, WorkerIx)>,
    /// The keys of each worker in these indexes.
    keys: Vec<Keys>,
    version: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Keys {
    capacity: Option<Rank>,
    queue: Option<(u32, WorkerIx)>,
    speed_class: Option<(i64, WorkerIx)>,
}

impl Pool {
    /// Finds a worker by its key.
    pub fn find(&self, peer: PeerId) -> Option<WorkerIx> {
        self.by_peer.get(&peer).copied()
    }

    /// Finds a worker by its key, or adds the one that `new` returns.
    pub fn find_or_add(&mut self, peer: PeerId, new: impl FnOnce() -> Worker) -> WorkerIx {
        let next = self.workers.len() as WorkerIx;
        let ix = *self.by_peer.entry(peer).or_insert(next);
        if ix == next {
            self.workers.push(new());
            self.keys.push(Keys::default());
        }
        ix
    }

    pub fn len(&self) -> usize {
        self.workers.len()
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Worker> {
        self.workers.iter()
    }

    pub fn iter_mut(&mut self) -> std::slice::IterMut<'_, Worker> {
        self.workers.iter_mut()
    }

    /// Workers that may be given work and have CPUs free.
    pub fn capacity_index(&self) -> &CapacityIndex {
        &self.capacity
    }

    /// All workers that may be given work, by the number of attempts queued there.
    pub fn queues(&self) -> &BTreeSet<(u32, WorkerIx)> {
        &self.queues
    }

    /// The same workers by speed class, the fastest first.
    pub fn by_speed_class(&self) -> &BTreeSet<(i64, WorkerIx)> {
        &self.by_speed_class
    }

    /// Returns a worker's position in that order; none if it may not be given work.
    pub fn speed_class_of(&self, ix: WorkerIx) -> Option<i64> {
        self.keys[ix as usize].speed_class.map(|(class, _)| class)
    }

    /// Increases when a worker attaches, leaves or changes what it offers.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the throughput of all workers that may be given work: seconds of work at standard speed per second.
    pub fn throughput(&self) -> f64 {
        let usable = self.workers.iter().filter(|worker| worker.usable());
        usable
            .map(|worker| {
                worker.speed() * (worker.info().resources.cpus_milli as f64 / 1e3).max(1.0)
            })
            .sum()
    }

    /// Updates the indexes and the version after a worker attached, left, or became usable or unusable.
    pub(super) fn changed(&mut self, ix: WorkerIx) {
        self.reindex(ix);
        self.version += 1;
    }

    /// Updates a worker's keys in the indexes from its free resources, queue and state.
    pub fn reindex(&mut self, ix: WorkerIx) {
        let (worker, keys) = (&self.workers[ix as usize], &mut self.keys[ix as usize]);
        let queued = worker.load().queued().len() as u32;
        let usable = worker.usable();
        let free = worker.load().free().cpus_milli;
        let capacity = (usable && free > 0).then(|| rank(worker.speed(), free, queued, ix));
        if keys.capacity != capacity {
            let old = std::mem::replace(&mut keys.capacity, capacity);
            self.capacity.update(old, capacity);
        }
        let queue = usable.then_some((queued, ix));
        if keys.queue != queue {
            if let Some(old) = std::mem::replace(&mut keys.queue, queue) {
                self.queues.remove(&old);
            }
            self.queues.extend(queue);
        }
        let class = usable.then(|| (-speed_class(worker.speed()), ix));
        if keys.speed_class != class {
            if let Some(old) = std::mem::replace(&mut keys.speed_class, class) {
                self.by_speed_class.remove(&old);
            }
            self.by_speed_class.extend(class);
        }
    }
}

impl Index<WorkerIx> for Pool {
    type Output = Worker;

    fn index(&self, ix: WorkerIx) -> &Worker {
        &self.workers[ix as usize]
    }
}

impl IndexMut<WorkerIx> for Pool {
    fn index_mut(&mut self, ix: WorkerIx) -> &mut Worker {
        &mut self.workers[ix as usize]
    }
}
