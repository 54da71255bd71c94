//! Events of the log on standard error: each one line, whatever peers put into it, and beside a progress bar.

use super::{colour, err_bytes, escape};
use std::io;
use tracing_subscriber::EnvFilter;

/// What the transport calls an error when it is only dropped at the end.
const FALSE_ALARMS: &str = "iroh::socket::transports::relay=off";

/// Writes events to standard error; `usual` says which, unless HEDGE_LOG does (like `hedge_net=debug`).
pub fn show(usual: &str) {
    let usual = || EnvFilter::new(format!("{usual},{FALSE_ALARMS}"));
    let filter = EnvFilter::try_from_env("HEDGE_LOG").unwrap_or_else(|_| usual());
    let coloured = colour();
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Events { coloured })
        .with_ansi(coloured);
    // A subscriber that is set already stays.
    let _ = format.try_init();
}

/// A line that a worker of this process wrote to its standard error.
pub fn of_worker(line: &str) {
    err_bytes(escape::event(line, false).as_bytes());
}

/// Takes one event with each write.
struct Events {
    coloured: bool,
}

impl io::Write for Events {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        err_bytes(escape::event(&text, self.coloured).as_bytes());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
