//! Ctrl-C and SIGTERM.

use crate::exit::{Exit, Failure};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for the user or the system to end this process.
pub struct Interrupts {
    ctrl_c: bool,
    int: Signal,
    term: Signal,
}

impl Interrupts {
    /// From now on these signals do not end the process by themselves.
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
        Ok(Self {
            ctrl_c: true,
            int: listen(SignalKind::interrupt())?,
            term: listen(SignalKind::terminate())?,
        })
    }

    /// The next of them.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.int.recv(), if self.ctrl_c => {}
            _ = self.term.recv() => {}
        }
    }

    /// From now on only SIGTERM counts.
    pub fn ignore_ctrl_c(&mut self) {
        self.ctrl_c = false;
    }

    /// The next one ends the process at once.
    pub fn quit_on_next(mut self, exit: Exit) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(exit as i32);
        });
    }
}
