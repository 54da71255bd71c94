//! Groups and tasks that may not start now although their dependencies are done.

use crate::supervisor::leader::WorkerIx;
use hedge_model::{JobId, TaskId};
use std::collections::BTreeSet;

/// Groups and tasks that cannot start at all, or not on certain workers.
#[derive(Debug, Default)]
pub(crate) struct BlockedGroups {
    /// Groups whose inputs are unreachable now.
    without_inputs: BTreeSet<(JobId, u32)>,
    /// Tasks whose own inputs are unreachable now.
    without_own_inputs: BTreeSet<TaskId>,
    /// Groups that a worker does not get for a while, because it could not fetch their inputs or failed after other
    /// workers.
    barred: BTreeSet<(JobId, u32, WorkerIx)>,
}

impl BlockedGroups {
    /// Returns whether the inputs of a group are unreachable.
    pub fn lacks_inputs(&self, job: JobId, group: u32) -> bool {
        self.without_inputs.contains(&(job, group))
    }

    /// Records that the inputs of a group are unreachable.
    pub fn block(&mut self, job: JobId, group: u32) {
        self.without_inputs.insert((job, group));
    }

    /// Removes a group because the outputs that it reads have changed, so that its inputs are looked up again.
    pub fn unblock(&mut self, job: JobId, group: u32) {
        self.without_inputs.remove(&(job, group));
    }

    /// Removes and returns all groups with unreachable inputs, in their order.
    pub fn take_without_inputs(&mut self) -> BTreeSet<(JobId, u32)> {
        std::mem::take(&mut self.without_inputs)
    }

    /// Returns whether a task's own inputs are unreachable.
    pub fn lacks_own_inputs(&self, task: TaskId) -> bool {
        self.without_own_inputs.contains(&task)
    }

    /// Records that a task's own inputs are unreachable.
    pub fn block_task(&mut self, task: TaskId) {
        self.without_own_inputs.insert(task);
    }

    /// Removes a task whose own inputs may be reachable again. Returns whether it was blocked.
    pub fn unblock_task(&mut self, task: TaskId) -> bool {
        self.without_own_inputs.remove(&task)
    }

    /// Tasks whose own inputs are unreachable.
    pub fn without_own_inputs(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.without_own_inputs.iter().copied()
    }

    /// Returns whether a group is kept from a worker now.
    pub fn is_barred(&self, job: JobId, group: u32, ix: WorkerIx) -> bool {
        // Called for each worker that is tried for an attempt; usually no group is barred.
        !self.barred.is_empty() && self.barred.contains(&(job, group, ix))
    }

    /// Keeps a group from a worker. Returns false if it was already.
    pub fn bar(&mut self, job: JobId, group: u32, ix: WorkerIx) -> bool {
        self.barred.insert((job, group, ix))
    }

    /// Lets a worker get a group again.
    pub fn unbar(&mut self, job: JobId, group: u32, ix: WorkerIx) {
        self.barred.remove(&(job, group, ix));
    }

    /// Removes everything about a job that has ended.
    pub fn forget(&mut self, id: JobId) {
        self.without_inputs.retain(|(job, _)| *job != id);
        self.without_own_inputs.retain(|task| task.job != id);
        self.barred.retain(|(job, ..)| *job != id);
    }
}
