//! The ends of attempts: notices that their processes ended, kills processes, and reports to the worker.

use super::Engine;
use crate::spawner::attempt::{Ended, Phase};
use crate::spawner::tree;
use crate::spawner::view;
use crate::wire::Reply;
use crate::{Exit, Sandbox, Usage};
use hedge_model::Ending;
use std::time::{Duration, Instant};

/// After this delay an attempt is reported although some of its killed processes still exist. They cannot do anything
/// any more, but one at idle priority dies only when it gets the processor: 0.5 to 3 s were measured beside a program
/// that wanted all of it.
const REPORT_AFTER: Duration = Duration::from_millis(20);
/// After this delay the attempt's folder is used again although killed processes still exist. Only a process that hangs
/// in the kernel takes longer.
const DYING_MAX: Duration = Duration::from_secs(60);
/// Changes of an attempt's use of memory or disk up to this many bytes are not reported.
const TOLD_STEP: u64 = 1 << 20;
/// Rounds in which an attempt's processes are killed one by one to spare its template. After these all are killed at
/// once.
const SPARED_KILLS: u32 = 50;
/// The delay between two rounds of killing.
const PRESS_EVERY: Duration = Duration::from_millis(1);
/// The same, once no new processes are found or the attempt is reported: then the spawner only waits.
const PRESS_SELDOM: Duration = Duration::from_millis(10);

impl Engine {
    /// Handles all processes that have ended. They belong to the attempt, which is over when none is left below the
    /// spawner.
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

    /// Handles the end of a template while no attempt runs. Nothing starts before the processes that it left have ended.
    fn cleared(&mut self, none_left: bool) {
        self.warm.clearing = !none_left;
        if self.warm.clearing {
            self.kill_below();
        }
    }

    /// Sends an attempt's processes SIGTERM, unless it has ended or is being killed. All of them have the whole grace
    /// period, because a shell may end at once while a program that it started still saves its work.
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

    /// Returns when the grace period of the attempt ends.
    pub(super) fn stop_at(&self) -> Option<Instant> {
        let attempt = self.attempt.as_ref()?;
        attempt.stop_at.filter(|_| attempt.dying_since.is_none())
    }

    /// Kills what is left of an attempt whose grace period is over.
    pub(super) fn end_stopped(&mut self) {
        if let Some(attempt) = &mut self.attempt {
            attempt.dying_since = Some(Instant::now());
            self.press();
        }
    }

    /// Kills an attempt, with `verdict` as its ending, unless it has ended or another verdict was given before.
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

    /// Runs a round of killing, and reports the attempt once nothing of it can run again.
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

    /// Kills every process of the attempt. Returns whether one was found that had not been killed before. Spares the
    /// template for some rounds. Then it kills all processes at once, because an attempt could create processes faster
    /// than they are found.
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

    /// Kills every process below the spawner, a template too. Returns whether one was found that had not been killed before.
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

    /// Finishes the attempt, of which nothing is left.
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

    /// Reports the attempt's ending to the worker. `gone` says whether no process of it is left.
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

    /// Measures what the attempt uses: memory, including shared memory that no process has mapped, and files without a
    /// name. Ends it if it exceeds its memory limit.
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

/// Returns the end of a main process that was killed, or soon will be.
fn killed(elapsed: Duration, paused: Duration) -> Ended {
    Ended {
        outcome: Err(signalled(libc::SIGKILL)),
        elapsed,
        paused,
        cpu: Duration::ZERO,
        memory_peak: 0,
    }
}

/// Returns the ending of an attempt whose interpreter exited without an error before the attempt was forked.
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
