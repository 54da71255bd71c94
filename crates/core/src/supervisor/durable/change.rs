//! What a committed record changed, for the role that reacts to it.

use crate::supervisor::durable::job::Job;
use hedge_model::msg::{Log, SharedExtension};
use hedge_model::{AttemptId, Data, Ending, FileEntry, Hash, JobId, JobSpec, PeerId, TaskId};
use std::sync::Arc;

/// Why a record changed nothing.
pub(crate) type Stale = &'static str;

/// What an extension added to the end of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// The position of its first group.
    pub first_group: usize,
    /// The position of the first of its files that the job did not have.
    pub first_file: usize,
    /// The length of the encoded extension in bytes.
    pub encoded_bytes: u64,
}

/// What a committed record did to the state.
#[derive(Clone, Debug)]
pub enum Change {
    /// Nothing, for this reason.
    Stale(&'static str),
    /// A new epoch has begun.
    Epoch,
    /// A member joined, a ticket was made or changed, or the client of an open job was seen.
    Noted,
    /// Records have a new format from now on.
    Format,
    /// A member was revoked.
    Revoked(PeerId),
    /// A setting was changed.
    Settings,
    /// A submission belongs to this job, which is new or was accepted under the same key before.
    Accepted {
        /// The job.
        job: JobId,
        /// The specification that was submitted.
        spec: Arc<JobSpec>,
    },
    /// An attempt succeeded.
    Succeeded(Success),
    /// An attempt ended without deciding its task. Also returned if the record changed nothing.
    Ended {
        /// The attempt.
        attempt: AttemptId,
        /// Its worker.
        worker: PeerId,
        /// How it ended.
        end: Ending,
        /// Blobs of its printed output.
        printed: Vec<(Hash, u64)>,
        /// Blobs of the task's checkpoint, if the task no longer uses it.
        checkpoint: Vec<Hash>,
    },
    /// A task's outputs are lost and it runs again.
    OutputsLost {
        /// The task.
        task: TaskId,
        /// Blobs of its lost outputs.
        left: Vec<Hash>,
    },
    /// A task has failed for good.
    TaskFailed(TaskId),
    /// A task has a newer checkpoint.
    Checkpointed {
        /// The task.
        task: TaskId,
        /// Blobs of the checkpoint before it that this one does not use.
        dropped: Vec<Hash>,
    },
    /// A failed job runs again.
    JobRetried(JobId),
    /// An extension of an open job was decided.
    Extended {
        /// The job.
        job: JobId,
        /// The extension.
        extension: SharedExtension,
        /// What this record added; none if it added nothing, as when the extension was added before.
        added: Option<Added>,
    },
    /// The client released the outputs of these tasks: groups added later do not read them.
    Released {
        /// The job.
        job: JobId,
        /// The numbers of the tasks.
        tasks: Vec<u32>,
    },
    /// An open job was closed.
    JobClosed(JobId),
    /// A job has ended.
    JobEnded {
        /// The job.
        job: JobId,
        /// Its whole specification. The state may keep only an outline of it.
        spec: Arc<JobSpec>,
        /// Blobs of the checkpoints that it had.
        checkpoints: Vec<Hash>,
    },
    /// The end of a job changed nothing: not enough tasks are done any more, or the job had ended before.
    JobNotEnded(JobId),
    /// An ended job was removed.
    JobForgotten {
        /// The job.
        job: JobId,
        /// The removed job; none if it was removed before or has not ended.
        known: Option<Arc<Job>>,
    },
    /// Benchmark tasks measured a worker.
    Benchmarked(PeerId),
}

/// A successful attempt.
#[derive(Clone, Debug)]
pub struct Success {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its worker.
    pub worker: PeerId,
    /// Whether it decided its task. Otherwise the record came too late or its worker was revoked, and it changed
    /// nothing.
    pub won: bool,
    /// Whether its running time is known.
    pub timed: bool,
    /// Its outputs.
    pub outputs: Arc<[FileEntry]>,
    /// Blobs of its printed output.
    pub printed: Vec<(Hash, u64)>,
    /// Blobs of the task's checkpoint, which is dropped.
    pub checkpoint: Vec<Hash>,
}

/// The blobs of a log, with their sizes in bytes.
pub(crate) fn printed(log: Option<&Log>) -> Vec<(Hash, u64)> {
    let data = log.iter().flat_map(|log| [&log.stdout, &log.stderr]);
    let sized = |data: &Data| Some((data.hash()?, data.size()));
    data.filter_map(sized).collect()
}
