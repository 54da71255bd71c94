//! Messages to read what attempts have printed so far.

use super::Grants;
use crate::view::LogView;
use crate::{AttemptId, JobId, PeerId};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most bytes of one stream in one reply. Several replies fit into one frame. To follow a stream of some MB/s
/// takes some hundred of them per second.
pub const PIECE_BYTES_MAX: usize = 64 << 10;

/// Requests what an attempt of a task has printed so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrintedRequest {
    /// The job.
    pub job: JobId,
    /// The task, by number or label.
    pub task: String,
    /// The attempt to read. If none is given, the supervisor chooses the winner, otherwise a running attempt,
    /// otherwise, once the job has ended, the last one.
    pub attempt: Option<AttemptId>,
    /// The first byte wanted of each stream.
    pub from: Offsets,
}

/// Positions in the two output streams of an attempt, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offsets {
    /// Position in its standard output.
    pub stdout: u64,
    /// Position in its standard error.
    pub stderr: u64,
}

/// A part of an output stream of a running attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Position of its first byte: the requested one, or a later one if that is no longer kept.
    pub from: u64,
    /// At most [`PIECE_BYTES_MAX`] bytes.
    pub bytes: Arc<[u8]>,
    /// Bytes that the attempt has written to the stream so far.
    pub total: u64,
}

impl Piece {
    /// Returns whether this can be a reply to a request for the bytes from `asked` on.
    pub fn answers(&self, asked: u64) -> bool {
        let until = self.from.checked_add(self.bytes.len() as u64);
        let until = until.is_some_and(|until| until <= self.total.max(asked));
        self.bytes.len() <= PIECE_BYTES_MAX && self.from >= asked && until
    }
}

/// Pieces of both streams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pieces {
    /// A piece of the standard output.
    pub stdout: Piece,
    /// A piece of the standard error.
    pub stderr: Piece,
}

/// From the supervisor to a worker: requests output of an attempt in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadPrinted {
    /// Identifies the request; the reply repeats it.
    pub reading: u64,
    /// The attempt.
    pub attempt: AttemptId,
    /// The first byte wanted of each stream.
    pub from: Offsets,
}

/// The reply to [`ReadPrinted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrintedPart {
    /// The request, which tells replies to an earlier leader apart from replies to this one.
    pub read: ReadPrinted,
    /// The output; none if the attempt's program does not run here, not yet or not any more.
    pub pieces: Option<Box<Pieces>>,
}

/// The reply to a [`PrintedRequest`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum PrintedView {
    /// A part of what a running attempt has printed.
    Part {
        /// The attempt.
        attempt: AttemptId,
        /// Its worker.
        worker: PeerId,
        /// The worker's name, for people.
        place: String,
        /// The output.
        pieces: Box<Pieces>,
    },
    /// The attempt is over, and this is what was kept of its output.
    Over {
        /// The output, as in the reply to [`super::Request::Logs`].
        log: Box<LogView>,
        /// Grants to read its blobs.
        grants: Grants,
        /// Whether this is the task's final output, which no other attempt replaces.
        last: bool,
    },
    /// Nothing can be read now.
    Nothing {
        /// Why, a sentence without a full stop.
        why: String,
        /// Whether that is final.
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
