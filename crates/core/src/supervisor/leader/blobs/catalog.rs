//! All blobs that the leader knows, and what follows from where they are.

use super::state::{Blob, BlobEvent, CopyEvent, Replica, Replicas};
use crate::supervisor::leader::WorkerIx;
use hedge_model::{Hash, JobId, TaskId};
use std::collections::{BTreeMap, BTreeSet};

/// The blobs that the leader knows. A blob that nobody needs and that is nowhere is not among them.
#[derive(Debug, Default)]
pub(crate) struct BlobCatalog {
    blobs: BTreeMap<Hash, Blob>,
    /// What each worker holds; follows from the blobs.
    held: BTreeMap<WorkerIx, BTreeSet<Hash>>,
    /// Tasks whose loss of outputs is on its way through the journal.
    losing: BTreeSet<TaskId>,
}

/// Where a blob was that nobody needs any more.
#[derive(Debug)]
pub(crate) struct Dropped {
    pub workers: Vec<WorkerIx>,
    /// Whether the own store is to drop it, too.
    pub own: bool,
    /// The replicas that are to be dropped, too.
    pub replicas: Replicas,
}

impl BlobCatalog {
    pub fn get(&self, hash: Hash) -> Option<&Blob> {
        self.blobs.get(&hash)
    }

    /// Whether it is in the own store.
    pub fn is_here(&self, hash: Hash) -> bool {
        self.get(hash).is_some_and(Blob::is_here)
    }

    /// Whether somebody needs it, see [`Blob::in_use`].
    pub fn in_use(&self, hash: Hash) -> bool {
        self.get(hash).is_some_and(Blob::in_use)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Hash, &Blob)> {
        self.blobs.iter().map(|(hash, blob)| (*hash, blob))
    }

    /// What a worker holds.
    pub fn held_by(&self, ix: WorkerIx) -> impl Iterator<Item = Hash> + '_ {
        self.held.get(&ix).into_iter().flatten().copied()
    }

    /// Whether a worker holds a blob.
    pub fn holds(&self, ix: WorkerIx, hash: Hash) -> bool {
        let held = self.held.get(&ix);
        held.is_some_and(|held| held.contains(&hash))
    }

    /// The only function that changes where a blob is; says whether that is new. A blob that was not known becomes
    /// known where it is somewhere.
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

    /// Another supervisor, by its position, does not stand to any blob like one of these any more.
    pub fn forget_replicas(&mut self, position: usize, of: &[Replica]) {
        self.blobs.retain(|_, blob| {
            if of.contains(&blob.replicas().at(position)) {
                blob.transition(BlobEvent::Replica(position, Replica::None));
            }
            !blob.is_unused()
        });
    }

    /// A worker holds nothing any more, as far as is known; gives what it held.
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

    /// Corrects the size of a blob that is known.
    pub fn set_size(&mut self, hash: Hash, size: u64) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.set_size(size);
        }
    }

    /// A task left it.
    pub fn add_producer(&mut self, hash: Hash, size: u64, task: TaskId) {
        self.sized(hash, size).add_producer(task);
    }

    /// What a task left is lost. Says whether another task of its job left the same; none where the blob is not known.
    pub fn remove_producer(&mut self, hash: Hash, task: TaskId) -> Option<bool> {
        let blob = self.blobs.get_mut(&hash)?;
        blob.remove_producer(task);
        let again = blob.producers().iter().any(|other| other.job == task.job);
        self.prune(hash);
        Some(again)
    }

    /// It is an input of a job.
    pub fn add_reader(&mut self, hash: Hash, size: u64, job: JobId) {
        self.sized(hash, size).add_reader(job);
    }

    /// It is an input of a submission on its way. What another client, or a job, has said of its size stands until
    /// this client has shown that it holds it.
    pub fn claim(&mut self, hash: Hash, size: u64) {
        let blob = self.blobs.entry(hash).or_default();
        if blob.size() == 0 {
            blob.set_size(size);
        }
        blob.claim();
    }

    /// A submission that claimed it is accepted or refused.
    pub fn release(&mut self, hash: Hash) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.release();
        }
        self.prune(hash);
    }

    /// It is a result of an ended job, or a job printed it.
    pub fn retain_for(&mut self, hash: Hash, size: u64, job: JobId) {
        self.sized(hash, size).retain_for(job);
    }

    /// A job is forgotten for which it was kept.
    pub fn end_retention(&mut self, hash: Hash, job: JobId) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.end_retention(job);
        }
        self.prune(hash);
    }

    /// One of the reasons is gone for which it was kept for a job.
    pub fn release_retention(&mut self, hash: Hash, job: JobId) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.release_retention(job);
        }
        self.prune(hash);
    }

    /// A job has ended that made or read it; it is kept as a result or not.
    pub fn job_ended(&mut self, hash: Hash, job: JobId, result: bool) {
        if let Some(blob) = self.blobs.get_mut(&hash) {
            blob.release_from(job);
            if result {
                blob.retain_for(job);
            }
        }
        self.prune(hash);
    }

    /// Forgets a blob that nobody needs; gives where it is to be dropped. What is kept stays in the own store alone,
    /// and what is on its way is dropped when it has come.
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
            let fetching = self
                .blobs
                .remove(&hash)
                .is_some_and(|blob| blob.is_fetching());
            if fetching {
                let blob = self.blobs.entry(hash).or_default();
                blob.transition(BlobEvent::Own(CopyEvent::Wanted));
            }
        }
        Some(dropped)
    }

    /// The loss of a task's outputs is about to be recorded; says whether it was not before.
    pub fn begin_loss(&mut self, task: TaskId) -> bool {
        self.losing.insert(task)
    }

    /// The loss of a task's outputs is recorded.
    pub fn end_loss(&mut self, task: TaskId) {
        self.losing.remove(&task);
    }

    /// A job has ended: nothing of it is lost any more.
    pub fn forget_losses(&mut self, job: JobId) {
        self.losing.retain(|task| task.job != job);
    }

    /// What is wrong with it.
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
