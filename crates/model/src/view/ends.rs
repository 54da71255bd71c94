//! Tasks of an open job as they end.

use crate::{Ending, FileEntry, JobId};
use serde::{Deserialize, Serialize};

/// Tasks in one answer, at most: a client learns of more with its next request.
pub const ENDS_LISTED_MAX: usize = 5000;

/// Some ends of tasks of an open job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndsView {
    /// The job.
    pub job: JobId,
    /// The tasks, in the order of their ends; one that has to run again is left out.
    pub tasks: Vec<EndedTask>,
    /// What to give as `after` in the next request.
    pub next: u64,
    /// Whether the job has ended and no more follow.
    pub over: bool,
}

/// A task that is done or given up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndedTask {
    /// Its label.
    pub task: String,
    /// Its number.
    pub number: u32,
    /// How it ended.
    pub end: EndKind,
    /// Why it was given up, a clause; empty for one that is done.
    pub why: String,
    /// What it left.
    pub files: Vec<FileEntry>,
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum EndKind {
    /// It is done.
    Done,
    /// Its client cancelled it.
    Cancelled,
    /// Its program ended with an exit status other than 0.
    Exited,
    /// A signal ended its program.
    Signalled,
    /// Its program cannot be started.
    NotStarted,
    /// It ran longer than its time limit.
    TimeLimit,
    /// It used more memory than its limit.
    MemoryLimit,
    /// It wrote more than its limit.
    DiskLimit,
    /// A declared output was not there.
    Output,
    /// Its input, its worker or the worker's machine failed too often.
    Machine,
    /// It was lost with its worker and may not run again.
    Lost,
}

impl EndKind {
    /// Of a task that was given up after an attempt ended so; none ended for one that was cancelled.
    pub fn of_failed(end: Option<&Ending>) -> Self {
        match end {
            None | Some(Ending::Cancelled | Ending::Vacated | Ending::Lost) => Self::Cancelled,
            Some(Ending::Exited { .. }) => Self::Exited,
            Some(Ending::Signalled { .. }) => Self::Signalled,
            Some(Ending::NotStarted { .. }) => Self::NotStarted,
            Some(Ending::TimeLimit { .. }) => Self::TimeLimit,
            Some(Ending::MemoryLimit { .. }) => Self::MemoryLimit,
            Some(Ending::DiskLimit { .. }) => Self::DiskLimit,
            Some(Ending::Output { .. }) => Self::Output,
            Some(
                Ending::Input { .. }
                | Ending::Short { .. }
                | Ending::Worker { .. }
                | Ending::Recorded { .. },
            ) => Self::Machine,
        }
    }
}
