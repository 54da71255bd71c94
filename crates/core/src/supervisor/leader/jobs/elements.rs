//! Element-wise dependencies: task i of a group waits for task i of another group. When a task is done, only its own
//! dependents are offered again, so the cost of a completion does not depend on the size of the groups.

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::Leadership;
use hedge_model::{Hash, TaskId};

impl Leadership<'_> {
    /// Updates the offers of the element-wise dependents of a task that is done or has lost its outputs.
    pub(crate) fn update_element_readers(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let waiting = element_readers(job, id);
        for task in waiting {
            self.leader.blocked.recheck_own_inputs(task);
            self.update_task_offers(task);
        }
    }

    /// Drops the element-wise inputs of a task that is done, unless another task or a client will read them.
    pub(crate) fn release_consumed(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let mut hashes = Vec::new();
        for read in element_inputs(job, id).filter(|read| read.unneeded) {
            for (hash, _) in read.outputs {
                self.leader.blobs.remove_producer(hash, read.producer);
                hashes.push(hash);
            }
        }
        if !hashes.is_empty() {
            self.drop_unused(hashes);
        }
    }

    /// Records again where the element-wise inputs of a task that runs again are: it needs them, and they may still
    /// exist.
    pub(crate) fn reclaim_consumed(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        for read in element_inputs(job, id) {
            self.note_outputs(read.producer, &read.outputs, None);
        }
    }
}

/// What a task reads from the task with the same index in another group.
struct ElementInput {
    producer: TaskId,
    outputs: Vec<(Hash, u64)>,
    /// Whether no task or client will read it any more.
    unneeded: bool,
}

fn element_inputs(job: &Job, id: TaskId) -> impl Iterator<Item = ElementInput> + '_ {
    let spec = &job.spec;
    let group = spec.group_of(id.number);
    let offset = id.number - spec.first(group);
    spec.reads_each(group).map(move |other| {
        let done = job.element(other, offset).done();
        ElementInput {
            producer: TaskId {
                job: id.job,
                number: spec.first(other) + offset,
            },
            outputs: done.into_iter().flat_map(|done| done.blobs()).collect(),
            unneeded: job.outputs_unneeded(other, offset),
        }
    })
}

/// Returns the tasks that wait for the task `id` by element-wise dependencies.
fn element_readers(job: &Job, id: TaskId) -> Vec<TaskId> {
    let spec = &job.spec;
    let group = spec.group_of(id.number);
    let offset = id.number - spec.first(group);
    let next = spec.waited_by(group).iter().map(|next| *next as usize);
    next.filter(|next| spec.is_each(*next, group))
        .map(|next| TaskId {
            job: id.job,
            number: spec.first(next) + offset,
        })
        .collect()
}
