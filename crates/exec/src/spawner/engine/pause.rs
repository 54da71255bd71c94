//! All attempts stopped for a while, where they are, and let go on.

use super::Engine;
use crate::Sandbox;
use crate::spawner::freezer::Freezer;
use crate::spawner::tree;
use crate::wire::Reply;
use std::collections::HashSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Looks for processes that were started while others were being stopped, at most.
const ROUNDS_MAX: usize = 64;

/// Whether attempts are stopped, and for how long they have been in all.
#[derive(Default)]
pub(super) struct Pause {
    since: Option<Instant>,
    before: Duration,
    /// Whether any attempt was started outside the control group, whence signals are needed.
    outside: bool,
    /// Whether what is stopped now was sent signals.
    signalled: bool,
}

impl Pause {
    /// The control group that the next attempt is to start in.
    pub fn group(&self, freezer: Option<&Freezer>) -> Option<RawFd> {
        freezer.filter(|_| !self.outside).map(Freezer::folder)
    }

    /// From now on attempts start outside the control group.
    pub fn start_outside(&mut self) {
        self.outside = true;
    }

    /// Whether attempts are stopped now.
    pub fn on(&self) -> bool {
        self.since.is_some()
    }

    /// How long attempts have been stopped since the spawner's start.
    pub fn total(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Engine {
    /// Stops every process of every attempt, or lets them go on, and says when that is done. Meanwhile nothing is
    /// started, and no time counts towards limits.
    pub(super) fn pause(&mut self, on: bool) {
        if on != self.pause.on() {
            if on {
                self.pause.since = Some(Instant::now());
                let frozen = self.freeze(true);
                self.pause.signalled = !frozen || self.pause.outside;
                if self.pause.signalled {
                    self.stop_all();
                }
            } else {
                self.freeze(false);
                if self.pause.signalled {
                    self.signal_all(libc::SIGCONT);
                }
                self.pause.before = self.pause.total();
                self.pause.since = None;
            }
        }
        self.reply(&Reply::Paused(on));
    }

    /// Gives all attempts idle priority, or further ones that of the setup again: the kernel lets nobody without
    /// rights take idle priority back.
    pub(super) fn lower(&mut self, on: bool) {
        self.lowered = on;
        if on && !self.ground.report.idle {
            for attempt in self.attempts.values() {
                tree::make_idle(attempt.pid, &self.last_pid);
            }
        }
    }

    /// Stops what is in the control group, or lets it go on; whether that could be done.
    fn freeze(&self, on: bool) -> bool {
        let freezer = self.ground.freezer.as_ref();
        freezer.is_some_and(|freezer| freezer.freeze(on).is_ok())
    }

    fn stop_all(&self) {
        // One that forks while the others are being stopped leaves a child: with the kernel's own walk over all
        // of a namespace none escapes, else they are looked for until there are no more.
        let mut known = HashSet::new();
        for _ in 0..ROUNDS_MAX {
            let stopped = self.signal_all(libc::SIGSTOP);
            if stopped.is_empty() || stopped.iter().all(|pid| known.contains(pid)) {
                return;
            }
            known.extend(stopped);
        }
    }

    /// Sends a signal to all processes of attempts; says which, where the kernel does not walk over them itself.
    fn signal_all(&self, signal: i32) -> Vec<i32> {
        if matches!(self.ground.report.sandbox, Sandbox::View { .. }) {
            // SAFETY: this is the first process of a namespace: all others in it are of attempts, and the kernel
            // leaves this one out.
            unsafe { libc::kill(-1, signal) };
            return Vec::new();
        }
        let pids = tree::below(self.children.list());
        for pid in &pids {
            // SAFETY: processes just found below this one.
            unsafe { libc::kill(*pid, signal) };
        }
        pids
    }
}
