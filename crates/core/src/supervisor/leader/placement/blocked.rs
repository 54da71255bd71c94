//! Groups and tasks that may not start now although their dependencies are done.

use crate::supervisor::leader::WorkerIx;
use hedge_model::{JobId, TaskId};
use std::collections::BTreeSet;

/// Groups and tasks that cannot start at all, or not on certain workers.
#[derive(Debug, Default)]
pub(crate) struct BlockedGroups {
    /// Groups whose inputs are unreachable now.
    inputs_unreachable: BTreeSet<(JobId, u32)>,
    /// Tasks whose own inputs are unreachable now.
    own_inputs_unreachable: BTreeSet<TaskId>,
    /// Workers that are excluded from a group for a while, because they could not fetch its inputs or failed after
    /// other workers.
    excluded: BTreeSet<(JobId, u32, WorkerIx)>,
}

impl BlockedGroups {
    /// Returns whether the inputs of a group are unreachable.
    pub fn lacks_inputs(&self, job: JobId, group: u32) -> bool {
        self.inputs_unreachable.contains(&(job, group))
    }

    /// Records that the inputs of a group are unreachable.
    pub fn set_inputs_unreachable(&mut self, job: JobId, group: u32) {
        self.inputs_unreachable.insert((job, group));
    }

    /// Lets the inputs of a group be looked up again, because the outputs that it reads have changed.
    pub fn recheck_inputs(&mut self, job: JobId, group: u32) {
        self.inputs_unreachable.remove(&(job, group));
    }

    /// Removes and returns all groups with unreachable inputs, in their order.
    pub fn take_inputs_unreachable(&mut self) -> BTreeSet<(JobId, u32)> {
        std::mem::take(&mut self.inputs_unreachable)
    }

    /// Returns whether a task's own inputs are unreachable.
    pub fn lacks_own_inputs(&self, task: TaskId) -> bool {
        self.own_inputs_unreachable.contains(&task)
    }

    /// Records that a task's own inputs are unreachable.
    pub fn set_own_inputs_unreachable(&mut self, task: TaskId) {
        self.own_inputs_unreachable.insert(task);
    }

    /// Lets a task's own inputs be looked up again. Returns whether they were unreachable.
    pub fn recheck_own_inputs(&mut self, task: TaskId) -> bool {
        self.own_inputs_unreachable.remove(&task)
    }

    /// Tasks whose own inputs are unreachable.
    pub fn own_inputs_unreachable(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.own_inputs_unreachable.iter().copied()
    }

    /// Returns whether a worker is excluded from a group now.
    pub fn excludes(&self, job: JobId, group: u32, ix: WorkerIx) -> bool {
        // Called for each worker that is tried for an attempt; usually none is excluded.
        !self.excluded.is_empty() && self.excluded.contains(&(job, group, ix))
    }

    /// Excludes a worker from a group. Returns false if it was already.
    pub fn exclude(&mut self, job: JobId, group: u32, ix: WorkerIx) -> bool {
        self.excluded.insert((job, group, ix))
    }

    /// Ends the exclusion of a worker from a group.
    pub fn readmit(&mut self, job: JobId, group: u32, ix: WorkerIx) {
        self.excluded.remove(&(job, group, ix));
    }

    /// Removes everything about a job that has ended.
    pub fn forget(&mut self, id: JobId) {
        self.inputs_unreachable.retain(|(job, _)| *job != id);
        self.own_inputs_unreachable.retain(|task| task.job != id);
        self.excluded.retain(|(job, ..)| *job != id);
    }
}
