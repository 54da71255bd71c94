//! The catalog of all blobs that the leader knows, with an index by worker.

use super::state::{Blob, BlobEvent, CopyEvent, Replica, Replicas};
use crate::supervisor::leader::WorkerIx;
use hedge_model::{Hash, JobId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// The blobs that the leader knows. A blob that is held nowhere and needed by nothing is removed.
#[derive(Debug, Default)]
pub(crate) struct BlobCatalog {
    blobs: BTreeMap<Hash, Blob>,
    /// The blobs that each worker holds; derived from `blobs`.
    held: BTreeMap<WorkerIx, BTreeSet<Hash>>,
    /// Tasks whose loss of outputs is proposed.
    losing: BTreeSet<TaskId>,
}

/// Where a blob that is not needed any more was held.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub workers: Vec<WorkerIx>,
    /// Whether the own store has to drop it.
    pub own: bool,
    /// The replicas that have to be dropped.
    pub replicas: Replicas,
}

impl BlobCatalog {
    pub fn get(&self, hash: Hash) -> Option<&Blob> {
        self.blobs.get(&hash)
    }

    /// Returns whether a blob is in the own store.
    pub fn is_here(&self, hash: Hash) -> bool {
        self.get(hash).is_some_and(Blob::is_here)
    }

    /// Returns whether a blob is needed, see [`Blob::in_use`].
    pub fn in_use(&self, hash: Hash) -> bool {
        self.get(hash).is_some_and(Blob::in_use)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Hash, &Blob)> {
        self.blobs.iter().map(|(hash, blob)| (*hash, blob))
    }

    /// The blobs that a worker holds.
    pub fn held_by(&self, ix: WorkerIx) -> impl Iterator<Item = Hash> + '_ {
        self.held.get(&ix).into_iter().flatten().copied()
    }

    /// Returns whether a worker holds a blob.
    pub fn holds(&self, ix: WorkerIx, hash: Hash) -> bool {
        let held = self.held.get(&ix);
        held.is_some_and(|held| held.contains(&hash))
    }

    /// Changes where a blob is held; no other function does. Returns whether that changed anything. A blob that was
    /// unknown is added if the event says who holds it.
    pub fn transition(&mut self, hash: Hash, event: BlobEvent) -> bool {
        let holder = match &event {
            BlobEvent::HeldBy(ix) | BlobEvent::NotHeldBy(ix) => Some(*ix),
            _ => None,
        };
        let comes = matches!(
            event,
            BlobEvent::HeldBy(_) | BlobEvent::Own(CopyEvent::Arrived)
        );
        let blob = match comes {
            true => self.blobs.entry(hash).or_default(),
            false => match self.blobs.get_mut(&hash) {
                Some(blob) => blob,
                None => return false,
            },
        };
        let changed = blob.transition(event);
        if let Some(ix) = holder.filter(|_| changed) {
            let held = self.held.entry(ix).or_default();
            match comes {
                true => held.insert(hash),
                false => held.remove(&hash),
            };
        }
        if !comes {
            self.prune(hash);
        }
        changed
    }

    /// Removes the replicas of the supervisor at a position that are in one of the states `of`.
    pub fn forget_replicas(&mut self, position: usize, of: &[Replica]) {
        self.blobs.retain(|_, blob| {
            if of.contains(&blob.replicas().at(position)) {
                blob.transition(BlobEvent::Replica(position, Replica::None));
            }
            !blob.is_unused()
        });
    }

    /// Records that the peer supervisor at a position was told to drop a blob.
    pub fn begin_drop(&mut self, hash: Hash, position: usize) {
        let blob = self.blobs.entry(hash).or_default();
        blob.transition(BlobEvent::Replica(position, Replica::Dropping));
    }

    /// Records that the peer supervisor at a position has dropped a blob as it was told to.
    pub fn confirm_drop(&mut self, hash: Hash, position: usize) {
        if let Some(blob) = self.blobs.get_mut(&hash)
            && blob.replicas().at(position) == Replica::Dropping
        {
            blob.transition(BlobEvent::Replica(position, Replica::None));
        }
        self.prune(hash);
    }

    /// Removes a worker as holder of all blobs. Returns the blobs.
    pub fn clear_worker(&mut self, ix: WorkerIx) -> BTreeSet<Hash> {
        let held = self.held.remove(&ix).unwrap_or_default();
        for hash in &held {
            if let Some(blob) = self.blobs.get_mut(hash) {
                blob.transition(BlobEvent::NotHeldBy(ix));
            }
            self.prune(*hash);
        }
        held
    }

    /// Corrects the size of a known blob, in bytes.
    pub fn set_size(&mut self, hash: Hash, size: u64) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.set_size(size);
        }
    }

    /// Adds a task that produced the blob.
    pub fn add_producer(&mut self, hash: Hash, size: u64, task: TaskId) {
        self.sized(hash, size).add_producer(task);
    }

    /// Removes a task as producer of a blob. Returns whether another task of its job produced the same blob; none if
    /// the blob is unknown.
    pub fn remove_producer(&mut self, hash: Hash, task: TaskId) -> Option<bool> {
        let blob = self.blobs.get_mut(&hash)?;
        blob.remove_producer(task);
        let again = blob.producers().iter().any(|other| other.job == task.job);
        self.prune(hash);
        Some(again)
    }

    /// Adds a job that has the blob as an input.
    pub fn add_reader(&mut self, hash: Hash, size: u64, job: JobId) {
        self.sized(hash, size).add_reader(job);
    }

    /// Adds a claim of a submission that has the blob as an input. A size that is known already is kept until this
    /// client has proven possession.
    pub fn claim(&mut self, hash: Hash, size: u64) {
        let blob = self.blobs.entry(hash).or_default();
        if blob.size() == 0 {
            blob.set_size(size);
        }
        blob.claim();
    }

    /// Removes the claim of a submission that is accepted or refused.
    pub fn release(&mut self, hash: Hash) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.release();
        }
        self.prune(hash);
    }

    /// Retains a blob as a result of an ended job, or as text that a job printed.
    pub fn retain_for(&mut self, hash: Hash, size: u64, job: JobId) {
        self.sized(hash, size).retain_for(job);
    }

    /// Ends the retention of a blob for a job that is removed.
    pub fn end_retention(&mut self, hash: Hash, job: JobId) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.end_retention(job);
        }
        self.prune(hash);
    }

    /// Removes one of the reasons to retain a blob for a job.
    pub fn release_retention(&mut self, hash: Hash, job: JobId) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.release_retention(job);
        }
        self.prune(hash);
    }

    /// Removes an ended job from the producers and readers of a blob, and retains the blob if it is a `result`.
    pub fn job_ended(&mut self, hash: Hash, job: JobId, result: bool) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.release_from(job);
            if result {
                blob.retain_for(job);
            }
        }
        self.prune(hash);
    }

    /// Removes a blob that is not in use. Returns where it has to be dropped. A retained blob stays in the own store
    /// only. A blob that is being fetched is dropped when it arrives.
    pub fn drop_unused(&mut self, hash: Hash) -> Option<Dropped> {
        let blob = self.blobs.get(&hash).filter(|blob| !blob.in_use())?;
        let workers = blob.workers().to_vec();
        let stays = blob.is_here() && blob.is_retained();
        let dropped = Dropped {
            own: blob.is_here() && !stays,
            replicas: match stays {
                true => Replicas::default(),
                false => blob.replicas(),
            },
            workers,
        };
        for ix in &dropped.workers {
            self.transition(hash, BlobEvent::NotHeldBy(*ix));
        }
        if !stays {
            let left = self.blobs.get(&hash).and_then(Blob::without_use);
            match left {
                Some(left) => self.blobs.insert(hash, left),
                None => self.blobs.remove(&hash),
            };
        }
        Some(dropped)
    }

    /// Records that the loss of a task's outputs is proposed. Returns false if it was already.
    pub fn begin_loss(&mut self, task: TaskId) -> bool {
        self.losing.insert(task)
    }

    /// Records that the loss of a task's outputs is committed.
    pub fn end_loss(&mut self, task: TaskId) {
        self.losing.remove(&task);
    }

    /// Removes the proposed losses of a job that has ended.
    pub fn forget_losses(&mut self, job: JobId) {
        self.losing.retain(|task| task.job != job);
    }

    /// Checks the invariants of the catalog.
    pub fn check(&self) -> Result<(), String> {
        let mut held: BTreeMap<WorkerIx, BTreeSet<Hash>> = BTreeMap::new();
        for (hash, blob) in &self.blobs {
            blob.check().map_err(|what| format!("blob {hash} {what}"))?;
            for ix in blob.workers() {
                if !held.entry(*ix).or_default().insert(*hash) {
                    return Err(format!("blob {hash} names worker {ix} twice"));
                }
            }
        }
        let known = self.held.iter().filter(|(_, held)| !held.is_empty());
        match known.eq(held.iter()) {
            true => Ok(()),
            false => Err("what workers hold differs from who holds the blobs".to_owned()),
        }
    }

    fn sized(&mut self, hash: Hash, size: u64) -> &mut Blob {
        let blob = self.blobs.entry(hash).or_default();
        blob.set_size(size);
        blob
    }

    fn prune(&mut self, hash: Hash) {
        if self.blobs.get(&hash).is_some_and(Blob::is_unused) {
            self.blobs.remove(&hash);
        }
    }
}
