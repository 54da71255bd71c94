//! What a committed record did, for the role that follows it.

use crate::supervisor::durable::job::Job;
use hedge_model::msg::{Log, SharedExtension};
use hedge_model::{AttemptId, Data, Ending, FileEntry, Hash, JobId, JobSpec, PeerId, TaskId};
use std::sync::Arc;

/// Why a record changed nothing: it came too late.
pub(crate) type Stale = &'static str;

/// What a committed record did to the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing: it came too late.
    Stale(&'static str),
    /// A new epoch has begun.
    Epoch,
    /// A peer was let in, or a ticket was made or changed.
    Noted,
    /// Records have another format.
    Format,
    /// A member was revoked.
    Revoked(PeerId),
    /// A setting was changed.
    Settings,
    /// A submission has this job, new or from an earlier record of the same key.
    Accepted {
        /// The job.
        job: JobId,
        /// The specification that was submitted.
        spec: Arc<JobSpec>,
    },
    /// An attempt succeeded.
    Succeeded(Success),
    /// An attempt ended without deciding its task, or is known to have.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// Its worker.
        worker: PeerId,
        /// How.
        end: Ending,
        /// Blobs that it printed.
        printed: Vec<(Hash, u64)>,
        /// Blobs of the task's checkpoint, if that is not used any more.
        checkpoint: Vec<Hash>,
    },
    /// A task whose outputs are lost runs again.
    OutputsLost {
        /// Which.
        task: TaskId,
        /// Blobs that it had left.
        left: Vec<Hash>,
    },
    /// A task was given up.
    TaskFailed(TaskId),
    /// A task has a newer checkpoint.
    Checkpointed {
        /// Which.
        task: TaskId,
        /// Blobs of the one before that this one does not need.
        dropped: Vec<Hash>,
    },
    /// A job that had failed goes on.
    JobRetried(JobId),
    /// Groups were to be added to an open job.
    Extended {
        /// Which.
        job: JobId,
        /// What.
        extension: SharedExtension,
        /// The position of the first group; none where nothing was added.
        from: Option<usize>,
    },
    /// Nobody who may come is to read what these tasks of an open job leave.
    Released {
        /// Which.
        job: JobId,
        /// The numbers of the tasks.
        tasks: Vec<u32>,
    },
    /// Nothing more is added to a job.
    JobClosed(JobId),
    /// A job has ended.
    JobEnded {
        /// Which.
        job: JobId,
        /// Its whole specification, of which the state keeps an outline.
        spec: Arc<JobSpec>,
        /// Blobs of the checkpoints that it had.
        checkpoints: Vec<Hash>,
    },
    /// The end of a job came too late: it goes on, or had ended before.
    JobNotEnded(JobId),
    /// An ended job is removed.
    JobForgotten {
        /// Which.
        job: JobId,
        /// What was known of it; none where it was removed before or has not ended.
        known: Option<Arc<Job>>,
    },
    /// Benchmark tasks measured a worker.
    Benchmarked(PeerId),
}

/// An attempt that succeeded.
#[derive(Clone, Debug)]
pub struct Success {
    /// Which.
    pub attempt: AttemptId,
    /// Its worker.
    pub worker: PeerId,
    /// Whether it is the first of its task: otherwise it changed nothing.
    pub won: bool,
    /// Whether it says how long it ran.
    pub timed: bool,
    /// What it left.
    pub outputs: Arc<[FileEntry]>,
    /// Blobs that it printed.
    pub printed: Vec<(Hash, u64)>,
    /// Blobs of the task's checkpoint.
    pub checkpoint: Vec<Hash>,
}

/// The blobs of a log, with their sizes in bytes.
pub(crate) fn printed(log: Option<&Log>) -> Vec<(Hash, u64)> {
    let data = log.iter().flat_map(|log| [&log.stdout, &log.stderr]);
    let sized = |data: &Data| Some((data.hash()?, data.size()));
    data.filter_map(sized).collect()
}
