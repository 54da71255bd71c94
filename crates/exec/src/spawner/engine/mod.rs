//! The spawner's loop: requests, ends of processes, output, deadlines.

mod ending;
mod look;
mod os;
mod pause;
mod start;

use super::attempt::{self, Attempt, Programs};
use super::child::Cloner;
use super::ground::{Ground, Slot};
use super::tree::{Children, LastPid, Mark};
use crate::Exit;
use crate::wire::{self, Reply, Request};
use hedge_model::Ending;
use std::collections::{BinaryHeap, HashMap};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const EVENTS_PER_ROUND: usize = 256;
/// How often memory is looked at while an attempt has a limit.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Reports that may wait for the worker to read them, bytes.
const OUT_BYTES_MAX: usize = 8 << 20;

const SOCKET: u64 = 0;
const SIGNALS: u64 = 1;
const LOOK: u64 = 2;
/// Tokens of streams: the attempt's id, shifted, and which of its streams.
const FIRST_ID: u64 = 1;
const STREAMS_SHIFT: u32 = 2;

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
    last_pid: LastPid,
    files_max: libc::rlimit,
    slots: HashMap<u32, Slot>,
    programs: Programs,
    starts: start::Starts,
    attempts: HashMap<u64, Attempt>,
    by_pid: HashMap<i32, u64>,
    by_mark: HashMap<Mark, u64>,
    /// Marks of processes that became our children when their parents ended.
    orphans: HashMap<i32, Option<Mark>>,
    dying: Vec<u64>,
    pause: pause::Pause,
    /// Whether attempts get idle priority whatever the setup says.
    lowered: bool,
    /// Earliest first.
    deadlines: BinaryHeap<std::cmp::Reverse<(Instant, u64)>>,
    look: look::Look,
    limited_memory: usize,
    next_sample: Instant,
    strays_at: Option<Instant>,
    /// When to look at the dying again.
    press_at: Option<Instant>,
    inbox: Vec<u8>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Engine {
    fn new(ground: Ground, socket: UnixStream) -> io::Result<Engine> {
        socket.set_nonblocking(true)?;
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let signals = os::signals_of_children()?;
        let mut engine = Engine {
            null: std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?
                .into(),
            cloner: Cloner::new()?,
            children: Children::open(),
            last_pid: LastPid::open(),
            files_max: os::raise_files_max(),
            slots: HashMap::new(),
            programs: Programs::default(),
            starts: start::Starts::default(),
            attempts: HashMap::new(),
            by_pid: HashMap::new(),
            by_mark: HashMap::new(),
            orphans: HashMap::new(),
            dying: Vec::new(),
            pause: pause::Pause::default(),
            lowered: false,
            deadlines: BinaryHeap::new(),
            look: look::Look::new()?,
            limited_memory: 0,
            next_sample: Instant::now(),
            strays_at: None,
            press_at: None,
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
        engine.listen(engine.look.fd(), LOOK)?;
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
            let (mut reap, mut looks) = (false, false);
            for event in &events[..count.max(0) as usize] {
                match event.u64 {
                    SOCKET => {
                        if self.read_requests().is_none() {
                            return 0;
                        }
                    }
                    SIGNALS => reap = true,
                    LOOK => looks = true,
                    token => self.read_stream(token),
                }
            }
            if reap {
                self.reap();
            }
            if looks {
                self.look();
            }
            self.watch_time();
            self.start_some();
        }
    }

    fn read_requests(&mut self) -> Option<()> {
        let open = attempt::read_available(&mut self.socket, &mut self.inbox);
        let mut at = 0;
        loop {
            match wire::decode(&self.inbox, &mut at) {
                Ok(Some(Request::Launch { id, slot, launch })) => {
                    self.starts.add(id, slot, launch);
                }
                Ok(Some(Request::End { id, ending })) => self.order_end(id, ending),
                Ok(Some(Request::Pause(on))) => self.pause(on),
                Ok(Some(Request::Lower(on))) => self.lower(on),
                Ok(Some(Request::LookEvery(every))) => self.look_every(every),
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        self.inbox.drain(..at);
        open
    }

    fn order_end(&mut self, id: u64, ending: Ending) {
        if self.starts.remove(id) {
            self.not_started(id, ending);
        } else {
            self.end(id, ending);
        }
    }

    fn read_stream(&mut self, token: u64) {
        let id = (token >> STREAMS_SHIFT).wrapping_sub(FIRST_ID);
        if let Some(attempt) = self.attempts.get_mut(&id) {
            match token & 3 {
                0 => drop(attempt.stdout.read_some(&mut self.buffer)),
                1 => drop(attempt.stderr.read_some(&mut self.buffer)),
                _ => attempt.advance.read_some(&mut self.buffer),
            }
        }
    }

    /// Carries out what is due by now.
    fn watch_time(&mut self) {
        let now = Instant::now();
        while let Some(std::cmp::Reverse((at, id))) = self.deadlines.peek().copied() {
            if at > now || self.pause.on() {
                break;
            }
            self.deadlines.pop();
            let Some(attempt) = self.attempts.get(&id) else {
                continue;
            };
            let Some(limit) = attempt.limits.time else {
                continue;
            };
            let left = limit.saturating_sub(self.times(attempt).0);
            match now.checked_add(left) {
                // It was paused meanwhile.
                Some(at) if at > now => self.deadlines.push(std::cmp::Reverse((at, id))),
                _ => self.end(id, Ending::TimeLimit { limit }),
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
        if self.press_at.is_some_and(|at| now >= at) {
            self.press();
        }
    }

    /// Milliseconds until something is due; -1 for never.
    fn timeout(&self) -> i32 {
        let start = self.starts.next().filter(|_| !self.pause.on());
        let deadline = self.deadlines.peek().filter(|_| !self.pause.on());
        let mut next: Option<Instant> = deadline.map(|std::cmp::Reverse((at, _))| *at);
        let sample = (self.limited_memory > 0).then_some(self.next_sample);
        for at in [sample, start, self.strays_at, self.press_at]
            .into_iter()
            .flatten()
        {
            next = Some(next.map_or(at, |known| known.min(at)));
        }
        next.map_or(-1, |at| {
            let wait = at.saturating_duration_since(Instant::now());
            i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        })
    }

    /// How long an attempt has run, and for how long it was paused meanwhile.
    fn times(&self, attempt: &Attempt) -> (Duration, Duration) {
        let paused = self.pause.total().saturating_sub(attempt.paused_before);
        (attempt.started.elapsed().saturating_sub(paused), paused)
    }

    fn reply(&mut self, reply: &Reply) {
        if wire::encode(reply, &mut self.out).is_err()
            && let Reply::Exited { id, gone, .. } = reply
        {
            // Cannot be: tails are bounded. The worker must get an answer all the same.
            let why = "its spawner's report was too long to send";
            let exit = Exit::without_process(Ending::worker(why));
            let _ = wire::encode(
                &Reply::Exited {
                    id: *id,
                    gone: *gone,
                    exit,
                },
                &mut self.out,
            );
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
