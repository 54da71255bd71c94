//! The newest checkpoint of each task, at most one for each task that is not done. Supervisors replicate checkpoints
//! like results.

use crate::supervisor::durable::change::Stale;
use crate::supervisor::durable::job::{EndedAttempt, Job};
use hedge_model::ending::Fault;
use hedge_model::record::JobEnd;
use hedge_model::{Checkpoint, Hash, PeerId, Time};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A recorded checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedCheckpoint {
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) worker: PeerId,
    /// When the attempt made it.
    pub(crate) made: Time,
}

impl Job {
    /// Returns the newest checkpoint of a task.
    pub(crate) fn checkpoint_of(&self, number: u32) -> Option<&RecordedCheckpoint> {
        self.checkpoints.get(&number).map(|recorded| &**recorded)
    }

    /// The blobs of all checkpoints, with sizes in bytes.
    pub(crate) fn checkpoint_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let all = self.checkpoints.values();
        all.flat_map(|recorded| recorded.checkpoint.blobs())
    }

    /// Records a newer checkpoint of a task. Returns the blobs of the previous one that it does not share.
    pub(crate) fn note_checkpoint(
        &mut self,
        recorded: RecordedCheckpoint,
    ) -> Result<Vec<Hash>, Stale> {
        let attempt = recorded.checkpoint.id.attempt;
        let task = self.active_task(attempt.task)?;
        if !task.is_open() {
            return Err("the task is decided");
        }
        if task.generation != attempt.generation {
            return Err("the attempt is of an earlier generation");
        }
        let new = recorded.checkpoint.clone();
        let old = self
            .checkpoints
            .insert(attempt.task.number, Arc::new(recorded));
        let needed = |hash: &Hash| new.blobs().any(|(other, _)| other == *hash);
        Ok(old.map_or_else(Vec::new, |old| without(&old, needed)))
    }

    /// Drops a task's checkpoint. Returns its blobs.
    pub(crate) fn drop_checkpoint(&mut self, number: u32) -> Vec<Hash> {
        let old = self.checkpoints.remove(&number);
        old.map_or_else(Vec::new, |old| without(&old, |_| false))
    }

    /// Drops a task's checkpoint if it did not help: the ended attempt failed by its task's own fault, and an earlier
    /// attempt made the checkpoint. Retries start without it. Returns the blobs of a dropped checkpoint.
    pub(crate) fn distrust_checkpoint(&mut self, ended: &EndedAttempt) -> Vec<Hash> {
        let id = ended.attempt;
        let known = self.checkpoint_of(id.task.number);
        let earlier = known.is_some_and(|recorded| recorded.checkpoint.id.attempt < id);
        let task = self.tasks.get(id.task.number as usize);
        let current = task.is_some_and(|task| task.generation == id.generation);
        if ended.end.fault() == Fault::Task && earlier && current && self.active() {
            return self.drop_checkpoint(id.task.number);
        }
        Vec::new()
    }

    /// Drops the checkpoints of an ended job; a failed job keeps them for a retry. Returns the blobs of all that it
    /// had.
    pub(crate) fn retire_checkpoints(&mut self) -> Vec<Hash> {
        let blobs = self.checkpoint_blobs().map(|(hash, _)| hash).collect();
        if !matches!(self.ended, Some((JobEnd::Failed { .. }, _))) {
            self.checkpoints = OrdMap::new();
        }
        blobs
    }

    /// Checks the invariants of the checkpoints. The error describes a broken one.
    pub(crate) fn check_checkpoints(&self) -> Result<(), String> {
        for (number, recorded) in &self.checkpoints {
            let id = recorded.checkpoint.id.attempt;
            let Some(task) = self.tasks.get(*number as usize) else {
                return Err(format!(
                    "there is a checkpoint of task {number}, but no such task"
                ));
            };
            if id.task.number != *number || id.generation > task.generation {
                return Err(format!("task {number} has the checkpoint of {id}"));
            }
            if task.done().is_some() {
                return Err(format!("task {number} is done and has a checkpoint"));
            }
        }
        match self.ended {
            Some((JobEnd::Done | JobEnd::Cancelled, _)) if !self.checkpoints.is_empty() => {
                Err("it has ended for good and has checkpoints".to_owned())
            }
            _ => Ok(()),
        }
    }
}

fn without(recorded: &RecordedCheckpoint, needed: impl Fn(&Hash) -> bool) -> Vec<Hash> {
    let blobs = recorded.checkpoint.blobs().map(|(hash, _)| hash);
    blobs.filter(|hash| !needed(hash)).collect()
}
