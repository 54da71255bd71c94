//! The workers: what each offers and has, how closely it is watched, and how it comes and goes.

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
use index::{CapacityIndex, Rank, rank, step};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Index, IndexMut};
use worker::Worker;

/// A worker's place in the [`Pool`]; kept for as long as the leader lives.
pub(crate) type WorkerIx = u32;

/// All workers that this leader has heard of, and in which order they are given work.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    workers: Vec<Worker>,
    by_peer: BTreeMap<PeerId, WorkerIx>,
    /// Workers that may be given work and have CPUs free.
    room: CapacityIndex,
    /// All workers that may be given work, by how many attempts wait there.
    queues: BTreeSet<(u32, WorkerIx)>,
    /// The same, the fastest first, by speed class.
    by_speed_class: BTreeSet<(i64, WorkerIx)>,
    /// Where each worker stands in these.
    keys: Vec<Keys>,
    version: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Keys {
    room: Option<Rank>,
    queue: Option<(u32, WorkerIx)>,
    speed_class: Option<(i64, WorkerIx)>,
}

impl Pool {
    /// The worker with this key.
    pub fn find(&self, peer: PeerId) -> Option<WorkerIx> {
        self.by_peer.get(&peer).copied()
    }

    /// The worker with this key, which `new` describes where it was not heard of before.
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
        &self.room
    }

    /// All workers that may be given work, by how many attempts wait there.
    pub fn queues(&self) -> &BTreeSet<(u32, WorkerIx)> {
        &self.queues
    }

    /// The same, the fastest first, by speed class.
    pub fn by_speed_class(&self) -> &BTreeSet<(i64, WorkerIx)> {
        &self.by_speed_class
    }

    /// Where a worker stands in that order; none where it may not be given work.
    pub fn speed_class_of(&self, ix: WorkerIx) -> Option<i64> {
        self.keys[ix as usize].speed_class.map(|(class, _)| class)
    }

    /// Grows when a worker comes, goes or changes what it offers.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What all workers that may be given work do together: seconds of work at standard speed in a second.
    pub fn throughput(&self) -> f64 {
        let usable = self.workers.iter().filter(|worker| worker.usable());
        usable
            .map(|worker| {
                worker.speed() * (worker.info().resources.cpus_milli as f64 / 1e3).max(1.0)
            })
            .sum()
    }

    /// A worker came, went, or takes work again or no more.
    pub(super) fn changed(&mut self, ix: WorkerIx) {
        self.reindex(ix);
        self.version += 1;
    }

    /// Puts a worker where its free resources, queue and state say that it belongs.
    pub fn reindex(&mut self, ix: WorkerIx) {
        let (worker, keys) = (&self.workers[ix as usize], &mut self.keys[ix as usize]);
        let queued = worker.load().queued().len() as u32;
        let usable = worker.usable();
        let free = worker.load().free().cpus_milli;
        let room = (usable && free > 0).then(|| rank(worker.speed(), free, queued, ix));
        if keys.room != room {
            let old = std::mem::replace(&mut keys.room, room);
            self.room.update(old, room);
        }
        let queue = usable.then_some((queued, ix));
        if keys.queue != queue {
            if let Some(old) = std::mem::replace(&mut keys.queue, queue) {
                self.queues.remove(&old);
            }
            self.queues.extend(queue);
        }
        let class = usable.then(|| (-step(worker.speed()), ix));
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
