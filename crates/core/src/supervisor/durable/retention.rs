//! Retention of ended jobs: how much memory and disk each takes, and the order in which they ended.
//!
//! A job's age is counted in recorded time, and only as far as leaders observed it: see [`State::observe_gap`].

use crate::supervisor::durable::change::Stale;
use crate::supervisor::durable::job::{Done, EndedAttempt, Job, Task};
use crate::supervisor::durable::state::State;
use hedge_model::ending::Fault;
use hedge_model::ledger::Stopped;
use hedge_model::msg::Log;
use hedge_model::record::JobEnd;
use hedge_model::{Data, FileEntry, Hash, JobId, JobSpec, Time};
use imbl::OrdMap;
use std::sync::Arc;
use std::time::Duration;

/// The longest time between the last record of one leader and the first of the next that counts as observed. A
/// restart takes less. After a jump of the clock, a job ages by at most this much.
const GAP_MAX: Duration = Duration::from_secs(3600);

/// Memory of an ended job with one task, without what is counted below: maps and vectors allocate whole nodes.
const JOB_BYTES: u64 = 3 << 10;
/// Memory of a group, a task, a done task, an attempt that ended otherwise, and a file, without their texts.
const GROUP_BYTES: u64 = 640;
const TASK_BYTES: u64 = 24;
/// Memory of an end of a task in the order of ends.
const END_BYTES: u64 = 8;
const DONE_BYTES: u64 = 320;
const ATTEMPT_BYTES: u64 = 400;
const FILE_BYTES: u64 = 80;
/// Memory of a checkpoint without its files.
const CHECKPOINT_BYTES: u64 = 200;
/// Memory of a blob on the leader, which knows its holders, and in the index of the blob store.
const BLOB_BYTES: u64 = 320;

/// The approximate size of an ended job, in bytes, at each supervisor that holds all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footprint {
    pub memory: u64,
    /// Results, logs, and the records, which take less in the journal than in memory.
    pub disk: u64,
}

impl Footprint {
    fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            disk: self.disk.saturating_add(other.disk),
        }
    }

    pub fn minus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_sub(other.memory),
            disk: self.disk.saturating_sub(other.disk),
        }
    }
}

/// All ended jobs in the order of their end, with their sizes. Derived from the jobs, so snapshots do not hold it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub order: OrdMap<(Time, JobId), Footprint>,
    pub total: Footprint,
}

impl Ended {
    fn add(&mut self, at: Time, id: JobId, size: Footprint) {
        let sizes = self.order.entry((at, id)).or_default();
        *sizes = sizes.plus(size);
        self.total = self.total.plus(size);
    }

    fn remove(&mut self, at: Time, id: JobId) {
        if let Some(size) = self.order.remove(&(at, id)) {
            self.total = self.total.minus(size);
        }
    }
}

impl State {
    /// Applies the end of a job. Returns its whole specification, of which the state keeps an outline unless the job
    /// may be retried, and the blobs of its checkpoints.
    pub(crate) fn job_ended(
        &mut self,
        id: JobId,
        end: &JobEnd,
        stopped: &[Stopped],
        at: Time,
    ) -> Result<(Arc<JobSpec>, Vec<Hash>), Stale> {
        let job = self.job_mut(id).filter(|job| job.active());
        let job = job.ok_or("the job has ended")?;
        if *end == JobEnd::Done && !job.threshold_met() {
            return Err("not enough of its tasks are done any more");
        }
        _ = job.close(None);
        job.stop(stopped);
        job.ended = Some((end.clone(), at));
        let (spec, checkpoints) = (job.spec.clone(), job.retire_checkpoints());
        self.now = self.now.max(at);
        self.retire(id);
        if let Some(outline) = self.jobs.get(&id).map(|job| job.spec.clone()) {
            self.learned.note_stopped(&outline, stopped);
        }
        Ok((spec, checkpoints))
    }

    /// Removes an ended job and returns it.
    pub(crate) fn forget(&mut self, id: JobId, at: Time) -> Option<Arc<Job>> {
        self.jobs.get(&id).filter(|job| !job.active())?;
        self.now = self.now.max(at);
        let job = self.jobs.remove(&id)?;
        self.keys.remove(&(job.client, job.key));
        self.unindex(id, &job);
        Some(job)
    }

    /// Opens a failed job again.
    pub(crate) fn retry(&mut self, id: JobId, at: Time) -> Result<(), Stale> {
        let job = self.job_mut(id).ok_or("no such job")?;
        let ended = job.ended.as_ref().map(|(_, at)| *at);
        job.retry()?;
        if let Some(ended) = ended {
            self.ended.remove(ended, id);
        }
        self.now = self.now.max(at);
        Ok(())
    }

    /// Adds an ended job to the retention index, and reduces its specification to an outline unless it may be
    /// retried.
    fn retire(&mut self, id: JobId) {
        let retried = self.format() >= 3;
        let Some(job) = self.job_mut(id) else { return };
        if !retried || !matches!(job.ended, Some((JobEnd::Failed { .. }, _))) {
            job.spec = Arc::new(job.spec.outline());
        }
        let Some((_, at)) = job.ended else { return };
        let size = footprint(job);
        self.ended.add(at, id, size);
    }

    /// Adds an attempt that is recorded after the end of its job to the job's size.
    pub(crate) fn retire_late(&mut self, id: JobId, attempt: &EndedAttempt) {
        let ended = self.jobs.get(&id).and_then(|job| job.ended.as_ref());
        if let Some((_, at)) = ended {
            self.ended.add(*at, id, attempt_footprint(attempt));
        }
    }

    /// Removes an ended job from the retention index.
    fn unindex(&mut self, id: JobId, job: &Job) {
        if let Some((_, at)) = job.ended {
            self.ended.remove(at, id);
        }
    }

    /// Derives what snapshots do not hold. Snapshots of an earlier version hold whole specifications of ended jobs;
    /// this reduces them to outlines.
    pub(crate) fn rebuild_derived(&mut self) {
        let failed = |job: &Job| {
            let mut tasks = job.tasks.iter();
            tasks.any(|task| task.has_failed() || task.is_released())
        };
        let failed: Vec<JobId> = self
            .jobs
            .iter()
            .filter(|(_, job)| failed(job))
            .map(|(id, _)| *id)
            .collect();
        for id in failed {
            let job = self.job_mut(id).into_iter();
            job.for_each(|job| {
                job.recount_failures();
                job.recount_released();
            });
        }
        self.ended = Ended::default();
        let ended = self.jobs.iter().filter(|(_, job)| !job.active());
        for id in ended.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.retire(id);
        }
    }

    /// Handles the begin of a new leader at `at`. Time since the last record beyond `GAP_MAX` was not observed: the
    /// grid was down, or a clock is wrong. It neither ages ended jobs nor counts as absence of a client.
    pub(crate) fn observe_gap(&mut self, at: Time) {
        let unseen = at.since(self.now).saturating_sub(GAP_MAX);
        if unseen.is_zero() {
            return;
        }
        let open = self.jobs.iter().filter(|(_, job)| job.is_open());
        for id in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(job) = self.job_mut(id) {
                job.extend_client_seen(unseen);
            }
        }
        for (_, id) in self.ended.order.keys().copied().collect::<Vec<_>>() {
            if let Some(job) = self.job_mut(id)
                && let Some((_, ended)) = &mut job.ended
            {
                *ended = *ended + unseen;
                job.accepted = job.accepted + unseen;
            }
        }
        let moved = std::mem::take(&mut self.ended.order).into_iter();
        self.ended.order = moved
            .map(|((at, id), size)| ((at + unseen, id), size))
            .collect();
    }
}

fn footprint(job: &Job) -> Footprint {
    let done = job.tasks.iter().filter_map(Task::done);
    let memory = JOB_BYTES
        + job.growth.bytes()
        + END_BYTES * job.ends.len() as u64
        + spec_bytes(&job.spec)
        + TASK_BYTES * job.tasks.len() as u64;
    let base = Footprint {
        memory,
        disk: memory.saturating_add(job.result_bytes),
    };
    let needed = job.kept_to_retry().map(|(_, size)| Footprint {
        memory: BLOB_BYTES,
        disk: size.saturating_add(BLOB_BYTES),
    });
    let done = done.map(done_footprint).chain(needed);
    let attempts = job.history.values().map(|ended| attempt_footprint(ended));
    let checkpoints = job.checkpoints.values().map(|recorded| {
        let files = recorded.checkpoint.files.iter().map(file_bytes);
        let memory = files.fold(CHECKPOINT_BYTES, u64::saturating_add);
        of_record(memory, None)
    });
    done.chain(attempts)
        .chain(checkpoints)
        .fold(base, Footprint::plus)
}

fn spec_bytes(spec: &JobSpec) -> u64 {
    let groups = spec.groups().len() as u64;
    GROUP_BYTES * groups + spec.encoded_bytes() as u64
}

fn done_footprint(done: &Done) -> Footprint {
    let files = done.outputs.iter().map(file_bytes);
    let memory = files.fold(DONE_BYTES, u64::saturating_add);
    of_record(memory, done.log.as_deref())
}

fn attempt_footprint(ended: &EndedAttempt) -> Footprint {
    let why = match ended.end.fault() {
        Fault::Nobody => 0,
        Fault::Task | Fault::Worker | Fault::Input => ended.end.to_string().len(),
    };
    of_record(ATTEMPT_BYTES + why as u64, ended.log.as_deref())
}

fn of_record(memory: u64, log: Option<&Log>) -> Footprint {
    let parts = || log.into_iter().flat_map(|log| [&log.stdout, &log.stderr]);
    let inline: u64 = parts().map(inline_bytes).sum();
    let blobs = parts().filter(|data| data.hash().is_some()).map(Data::size);
    let held = BLOB_BYTES * blobs.clone().count() as u64;
    let memory = memory.saturating_add(inline).saturating_add(held);
    Footprint {
        memory,
        disk: blobs.fold(memory, u64::saturating_add),
    }
}

fn file_bytes(file: &FileEntry) -> u64 {
    let content = match &file.data {
        Data::Inline(bytes) => bytes.len() as u64,
        Data::Blob { .. } => BLOB_BYTES,
    };
    FILE_BYTES + file.path.len() as u64 + content
}

fn inline_bytes(data: &Data) -> u64 {
    match data {
        Data::Inline(bytes) => bytes.len() as u64,
        Data::Blob { .. } => 0,
    }
}
