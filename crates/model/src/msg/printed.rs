//! What attempts have printed so far.

use super::Grants;
use crate::view::LogView;
use crate::{AttemptId, JobId, PeerId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Bytes of one stream in one answer, at most: several answers fit into one frame, and a stream of some MB/s needs
/// some hundred of them each second.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// Asks for what an attempt of a task has printed so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrintedRequest {
    /// The job.
    pub job: JobId,
    /// The task, by number or label.
    pub task: String,
    /// The attempt whose output is wanted. Without one, the supervisor chooses: the attempt that won, else one that
    /// runs, else, once the job has ended, the last one.
    pub attempt: Option<AttemptId>,
    /// The first byte that is wanted of each stream.
    pub from: Offsets,
}

/// Positions in the two streams of an attempt, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// In its standard output.
    pub stdout: u64,
    /// In its standard error.
    pub stderr: u64,
}

/// A part of a stream of an attempt that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Position of the first byte: the one that was asked for, or a later one where that is not kept any more.
    pub from: u64,
    /// At most [`PIECE_BYTES_MAX`] bytes.
    pub bytes: Arc<[u8]>,
    /// Bytes that the attempt has written to the stream so far.
    pub total: u64,
}

impl Piece {
    /// Whether it can be an answer to a request for the bytes from `asked` on.
    pub fn answers(&self, asked: u64) -> bool {
        let until = self.from.checked_add(self.bytes.len() as u64);
        let until = until.is_some_and(|until| until <= self.total.max(asked));
        self.bytes.len() <= PIECE_BYTES_MAX && self.from >= asked && until
    }
}

/// Pieces of both streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// Of the standard output.
    pub stdout: Piece,
    /// Of the standard error.
    pub stderr: Piece,
}

/// From the supervisor to a worker: asks for output of an attempt that it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPrinted {
    /// Repeated by the answer.
    pub reading: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// The first byte that is wanted of each stream.
    pub from: Offsets,
}

/// The answer to [`ReadPrinted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrintedPart {
    /// What was asked for, so that an answer to an earlier leader is told from one to this.
    pub read: ReadPrinted,
    /// What the attempt has printed; none where its program does not run here: not yet, or not any more.
    pub pieces: Option<Box<Pieces>>,
}

/// The answer to a [`PrintedRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PrintedView {
    /// Some of what a running attempt has printed.
    Part {
        /// The attempt.
        attempt: AttemptId,
        /// Its worker.
        worker: PeerId,
        /// The worker's name, for people.
        place: String,
        /// What it has printed.
        pieces: Box<Pieces>,
    },
    /// The attempt is over, and this is what was kept of its output.
    Over {
        /// As the answer to [`super::Request::Logs`].
        log: Box<LogView>,
        /// Leave to read longer parts of it.
        grants: Grants,
        /// No other attempt of the task decides what the task's output is.
        last: bool,
    },
    /// Nothing can be read now.
    Nothing {
        /// Why, a sentence without a full stop.
        why: String,
        /// Whether that stays so.
        last: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_begins_where_it_was_asked_for_or_later_and_ends_within_the_stream() {
        let piece = |from, bytes: usize, total| Piece {
            from,
            bytes: vec![0; bytes].into(),
            total,
        };
        assert!(piece(5, 3, 8).answers(5) && piece(7, 1, 8).answers(5));
        assert!(piece(9, 0, 8).answers(9), "more was read than is there now");
        assert!(!piece(4, 3, 8).answers(5), "what was read before");
        assert!(!piece(5, 4, 8).answers(5), "more than was written");
        assert!(!piece(u64::MAX, 1, u64::MAX).answers(0));
        assert!(!piece(0, PIECE_BYTES_MAX + 1, 1 << 30).answers(0));
    }
}
