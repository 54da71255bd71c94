//! Groups that may not start now though all that they wait for is done.

use crate::supervisor::leader::WorkerIx;
use hedge_model::{JobId, TaskId};
use std::collections::BTreeSet;

/// Groups that cannot start anywhere, or not at certain workers.
#[derive(Debug, Default)]
pub(crate) struct BlockedGroups {
    /// Groups whose inputs are out of reach now.
    without_inputs: BTreeSet<(JobId, u32)>,
    /// Tasks of which what they alone read is out of reach now.
    without_own_inputs: BTreeSet<TaskId>,
    /// Groups that a worker is not given for a while, because it could not fetch their inputs or failed after others.
    barred: BTreeSet<(JobId, u32, WorkerIx)>,
}

impl BlockedGroups {
    /// Whether the inputs of a group are out of reach.
    pub fn lacks_inputs(&self, job: JobId, group: u32) -> bool {
        self.without_inputs.contains(&(job, group))
    }

    /// The inputs of a group are out of reach.
    pub fn block(&mut self, job: JobId, group: u32) {
        self.without_inputs.insert((job, group));
    }

    /// What the tasks before a group left has changed: whether its inputs are within reach is to be found anew.
    pub fn unblock(&mut self, job: JobId, group: u32) {
        self.without_inputs.remove(&(job, group));
    }

    /// Takes out all groups whose inputs were out of reach, in their order.
    pub fn take_without_inputs(&mut self) -> BTreeSet<(JobId, u32)> {
        std::mem::take(&mut self.without_inputs)
    }

    /// Whether what a task alone reads is out of reach.
    pub fn lacks_own_inputs(&self, task: TaskId) -> bool {
        self.without_own_inputs.contains(&task)
    }

    /// What a task alone reads is out of reach.
    pub fn block_task(&mut self, task: TaskId) {
        self.without_own_inputs.insert(task);
    }

    /// What a task alone reads may be within reach; says whether it was not.
    pub fn unblock_task(&mut self, task: TaskId) -> bool {
        self.without_own_inputs.remove(&task)
    }

    /// Tasks of which what they alone read is out of reach.
    pub fn without_own_inputs(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.without_own_inputs.iter().copied()
    }

    /// Whether a worker is not given a group now.
    pub fn is_barred(&self, job: JobId, group: u32, ix: WorkerIx) -> bool {
        // Asked for each worker that an attempt is tried for, and mostly none is barred.
        !self.barred.is_empty() && self.barred.contains(&(job, group, ix))
    }

    /// A worker is not given a group; says whether that is new.
    pub fn bar(&mut self, job: JobId, group: u32, ix: WorkerIx) -> bool {
        self.barred.insert((job, group, ix))
    }

    /// A worker may be given a group again.
    pub fn unbar(&mut self, job: JobId, group: u32, ix: WorkerIx) {
        self.barred.remove(&(job, group, ix));
    }

    /// A job has ended.
    pub fn forget(&mut self, id: JobId) {
        self.without_inputs.retain(|(job, _)| *job != id);
        self.without_own_inputs.retain(|task| task.job != id);
        self.barred.retain(|(job, ..)| *job != id);
    }
}
