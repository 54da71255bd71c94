//! What the journal says, worked out apart from the core: jobs, and for each task whether it is done.

use hedge_model::ending::Fault;
use hedge_model::record::{JobEnd, Record};
use hedge_model::spec::Extension;
use hedge_model::{
    AttemptId, Checkpoint, CheckpointId, Ending, Epoch, FileEntry, Hash, JobId, JobSpec, PeerId,
    SubmitKey, TaskId,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(crate) struct Shadow {
    pub jobs: BTreeMap<JobId, ShadowJob>,
    pub keys: BTreeMap<(PeerId, SubmitKey), JobId>,
    pub open: usize,
    pub epoch: Epoch,
    pub revoked: BTreeSet<PeerId>,
}

#[derive(Clone, Debug)]
pub(crate) struct ShadowJob {
    pub spec: Arc<JobSpec>,
    pub tasks: Vec<ShadowTask>,
    pub done: u32,
    pub ended: Option<JobEnd>,
    /// Groups can be added.
    pub open: bool,
    extensions: BTreeSet<SubmitKey>,
    /// Attempts of which the journal says how they ended.
    pub over: BTreeSet<AttemptId>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct ShadowTask {
    pub generation: u32,
    pub done: Option<ShadowDone>,
    pub failures: u32,
    pub failed: bool,
    pub released: bool,
    pub checkpoint: Option<ShadowCheckpoint>,
}

#[derive(Clone, Debug)]
pub(crate) struct ShadowCheckpoint {
    pub id: CheckpointId,
    pub blobs: Vec<Hash>,
}

#[derive(Clone, Debug)]
pub(crate) struct ShadowDone {
    pub worker: PeerId,
    pub blobs: Vec<Hash>,
}

/// What a record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Job(JobId),
    Done(TaskId),
    Lost(TaskId),
    Ended(JobId),
    Failed(TaskId),
    Checkpoint,
    Retried(JobId),
    Grew(JobId),
    Released(JobId),
    Closed(JobId),
    /// Another leader, beyond the first.
    Epoch,
}

impl Shadow {
    pub fn apply(&mut self, record: &Record) -> Change {
        match record {
            Record::JobAccepted {
                key, client, spec, ..
            }
            | Record::JobAcceptedNamed {
                key, client, spec, ..
            } => self.accepted(*client, *key, spec),
            Record::TaskDone {
                attempt,
                worker,
                outputs,
                ..
            } => self.done(*attempt, *worker, outputs),
            Record::AttemptEnded { attempt, end, .. } => self.attempt_ended(*attempt, end),
            Record::OutputsLost {
                task: id,
                generation,
                ..
            } => self.outputs_lost(*id, *generation),
            Record::JobEnded { job: id, end, .. } => self.job_ended(*id, end),
            Record::TaskFailed {
                task, generation, ..
            } => self.task_failed(*task, *generation),
            Record::JobRetried { job, .. } => self.job_retried(*job),
            Record::GroupsAdded {
                job,
                key,
                extension,
                ..
            } => self.groups_added(*job, *key, extension),
            Record::OutputsReleased { job, tasks, .. } => self.released(*job, tasks),
            Record::JobClosed { job, .. } => self.closed(*job),
            Record::Checkpointed {
                checkpoint, worker, ..
            } => self.checkpointed(checkpoint, *worker),
            Record::MemberRevoked { peer, .. } => {
                self.revoked.insert(*peer);
                Change::None
            }
            Record::Epoch { epoch, .. } => {
                let later = self.epoch.0 > 0 && *epoch > self.epoch;
                self.epoch = self.epoch.max(*epoch);
                if later { Change::Epoch } else { Change::None }
            }
            Record::Set { .. }
            | Record::ClientSeen { .. }
            | Record::JobForgotten { .. }
            | Record::Format { .. }
            | Record::TicketMade(_)
            | Record::MemberJoined { .. }
            | Record::Benchmarked { .. } => Change::None,
        }
    }

    /// A job is new, but for one that was submitted under the same key before.
    fn accepted(&mut self, client: PeerId, key: SubmitKey, spec: &Arc<JobSpec>) -> Change {
        if self.keys.contains_key(&(client, key)) {
            return Change::None;
        }
        let id = JobId(self.jobs.len() as u64 + 1);
        self.keys.insert((client, key), id);
        let job = ShadowJob {
            spec: spec.clone(),
            tasks: vec![ShadowTask::default(); spec.task_count() as usize],
            done: 0,
            ended: None,
            open: spec.is_open(),
            extensions: BTreeSet::new(),
            over: BTreeSet::new(),
        };
        self.jobs.insert(id, job);
        self.open += 1;
        Change::Job(id)
    }

    /// An open job gets groups, once under one key, unless they read what was released.
    fn groups_added(&mut self, id: JobId, key: SubmitKey, extension: &Extension) -> Change {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.open) else {
            return Change::None;
        };
        let inputs = extension.groups.iter().flat_map(|group| &group.inputs);
        let mut read = inputs.filter_map(|input| job.spec.position(input.task()?));
        let released = |group: usize| {
            let mut tasks = job.spec.numbers(group);
            tasks.any(|number| job.tasks[number as usize].released)
        };
        if job.extensions.contains(&key) || read.any(released) {
            return Change::None;
        }
        let spec = Arc::make_mut(&mut job.spec);
        if spec.extend(extension).is_err() {
            return Change::None;
        }
        job.tasks
            .resize(spec.task_count() as usize, ShadowTask::default());
        job.extensions.insert(key);
        Change::Grew(id)
    }

    fn released(&mut self, id: JobId, ranges: &[(u32, u32)]) -> Change {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| job.open) else {
            return Change::None;
        };
        for (from, to) in ranges {
            let tasks = job.tasks.get_mut(*from as usize..*to as usize);
            tasks
                .into_iter()
                .flatten()
                .for_each(|task| task.released = true);
        }
        Change::Released(id)
    }

    fn closed(&mut self, id: JobId) -> Change {
        match self.jobs.get_mut(&id).filter(|job| job.open) {
            Some(job) => {
                job.open = false;
                Change::Closed(id)
            }
            None => Change::None,
        }
    }

    /// A task is to be done again, in the next generation.
    fn outputs_lost(&mut self, id: TaskId, generation: u32) -> Change {
        let Some((done, task)) = self.open_task(id) else {
            return Change::None;
        };
        if task.done.is_none() || task.generation != generation {
            return Change::None;
        }
        task.done = None;
        task.generation += 1;
        *done -= 1;
        Change::Lost(id)
    }

    /// A job ends once, and as done only when all its tasks are.
    fn job_ended(&mut self, id: JobId, end: &JobEnd) -> Change {
        let Some(job) = self.jobs.get_mut(&id) else {
            return Change::None;
        };
        let all = job.done == job.spec.task_count();
        if job.ended.is_some() || (*end == JobEnd::Done && (!all || job.open)) {
            return Change::None;
        }
        job.open = false;
        job.ended = Some(end.clone());
        if !matches!(end, JobEnd::Failed { .. }) {
            let tasks = job.tasks.iter_mut();
            tasks.for_each(|task| task.checkpoint = None);
        }
        self.open -= 1;
        Change::Ended(id)
    }

    /// A task that is open is given up.
    fn task_failed(&mut self, id: TaskId, generation: u32) -> Change {
        match self.open_task(id) {
            Some((_, task)) if task.open() && task.generation == generation => {
                task.failed = true;
                Change::Failed(id)
            }
            _ => Change::None,
        }
    }

    /// What a job that failed has not done is open again.
    fn job_retried(&mut self, id: JobId) -> Change {
        let failed = |job: &&mut ShadowJob| matches!(job.ended, Some(JobEnd::Failed { .. }));
        let Some(job) = self.jobs.get_mut(&id).filter(failed) else {
            return Change::None;
        };
        job.ended = None;
        for task in job.tasks.iter_mut().filter(|task| task.done.is_none()) {
            *task = ShadowTask {
                generation: task.generation + 1,
                released: task.released,
                checkpoint: task.checkpoint.take(),
                ..ShadowTask::default()
            };
        }
        self.open += 1;
        Change::Retried(id)
    }

    fn done(&mut self, attempt: AttemptId, worker: PeerId, outputs: &[FileEntry]) -> Change {
        if self.revoked.contains(&worker) {
            return Change::None;
        }
        let Some((done, task)) = self.open_task(attempt.task) else {
            return Change::None;
        };
        if !task.open() || task.generation != attempt.generation {
            return Change::None;
        }
        let blobs = outputs.iter().filter_map(|file| file.data.hash()).collect();
        task.done = Some(ShadowDone { worker, blobs });
        task.checkpoint = None;
        *done += 1;
        Change::Done(attempt.task)
    }

    fn attempt_ended(&mut self, attempt: AttemptId, end: &Ending) -> Change {
        if let Some(job) = self.jobs.get_mut(&attempt.task.job) {
            let first = *end == Ending::Lost || job.over.insert(attempt);
            let task = &mut job.tasks[attempt.task.number as usize];
            if first && end.fault() == Fault::Task && task.generation == attempt.generation {
                task.failures += 1;
                // It went on from that in vain.
                let earlier = |known: &mut ShadowCheckpoint| known.id.attempt < attempt;
                if job.ended.is_none() {
                    task.checkpoint.take_if(earlier);
                }
            }
        }
        Change::None
    }

    /// A task that is open has a newer checkpoint.
    fn checkpointed(&mut self, checkpoint: &Checkpoint, worker: PeerId) -> Change {
        let id = checkpoint.id;
        if self.revoked.contains(&worker) {
            return Change::None;
        }
        match self.open_task(id.attempt.task) {
            Some((_, task)) if task.open() && task.generation == id.attempt.generation => {
                let blobs = checkpoint.blobs().map(|(hash, _)| hash).collect();
                task.checkpoint = Some(ShadowCheckpoint { id, blobs });
                Change::Checkpoint
            }
            _ => Change::None,
        }
    }

    pub fn task(&self, id: TaskId) -> Option<&ShadowTask> {
        self.jobs.get(&id.job)?.tasks.get(id.number as usize)
    }

    /// Whether an attempt may still decide its task.
    pub fn wanted(&self, attempt: AttemptId) -> bool {
        let job = self.jobs.get(&attempt.task.job);
        job.is_some_and(|job| job.ended.is_none() && !job.over.contains(&attempt))
            && self
                .task(attempt.task)
                .is_some_and(|task| task.open() && task.generation == attempt.generation)
    }

    fn open_task(&mut self, id: TaskId) -> Option<(&mut u32, &mut ShadowTask)> {
        let job = self.jobs.get_mut(&id.job)?;
        if job.ended.is_some() {
            return None;
        }
        let task = job.tasks.get_mut(id.number as usize)?;
        Some((&mut job.done, task))
    }
}

impl ShadowTask {
    fn open(&self) -> bool {
        self.done.is_none() && !self.failed
    }
}

impl ShadowJob {
    /// Blobs that supervisors promised to hold: inputs and checkpoints until the job is done or cancelled, results once it is
    /// done, and those of an open job until they are released.
    pub fn promised(&self) -> BTreeSet<Hash> {
        let needed = || {
            let mut needed = self.inputs();
            needed.extend(self.checkpoints());
            needed
        };
        match self.ended {
            None if self.open => &needed() | &self.results(),
            None | Some(JobEnd::Failed { .. }) => needed(),
            Some(JobEnd::Done) => self.results(),
            Some(JobEnd::Cancelled) => BTreeSet::new(),
        }
    }

    /// Blobs that supervisors may hold once the job has ended: its results, and what it may need to be retried.
    pub fn kept(&self) -> BTreeSet<Hash> {
        if !matches!(self.ended, Some(JobEnd::Failed { .. })) {
            return self.results();
        }
        let done = self.tasks.iter().filter_map(|task| task.done.as_ref());
        let mut kept = self.inputs();
        kept.extend(self.checkpoints());
        kept.extend(done.flat_map(|done| done.blobs.iter().copied()));
        kept
    }

    /// Blobs of its newest checkpoints.
    fn checkpoints(&self) -> impl Iterator<Item = Hash> + '_ {
        let checkpoints = self
            .tasks
            .iter()
            .filter_map(|task| task.checkpoint.as_ref());
        checkpoints.flat_map(|checkpoint| checkpoint.blobs.iter().copied())
    }

    /// Blobs that the job takes in.
    pub fn inputs(&self) -> BTreeSet<Hash> {
        inputs_of(&self.spec)
    }

    /// Blobs that are results of the job; of an open one all that its tasks left and that is not released.
    pub fn results(&self) -> BTreeSet<Hash> {
        let result = |group: &usize| self.open || self.spec.is_result(*group);
        let groups = (0..self.spec.groups().len()).filter(result);
        groups
            .flat_map(|group| {
                let first = self.spec.first(group) as usize;
                &self.tasks[first..first + self.spec.groups()[group].count() as usize]
            })
            .filter(|task| !task.released)
            .filter_map(|task| task.done.as_ref())
            .flat_map(|done| done.blobs.iter().copied())
            .collect()
    }
}

/// Blobs that a job takes in.
pub(crate) fn inputs_of(spec: &JobSpec) -> BTreeSet<Hash> {
    spec.input_blobs().map(|(hash, _)| hash).collect()
}
