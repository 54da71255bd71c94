//! Measures the progress of an attempt: what its processes have used and written, and what it reports itself.

use super::stream::Flow;
use super::tree;
use crate::Advanced;
use std::io;
use std::os::fd::OwnedFd;

/// The longest line that is read, in bytes. Only the beginning of longer ones counts.
const LINE_BYTES_MAX: usize = 256;
/// The word at the beginning of a line that says that the task waits.
const WAITING: &str = "waiting";
/// The line that requests that the checkpoint is saved.
const CHECKPOINT: &str = "checkpoint";

/// The known progress of an attempt, and the pipe on which it may report more. As with its output, the writing end stays
/// open here, so that the pipe never reports an end.
pub(crate) struct Advance {
    pub read: OwnedFd,
    pub write: OwnedFd,
    pub flow: Flow,
    lines: ProgressLines,
    told: Advanced,
}

/// What an attempt has reported in lines.
#[derive(Default)]
struct ProgressLines {
    line: Vec<u8>,
    permille: Option<u16>,
    waiting: bool,
    waits_for: Option<u64>,
    notes: u32,
    checkpoints: u32,
}

impl Advance {
    pub(crate) fn new() -> io::Result<Advance> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        Ok(Advance {
            read,
            write,
            flow: Flow::default(),
            lines: ProgressLines::default(),
            told: Advanced::default(),
        })
    }

    /// Reads a bounded amount of what is there.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) {
        let read = rustix::io::read(&self.read, &mut *buffer).unwrap_or(0);
        self.lines.take(&buffer[..read]);
    }

    /// Measures the processes. Returns the progress if it has changed. Figures never decrease, although what an orphan used
    /// is no longer visible once it has ended.
    pub(crate) fn look(&mut self, pids: &[i32], paused: bool) -> Option<Advanced> {
        let now = Advanced {
            cpu: tree::cpu_of_all(pids).max(self.told.cpu),
            written: tree::written_by(pids).max(self.told.written),
            permille: self.lines.permille,
            notes: self.lines.notes,
            waiting: self.lines.waiting || paused,
            waits_for: self.lines.waits_for,
            checkpoints: self.lines.checkpoints,
        };
        (now != self.told).then(|| {
            self.told = now;
            now
        })
    }
}

impl ProgressLines {
    fn take(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n");
            let room = LINE_BYTES_MAX - self.line.len();
            let part = text.unwrap_or(piece);
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if text.is_some() {
                let line = std::mem::take(&mut self.line);
                self.understand(String::from_utf8_lossy(&line).trim());
            }
        }
    }

    fn understand(&mut self, line: &str) {
        self.notes = self.notes.wrapping_add(1);
        self.checkpoints = self.checkpoints.wrapping_add(u32::from(line == CHECKPOINT));
        let words: Vec<&str> = line.split_whitespace().take(5).collect();
        self.waiting = words.first() == Some(&WAITING);
        self.waits_for = match words[..] {
            [WAITING, "for", "job", number] => number.parse().ok(),
            _ => None,
        };
        if let Ok(share) = line.parse::<f64>()
            && (0.0..=1.0).contains(&share)
        {
            self.permille = Some((share * 1000.0).round() as u16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(pieces: &[&str]) -> ProgressLines {
        let mut said = ProgressLines::default();
        pieces.iter().for_each(|piece| said.take(piece.as_bytes()));
        said
    }

    #[test]
    fn lines_are_understood_however_they_are_cut() {
        let all = said(&["0.", "25\n", "wait", "ing for a licence\nnext\n0.5"]);
        assert_eq!(
            (all.permille, all.waiting, all.notes),
            (Some(250), false, 3)
        );
        let all = said(&["1\nwaiting\n"]);
        assert_eq!(
            (all.permille, all.waiting, all.notes),
            (Some(1000), true, 2)
        );
    }

    #[test]
    fn a_job_that_is_waited_for_is_named_until_the_next_line() {
        assert_eq!(said(&["waiting for job 12\n"]).waits_for, Some(12));
        for other in [
            "waiting for job\n",
            "waiting for job x\n",
            "waiting for job 1 2\n",
            "job 12 ended\n",
        ] {
            let said = said(&["waiting for job 12\n", other]);
            assert_eq!(said.waits_for, None, "{other}");
        }
    }

    #[test]
    fn a_checkpoint_is_asked_for_by_a_line_of_its_own() {
        let all = said(&[
            "checkpoint\n0.5\n",
            " checkpoint \ncheckpoints\ncheckpoint 2\n",
        ]);
        assert_eq!((all.checkpoints, all.notes), (2, 5));
    }

    #[test]
    fn nonsense_is_a_sign_of_life_and_no_more() {
        let all = said(&["2\n-1\nNaN\ninf\nwaitings\n\n", "\u{0}\u{fffd}\n"]);
        assert_eq!((all.permille, all.waiting, all.notes), (None, false, 7));
        let long = "0".repeat(100_000);
        let all = said(&[&long, "\n0.75\n"]);
        assert_eq!(all.permille, Some(750));
        assert!(all.line.capacity() <= LINE_BYTES_MAX * 2);
    }
}
