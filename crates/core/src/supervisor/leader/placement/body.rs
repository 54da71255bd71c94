//! Builds the body of a group: what workers need to run its tasks. It is built once per group, and again when the
//! holders of its inputs change.

use crate::supervisor::durable::job::{Job, Task};
use crate::supervisor::leader::Leadership;
use hedge_model::data::{INLINE_BYTES_MAX, PRINTED_BYTES_MAX};
use hedge_model::msg::{Body, MESSAGE_BYTES_MAX};
use hedge_model::spec::{Group, Input};
use hedge_model::tree::MountedTree;
use hedge_model::units::show_bytes;
use hedge_model::{Data, FileEntry, Hash, JobId, JobSpec, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Limit of the inline outputs that all tasks of a job report together, in bytes: half a frame.
const INLINE_IN_ALL: u32 = 8 << 20;
/// Bytes of outputs that each task of an open job may report inline at least: clients read them as they come, and a
/// task rarely reads those of all others.
const INLINE_IN_OPEN: u32 = 1 << 10;

/// Limit of what all tasks of a job may print to one stream, in bytes. Each task has an equal share. The supervisors
/// keep it as long as the job.
const PRINTED_IN_ALL: u64 = 4 << 30;

/// Minimum share of a task, for each stream, in bytes.
const PRINTED_MIN: u64 = 64 << 10;

/// A built body, and the blobs that its tasks may read.
#[derive(Debug)]
pub(crate) struct ReadyBody {
    pub body: Arc<Body>,
    /// Blobs that the tasks may read, including those for single indices.
    pub blobs: Arc<[Hash]>,
}

impl Leadership<'_> {
    /// Returns the body of a group's tasks. If none is cached, builds one that names the current holders of the
    /// inputs. Returns none and blocks the group if an input is unreachable.
    pub(crate) fn body(&mut self, id: JobId, group: usize) -> Option<Arc<ReadyBody>> {
        let leader = &*self.leader;
        if let Some(body) = leader.jobs.group(id, group)?.body() {
            return Some(body.clone());
        }
        let job = self.state.jobs.get(&id)?;
        let spec = &job.spec.groups()[group];
        let inputs = shared_inputs(job, spec);
        let each = spec.inputs.iter().filter_map(|input| match input {
            Input::FileEach(first) => {
                Some(&job.spec.files()[*first as usize..][..spec.count() as usize])
            }
            _ => None,
        });
        let own = each.flatten().filter_map(|file| file.data.hash());
        let shared = inputs
            .iter()
            .map(|file| &file.data)
            .chain(&spec.stdin)
            .filter_map(Data::hash);
        let mounts = mounted(job, spec);
        let trees = mounts.iter().flat_map(MountedTree::blobs);
        let trees = trees.map(|(hash, _)| hash);
        let mut blobs: Vec<_> = shared.chain(own).chain(trees).collect();
        blobs.sort_unstable();
        blobs.dedup();
        if let Some(path) = clash(&inputs) {
            let why = path_clash(job, spec, path);
            return self.cannot_start(id, group, why);
        }
        let out_of_reach = |hash: &Hash| !self.view().within_reach(*hash);
        let missing: Vec<Hash> = blobs.iter().copied().filter(out_of_reach).collect();
        if !missing.is_empty() {
            self.block_on_inputs(id, group, missing);
            return None;
        }
        let body = Body {
            job: id,
            group: group as u32,
            version: leader.jobs.group(id, group)?.next_version(),
            id: spec.id.clone(),
            runtime: spec.runtime,
            preload: spec.preload.to_vec(),
            parameters: spec.parameters(),
            command: spec.command.clone(),
            env: spec.env.clone(),
            stdin: spec.stdin.clone(),
            inputs,
            outputs: spec.outputs.clone(),
            inline_max: inline_max(&job.spec),
            printed_max: printed_max(&job.spec),
            resources: spec.resources.clone(),
            time_limit: spec.time_limit,
            shares: spec.shares.to_vec(),
            cwd: String::clone(&spec.cwd),
            network: spec.network,
            checkpoint: spec.checkpoint.clone(),
            mounts,
            sources: self.view().sources(&blobs),
        };
        let bytes = body.message_bytes(blobs.len());
        if bytes > MESSAGE_BYTES_MAX {
            return self.cannot_start(id, group, too_long(&body, bytes));
        }
        let (body, blobs) = (Arc::new(body), blobs.into());
        let ready = Arc::new(ReadyBody { body, blobs });
        let offers = self.leader.jobs.group_mut(id, group)?;
        offers.set_body(ready.clone());
        Some(ready)
    }

    /// Fails the job of a group that can never start.
    fn cannot_start(&mut self, id: JobId, group: usize, why: String) -> Option<Arc<ReadyBody>> {
        let number = self.state.jobs.get(&id)?.spec.first(group);
        self.fail_job(id, Some(TaskId { job: id, number }), why);
        self.refresh_offers(id, group);
        None
    }

    /// Blocks a group whose inputs are unreachable. Tasks whose outputs are lost for good run again.
    fn block_on_inputs(&mut self, id: JobId, group: usize, missing: Vec<Hash>) {
        self.leader.blocked.set_inputs_unreachable(id, group as u32);
        self.refresh_offers(id, group);
        for hash in missing {
            self.rerun_if_lost(hash);
        }
    }
}

/// Returns the trees of a group with their blobs.
fn mounted(job: &Job, group: &Group) -> Vec<MountedTree> {
    let each = group.mounts.iter().filter_map(|mount| {
        let files = mount.files(job.spec.files()).iter();
        let mut blobs = files.filter_map(|file| Some((file.data.hash()?, file.data.size())));
        Some(MountedTree {
            at: mount.at.clone(),
            manifest: blobs.next()?,
            packs: blobs.collect(),
        })
    });
    each.collect()
}

fn shared_inputs(job: &Job, group: &Group) -> Vec<FileEntry> {
    let mut files = Vec::new();
    for (at, input) in group.inputs.iter().enumerate() {
        match input {
            // The group names it twice.
            Input::Task(_) if group.inputs[..at].contains(input) => {}
            Input::TaskEach(_) => {}
            Input::File(at) => files.push(job.spec.files()[*at as usize].clone()),
            Input::FileEach(_) => {}
            Input::Task(name) => {
                let Some(from) = job.spec.groups().iter().position(|other| other.id == *name)
                else {
                    continue;
                };
                files.extend(
                    job.tasks_of(from)
                        .filter_map(Task::done)
                        .flat_map(|done| done.outputs.iter().cloned()),
                );
            }
        }
    }
    files
}

pub(crate) fn body_index(spec: &hedge_model::JobSpec, group: usize, offset: u32) -> Option<u32> {
    spec.groups()[group].array.map(|(from, _)| from + offset)
}

/// Returns a path that two inputs have, or that is a file for one input and a folder for another.
fn clash(inputs: &[FileEntry]) -> Option<&str> {
    let mut paths = BTreeSet::new();
    for file in inputs {
        if !paths.insert(&*file.path) {
            return Some(&file.path);
        }
    }
    let parents = inputs.iter().flat_map(|file| {
        let ends = file.path.match_indices('/');
        ends.map(|(end, _)| &file.path[..end])
    });
    parents.into_iter().find(|parent| paths.contains(parent))
}

/// Returns why a group cannot start: output patterns of its dependencies matched files of the same name.
fn path_clash(job: &Job, group: &Group, path: &str) -> String {
    let read = |at: usize| {
        let name = &job.spec.groups()[at].id;
        group
            .inputs
            .iter()
            .any(|input| matches!(input, Input::Task(id) if id == name))
    };
    let numbers = (0..job.spec.groups().len())
        .filter(|at| read(*at))
        .flat_map(|at| job.spec.numbers(at));
    let left = |number: &u32| {
        let done = job.tasks[*number as usize].done();
        let outputs = done.into_iter().flat_map(|done| done.outputs.iter());
        outputs
            .into_iter()
            .any(|file| file.path.strip_prefix(path).is_some_and(begins_folder))
    };
    let makers: Vec<String> = numbers
        .filter(left)
        .take(2)
        .map(|number| job.spec.label(number))
        .collect();
    format!(
        "task {:?} would read two files at {path:?}, left by {}: let the tasks before it leave files of different names",
        group.id,
        makers.join(" and ")
    )
}

/// Returns whether the rest of a path, after a prefix, means that the prefix is the path itself or a folder above it.
fn begins_folder(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn too_long(body: &Body, bytes: usize) -> String {
    format!(
        "task {:?} reads {} files, and their list of {} does not fit into one message to a worker, which has {} at most: \
         let the tasks before it pack theirs into fewer files, or give these shorter names",
        body.id,
        body.inputs.len(),
        show_bytes(bytes as u64),
        show_bytes(MESSAGE_BYTES_MAX as u64),
    )
}

/// Returns how many bytes each task of a job may report inline, so that the outputs of all tasks fit into one message
/// to their readers.
fn inline_max(spec: &JobSpec) -> u32 {
    let least = if spec.is_open() { INLINE_IN_OPEN } else { 0 };
    (INLINE_IN_ALL / spec.task_count()).clamp(least, INLINE_BYTES_MAX as u32)
}

/// Returns how many bytes of each stream of a task are kept.
fn printed_max(spec: &JobSpec) -> u64 {
    (PRINTED_IN_ALL / u64::from(spec.task_count().max(1))).clamp(PRINTED_MIN, PRINTED_BYTES_MAX)
}
