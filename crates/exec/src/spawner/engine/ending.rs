//! The ends of attempts: noticing them, bringing them about, reporting them.

use super::Engine;
use crate::spawner::attempt::{Attempt, Ended};
use crate::spawner::tree::{self, Mark};
use crate::spawner::view;
use crate::wire::Reply;
use crate::{Exit, Sandbox, Usage};
use hedge_model::Ending;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an attempt's processes may take to die before it is reported without them. Once killed they
/// cannot do anything any more, but one at idle priority dies only when it gets the processor: 0.5 to 3 s
/// were measured where another program wanted all of it.
const REPORT_AFTER: Duration = Duration::from_millis(20);
/// How long they may take before their folder is used again all the same. Only a process that hangs in the
/// kernel takes longer.
const DYING_MAX: Duration = Duration::from_secs(60);
/// Time between two looks at processes that are being ended.
const PRESS_EVERY: Duration = Duration::from_millis(1);
/// The same, where all that is left is to wait for them to die, or where looking is dear.
const PRESS_SELDOM: Duration = Duration::from_millis(10);
/// Until strays are looked for after an end: the kernel's list of children can miss one at first.
const STRAYS_AFTER: Duration = Duration::from_millis(100);

impl Engine {
    /// Takes notice of all processes that have ended.
    pub(super) fn reap(&mut self) {
        let mut drained = [0u8; 1024];
        let _ = rustix::io::read(&self.signals, &mut drained);
        let mut over = Vec::new();
        let mut strays = false;
        loop {
            let mut status = 0;
            // SAFETY: all zeroes is a valid value, and both are valid for the call.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: as above; reaps our own children only.
            let pid = unsafe { libc::wait4(-1, &raw mut status, libc::WNOHANG, &raw mut usage) };
            if pid <= 0 {
                break;
            }
            let cpu = duration(usage.ru_utime) + duration(usage.ru_stime);
            if let Some(id) = self.by_pid.remove(&pid) {
                let times = self.attempts.get(&id).map(|attempt| self.times(attempt));
                if let (Some(attempt), Some((elapsed, paused))) =
                    (self.attempts.get_mut(&id), times)
                {
                    attempt.ended = Some(Ended {
                        outcome: outcome_of(status),
                        elapsed,
                        paused,
                        cpu,
                        memory_peak: usage.ru_maxrss as u64 * 1024,
                    });
                    over.push(id);
                    if attempt.dying_since.is_some() {
                        self.press_at = Some(Instant::now());
                    }
                }
            } else {
                let mark = self.orphans.remove(&pid).flatten();
                let id = mark.and_then(|mark| self.by_mark.get(&mark));
                match id.and_then(|id| self.attempts.get_mut(id)) {
                    Some(attempt) => attempt.orphans_cpu += cpu,
                    // Its own children have come to us.
                    None => strays = true,
                }
            }
        }
        if strays || !over.is_empty() {
            self.strays_at
                .get_or_insert_with(|| Instant::now() + STRAYS_AFTER);
            self.sweep();
        }
        for id in over {
            if self
                .attempts
                .get(&id)
                .is_some_and(|attempt| attempt.dying_since.is_none())
            {
                self.finish(id);
            }
        }
    }

    /// Looks at our children for what attempts have left behind: nearly always there is nothing, and then
    /// this costs one system call.
    pub(super) fn sweep(&mut self) {
        for pid in self.children.list() {
            if self.by_pid.contains_key(&pid) {
                continue;
            }
            let by_namespace = self.ground.report.marked;
            let mark = *self
                .orphans
                .entry(pid)
                .or_insert_with(|| tree::mark_of(pid, by_namespace));
            match mark.and_then(|mark| self.by_mark.get(&mark)) {
                Some(id) => {
                    if let Some(attempt) = self.attempts.get_mut(id)
                        && attempt.ended.is_some()
                        && attempt.dying_since.is_none()
                    {
                        attempt.dying_since = Some(Instant::now());
                        self.dying.push(*id);
                        self.press_at = Some(Instant::now());
                    }
                }
                // Of an attempt that was reported or never had its mark read; or of none that can be told,
                // while none runs.
                None if mark.is_some() || self.attempts.is_empty() => {
                    self.adopt(pid);
                    kill(pid);
                }
                None => {
                    self.orphans.remove(&pid);
                }
            }
        }
    }

    /// Makes an attempt that ended before its mark could be read wait for this process to die: it must be
    /// one that it left.
    fn adopt(&mut self, pid: i32) {
        let unmarked =
            |(_, attempt): &(&u64, &mut Attempt)| attempt.ended.is_some() && attempt.mark.is_none();
        if let Some((id, attempt)) = self.attempts.iter_mut().find(unmarked)
            && let Some((mark, held)) = tree::hold_mark(pid)
        {
            (attempt.mark, attempt.held) = (Some(mark), Some(held));
            attempt.dying_since = Some(Instant::now());
            self.by_mark.insert(mark, *id);
            self.dying.push(*id);
            self.press_at = Some(Instant::now());
        }
    }

    /// Ends an attempt for a reason, unless it has ended or is being ended for another.
    pub(super) fn end(&mut self, id: u64, verdict: Ending) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        if attempt.ended.is_some() || attempt.verdict.is_some() {
            return;
        }
        attempt.verdict = Some(verdict);
        attempt.dying_since = Some(Instant::now());
        kill(attempt.pid);
        kill(-attempt.pid);
        self.dying.push(id);
        self.press_at = Some(Instant::now());
    }

    /// Kills every living process of the attempts that are being ended, and reports those of which nothing
    /// will run again. One look at the processes serves all: a job with hundreds of attempts may be
    /// cancelled.
    pub(super) fn press(&mut self) {
        self.press_at = None;
        if self.dying.is_empty() {
            return;
        }
        let marked = self.marked();
        let mut pause = PRESS_SELDOM;
        for id in std::mem::take(&mut self.dying) {
            let Some(attempt) = self.attempts.get_mut(&id) else {
                continue;
            };
            let age = attempt
                .dying_since
                .map_or(Duration::ZERO, |since| since.elapsed());
            let pids = attempt
                .mark
                .and_then(|mark| marked.get(&mark))
                .map_or(&[][..], Vec::as_slice);
            let mut new = false;
            for pid in pids {
                new |= attempt.killed.insert(*pid);
                kill(*pid);
            }
            if (pids.is_empty() && attempt.ended.is_some()) || age > DYING_MAX {
                self.finish(id);
                continue;
            }
            if !attempt.reported && self.ground.report.marked {
                pause = PRESS_EVERY;
            }
            if !new && !attempt.reported && age > REPORT_AFTER {
                self.report(id, false);
            }
            self.dying.push(id);
        }
        if !self.dying.is_empty() {
            self.press_at = Some(Instant::now() + pause);
        }
    }

    /// Lets go of an attempt of which nothing is left.
    fn finish(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        if attempt.reported {
            self.reply(&Reply::Gone { id });
        } else {
            self.report(id, true);
        }
        let Some(attempt) = self.attempts.remove(&id) else {
            return;
        };
        self.starts.resume();
        self.by_pid.remove(&attempt.pid);
        if let Some(mark) = attempt.mark {
            self.by_mark.remove(&mark);
        }
        if attempt.limits.memory.is_some() {
            self.limited_memory -= 1;
        }
        if self.attempts.is_empty() {
            self.clear_shared_memory();
        }
    }

    /// Tells the worker how an attempt ended.
    fn report(&mut self, id: u64, gone: bool) {
        let times = self.attempts.get(&id).map(|attempt| self.times(attempt));
        let (Some(attempt), Some((elapsed, paused))) = (self.attempts.get_mut(&id), times) else {
            return;
        };
        attempt.reported = true;
        let ended = attempt.ended.take().unwrap_or_else(|| Ended {
            outcome: Err(signalled(libc::SIGKILL)),
            elapsed,
            paused,
            cpu: tree::cpu_of(attempt.pid),
            memory_peak: 0,
        });
        let exit = Exit {
            outcome: match attempt.verdict.clone() {
                Some(verdict) => Err(verdict),
                None => ended.outcome.clone(),
            },
            usage: Usage {
                elapsed: ended.elapsed,
                paused: ended.paused,
                cpu: ended.cpu + attempt.orphans_cpu,
                memory_peak: ended.memory_peak.max(attempt.memory_peak),
            },
            stdout: attempt.stdout.finish(&mut self.buffer),
            stderr: attempt.stderr.finish(&mut self.buffer),
        };
        if self.by_pid.get(&attempt.pid) != Some(&id) {
            attempt.ended = Some(ended);
        }
        self.reply(&Reply::Exited { id, gone, exit });
    }

    /// All living processes of attempts, by mark.
    fn marked(&self) -> HashMap<Mark, Vec<i32>> {
        let pids = match self.ground.report.sandbox {
            // They are all there is.
            Sandbox::View { .. } => tree::all_processes(),
            // The machine may have thousands of others.
            Sandbox::Landlock { .. } | Sandbox::None => tree::below(self.children.list()),
        };
        tree::by_mark(pids, self.ground.report.marked)
    }

    /// Looks at the memory of attempts that have a limit.
    pub(super) fn sample_memory(&mut self) {
        let marked = self.marked();
        let mut over = Vec::new();
        for (id, attempt) in &mut self.attempts {
            let Some(limit) = attempt.limits.memory else {
                continue;
            };
            let Some(pids) = attempt.mark.and_then(|mark| marked.get(&mark)) else {
                continue;
            };
            let used = tree::memory_of(pids);
            attempt.memory_peak = attempt.memory_peak.max(used);
            if used > limit {
                over.push((*id, Ending::MemoryLimit { limit, used }));
            }
        }
        for (id, verdict) in over {
            self.end(id, verdict);
        }
    }

    /// Removes what attempts left in the view's shared memory; only when none runs, because it cannot be
    /// told whose it is.
    fn clear_shared_memory(&self) {
        if !matches!(self.ground.report.sandbox, Sandbox::View { .. }) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(view::SHARED_MEMORY) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let _ = std::fs::remove_dir_all(path);
            } else {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn kill(pid: i32) {
    // SAFETY: only ever called for children that are not reaped and processes just found by their mark.
    unsafe { libc::kill(pid, libc::SIGKILL) };
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

fn signalled(signal: i32) -> Ending {
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
