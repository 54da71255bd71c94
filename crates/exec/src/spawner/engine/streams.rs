//! Reads what attempts print and what they report of their progress, at a bounded rate.

use super::{ADVANCE, Engine, STDERR, STDOUT};
use crate::wire::Reply;
use hedge_model::msg::{Offsets, Pieces};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How long the spawner does not read from a program that prints without a break. With pipes of 64 KiB the program can
/// still print about 30 MB a second.
const HOLD_BACK: Duration = Duration::from_millis(2);

impl Engine {
    pub(super) fn read_stream(&mut self, token: u64) {
        let Some(attempt) = &mut self.attempt else {
            return;
        };
        let pipes = &mut attempt.pipes;
        let now = Instant::now();
        let (fd, busy) = match token {
            STDOUT | STDERR => {
                let stream = if token == STDOUT {
                    &mut pipes.stdout
                } else {
                    &mut pipes.stderr
                };
                stream.read_some(&mut self.buffer);
                (stream.read.as_raw_fd(), stream.flow.is_busy(now))
            }
            _ => {
                pipes.advance.read_some(&mut self.buffer);
                (
                    pipes.advance.read.as_raw_fd(),
                    pipes.advance.flow.is_busy(now),
                )
            }
        };
        if busy && self.control(libc::EPOLL_CTL_MOD, fd, 0, token).is_ok() {
            self.resume_at.get_or_insert(now + HOLD_BACK);
        }
    }

    /// Replies with what an attempt has printed; with nothing if it does not run.
    pub(super) fn read_printed(&mut self, id: u64, reading: u64, from: Offsets) {
        let attempt = self.attempt.as_ref();
        let attempt = attempt.filter(|attempt| attempt.id == id && !attempt.reported);
        let pieces = attempt.map(|attempt| Pieces {
            stdout: attempt.pipes.stdout.piece(from.stdout),
            stderr: attempt.pipes.stderr.piece(from.stderr),
        });
        self.reply(&Reply::Printed { reading, pieces });
    }

    /// Reads again from streams of programs that print too fast.
    pub(super) fn resume_streams(&mut self) {
        self.resume_at = None;
        let Some(attempt) = &self.attempt else {
            return;
        };
        for (fd, token) in [
            (&attempt.pipes.stdout.read, STDOUT),
            (&attempt.pipes.stderr.read, STDERR),
            (&attempt.pipes.advance.read, ADVANCE),
        ] {
            let _ = self.control(libc::EPOLL_CTL_MOD, fd.as_raw_fd(), libc::EPOLLIN, token);
        }
    }
}
