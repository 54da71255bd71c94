//! Matches the lanes of the ready queues with the pool's free slots.

use crate::supervisor::leader::placement::queue::{Entry, Lane, Shape, Skip};
use crate::supervisor::leader::{Leader, WorkerIx};

impl Leader {
    /// Returns the first offer, in order, that may be placed.
    pub fn next_offer(&self, skip: &Skip) -> Option<(Lane, Entry)> {
        if self.pool.queues().is_empty() {
            return None;
        }
        // If there are copies that yield, offers that need their slots count too.
        let free_max = if self.yielding.is_empty() {
            self.pool.capacity_index().free_max()
        } else {
            u64::MAX
        };
        self.ready.first(free_max, skip)
    }

    /// Returns the workers with enough free resources for a shape, best first. For a shape without CPUs, those with the
    /// shortest queues come first.
    pub fn with_free_slots<'a>(&'a self, shape: &'a Shape) -> impl Iterator<Item = WorkerIx> + 'a {
        let need = shape.resources.cpus_milli;
        let idle = (need == 0).then(|| self.pool.queues().iter().map(|(_, ix)| *ix));
        let idle = idle.into_iter().flatten();
        let with_cpus = (need > 0).then(|| self.pool.capacity_index().with(need));
        let with_cpus = with_cpus.into_iter().flatten();
        idle.chain(with_cpus).filter(move |ix| {
            let worker = &self.pool[*ix];
            worker.load().free().covers(&shape.resources) && shape.fits(worker.info())
        })
    }

    /// Returns whether a worker has a free slot for a shape.
    pub fn has_free_slot(&self, shape: &Shape) -> bool {
        self.with_free_slots(shape).next().is_some()
    }

    /// Offers lanes again that a worker can serve now that it has more free resources or is usable again.
    pub fn retry_lanes(&mut self, ix: WorkerIx) {
        let worker = &self.pool[ix];
        if !worker.usable() {
            return;
        }
        let shapes = &self.shapes;
        self.ready.retry(|lane| {
            let shape = shapes.get(lane.shape);
            (lane.short || worker.load().free().covers(&shape.resources))
                && shape.fits(worker.info())
        });
    }

    /// Updates the pool's indexes and offers all lanes again after a worker connected, left, or became usable or
    /// unusable.
    pub fn pool_changed(&mut self, ix: WorkerIx) {
        self.pool.changed(ix);
        self.ready.retry(|_| true);
        self.fit.recheck(self.ready.lanes());
    }
}
