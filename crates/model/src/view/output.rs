//! Outputs and printed output of tasks in the form that programs read: JSON, with ids as text.

use super::{LogView, ResultFile};
use crate::{AttemptId, PeerId};
use serde::Serialize;

/// A file of a job's results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct FileLine {
    /// Its path in the task's scratch directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// BLAKE3 of its content.
    pub blake3: String,
    /// The label of its task.
    pub task: String,
    /// The attempt that made it.
    pub attempt: String,
    /// The worker that ran the attempt.
    pub worker: String,
}

impl From<&ResultFile> for FileLine {
    fn from(made: &ResultFile) -> Self {
        Self {
            path: made.file.path.to_string(),
            bytes: made.file.data.size(),
            blake3: made.hash.to_string(),
            task: made.task.clone(),
            attempt: made.attempt.to_string(),
            worker: made.worker.to_string(),
        }
    }
}

/// What a task printed: with its end, or so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OutputView {
    /// The label of the task.
    pub task: String,
    /// The attempt that printed it.
    pub attempt: Option<String>,
    /// Where it ran.
    pub worker: Option<String>,
    /// Whether it may print more.
    pub running: bool,
    /// How it ended.
    pub end: Option<String>,
    /// The exit status of its program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended its program.
    pub signal: Option<i32>,
    /// What was kept of the standard output.
    pub stdout: String,
    /// What was kept of the standard error.
    pub stderr: String,
    /// Bytes written to standard output, kept or not.
    pub stdout_total_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_total_bytes: u64,
}

impl OutputView {
    /// Creates the view of an attempt at a worker, with its end if known. `totals` are the bytes printed, kept or
    /// not.
    pub fn new(
        task: &str,
        made: (Option<AttemptId>, Option<PeerId>),
        end: Option<&LogView>,
        [out, err]: [&[u8]; 2],
        totals: [u64; 2],
    ) -> Self {
        Self {
            task: task.to_owned(),
            attempt: made.0.map(|attempt| attempt.to_string()),
            worker: made.1.map(|worker| worker.to_string()),
            running: end.is_none(),
            end: end.map(|view| view.end.clone()),
            exit_code: end.and_then(|view| view.exit_code),
            signal: end.and_then(|view| view.signal),
            stdout: String::from_utf8_lossy(out).into_owned(),
            stderr: String::from_utf8_lossy(err).into_owned(),
            stdout_total_bytes: totals[0],
            stderr_total_bytes: totals[1],
        }
    }
}

/// More of what a task printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OutputPart {
    /// The label of the task.
    pub task: String,
    /// The attempt that printed it.
    pub attempt: Option<String>,
    /// Where it runs.
    pub worker: Option<String>,
    /// More of the standard output.
    pub stdout: String,
    /// More of the standard error.
    pub stderr: String,
    /// Bytes of the standard output before this part that were not kept.
    pub stdout_missing_bytes: u64,
    /// Bytes of the standard error before this part that were not kept.
    pub stderr_missing_bytes: u64,
}

impl OutputPart {
    /// Creates a part of the output of an attempt at a worker. `missing` are the bytes before it that were not kept.
    pub fn new(
        task: &str,
        made: (Option<AttemptId>, Option<PeerId>),
        [stdout, stderr]: [String; 2],
        missing: [u64; 2],
    ) -> Self {
        Self {
            task: task.to_owned(),
            attempt: made.0.map(|attempt| attempt.to_string()),
            worker: made.1.map(|worker| worker.to_string()),
            stdout,
            stderr,
            stdout_missing_bytes: missing[0],
            stderr_missing_bytes: missing[1],
        }
    }
}

/// The end of an attempt whose output was read part by part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OutputEnd {
    /// The label of the task.
    pub task: String,
    /// The attempt.
    pub attempt: Option<String>,
    /// Where it ran.
    pub worker: Option<String>,
    /// How it ended.
    pub end: String,
    /// The exit status of its program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended its program.
    pub signal: Option<i32>,
    /// Whether its output is the task's, and nothing follows.
    pub last: bool,
}

impl OutputEnd {
    /// Creates the end of the attempt that the log belongs to.
    pub fn new(task: &str, log: &LogView, last: bool) -> Self {
        Self {
            task: task.to_owned(),
            attempt: log.attempt.map(|attempt| attempt.to_string()),
            worker: log.worker.map(|worker| worker.to_string()),
            end: log.end.clone(),
            exit_code: log.exit_code,
            signal: log.signal,
            last,
        }
    }
}
