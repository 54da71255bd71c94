//! What a worker gets for one task of a group in addition to the group's shared inputs: the task's own files, its
//! element-wise inputs, and its checkpoint.

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::{LeaderView, Leadership};
use crate::supervisor::{Action, GrantRequest, UngrantedAssignment, send};
use hedge_model::msg::{Assignment, Body, MESSAGE_BYTES_MAX, ToWorker, grant_bytes};
use hedge_model::spec::Input;
use hedge_model::units::show_bytes;
use hedge_model::{Checkpoint, FileEntry, Hash, PeerId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Maximum size of a file's entry in a message beside its path and its content, in bytes.
const ENTRY_BYTES: u64 = 64;

/// Inputs of one task alone.
#[derive(Debug, Default)]
pub(crate) struct OwnInputs {
    pub files: Vec<FileEntry>,
    /// The checkpoint from which it resumes.
    pub checkpoint: Option<Arc<Checkpoint>>,
    /// Blobs of these inputs that the group's body does not name.
    pub blobs: Vec<Hash>,
}

impl OwnInputs {
    /// Returns the own inputs of the task at `offset` of a group, as far as their producers are done. The checkpoint
    /// is added later.
    pub fn of(job: &Job, group: usize, offset: u32) -> Self {
        let spec = &job.spec;
        let mut own = Self::default();
        let mut others = spec.reads_each(group);
        for (at, input) in spec.groups()[group].inputs.iter().enumerate() {
            match input {
                Input::FileEach(first) => {
                    own.files
                        .push(spec.files()[(first + offset) as usize].clone());
                }
                Input::TaskEach(_) => {
                    let from = others.next();
                    // The group names it twice.
                    if spec.groups()[group].inputs[..at].contains(input) {
                        continue;
                    }
                    let done = from.and_then(|from| job.element(from, offset).done());
                    let outputs = done.map_or(&[][..], |done| &done.outputs);
                    let blobs = outputs.iter().filter_map(|file| file.data.hash());
                    own.blobs.extend(blobs);
                    own.files.extend(outputs.iter().cloned());
                }
                Input::File(_) | Input::Task(_) => {}
            }
        }
        own
    }

    /// Returns why a task with these inputs and those of its group cannot start.
    fn wrong(&self, job: &Job, number: u32, body: &Body) -> Option<String> {
        let label = || job.spec.label(number);
        let mut paths = BTreeSet::new();
        let own = self.files.iter().find(|file| !paths.insert(&*file.path));
        let shared = body.inputs.iter().find(|file| paths.contains(&*file.path));
        if let Some(file) = own.or(shared) {
            return Some(format!(
                "task {} would read two files at {:?}: let the tasks before it leave files of different names",
                label(),
                file.path
            ));
        }
        let bytes = self.files.iter().map(|file| {
            let inline = file.data.hash().map_or(file.data.size(), |_| 0);
            file.path.len() as u64 + inline + ENTRY_BYTES
        });
        let bytes = bytes.sum::<u64>() + grant_bytes(self.blobs.len()) as u64;
        (bytes > MESSAGE_BYTES_MAX as u64).then(|| {
            format!(
                "task {} reads {} files of its own, and their list does not fit into one message to a worker, which has \
                 {} at most: let the tasks before it pack theirs into fewer files, or give these shorter names",
                label(),
                self.files.len(),
                show_bytes(MESSAGE_BYTES_MAX as u64)
            )
        })
    }
}

impl Leadership<'_> {
    /// Returns a task's own inputs; none if it cannot start. If an input is unreachable, blocks the task until the
    /// input is reachable or produced again.
    pub(crate) fn own_inputs(&mut self, task: TaskId, body: &Body) -> Option<OwnInputs> {
        let job = self.state.jobs.get(&task.job)?;
        let group = body.group as usize;
        let own = OwnInputs::of(job, group, task.number - job.spec.first(group));
        if job.spec.each(group).is_empty() {
            return Some(self.view().with_checkpoint(task, own));
        }
        if let Some(why) = own.wrong(job, task.number, body) {
            self.fail_job(task.job, Some(task), why);
            return None;
        }
        if own.blobs.iter().all(|hash| self.view().within_reach(*hash)) {
            return Some(self.view().with_checkpoint(task, own));
        }
        self.leader.blocked.set_own_inputs_unreachable(task);
        self.update_task_offers(task);
        for producer in producers(job, group, task) {
            self.rerun_if_outputs_lost(producer);
        }
        None
    }

    /// Sends an assignment to a worker, with a grant for the blobs that the group's body does not name.
    pub(crate) fn send_assignment(&mut self, to: PeerId, order: Assignment, blobs: Vec<Hash>) {
        if blobs.is_empty() {
            return send(to, ToWorker::Assign(order), self.out);
        }
        let sources = self.view().sources(&blobs);
        let grant = GrantRequest {
            reader: to,
            blobs: blobs.into(),
            epoch: self.state.epoch(),
        };
        let order = UngrantedAssignment {
            order,
            sources,
            grant,
        };
        self.out.push(Action::SendAssignment { to, order });
    }

    /// Unblocks and offers the blocked tasks whose own inputs are reachable now.
    pub(crate) fn retry_blocked_tasks(&mut self) {
        let view = self.view();
        let reachable = view.leader.blocked.own_inputs_unreachable().filter(|task| {
            let Some(job) = view.state.jobs.get(&task.job) else {
                return true;
            };
            let group = job.spec.group_of(task.number);
            let own = OwnInputs::of(job, group, task.number - job.spec.first(group));
            own.blobs.iter().all(|hash| view.within_reach(*hash))
        });
        let reachable: Vec<TaskId> = reachable.collect();
        reachable
            .into_iter()
            .for_each(|task| self.retry_blocked_task(task));
    }

    /// Unblocks and offers a task, if it is blocked.
    pub(crate) fn retry_blocked_task(&mut self, task: TaskId) {
        if self.leader.blocked.recheck_own_inputs(task) {
            self.update_task_offers(task);
        }
    }
}

impl LeaderView<'_> {
    fn with_checkpoint(&self, task: TaskId, mut own: OwnInputs) -> OwnInputs {
        own.checkpoint = self.usable_checkpoint(task).cloned();
        let checkpoint = own.checkpoint.iter();
        let blobs = checkpoint.flat_map(|checkpoint| checkpoint.blobs());
        own.blobs.extend(blobs.map(|(hash, _)| hash));
        own
    }

    /// Returns whether a task's element-wise dependencies are done and their outputs are, as far as is known,
    /// reachable.
    pub(crate) fn element_may_start(&self, task: TaskId, job: &Job, group: usize) -> bool {
        if job.spec.each(group).is_empty() {
            return true;
        }
        let offset = task.number - job.spec.first(group);
        job.element_ready(group, offset) && !self.leader.blocked.lacks_own_inputs(task)
    }
}

/// The tasks that produce the element-wise inputs of a task.
fn producers(job: &Job, group: usize, task: TaskId) -> Vec<TaskId> {
    let offset = task.number - job.spec.first(group);
    let others = job.spec.reads_each(group);
    let number = |other| job.spec.first(other) + offset;
    others
        .map(|other| TaskId {
            job: task.job,
            number: number(other),
        })
        .collect()
}
