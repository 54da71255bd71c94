//! The spawner's loop: requests, ends of processes, output, deadlines.

use super::attempt::{self, Attempt, Ended, Programs, Stream};
use super::child::{Cloner, Command};
use super::ground::{Ground, Slot};
use super::tree::{self, Children, Mark};
use crate::wire::{self, Reply, Request};
use crate::{Exit, Launch, Outcome, Sandbox, Usage};
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Processes started before the loop looks at ends and orders to end again: each takes about 0.2 ms.
const STARTS_PER_ROUND: usize = 16;
const EVENTS_PER_ROUND: usize = 256;
/// How often memory is looked at while an attempt has a limit.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Until strays are looked for after an end: the kernel's list of children can miss one at first.
const STRAYS_AFTER: Duration = Duration::from_millis(100);
/// How long what an attempt left may take to die. Only a process that hangs in the kernel takes longer;
/// then the attempt is reported all the same.
const DYING_MAX: Duration = Duration::from_secs(5);
/// Reports that may wait for the worker to read them, bytes.
const OUT_BYTES_MAX: usize = 8 << 20;

const SOCKET: u64 = 0;
const SIGNALS: u64 = 1;
/// Tokens of streams: the attempt's id, shifted, and which of the two.
const FIRST_ID: u64 = 2;

/// Serves the worker until it closes the socket; returns the exit code.
pub(crate) fn serve(ground: Ground, socket: UnixStream) -> i32 {
    match Engine::new(ground, socket) {
        Ok(mut engine) => engine.run(),
        Err(_) => 1,
    }
}

struct Engine {
    ground: Ground,
    socket: UnixStream,
    epoll: OwnedFd,
    signals: OwnedFd,
    null: OwnedFd,
    cloner: Cloner,
    children: Children,
    files_max: libc::rlimit,
    slots: HashMap<u32, Slot>,
    programs: Programs,
    waiting: VecDeque<(u64, u32, Launch)>,
    attempts: HashMap<u64, Attempt>,
    by_pid: HashMap<i32, u64>,
    by_mark: HashMap<Mark, u64>,
    /// Marks of processes that became our children when their parents ended.
    orphans: HashMap<i32, Option<Mark>>,
    dying: Vec<u64>,
    /// Earliest first.
    deadlines: BinaryHeap<std::cmp::Reverse<(Instant, u64)>>,
    limited_memory: usize,
    next_sample: Instant,
    strays_at: Option<Instant>,
    inbox: Vec<u8>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Engine {
    fn new(ground: Ground, socket: UnixStream) -> io::Result<Engine> {
        socket.set_nonblocking(true)?;
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let signals = signals_of_children()?;
        let mut engine = Engine {
            null: std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?
                .into(),
            cloner: Cloner::new()?,
            children: Children::open(),
            files_max: raise_files_max(),
            slots: HashMap::new(),
            programs: Programs::default(),
            waiting: VecDeque::new(),
            attempts: HashMap::new(),
            by_pid: HashMap::new(),
            by_mark: HashMap::new(),
            orphans: HashMap::new(),
            dying: Vec::new(),
            deadlines: BinaryHeap::new(),
            limited_memory: 0,
            next_sample: Instant::now(),
            strays_at: None,
            inbox: Vec::new(),
            out: Vec::new(),
            buffer: vec![0; 64 << 10],
            ground,
            socket,
            epoll,
            signals,
        };
        engine.listen(engine.socket.as_raw_fd(), SOCKET)?;
        engine.listen(engine.signals.as_raw_fd(), SIGNALS)?;
        let report = engine.ground.report.clone();
        engine.reply(&Reply::Ready(report));
        Ok(engine)
    }

    fn run(&mut self) -> i32 {
        // SAFETY: all zeroes is a valid array of events.
        let mut events: [libc::epoll_event; EVENTS_PER_ROUND] = unsafe { std::mem::zeroed() };
        loop {
            if self.flush().is_err() {
                return 0;
            }
            let timeout = self.timeout();
            // SAFETY: `events` is valid for its length.
            let count = unsafe {
                libc::epoll_wait(
                    self.epoll.as_raw_fd(),
                    events.as_mut_ptr(),
                    EVENTS_PER_ROUND as i32,
                    timeout,
                )
            };
            let mut reap = false;
            for event in &events[..count.max(0) as usize] {
                match event.u64 {
                    SOCKET => {
                        if self.read_requests().is_none() {
                            return 0;
                        }
                    }
                    SIGNALS => reap = true,
                    token => self.read_stream(token),
                }
            }
            if reap {
                self.reap();
            }
            self.watch_time();
            for _ in 0..STARTS_PER_ROUND {
                let Some((id, slot, launch)) = self.waiting.pop_front() else {
                    break;
                };
                self.start(id, slot, &launch);
            }
        }
    }

    fn read_requests(&mut self) -> Option<()> {
        let open = attempt::read_available(&mut self.socket, &mut self.inbox);
        let mut at = 0;
        loop {
            match wire::decode(&self.inbox, &mut at) {
                Ok(Some(Request::Launch { id, slot, launch })) => {
                    self.waiting.push_back((id, slot, launch));
                }
                Ok(Some(Request::End { id, outcome })) => self.order_end(id, outcome),
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        self.inbox.drain(..at);
        open
    }

    fn order_end(&mut self, id: u64, outcome: Outcome) {
        if let Some(at) = self.waiting.iter().position(|(waiting, ..)| *waiting == id) {
            self.waiting.remove(at);
            self.reply(&Reply::Exited {
                id,
                exit: Exit::without_process(outcome),
            });
        } else {
            self.end(id, outcome);
        }
    }

    fn start(&mut self, id: u64, slot: u32, launch: &Launch) {
        match self.try_start(id, slot, launch) {
            Ok(attempt) => {
                self.by_pid.insert(attempt.pid, id);
                if let Some(mark) = attempt.mark {
                    self.by_mark.insert(mark, id);
                }
                if let Some(limit) = launch.limits.time
                    && let Some(at) = attempt.started.checked_add(limit)
                {
                    self.deadlines.push(std::cmp::Reverse((at, id)));
                }
                if launch.limits.memory.is_some() {
                    self.limited_memory += 1;
                }
                self.attempts.insert(id, attempt);
            }
            Err(reason) => {
                let exit = Exit::without_process(Outcome::NotStarted { reason });
                self.reply(&Reply::Exited { id, exit });
            }
        }
    }

    fn try_start(&mut self, id: u64, slot: u32, launch: &Launch) -> Result<Attempt, String> {
        if !self.slots.contains_key(&slot) {
            let opened = self.ground.open_slot(slot)?;
            self.slots.insert(slot, opened);
        }
        let folder = self.slots.get(&slot).ok_or("the task's folder is gone")?;
        let setup = &self.ground.setup;
        let pipes = |error: io::Error| format!("cannot make a pipe for its output: {error}");
        let stdout = Stream::new(launch.tail_bytes).map_err(pipes)?;
        let stderr = Stream::new(launch.tail_bytes).map_err(pipes)?;
        let prepare = |programs: &mut Programs| {
            attempt::prepare(id, launch, folder, &setup.env, &setup.read_only, programs)
        };
        let marked = self.ground.report.marked;
        let mut prepared = prepare(&mut self.programs)?;
        let mut tries = 0;
        let started = Instant::now();
        let pid = loop {
            tries += 1;
            let command = Command {
                program: &prepared.program,
                args: &prepared.args,
                env: &prepared.env,
                folder: folder.work.as_raw_fd(),
                stdin: prepared.stdin.as_ref().unwrap_or(&self.null).as_raw_fd(),
                stdout: stdout.write.as_raw_fd(),
                stderr: stderr.write.as_raw_fd(),
                ruleset: folder.ruleset.as_ref().map(AsRawFd::as_raw_fd),
                file_bytes_max: launch.limits.disk,
                files_max: self.files_max,
                mark: marked,
            };
            match self.cloner.start(&command) {
                Ok(pid) => break pid,
                Err(failure) if failure.errno == libc::ENOENT && tries == 1 => {
                    // It may have moved since it was found.
                    self.programs.forget();
                    prepared = prepare(&mut self.programs)?;
                }
                Err(failure) => return Err(attempt::explain(&launch.program, &prepared, failure)),
            }
        };
        // Only now: a child at low priority could keep the spawner waiting for its exec.
        if self.ground.report.idle {
            let none = libc::sched_param { sched_priority: 0 };
            // SAFETY: changes a child of ours that is not reaped, so that the number is its own.
            unsafe { libc::sched_setscheduler(pid, libc::SCHED_IDLE, &raw const none) };
        }
        let token = (id + FIRST_ID) << 1;
        self.listen(stdout.read.as_raw_fd(), token).map_err(pipes)?;
        self.listen(stderr.read.as_raw_fd(), token | 1)
            .map_err(pipes)?;
        Ok(Attempt {
            pid,
            mark: if marked {
                tree::mark_of(pid, true)
            } else {
                Some(Mark::Variable(id))
            },
            limits: launch.limits,
            started,
            stdout,
            stderr,
            verdict: None,
            ended: None,
            dying_since: None,
            orphans_cpu: Duration::ZERO,
            memory_peak: 0,
        })
    }

    fn read_stream(&mut self, token: u64) {
        let id = (token >> 1).wrapping_sub(FIRST_ID);
        if let Some(attempt) = self.attempts.get_mut(&id) {
            let stream = if token & 1 == 0 {
                &mut attempt.stdout
            } else {
                &mut attempt.stderr
            };
            stream.read_some(&mut self.buffer);
        }
    }

    /// Takes notice of all processes that have ended.
    fn reap(&mut self) {
        let mut drained = [0u8; 1024];
        let _ = rustix::io::read(&self.signals, &mut drained);
        let mut over = Vec::new();
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
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.ended = Some(Ended {
                        outcome: outcome_of(status),
                        elapsed: attempt.started.elapsed(),
                        cpu,
                        memory_peak: usage.ru_maxrss as u64 * 1024,
                    });
                    over.push(id);
                }
            } else if let Some(Some(mark)) = self.orphans.remove(&pid)
                && let Some(attempt) = self
                    .by_mark
                    .get(&mark)
                    .and_then(|id| self.attempts.get_mut(id))
            {
                attempt.orphans_cpu += cpu;
            }
        }
        if !over.is_empty() {
            self.strays_at
                .get_or_insert_with(|| Instant::now() + STRAYS_AFTER);
            self.sweep();
        }
        for id in over {
            self.settle(id);
        }
        for id in std::mem::take(&mut self.dying) {
            self.settle(id);
        }
    }

    /// Looks at our children for what attempts have left behind: nearly always there is nothing, and then
    /// this costs one system call.
    fn sweep(&mut self) {
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
                    {
                        attempt.dying_since.get_or_insert_with(Instant::now);
                    }
                }
                // Of an attempt that was reported; or of none that can be told, while none runs.
                None if mark.is_some() || self.attempts.is_empty() => kill(pid),
                None => {
                    self.orphans.remove(&pid);
                }
            }
        }
    }

    /// Reports an attempt whose main process has ended, once nothing is left of it.
    fn settle(&mut self, id: u64) {
        let Some(attempt) = self.attempts.get(&id) else {
            return;
        };
        let Some(since) = attempt.dying_since else {
            return self.finish(id);
        };
        let left = self.kill_marked(id);
        if attempt_is_over(left, since) && self.attempts[&id].ended.is_some() {
            self.finish(id);
        } else {
            self.dying.push(id);
        }
    }

    /// Ends an attempt for a reason, unless it has ended or is being ended for another.
    fn end(&mut self, id: u64, verdict: Outcome) {
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
        self.kill_marked(id);
        self.dying.push(id);
    }

    /// Kills every living process of an attempt; returns how many there were besides the main process.
    fn kill_marked(&mut self, id: u64) -> usize {
        let Some(attempt) = self.attempts.get(&id) else {
            return 0;
        };
        let (main, mark) = (attempt.pid, attempt.mark);
        let mut marked = tree::all_marked(self.ground.report.marked);
        let mut pids = mark
            .and_then(|mark| marked.remove(&mark))
            .unwrap_or_default();
        pids.retain(|pid| *pid != main || attempt.ended.is_none());
        for pid in &pids {
            kill(*pid);
        }
        pids.iter().filter(|pid| **pid != main).count()
    }

    fn finish(&mut self, id: u64) {
        let Some(attempt) = self.attempts.remove(&id) else {
            return;
        };
        let Some(ended) = attempt.ended else { return };
        self.by_pid.remove(&attempt.pid);
        if let Some(mark) = attempt.mark {
            self.by_mark.remove(&mark);
        }
        if attempt.limits.memory.is_some() {
            self.limited_memory -= 1;
        }
        let exit = Exit {
            outcome: attempt.verdict.unwrap_or(ended.outcome),
            usage: Usage {
                elapsed: ended.elapsed,
                cpu: ended.cpu + attempt.orphans_cpu,
                memory_peak: ended.memory_peak.max(attempt.memory_peak),
            },
            stdout: attempt.stdout.finish(&mut self.buffer),
            stderr: attempt.stderr.finish(&mut self.buffer),
        };
        self.reply(&Reply::Exited { id, exit });
        if self.attempts.is_empty() {
            self.clear_shared_memory();
        }
    }

    /// Carries out what is due by now.
    fn watch_time(&mut self) {
        let now = Instant::now();
        while let Some(std::cmp::Reverse((at, id))) = self.deadlines.peek().copied() {
            if at > now {
                break;
            }
            self.deadlines.pop();
            if let Some(limit) = self
                .attempts
                .get(&id)
                .and_then(|attempt| attempt.limits.time)
            {
                self.end(id, Outcome::TimeLimit { limit });
            }
        }
        if self.limited_memory > 0 && now >= self.next_sample {
            self.next_sample = now + SAMPLE_EVERY;
            self.sample_memory();
        }
        if self.strays_at.is_some_and(|at| now >= at) {
            self.strays_at = None;
            self.sweep();
        }
        for id in std::mem::take(&mut self.dying) {
            self.settle_if_ended(id);
        }
    }

    fn settle_if_ended(&mut self, id: u64) {
        match self.attempts.get(&id) {
            Some(attempt) if attempt.ended.is_none() => {
                self.kill_marked(id);
                self.dying.push(id);
            }
            Some(_) => self.settle(id),
            None => {}
        }
    }

    fn sample_memory(&mut self) {
        let marked = tree::all_marked(self.ground.report.marked);
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
                over.push((*id, Outcome::MemoryLimit { limit, used }));
            }
        }
        for (id, verdict) in over {
            self.end(id, verdict);
        }
    }

    /// Milliseconds until something is due; -1 for never.
    fn timeout(&self) -> i32 {
        if !self.waiting.is_empty() {
            return 0;
        }
        if !self.dying.is_empty() {
            return 1;
        }
        let mut next: Option<Instant> = self.deadlines.peek().map(|std::cmp::Reverse((at, _))| *at);
        let sample = (self.limited_memory > 0).then_some(self.next_sample);
        for at in [sample, self.strays_at].into_iter().flatten() {
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        next.map_or(-1, |at| {
            let wait = at.saturating_duration_since(Instant::now());
            i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        })
    }

    /// Removes what attempts left in the view's shared memory; only when none runs, because it cannot be
    /// told whose it is.
    fn clear_shared_memory(&self) {
        if !matches!(self.ground.report.sandbox, Sandbox::View { .. }) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(super::view::SHARED_MEMORY) else {
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

    fn reply(&mut self, reply: &Reply) {
        if wire::encode(reply, &mut self.out).is_err()
            && let Reply::Exited { id, .. } = reply
        {
            // Cannot be: tails are bounded. The worker must get an answer all the same.
            let reason = "its report was too long to send".to_owned();
            let exit = Exit::without_process(Outcome::Lost { reason });
            let _ = wire::encode(&Reply::Exited { id: *id, exit }, &mut self.out);
        }
    }

    /// Sends what waits; waits itself only while there is too much.
    fn flush(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            match self.socket.write(&self.out) {
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let wait = if self.out.len() > OUT_BYTES_MAX {
                        -1
                    } else {
                        1
                    };
                    let mut fd = libc::pollfd {
                        fd: self.socket.as_raw_fd(),
                        events: libc::POLLOUT,
                        revents: 0,
                    };
                    // SAFETY: `fd` is valid for the call.
                    unsafe { libc::poll(&raw mut fd, 1, wait) };
                    if self.out.len() <= OUT_BYTES_MAX && fd.revents == 0 {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn listen(&self, fd: RawFd, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: libc::EPOLLIN as u32,
            u64: token,
        };
        // SAFETY: `event` is valid for the call.
        let done = unsafe {
            libc::epoll_ctl(
                self.epoll.as_raw_fd(),
                libc::EPOLL_CTL_ADD,
                fd,
                &raw mut event,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}

fn attempt_is_over(left: usize, since: Instant) -> bool {
    left == 0 || since.elapsed() > DYING_MAX
}

fn kill(pid: i32) {
    // SAFETY: only ever called for children that are not reaped and processes just found by their mark.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}

fn outcome_of(status: i32) -> Outcome {
    if libc::WIFSIGNALED(status) {
        Outcome::Signalled(libc::WTERMSIG(status))
    } else {
        Outcome::Exited(libc::WEXITSTATUS(status))
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::new(
        time.tv_sec.max(0) as u64,
        time.tv_usec.clamp(0, 999_999) as u32 * 1000,
    )
}

/// A descriptor that becomes readable when a child ends.
fn signals_of_children() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use and valid for the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Allows this process as many open files as it may have; returns what attempts get.
fn raise_files_max() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    // SAFETY: both structures are valid for the calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            rlim_max: limit.rlim_max,
        };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised);
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
    limit
}
