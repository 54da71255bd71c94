//! All attempts stopped for a while, where they are, and let go on.

use super::Engine;
use super::ending::signalled;
use crate::Sandbox;
use crate::spawner::freezer::Freezer;
use crate::spawner::tree;
use crate::wire::Reply;
use std::collections::HashSet;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

/// Looks for processes that were started while others were being stopped, at most.
const ROUNDS_MAX: usize = 64;

/// Until it is looked whether stopped processes stand still, at first and where one did not, and at most.
const CHECK_AFTER: Duration = Duration::from_millis(10);
const CHECK_AFTER_MAX: Duration = Duration::from_millis(500);
/// CPU time that stopped processes may be found to have used since the last look: what they did until they stopped.
const STILL: Duration = Duration::from_millis(1);
/// Times that a stopped attempt may be found running during one pause; beyond, it is ended.
const AWAKE_MAX: u32 = 20;

/// Whether attempts are stopped, and for how long they have been in all.
#[derive(Default)]
pub(super) struct Pause {
    since: Option<Instant>,
    before: Duration,
    /// Whether any attempt was started outside the control group, whence signals are needed.
    outside: bool,
    /// What is known of processes that were stopped by signals, while they are.
    signalled: Option<Check>,
}

/// Whether processes that were sent a signal to stop stand still.
struct Check {
    at: Instant,
    after: Duration,
    /// CPU time that they had used at the last look.
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

    /// Takes what was found; whether they were running.
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
    /// The control group that the next attempt is to start in.
    pub fn group(&self, freezer: Option<&Freezer>) -> Option<RawFd> {
        freezer.filter(|_| !self.outside).map(Freezer::folder)
    }

    /// From now on attempts start outside the control group.
    pub fn start_outside(&mut self) {
        self.outside = true;
    }

    /// When to look whether what was stopped stands still.
    pub fn check_at(&self) -> Option<Instant> {
        self.signalled.as_ref().map(|check| check.at)
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

    /// Gives all attempts idle priority, or further ones that of the setup again: the kernel lets nobody without
    /// rights take idle priority back.
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

    /// Looks whether processes that were sent a signal to stop stand still. Some signal may have woken one: it is
    /// stopped again, and ended if that does not help.
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

    /// Stops what is in the control group, or lets it go on; whether that could be done.
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

    /// Sends a signal to all processes of attempts; says which, where the kernel does not walk over them itself.
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
