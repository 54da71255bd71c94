//! Tasks that wait for the task at their own place in another group. Each is offered again when that one is done: what
//! waits costs nothing, and what is done costs the same however many tasks there are.

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::Leadership;
use hedge_model::{Hash, TaskId};

impl Leadership<'_> {
    /// A task is done, or has lost its outputs: those that wait for it at their own place may start, or may not any more.
    pub(crate) fn update_element_readers(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let waiting = element_readers(job, id);
        for task in waiting {
            self.leader.blocked.unblock_task(task);
            self.update_task_offers(task);
        }
    }

    /// A task is done: what it read of the tasks at its own place is dropped, where nobody else is to read it.
    pub(crate) fn release_consumed(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let mut hashes = Vec::new();
        for read in element_inputs(job, id).filter(|read| read.released) {
            for (hash, _) in read.left {
                self.leader.blobs.remove_producer(hash, read.producer);
                hashes.push(hash);
            }
        }
        if !hashes.is_empty() {
            self.drop_unused(hashes);
        }
    }

    /// A task runs again: what it read is needed again, and may still be somewhere.
    pub(crate) fn reclaim_consumed(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        for read in element_inputs(job, id) {
            self.note_outputs(read.producer, &read.left, None);
        }
    }
}

/// What a task reads of the task at its own place in another group.
struct ElementInput {
    producer: TaskId,
    left: Vec<(Hash, u64)>,
    /// Whether nobody is to read it any more.
    released: bool,
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
            left: done.into_iter().flat_map(|done| done.blobs()).collect(),
            released: job.released(other, offset),
        }
    })
}

/// The tasks that wait for a task at their own place.
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
