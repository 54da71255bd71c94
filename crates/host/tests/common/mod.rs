//! Watching in tests: notices collected, and waited for with a bound.
#![allow(dead_code, reason = "not every test uses all of it")]

use hedge_host::{Found, Notice, Options, State, Watch};
use hedge_model::owner::Signal;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// Longest wait for something that should come at once.
pub const SOON: Duration = Duration::from_secs(120);

/// A watch and what it noticed.
pub struct Watched {
    pub watch: Watch,
    notices: Receiver<Notice>,
}

/// Watches with these sources alone.
pub fn watch(options: Options, sources: &[&str]) -> Watched {
    let all = [
        "evdev",
        "x11",
        "wayland",
        "processes",
        "sessions",
        "logind",
        "screensaver",
        "mutter",
        "microphone",
        "voice",
        "power",
        "network",
    ];
    let without = all.iter().filter(|name| !sources.contains(name));
    let options = Options {
        without: without.map(|name| (*name).to_owned()).collect(),
        ..options
    };
    let (hand, notices) = sync_channel(10_000);
    let watch = Watch::start(options, move |notice| _ = hand.try_send(notice)).unwrap();
    Watched { watch, notices }
}

impl Watched {
    /// The next notice, if one comes within `time`.
    pub fn next(&self, time: Duration) -> Option<Notice> {
        self.notices.recv_timeout(time).ok()
    }

    /// Waits for this signal; whatever else is noticed is dropped.
    pub fn wait_for(&self, signal: Signal) -> Notice {
        let until = Instant::now() + SOON;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let notice = self.next(left);
            let notice = notice
                .unwrap_or_else(|| panic!("{signal:?} was not noticed: {:?}", self.watch.found()));
            if notice.signal == signal {
                return notice;
            }
        }
    }

    /// Everything noticed so far.
    pub fn drain(&self) -> Vec<Notice> {
        self.notices.try_iter().collect()
    }

    /// Waits until a source watches.
    pub fn ready(&self, source: &str) -> Found {
        let until = Instant::now() + SOON;
        loop {
            let found = self.watch.found();
            let one = found.iter().find(|found| found.source == source);
            if let Some(one) = one
                && matches!(one.state, Some(State::Watching { .. }))
            {
                return one.clone();
            }
            assert!(Instant::now() < until, "{source} does not watch: {found:?}");
            _ = self.next(Duration::from_millis(50));
        }
    }
}

/// A process that ends with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

/// Starts an X server that chooses a free display and says which.
pub fn x_server(program: &str, args: &[&str]) -> (Process, String) {
    let (read, write) = std::io::pipe().unwrap();
    let read = OwnedFd::from(read);
    // SAFETY: a copy of the writing end without close-on-exec, for the server.
    let handed = unsafe { OwnedFd::from_raw_fd(libc::dup(write.as_raw_fd())) };
    let child = Command::new(program)
        .args(["-displayfd", &handed.as_raw_fd().to_string()])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    drop((write, handed));
    let mut number = String::new();
    BufReader::new(std::fs::File::from(read))
        .read_line(&mut number)
        .unwrap();
    assert!(!number.trim().is_empty(), "{program} did not start");
    (Process(child), format!(":{}", number.trim()))
}

/// Runs a command to its end, on a display.
pub fn on_display(display: &str, program: &str, args: &[&str]) {
    let status = Command::new(program)
        .args(args)
        .env("DISPLAY", display)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}
