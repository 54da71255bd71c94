//! Starting attempts, and waiting for what the machine is short of.

use super::{Engine, FIRST_ID, STREAMS_SHIFT};
use crate::shortage::worker_ending;
use crate::spawner::advance::Advance;
use crate::spawner::attempt::{self, Attempt, Programs};
use crate::spawner::child::{Command, PAGE};
use crate::spawner::stream::Stream;
use crate::spawner::tree::{self, Mark};
use crate::wire::Reply;
use crate::{Exit, Launch, StreamKind};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// Processes started before the loop looks at ends and orders to end again: each takes about 0.2 ms.
const STARTS_PER_ROUND: usize = 16;
/// How long an attempt waits for what the machine is short of before it is given back. Most shortages are over when
/// another attempt ends.
const SHORT_MAX: Duration = Duration::from_secs(1);
/// Until starting is tried again while the machine is short of something, unless an attempt ends before.
const HOLD: Duration = Duration::from_millis(20);
/// Descriptors that stay free when an attempt has been started: finding and ending its processes needs some.
const SPARE_FILES: usize = 4;

/// An attempt that is to be started.
struct Waiting {
    id: u64,
    slot: u32,
    launch: Launch,
    since: Instant,
}

/// Attempts that are to be started, in order.
#[derive(Default)]
pub(super) struct Starts {
    waiting: VecDeque<Waiting>,
    /// None is started before, because the machine is short of something.
    held_until: Option<Instant>,
}

impl Starts {
    pub fn add(&mut self, id: u64, slot: u32, launch: Launch) {
        let since = Instant::now();
        self.waiting.push_back(Waiting {
            id,
            slot,
            launch,
            since,
        });
    }

    /// Takes an attempt out; `false` where it does not wait.
    pub fn remove(&mut self, id: u64) -> bool {
        let at = self.waiting.iter().position(|waiting| waiting.id == id);
        at.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// When the next is to be started.
    pub fn next(&self) -> Option<Instant> {
        let waiting = self.waiting.front()?;
        Some(self.held_until.unwrap_or(waiting.since))
    }

    /// An attempt has ended, and what it took is free.
    pub fn resume(&mut self) {
        self.held_until = None;
    }
}

impl Engine {
    /// Starts some of the attempts that wait.
    pub(super) fn start_some(&mut self) {
        let held = |at: Instant| at > Instant::now();
        if self.pause.on() || self.starts.held_until.is_some_and(held) {
            return;
        }
        self.starts.held_until = None;
        for _ in 0..STARTS_PER_ROUND {
            let Some(next) = self.starts.waiting.pop_front() else {
                return;
            };
            match self.start(&next) {
                Ok(()) => {}
                Err(Ending::Short { .. }) if next.since.elapsed() < SHORT_MAX => {
                    self.starts.held_until = Some(Instant::now() + HOLD);
                    self.starts.waiting.push_front(next);
                    return;
                }
                Err(ending) => self.not_started(next.id, ending),
            }
        }
    }

    /// Tells the worker how an attempt ended that has no process.
    pub(super) fn not_started(&mut self, id: u64, ending: Ending) {
        self.reply(&Reply::Exited {
            id,
            gone: true,
            exit: Exit::without_process(ending),
        });
    }

    fn start(&mut self, next: &Waiting) -> Result<(), Ending> {
        let Waiting {
            id, slot, launch, ..
        } = next;
        let mut started = self.try_start(*id, *slot, launch);
        if let Err(Ending::Short {
            of: Shortage::Files,
            ..
        }) = started
        {
            // Those of folders are kept only to save time.
            self.slots.clear();
            started = self.try_start(*id, *slot, launch);
        }
        let attempt = started?;
        self.by_pid.insert(attempt.pid, *id);
        if let Some(mark) = attempt.mark {
            self.by_mark.insert(mark, *id);
        }
        if let Some(limit) = launch.limits.time
            && let Some(at) = attempt.started.checked_add(limit)
        {
            self.deadlines.push(std::cmp::Reverse((at, *id)));
        }
        if launch.limits.memory.is_some() {
            self.limited_memory += 1;
        }
        self.attempts.insert(*id, attempt);
        self.look.start();
        Ok(())
    }

    fn try_start(&mut self, id: u64, slot: u32, launch: &Launch) -> Result<Attempt, Ending> {
        if !self.slots.contains_key(&slot) {
            let opened = self.ground.open_slot(slot)?;
            self.slots.insert(slot, opened);
        }
        let pipes = |error: io::Error| worker_ending("make a pipe for a task's output", &error);
        let spill = |kind| crate::scratch::spill(&self.ground.setup.scratch, slot, kind);
        let stdout = Stream::new(launch.kept_bytes, spill(StreamKind::Stdout)).map_err(pipes)?;
        let stderr = Stream::new(launch.kept_bytes, spill(StreamKind::Stderr)).map_err(pipes)?;
        let advance = Advance::new().map_err(pipes)?;
        let token = (id + FIRST_ID) << STREAMS_SHIFT;
        self.listen(stdout.read.as_raw_fd(), token).map_err(pipes)?;
        self.listen(stderr.read.as_raw_fd(), token | 1)
            .map_err(pipes)?;
        self.listen(advance.read.as_raw_fd(), token | 2)
            .map_err(pipes)?;
        let spare = |_| rustix::io::fcntl_dupfd_cloexec(&self.null, 0);
        let spare: Result<Vec<OwnedFd>, _> = (0..SPARE_FILES).map(spare).collect();
        let spare = spare.map_err(|error| pipes(error.into()))?;
        let started = Instant::now();
        let outputs = [&stdout.write, &stderr.write, &advance.write];
        let pid = self.execute(id, slot, launch, outputs)?;
        drop(spare);
        let marked = self.ground.report.marked;
        let (mark, held) = if marked {
            tree::hold_mark(pid).map_or((None, None), |(mark, held)| (Some(mark), Some(held)))
        } else {
            (Some(Mark::Variable(std::process::id(), id)), None)
        };
        // Only now: a child at low priority could keep the spawner waiting for its exec.
        if self.ground.report.idle || self.lowered {
            tree::make_idle(pid, &self.last_pid);
        }
        Ok(Attempt {
            pid,
            mark,
            held,
            limits: launch.limits,
            started,
            paused_before: self.pause.total(),
            stdout,
            stderr,
            advance,
            verdict: None,
            ended: None,
            dying_since: None,
            killed: HashSet::new(),
            reported: false,
            orphans_cpu: Duration::ZERO,
            memory_peak: 0,
        })
    }

    /// Starts the process; its outputs and what it says of its progress go to `streams`.
    fn execute(
        &mut self,
        id: u64,
        slot: u32,
        launch: &Launch,
        streams: [&OwnedFd; 3],
    ) -> Result<i32, Ending> {
        let gone = || Ending::worker("the task's folder is gone");
        let folder = self.slots.get(&slot).ok_or_else(gone)?;
        let setup = &self.ground.setup;
        let prepare = |programs: &mut Programs| {
            attempt::prepare(id, launch, folder, &setup.env, &setup.read_only, programs)
        };
        let mut prepared = prepare(&mut self.programs)?;
        let mut tries = 0;
        loop {
            tries += 1;
            let command = Command {
                program: &prepared.program,
                args: &prepared.args,
                env: &prepared.env,
                folder: folder.work.as_raw_fd(),
                stdin: prepared.stdin.as_ref().unwrap_or(&self.null).as_raw_fd(),
                stdout: streams[0].as_raw_fd(),
                stderr: streams[1].as_raw_fd(),
                progress: streams[2].as_raw_fd(),
                ruleset: folder.ruleset.as_ref().map(AsRawFd::as_raw_fd),
                // A little more than the limit, so that whoever looks sees that it was passed.
                file_bytes_max: launch
                    .limits
                    .disk
                    .map(|limit| limit.saturating_add(PAGE as u64)),
                files_max: self.files_max,
                mark: self.ground.report.marked,
                group: self.pause.group(self.ground.freezer.as_deref()),
            };
            match self.cloner.start(&command) {
                Ok(pid) => return Ok(pid),
                Err(failure) if command.group.is_some() && failure.refuses_group() => {
                    // The group is gone, or the kernel or a filter knows no such call.
                    self.pause.start_outside();
                    tries = 0;
                }
                Err(failure) if failure.errno == libc::ENOENT && tries == 1 => {
                    // It may have moved since it was found.
                    self.programs.forget();
                    prepared = prepare(&mut self.programs)?;
                }
                Err(failure) => return Err(attempt::explain(&launch.program, &prepared, failure)),
            }
        }
    }
}
