//! The ends of attempts: noticing them, bringing them about, reporting them.

use super::Engine;
use crate::spawner::attempt::{Ended, Phase};
use crate::spawner::tree;
use crate::spawner::view;
use crate::wire::Reply;
use crate::{Exit, Sandbox, Usage};
use hedge_model::Ending;
use std::time::{Duration, Instant};

/// How long an attempt's processes may take to die before it is reported without them. Once killed they
/// cannot do anything any more, but one at idle priority dies only when it gets the processor: 0.5 to 3 s
/// were measured where another program wanted all of it.
const REPORT_AFTER: Duration = Duration::from_millis(20);
/// How long they may take before their folder is used again all the same. Only a process that hangs in the
/// kernel takes longer.
const DYING_MAX: Duration = Duration::from_secs(60);
/// Changes of what an attempt uses that the worker does not hear of, bytes.
const TOLD_STEP: u64 = 1 << 20;
/// How often processes of an attempt are found and killed one by one, so that a template is spared.
const SPARED_KILLS: u32 = 50;
/// Time between two looks at processes that are being ended.
const PRESS_EVERY: Duration = Duration::from_millis(1);
/// The same, where all that is left is to wait for them to die, or where looking is dear.
const PRESS_SELDOM: Duration = Duration::from_millis(10);

impl Engine {
    /// Takes notice of all processes that have ended. All are of the attempt, and when none is left below this
    /// process, nothing of it is.
    pub(super) fn reap(&mut self) {
        let mut drained = [0u8; 1024];
        let _ = rustix::io::read(&self.environment.signals, &mut drained);
        let times = self.attempt.as_ref().map(|attempt| self.times(attempt));
        let mut template_ended = false;
        let none_left = loop {
            let mut status = 0;
            // SAFETY: all zeroes is a valid value, and both are valid for the call.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: as above; reaps our own children only.
            let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
            if pid <= 0 {
                break pid < 0;
            }
            template_ended |= self.warm.reaped(pid);
            let (Some(attempt), Some((elapsed, paused))) = (&mut self.attempt, times) else {
                continue;
            };
            let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
            if pid == attempt.pid && attempt.ended.is_none() {
                attempt.ended = Some(Ended {
                    outcome: match attempt.phase {
                        Phase::Preloads => outcome_of(status).and(Err(ended_early())),
                        Phase::Runs | Phase::Asked(_) => outcome_of(status),
                    },
                    elapsed,
                    paused,
                    cpu,
                    memory_peak: usage.ru_maxrss as u64 * 1024,
                });
            } else {
                attempt.orphans_cpu += cpu;
            }
        };
        if self.take_lost()
            && let (Some(attempt), Some((elapsed, paused))) = (&mut self.attempt, times)
        {
            attempt.ended = Some(killed(elapsed, paused));
        }
        if self.attempt.is_none() {
            if template_ended || self.warm.clearing {
                self.cleared(none_left);
            }
            return;
        }
        let over = none_left || self.only_template_is_left();
        let Some(attempt) = self.attempt.as_mut().filter(|one| one.ended.is_some()) else {
            return;
        };
        if over {
            if !self.did_not_begin() {
                self.finish();
            }
        } else if attempt.dying_since.is_none() && attempt.stop_at.is_none() {
            attempt.dying_since = Some(Instant::now());
            self.press_at = Some(Instant::now());
        }
    }

    /// A template has ended that no attempt needs: nothing is started before what it left has ended too.
    fn cleared(&mut self, none_left: bool) {
        self.warm.clearing = !none_left;
        if self.warm.clearing {
            self.kill_below();
        }
    }

    /// Asks an attempt to end by itself, unless it has ended or is being ended. A shell may end at once while what it
    /// started is still saving its work, so all its processes have the whole time.
    pub(super) fn stop(&mut self, id: u64, grace: Duration) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.id == id) else {
            return;
        };
        if attempt.dying_since.is_some() || attempt.stop_at.is_some() {
            return;
        }
        attempt.stop_at = Some(Instant::now() + grace);
        self.signal_all(libc::SIGTERM);
    }

    /// When the attempt is ended that was asked to end by itself.
    pub(super) fn stop_at(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref()?;
        attempt.stop_at.filter(|_| attempt.dying_since.is_none())
    }

    /// Ends what is left of an attempt whose grace period is over.
    pub(super) fn end_stopped(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.dying_since = Some(Instant::now());
            self.press();
        }
    }

    /// Ends an attempt for a reason, unless it has ended or is being ended for another.
    pub(super) fn end(&mut self, id: u64, verdict: Ending) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.id == id) else {
            return;
        };
        if attempt.ended.is_some() || attempt.verdict.is_some() {
            if self.stop_at().is_some() {
                self.end_stopped();
            }
            return;
        }
        attempt.verdict = Some(verdict);
        attempt.dying_since = Some(Instant::now());
        self.press();
    }

    /// Kills every process of the attempt that is being ended, and reports it once nothing of it will run again.
    pub(super) fn press(&mut self) {
        self.press_at = None;
        let now = Instant::now();
        let since = self
            .attempt
            .as_ref()
            .and_then(|attempt| attempt.dying_since);
        let Some(age) = since.map(|since| now - since) else {
            return;
        };
        if age > DYING_MAX {
            return self.finish();
        }
        let new = self.kill_all();
        let Some(attempt) = &self.attempt else {
            return;
        };
        let reported = attempt.reported;
        if !new && !reported && age > REPORT_AFTER {
            self.report(false);
        }
        let seldom = reported || !new;
        self.press_at = Some(now + if seldom { PRESS_SELDOM } else { PRESS_EVERY });
    }

    /// Kills every process of the attempt; whether one was found that had not been killed before. A template stays, but
    /// not for long: nothing that makes processes faster than they are found outlives a kill of all at once.
    fn kill_all(&mut self) -> bool {
        let spares = self
            .attempt
            .as_ref()
            .is_some_and(|attempt| attempt.phase == Phase::Runs && attempt.kills < SPARED_KILLS);
        let spared = self.warm.process().filter(|_| spares);
        let Some(_) = spared else {
            return self.kill_below();
        };
        let pids = self.processes();
        let new = self.kill_these(pids);
        if let Some(attempt) = &mut self.attempt {
            attempt.kills += u32::from(new);
        }
        new
    }

    /// Kills every process below this one, a template too; whether one was found that had not been killed before.
    pub(super) fn kill_below(&mut self) -> bool {
        if matches!(self.environment.report.sandbox, Sandbox::View { .. }) {
            // SAFETY: this is the first process of a namespace: all others in it are of the attempt. The kernel
            // leaves this one out, and kills those that are just being made with the others.
            unsafe { libc::kill(-1, libc::SIGKILL) };
            return false;
        }
        let pids = tree::below(self.children.list());
        self.kill_these(pids)
    }

    fn kill_these(&mut self, pids: Vec<i32>) -> bool {
        let mut new = false;
        for pid in pids {
            // SAFETY: a process just found below this one.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            if let Some(attempt) = &mut self.attempt {
                new |= attempt.killed.insert(pid);
            }
        }
        new
    }

    /// Lets go of the attempt, of which nothing is left.
    fn finish(&mut self) {
        match &self.attempt {
            None => return,
            Some(attempt) if attempt.reported => {
                let id = attempt.id;
                self.reply(&Reply::Gone { id });
            }
            Some(_) => self.report(true),
        }
        self.let_go();
        self.clear_shared_memory();
    }

    /// Tells the worker how the attempt ended.
    fn report(&mut self, gone: bool) {
        let times = self.attempt.as_ref().map(|attempt| self.times(attempt));
        let (Some(attempt), Some((elapsed, paused))) = (&mut self.attempt, times) else {
            return;
        };
        attempt.reported = true;
        let ended = attempt.ended.clone().unwrap_or_else(|| Ended {
            cpu: tree::cpu_of(attempt.pid),
            ..killed(elapsed, paused)
        });
        let exit = Exit {
            outcome: match (attempt.verdict.clone(), attempt.stop_at) {
                (Some(verdict), _) => Err(verdict),
                // It may have ended well because it was asked to end.
                (None, Some(_)) => Err(Ending::Vacated),
                (None, None) => ended.outcome,
            },
            usage: Usage {
                elapsed: ended.elapsed,
                paused: ended.paused,
                cpu: ended.cpu + attempt.orphans_cpu,
                memory_peak: ended.memory_peak.max(attempt.memory_peak),
            },
            stdout: attempt.pipes.stdout.finish(&mut self.buffer),
            stderr: attempt.pipes.stderr.finish(&mut self.buffer),
        };
        let id = attempt.id;
        self.reply(&Reply::Exited { id, gone, exit });
    }

    /// Looks at what the attempt uses: memory, with shared memory that no process has mapped, and files that have no
    /// name any more.
    pub(super) fn sample(&mut self) {
        // Until its program begins, its memory is the spawner's.
        let begun = self.starts.has_begun();
        let pids = if begun { self.processes() } else { Vec::new() };
        let Some(attempt) = self.attempt.as_mut().filter(|_| begun) else {
            return;
        };
        let (id, limits) = (attempt.id, attempt.limits);
        let mut used = tree::memory_of(&pids);
        if matches!(self.environment.report.sandbox, Sandbox::View { .. }) {
            used += view::shared_memory_used();
        }
        attempt.memory_peak = attempt.memory_peak.max(used);
        let unlinked = match limits.disk {
            Some(_) => tree::unlinked_of(&pids, &self.environment.slot.work),
            None => 0,
        };
        let (memory_told, unlinked_told) = attempt.told;
        if used.abs_diff(memory_told) > TOLD_STEP || unlinked.abs_diff(unlinked_told) > TOLD_STEP {
            attempt.told = (used, unlinked);
            let memory = used;
            self.reply(&Reply::Uses {
                id,
                memory,
                unlinked,
            });
        }
        if let Some(limit) = limits.memory.filter(|limit| used > *limit) {
            self.end(id, Ending::MemoryLimit { limit, used });
        }
    }

    /// Removes what the attempt left in the view's shared memory.
    fn clear_shared_memory(&self) {
        if !matches!(self.environment.report.sandbox, Sandbox::View { .. }) {
            return;
        }
        if view::shared_memory_is_empty() {
            return;
        }
        let Ok(entries) = std::fs::read_dir(view::SHARED_MEMORY) else {
            return;
        };
        for entry in entries.flatten() {
            let _ = crate::scratch::remove_tree(&entry.path());
        }
    }
}

/// How a main process ended that is known to have been killed, or to be about to end.
fn killed(elapsed: Duration, paused: Duration) -> Ended {
    Ended {
        outcome: Err(signalled(libc::SIGKILL)),
        elapsed,
        paused,
        cpu: Duration::ZERO,
        memory_peak: 0,
    }
}

/// How an attempt ended whose interpreter ended without an error before it was forked.
fn ended_early() -> Ending {
    Ending::NotStarted {
        why: "the interpreter ended while it imported the modules of `preload`".to_owned(),
    }
}

fn outcome_of(status: i32) -> Result<(), Ending> {
    if libc::WIFSIGNALED(status) {
        return Err(signalled(libc::WTERMSIG(status)));
    }
    match libc::WEXITSTATUS(status) {
        0 => Ok(()),
        status => Err(Ending::Exited {
            status,
            said: String::new(),
        }),
    }
}

pub(super) fn signalled(signal: i32) -> Ending {
    Ending::Signalled {
        signal,
        said: String::new(),
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(
        time.tv_sec.max(0) as u64,
        time.tv_usec.clamp(0, 999_999) as u32 * 1000,
    )
}
