//! Handles Ctrl-C, SIGTERM and the end of the terminal.

use crate::exit::{Exit, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives the signals by which the user or the system ends this process.
pub struct Interrupts {
    terminal: bool,
    int: Signal,
    term: Signal,
    /// None if the process was started with SIGHUP ignored, as by `nohup`.
    hangup: Option<Signal>,
}

impl Interrupts {
    /// Starts to receive the signals, which then no longer end the process.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::Local(format!(
                    "cannot listen to signals: {error}; nothing was changed"
                ))
            })
        };
        let hangup = match ignored(SignalKind::hangup()) {
            true => None,
            false => Some(listen(SignalKind::hangup())?),
        };
        Ok(Self {
            terminal: true,
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
            hangup,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) {
        let Self {
            terminal,
            int,
            term,
            hangup,
        } = self;
        let hung_up = async {
            match hangup {
                Some(hangup) => drop(hangup.recv().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = int.recv(), if *terminal => {}
            _ = term.recv() => {}
            () = hung_up, if *terminal => {}
        }
    }

    /// Ignores the signals that a terminal sends to all its processes. SIGTERM still counts.
    pub fn ignore_terminal(&mut self) {
        self.terminal = false;
    }

    /// Ends the process at the next signal.
    pub fn quit_on_next(mut self, exit: Exit) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(exit.code().into());
        });
    }
}

/// Returns whether the process was started with a signal ignored.
fn ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (kind.as_raw_value() - 1)) != 0)
}
