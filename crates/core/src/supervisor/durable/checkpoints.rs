//! The newest checkpoint of each task that has one: at most one for each task that is not done. Supervisors hold it, as they
//! hold results.

use crate::supervisor::durable::change::Stale;
use crate::supervisor::durable::job::{EndedAttempt, Job};
use hedge_model::ending::Fault;
use hedge_model::record::JobEnd;
use hedge_model::{Checkpoint, Hash, PeerId, Time};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// A checkpoint that is recorded.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RecordedCheckpoint {
    pub(crate) checkpoint: Arc<Checkpoint>,
    pub(crate) worker: PeerId,
    /// When it was made.
    pub(crate) made: Time,
}

impl Job {
    /// The newest checkpoint of a task.
    pub(crate) fn checkpoint_of(&self, number: u32) -> Option<&RecordedCheckpoint> {
        self.checkpoints.get(&number).map(|recorded| &**recorded)
    }

    /// The blobs of all checkpoints, by hash, with sizes in bytes.
    pub(crate) fn checkpoint_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let all = self.checkpoints.values();
        all.flat_map(|recorded| recorded.checkpoint.blobs())
    }

    /// A task has a newer checkpoint. Gives the blobs that it does not need any more.
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

    /// A task needs its checkpoint no more. Gives the blobs of it.
    pub(crate) fn drop_checkpoint(&mut self, number: u32) -> Vec<Hash> {
        let old = self.checkpoints.remove(&number);
        old.map_or_else(Vec::new, |old| without(&old, |_| false))
    }

    /// An attempt ended. Where it failed by its task's own fault after an earlier attempt made the checkpoint, it went on
    /// from it, in vain: the next one does not. Gives the blobs that are not needed for that any more.
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

    /// The job has ended: only one that failed keeps its checkpoints, to be retried. Gives the blobs of all that it had.
    pub(crate) fn retire_checkpoints(&mut self) -> Vec<Hash> {
        let blobs = self.checkpoint_blobs().map(|(hash, _)| hash).collect();
        if !matches!(self.ended, Some((JobEnd::Failed { .. }, _))) {
            self.checkpoints = OrdMap::new();
        }
        blobs
    }

    /// What is wrong with the checkpoints, if anything is.
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
