//! The spawner's loop: requests, ends of processes, output, deadlines.

mod beginning;
mod ending;
mod look;
mod pause;
mod start;
mod streams;
mod warm;

use super::attempt::{Attempt, Programs, read_available};
use super::child::Cloner;
use super::environment::SlotEnvironment;
use super::os;
use super::tree::Children;
use crate::Exit;
use crate::wire::{self, Reply, Request};
use hedge_model::Ending;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const EVENTS_PER_ROUND: usize = 64;
/// How often the use of an attempt with limits is measured.
const SAMPLE_EVERY: Duration = Duration::from_millis(50);
/// Bytes of reports that may wait for the worker. Beyond them the spawner waits until the worker reads.
const OUT_BYTES_MAX: usize = 8 << 20;

const SOCKET: u64 = 0;
const SIGNALS: u64 = 1;
const LOOK: u64 = 2;
const STDOUT: u64 = 3;
const STDERR: u64 = 4;
const ADVANCE: u64 = 5;
const CONTROL: u64 = 6;
const CHANNEL: u64 = 7;

/// Serves the worker until it closes the socket; returns the exit code.
pub(crate) fn serve(environment: SlotEnvironment, socket: UnixStream) -> i32 {
    match Engine::new(environment, socket) {
        Ok(mut engine) => engine.run(),
        Err(_) => 1,
    }
}

/// The spawner's state. One attempt runs at a time: the slot's folders and all processes below the spawner belong to it.
struct Engine {
    environment: SlotEnvironment,
    socket: UnixStream,
    epoll: OwnedFd,
    null: OwnedFd,
    children: Children,
    files_max: libc::rlimit,
    programs: Programs,
    cloner: Cloner,
    starts: start::Starts,
    attempt: Option<Attempt>,
    warm: warm::Warm,
    pause: pause::Pause,
    /// Whether attempts get idle priority even if the setup says otherwise.
    lowered: bool,
    /// The next check for processes that escaped idle priority.
    idle_check: Option<start::IdleCheck>,
    look: look::Look,
    next_sample: Instant,
    /// When to read again from streams of a program that prints too fast.
    resume_at: Option<Instant>,
    /// When the next round of killing is due.
    press_at: Option<Instant>,
    inbox: Vec<u8>,
    out: Vec<u8>,
    buffer: Vec<u8>,
}

impl Engine {
    fn new(environment: SlotEnvironment, socket: UnixStream) -> io::Result<Engine> {
        socket.set_nonblocking(true)?;
        let epoll = rustix::event::epoll::create(rustix::event::epoll::CreateFlags::CLOEXEC)?;
        let mut engine = Engine {
            null: std::fs::File::options()
                .read(true)
                .write(true)
                .open("/dev/null")?
                .into(),
            children: Children::open(),
            files_max: os::raise_files_max(),
            programs: Programs::new(environment.shown()),
            cloner: Cloner::new()?,
            starts: start::Starts::default(),
            attempt: None,
            warm: warm::Warm::default(),
            pause: pause::Pause::default(),
            lowered: false,
            idle_check: None,
            look: look::Look::new()?,
            next_sample: Instant::now(),
            resume_at: None,
            press_at: None,
            inbox: Vec::new(),
            out: Vec::new(),
            buffer: vec![0; 64 << 10],
            environment,
            socket,
            epoll,
        };
        engine.listen(engine.socket.as_raw_fd(), SOCKET)?;
        engine.listen(engine.environment.signals.as_raw_fd(), SIGNALS)?;
        engine.listen(engine.look.fd(), LOOK)?;
        let report = engine.environment.report.clone();
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
                    CONTROL => self.hear_template(),
                    CHANNEL => self.send_on(),
                    stream => self.read_stream(stream),
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
        let open = read_available(&mut self.socket, &mut self.inbox);
        let mut at = 0;
        loop {
            match wire::decode(&self.inbox, &mut at) {
                Ok(Some(Request::Launch { id, filled, launch })) => {
                    self.starts.add(id, filled, *launch);
                }
                Ok(Some(Request::End { id, ending })) => self.order_end(id, ending),
                Ok(Some(Request::Stop { id, grace })) => self.order_stop(id, grace),
                Ok(Some(Request::Pause(on))) => self.pause(on),
                Ok(Some(Request::Lower(on))) => self.lower(on),
                Ok(Some(Request::LookEvery(every))) => self.look_every(every),
                Ok(Some(Request::Read { id, reading, from })) => {
                    self.read_printed(id, reading, from)
                }
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

    fn order_stop(&mut self, id: u64, grace: Duration) {
        if self.starts.remove(id) {
            self.not_started(id, Ending::Vacated);
        } else {
            self.stop(id, grace);
        }
    }

    /// Does everything that is due now.
    fn watch_time(&mut self) {
        let now = Instant::now();
        if let Some((id, limit, left)) = self.time_left()
            && left.is_zero()
        {
            self.end(id, Ending::TimeLimit { limit });
        }
        if self.stop_at().is_some_and(|at| now >= at) {
            self.end_stopped();
        }
        if self.samples() && now >= self.next_sample {
            self.next_sample = now + SAMPLE_EVERY;
            self.sample();
        }
        if self.resume_at.is_some_and(|at| now >= at) {
            self.resume_streams();
        }
        if self.press_at.is_some_and(|at| now >= at) {
            self.press();
        }
        if self
            .idle_check
            .as_ref()
            .is_some_and(|check| now >= check.at)
        {
            self.check_idle();
        }
        if self.asked_until().is_some_and(|at| now >= at) {
            self.give_up_template();
        }
        if self.warm.spare_at().is_some_and(|at| now >= at) {
            self.make_spare();
        }
        if self.warm.check_at().is_some_and(|at| now >= at) {
            self.check_template();
        }
        if self.pause.check_at().is_some_and(|at| now >= at) {
            self.check_stopped();
        }
    }

    /// Returns the attempt's id, its time limit, and what is left of that.
    fn time_left(&self) -> Option<(u64, Duration, Duration)> {
        let attempt = self.attempt.as_ref().filter(|_| !self.pause.on())?;
        if attempt.ended.is_some() || attempt.verdict.is_some() {
            return None;
        }
        let limit = attempt.limits.time?;
        let left = limit.saturating_sub(self.times(attempt).0);
        Some((attempt.id, limit, left))
    }

    /// Returns whether the attempt's use is measured.
    fn samples(&self) -> bool {
        let attempt = self
            .attempt
            .as_ref()
            .filter(|attempt| attempt.ended.is_none());
        let limits = attempt.map(|attempt| attempt.limits);
        limits.is_some_and(|limits| limits.memory.is_some() || limits.disk.is_some())
    }

    /// Returns the milliseconds until something is due; -1 if nothing is.
    fn timeout(&self) -> i32 {
        let left = self.time_left().map(|(_, _, left)| left);
        let deadline = left.and_then(|left| Instant::now().checked_add(left));
        let sample = self.samples().then_some(self.next_sample);
        let check = self.pause.check_at();
        let can_start = self.attempt.is_none() && !self.pause.on() && !self.warm.clearing;
        let start = self.starts.next().filter(|_| can_start);
        let due = [
            deadline,
            sample,
            start,
            self.resume_at,
            self.press_at,
            self.stop_at(),
            self.asked_until(),
            self.warm.spare_at(),
            self.warm.check_at(),
            check,
            self.idle_check.as_ref().map(|check| check.at),
        ];
        due.into_iter().flatten().min().map_or(-1, |at| {
            let wait = at.saturating_duration_since(Instant::now());
            i32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(i32::MAX)
        })
    }

    /// Returns how long an attempt has run without pauses, and the length of the pauses.
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

    /// Sends waiting reports. Blocks only while more wait than may.
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
        self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, token)
    }

    fn control(&self, operation: i32, fd: RawFd, wanted: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: wanted as u32,
            u64: token,
        };
        // SAFETY: `event` is valid for the call.
        let done =
            unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }
}
