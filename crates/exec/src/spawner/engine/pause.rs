//! Pauses the attempt: freezes its control group, or sends its processes SIGSTOP and checks that they stand still.

use super::Engine;
use super::ending::signalled;
use crate::Sandbox;
use crate::spawner::freezer::Freezer;
use crate::spawner::tree;
use crate::wire::Reply;
use std::collections::HashSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// The most rounds of searching for processes that were created while others were being stopped.
const ROUNDS_MAX: usize = 64;

/// The delay before the first check that stopped processes stand still, and after one did not; then the longest delay.
const CHECK_AFTER: Duration = Duration::from_millis(10);
const CHECK_AFTER_MAX: Duration = Duration::from_millis(500);
/// The most CPU time that stopped processes may have used since the last check: they used it before they stopped.
const STILL: Duration = Duration::from_millis(1);
/// How often a stopped attempt may be found running during one pause. Then it is ended.
const AWAKE_MAX: u32 = 20;

/// Whether attempts are paused, and for how long they have been in all.
#[derive(Default)]
pub(super) struct Pause {
    since: Option<Instant>,
    before: Duration,
    /// Whether an attempt was started outside of the control group, so that signals are needed.
    outside: bool,
    /// The check of processes that were stopped by signals; none without a pause.
    signalled: Option<Check>,
}

/// Checks that processes that got SIGSTOP stand still.
struct Check {
    at: Instant,
    after: Duration,
    /// CPU time that they had used at the last check.
    cpu: Duration,
    /// How often they were found running.
    awake: u32,
}

impl Check {
    fn new() -> Check {
        Check {
            at: Instant::now() + CHECK_AFTER,
            after: CHECK_AFTER,
            cpu: Duration::MAX,
            awake: 0,
        }
    }

    /// Records the result of a check. Returns whether the processes were running.
    fn take(&mut self, cpu: Duration, awake: bool) -> bool {
        let awake = awake || cpu.saturating_sub(self.cpu) > STILL;
        self.cpu = cpu;
        self.awake += u32::from(awake);
        self.after = if awake {
            CHECK_AFTER
        } else {
            (self.after * 2).min(CHECK_AFTER_MAX)
        };
        self.at = Instant::now() + self.after;
        awake
    }
}

impl Pause {
    /// Returns the control group in which the next attempt starts.
    pub fn group(&self, freezer: Option<&Freezer>) -> Option<RawFd> {
        freezer.filter(|_| !self.outside).map(Freezer::folder)
    }

    /// Lets further attempts start outside of the control group.
    pub fn start_outside(&mut self) {
        self.outside = true;
    }

    /// Returns when the next check is due.
    pub fn check_at(&self) -> Option<Instant> {
        self.signalled.as_ref().map(|check| check.at)
    }

    /// Returns whether attempts are paused now.
    pub fn on(&self) -> bool {
        self.since.is_some()
    }

    /// Returns how long attempts have been paused since the spawner started.
    pub fn total(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl Engine {
    /// Pauses or resumes all processes, and replies when that is done. During a pause nothing starts, and time does not
    /// count towards limits.
    pub(super) fn pause(&mut self, on: bool) {
        if on != self.pause.on() {
            if on {
                self.pause.since = Some(Instant::now());
                if self.attempt.is_none() {
                    // Its memory is the owner's now.
                    self.end_template();
                }
                let frozen = self.freeze(true);
                if !frozen || self.pause.outside {
                    self.pause.signalled = Some(Check::new());
                    self.stop_all();
                }
            } else {
                self.freeze(false);
                if self.pause.signalled.take().is_some() {
                    self.signal_all(libc::SIGCONT);
                }
                self.pause.before = self.pause.total();
                self.pause.since = None;
            }
        }
        self.reply(&Reply::Paused(on));
    }

    /// Gives all attempts idle priority, or lets further ones have the priority of the setup again. Running attempts keep
    /// idle priority, because the kernel lets only privileged processes raise it.
    pub(super) fn lower(&mut self, on: bool) {
        self.lowered = on;
        if on && !self.environment.report.idle {
            // A process that the kernel is just making has its parent's priority from before: while all are frozen
            // none is being made.
            let frozen = !self.pause.on() && !self.pause.outside && self.freeze(true);
            self.make_idle();
            self.warm.lower();
            if frozen {
                self.freeze(false);
            }
            self.start_idle_checks();
        }
    }

    /// Checks that processes that got SIGSTOP stand still. If a signal has woken one, it is stopped again. If that happens
    /// too often, the attempt is ended.
    pub(super) fn check_stopped(&mut self) {
        let pids = tree::below(self.children.list());
        let (cpu, awake) = (tree::cpu_of_all(&pids), tree::awake(&pids));
        let Some(check) = &mut self.pause.signalled else {
            return;
        };
        if !check.take(cpu, awake) {
            return;
        }
        let times = check.awake;
        self.stop_all();
        let running = self
            .attempt
            .as_ref()
            .filter(|one| one.dying_since.is_none());
        let Some(id) = running.map(|attempt| attempt.id) else {
            return;
        };
        if times == 1 || times == AWAKE_MAX {
            self.reply(&Reply::Awake { id, times });
        }
        if times >= AWAKE_MAX {
            self.end(id, signalled(libc::SIGSTOP));
        }
    }

    /// Freezes or thaws the control group. Returns whether that succeeded.
    fn freeze(&self, on: bool) -> bool {
        let freezer = self.environment.freezer.as_ref();
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

    /// Sends a signal to all processes of the attempt. Returns them, unless the kernel finds them by itself.
    pub(super) fn signal_all(&self, signal: i32) -> Vec<i32> {
        let ends = signal == libc::SIGTERM;
        let spares = ends && self.warm.process().is_some();
        if matches!(self.environment.report.sandbox, Sandbox::View { .. }) && !spares {
            // SAFETY: this is the first process of a namespace: all others in it are of attempts, and the kernel
            // leaves this one out.
            unsafe { libc::kill(-1, signal) };
            return Vec::new();
        }
        let pids = match spares {
            true => self.processes(),
            false => tree::below(self.children.list()),
        };
        for pid in &pids {
            // SAFETY: processes just found below this one.
            unsafe { libc::kill(*pid, signal) };
        }
        pids
    }
}
