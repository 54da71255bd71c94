//! Measures the progress of attempts as often as the worker requests.

use super::Engine;
use crate::wire::Reply;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Minimum delay between two measurements.
const EVERY_MIN: Duration = Duration::from_micros(500);
/// The delay is at least this many times the duration of a measurement, so that measuring takes at most a tenth of a
/// processor.
const LOOK_FACTOR: u32 = 10;

/// The timer of measurements. It is a timer of the kernel, because the loop waits in whole milliseconds.
pub(super) struct Look {
    timer: OwnedFd,
    every: Option<Duration>,
    set: bool,
}

impl Look {
    pub(super) fn new() -> io::Result<Look> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: only returns a new descriptor.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Look {
            // SAFETY: the kernel has just given us this descriptor.
            timer: unsafe { OwnedFd::from_raw_fd(fd) },
            every: None,
            set: false,
        })
    }

    pub(super) fn fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }

    /// Starts the timer, because an attempt runs.
    pub(super) fn start(&mut self) {
        if let Some(every) = self.every.filter(|_| !self.set) {
            self.set(every);
        }
    }

    fn set(&mut self, after: Duration) {
        // SAFETY: all zeroes is a valid value.
        let mut once: libc::itimerspec = unsafe { std::mem::zeroed() };
        once.it_value.tv_sec = libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX);
        once.it_value.tv_nsec = after.subsec_nanos().into();
        let timer = self.timer.as_raw_fd();
        // SAFETY: the structure is valid for the call.
        let set = unsafe { libc::timerfd_settime(timer, 0, &raw const once, std::ptr::null_mut()) };
        self.set = set == 0;
    }

    fn took(&mut self) {
        let mut count = [0; 8];
        _ = rustix::io::read(&self.timer, &mut count);
        self.set = false;
    }
}

impl Engine {
    pub(super) fn look_every(&mut self, every: Duration) {
        self.look.every = Some(every.max(EVERY_MIN));
        if self.attempt.is_some() {
            self.look.set(every.max(EVERY_MIN));
        }
    }

    /// Measures the attempt and reports its progress if that has changed. Without an attempt the timer stops.
    pub(super) fn look(&mut self) {
        self.look.took();
        let Some(every) = self.look.every else {
            return;
        };
        let since = Instant::now();
        let paused = self.pause.on();
        let runs = |one: &&super::Attempt| one.ended.is_none() && !one.reported;
        if self.attempt.as_ref().filter(runs).is_none() {
            return;
        }
        let pids = self.processes();
        let running = self
            .attempt
            .as_mut()
            .filter(|attempt| attempt.ended.is_none());
        let Some(attempt) = running.filter(|attempt| !attempt.reported) else {
            return;
        };
        let id = attempt.id;
        if let Some(to) = attempt.pipes.advance.look(&pids, paused) {
            self.reply(&Reply::Advanced { id, to });
        }
        let took = since.elapsed();
        self.look
            .set(every.saturating_sub(took).max(took * LOOK_FACTOR));
    }
}
