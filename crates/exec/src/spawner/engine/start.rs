//! Starts attempts, one at a time. An attempt waits while the machine is short of something.

use super::beginning::{Beginning, Channel, NotBegun, NotNow, file_bytes_max};
use super::{ADVANCE, Engine, SAMPLE_EVERY, STDERR, STDOUT};
use crate::shortage::worker_ending;
use crate::spawner::attempt::{self, Attempt, Phase, Pipes, Prepared};
use crate::spawner::child::{Command, NotStarted, Starting};
use crate::spawner::{os, tree};
use crate::wire::Reply;
use crate::{Exit, Launch};
use hedge_model::Ending;
use rustix::io::Errno;
use std::collections::{HashSet, VecDeque};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// An attempt that waits longer for something that the machine is short of ends. Most shortages are over when another
/// attempt ends.
const SHORT_MAX: Duration = Duration::from_secs(1);
/// The delay before the next try while the machine is short of something. The end of an attempt shortens it.
const HOLD: Duration = Duration::from_millis(20);
/// Descriptors that must stay free after a start: finding and killing the processes of an attempt needs some.
const SPARE_FILES: RawFd = 4;

/// The delay before the first check for processes without idle priority.
const IDLE_CHECK_AFTER: Duration = Duration::from_millis(5);
/// The longest delay between two such checks.
const IDLE_CHECK_AFTER_MAX: Duration = Duration::from_secs(2);

/// A check for processes that escaped idle priority because the kernel was just creating them when their parent got it.
/// A parent with idle priority may take long to create them, so further checks follow, each after twice the delay.
pub(super) struct IdleCheck {
    pub at: Instant,
    after: Duration,
}

impl IdleCheck {
    fn after(after: Duration) -> IdleCheck {
        let at = Instant::now() + after;
        IdleCheck { at, after }
    }
}

/// An attempt that waits for its start.
struct Waiting {
    id: u64,
    /// Whether the worker has put files into its folders.
    filled: bool,
    launch: Launch,
    since: Instant,
    /// Whether its program was searched for again.
    anew: bool,
}

/// Attempts that wait for their start, in order.
#[derive(Default)]
pub(super) struct Starts {
    waiting: VecDeque<Waiting>,
    /// Nothing starts before this time, because the machine is short of something.
    held_until: Option<Instant>,
    /// The attempt that was started last. Its program may not have begun yet.
    current: Option<(Waiting, Beginning)>,
}

impl Starts {
    pub fn add(&mut self, id: u64, filled: bool, launch: Launch) {
        self.waiting.push_back(Waiting {
            id,
            filled,
            launch,
            since: Instant::now(),
            anew: false,
        });
    }

    /// Takes an attempt out; `false` where it does not wait.
    pub fn remove(&mut self, id: u64) -> bool {
        let at = self.waiting.iter().position(|waiting| waiting.id == id);
        at.is_some_and(|at| self.waiting.remove(at).is_some())
    }

    /// Returns when to start the next attempt.
    pub fn next(&self) -> Option<Instant> {
        let waiting = self.waiting.front()?;
        Some(self.held_until.unwrap_or(waiting.since))
    }

    /// Handles the end of the attempt: its resources are free, so the next one need not wait.
    pub fn resume(&mut self) {
        self.held_until = None;
        self.current = None;
    }

    /// Returns whether the program of the running attempt has begun or has failed to begin.
    pub fn has_begun(&self) -> bool {
        let current = self.current.as_ref();
        current.is_none_or(|(_, beginning)| match beginning {
            Beginning::Executed(starting) => starting.is_over(),
            Beginning::Forked(_) => true,
        })
    }

    /// Records that the running attempt is forked from the template that was started for it.
    pub fn fork(&mut self, channel: Channel) {
        if let Some((_, beginning)) = &mut self.current {
            *beginning = Beginning::Forked(channel);
        }
    }

    /// Returns the attempt that is forked, and the connection to its process.
    pub fn forked(&mut self) -> Option<(&Launch, &mut Channel)> {
        match &mut self.current {
            Some((waiting, Beginning::Forked(channel))) => Some((&waiting.launch, channel)),
            _ => None,
        }
    }

    /// Returns the connection to the process of the attempt that is forked.
    pub fn channel(&mut self) -> Option<&mut Channel> {
        self.forked().map(|(_, channel)| channel)
    }
}

impl Engine {
    /// Starts the next attempt, if none runs.
    pub(super) fn start_some(&mut self) {
        let held = |at: Instant| at > Instant::now();
        if self.pause.on() || self.starts.held_until.is_some_and(held) {
            return;
        }
        self.starts.held_until = None;
        while self.attempt.is_none()
            && let Some(next) = self.starts.waiting.pop_front()
        {
            match self.try_start(&next) {
                Ok((attempt, beginning)) => {
                    let (pid, phase) = (attempt.pid, attempt.phase);
                    self.attempt = Some(attempt);
                    self.starts.current = Some((next, beginning));
                    if pid != 0 && matches!(phase, Phase::Asked(_)) {
                        self.hand_over(pid);
                    }
                    self.next_sample = Instant::now() + SAMPLE_EVERY;
                    self.look.start();
                }
                Err(NotNow::TemplateEnds) => {
                    self.starts.waiting.push_front(next);
                    return;
                }
                Err(NotNow::Ended(ending)) => {
                    if self.put_back(next, ending) {
                        return;
                    }
                }
            }
        }
    }

    /// Handles an attempt that was not started: it waits if the machine is short of something, otherwise its ending is
    /// reported. Returns whether it waits.
    fn put_back(&mut self, next: Waiting, ending: Ending) -> bool {
        let short = matches!(ending, Ending::Short { .. });
        if !short || next.since.elapsed() >= SHORT_MAX {
            self.not_started(next.id, ending);
            return false;
        }
        self.starts.held_until = Some(Instant::now() + HOLD);
        self.starts.waiting.push_front(next);
        true
    }

    /// Handles an attempt without processes whose program did not begin: starts it once more, or reports why. Returns
    /// false if the program did begin, or if the attempt was ended for a reason.
    pub(super) fn did_not_begin(&mut self) -> bool {
        let has_reason = self
            .attempt
            .as_ref()
            .is_none_or(|one| one.verdict.is_some() || one.stop_at.is_some());
        let current = self.starts.current.as_ref();
        let failure = current.and_then(|(_, beginning)| beginning.failure());
        let Some(failure) = failure.filter(|_| !has_reason) else {
            return false;
        };
        let current = self.starts.current.take();
        self.let_go();
        let Some((mut next, beginning)) = current else {
            return false;
        };
        let again = match &failure {
            NotBegun::Failed(failure) => failure.errno == libc::ENOENT,
            NotBegun::Lost => true,
        };
        if again && !next.anew {
            // It may have moved since it was found.
            self.programs.forget();
            next.anew = true;
            self.starts.waiting.push_front(next);
        } else {
            let ending = match failure {
                NotBegun::Failed(failure) => {
                    attempt::explain(&next.launch.program, beginning.program(), failure)
                }
                NotBegun::Lost => Ending::worker(
                    "the interpreter that its process was to be forked from ended twice",
                ),
            };
            self.put_back(next, ending);
        }
        true
    }

    /// Forgets the attempt, of which nothing is left.
    pub(super) fn let_go(&mut self) {
        self.attempt = None;
        self.warm.rest();
        self.starts.resume();
        (self.press_at, self.resume_at, self.idle_check) = (None, None, None);
    }

    /// Returns whether the next attempt gets idle priority.
    pub(super) fn has_idle_priority(&self) -> bool {
        self.environment.report.idle || self.lowered
    }

    /// Starts to check for processes that escaped idle priority, for as long as the attempt runs.
    pub(super) fn start_idle_checks(&mut self) {
        self.idle_check = self
            .attempt
            .is_some()
            .then(|| IdleCheck::after(IDLE_CHECK_AFTER));
    }

    /// Gives idle priority to processes that escaped it.
    pub(super) fn check_idle(&mut self) {
        let Some(check) = self.idle_check.take() else {
            return;
        };
        if self.attempt.is_some() {
            self.make_idle();
            let after = (check.after * 2).min(IDLE_CHECK_AFTER_MAX);
            self.idle_check = Some(IdleCheck::after(after));
        }
    }

    /// Gives idle priority to all processes of the attempt.
    pub(super) fn make_idle(&self) {
        os::as_user(self.environment.user, || {
            tree::make_all_idle(&self.children)
        });
    }

    /// Reports the ending of an attempt that has no process.
    pub(super) fn not_started(&mut self, id: u64, ending: Ending) {
        self.reply(&Reply::Exited {
            id,
            gone: true,
            exit: Exit::without_process(ending),
        });
    }

    fn try_start(&mut self, next: &Waiting) -> Result<(Attempt, Beginning), NotNow> {
        let (launch, user) = (&next.launch, self.environment.user);
        let (slot, setup) = (&self.environment.slot, &self.environment.setup);
        let programs = &mut self.programs;
        let prepared =
            attempt::prepare(launch, slot, &setup.env, &setup.read_only, user, programs)?;
        let plan = self.plan(launch, &prepared);
        if !self.make_way(plan.as_ref()) {
            return Err(NotNow::TemplateEnds);
        }
        if let Some(user) = user.filter(|_| next.filled) {
            let folder = Path::new(&self.environment.slot.work_path);
            crate::user::give_below(folder, user)
                .map_err(|error| worker_ending("give a task its inputs", &error))?;
        }
        let pipes =
            Pipes::make(launch.kept_bytes, &self.environment.slot, user).and_then(|pipes| {
                self.listen(pipes.stdout.read.as_raw_fd(), STDOUT)?;
                self.listen(pipes.stderr.read.as_raw_fd(), STDERR)?;
                self.listen(pipes.advance.read.as_raw_fd(), ADVANCE)?;
                let spare = pipes.advance.write.as_raw_fd() + SPARE_FILES;
                match rustix::io::fcntl_dupfd_cloexec(&self.null, spare) {
                    Ok(_) => Ok(pipes),
                    // No descriptor may have that number.
                    Err(Errno::INVAL) => Err(Errno::MFILE.into()),
                    Err(error) => Err(error.into()),
                }
            });
        let pipes =
            pipes.map_err(|error| worker_ending("make a pipe for a task's output", &error))?;
        let started = Instant::now();
        let (pid, beginning, phase) = match plan {
            Some(plan) => self.fork(plan, prepared, &pipes)?,
            None => {
                let (pid, starting) = self.execute(launch, prepared, &pipes)?;
                (pid, Beginning::Executed(starting), Phase::Runs)
            }
        };
        let mut limits = launch.limits;
        let offered = self.environment.setup.memory_max;
        limits.memory = limits.memory.into_iter().chain(offered).min();
        let attempt = Attempt {
            id: next.id,
            pid,
            phase,
            limits,
            started,
            paused_before: self.pause.total(),
            pipes,
            verdict: None,
            stop_at: None,
            ended: None,
            dying_since: None,
            killed: HashSet::new(),
            kills: 0,
            reported: false,
            orphans_cpu: Duration::ZERO,
            memory_peak: 0,
            told: (0, 0),
        };
        Ok((attempt, beginning))
    }

    /// Starts the process; its outputs and what it says of its progress go to `pipes`.
    fn execute(
        &mut self,
        launch: &Launch,
        prepared: Prepared,
        pipes: &Pipes,
    ) -> Result<(i32, Starting), Ending> {
        let (slot, setup) = (&self.environment.slot, &self.environment.setup);
        let stdin = prepared.stdin;
        let command = Command {
            program: prepared.program,
            args: prepared.args,
            env: prepared.env,
            folder: slot.work.as_raw_fd(),
            cwd: prepared.cwd,
            stdin: stdin.as_ref().unwrap_or(&self.null).as_raw_fd(),
            stdout: pipes.stdout.write.as_raw_fd(),
            stderr: pipes.stderr.write.as_raw_fd(),
            progress: pipes.advance.write.as_raw_fd(),
            ruleset: slot.ruleset.as_ref().map(AsRawFd::as_raw_fd),
            file_bytes_max: file_bytes_max(launch, slot, setup.disk_reserve),
            files_max: self.files_max,
            group: self.pause.group(self.environment.freezer.as_deref()),
            user: self.environment.user,
            idle: self.has_idle_priority(),
        };
        let started = self.start_command(command);
        started.map_err(|NotStarted { failure, command }| {
            attempt::explain(&launch.program, &command.program, failure)
        })
    }

    /// Starts a process, outside of the control group where that cannot be.
    pub(super) fn start_command(
        &mut self,
        mut command: Command,
    ) -> Result<(i32, Starting), NotStarted> {
        loop {
            match self.cloner.start(command) {
                Err(NotStarted {
                    failure,
                    command: it,
                }) if it.group.is_some() && failure.refuses_group() => {
                    // The group is gone, or the kernel or a filter knows no such call.
                    self.pause.start_outside();
                    command = Command { group: None, ..*it };
                }
                started => return started,
            }
        }
    }
}
