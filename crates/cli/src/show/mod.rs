//! How things are shown: text or JSON on standard output, progress and trouble on standard error.

use crate::exit::Failure;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use tokio::sync::oneshot;

pub mod cost;
pub mod doctor;
pub mod escape;
pub mod events;
pub mod explain;
pub mod hold;
pub mod job;
pub mod manifest;
mod mistakes;
pub mod progress;
pub mod sandbox;
pub mod summary;
pub mod table;
pub mod tasks;
pub mod workers;

/// How this call of `hedge` shows things.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// JSON instead of text.
    pub json: bool,
}

impl Look {
    /// How progress is shown, of a `program` or of another job.
    pub fn style(self, program: bool) -> progress::Style {
        match (self.json, program) {
            (true, _) => progress::Style::Json,
            (false, true) => progress::Style::Waits,
            (false, false) => progress::Style::Full,
        }
    }

    /// Prints a value: as JSON, or as the text that `text` makes.
    ///
    /// # Errors
    /// The output was closed or cannot be written.
    pub fn print<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        if self.json { json(value) } else { out(&text()) }
    }
}

/// Writes to standard output.
///
/// # Errors
/// The output was closed or cannot be written.
pub fn out(text: &str) -> Result<(), Failure> {
    out_bytes(escape::block(text).as_bytes())
}

/// Writes what a task printed to standard output: unchanged, but what a terminal would obey is escaped for one.
///
/// # Errors
/// The output was closed or cannot be written.
pub fn task_out(bytes: &[u8]) -> Result<(), Failure> {
    if io::stdout().is_terminal() {
        out_bytes(escape::printed(bytes).as_bytes())
    } else {
        out_bytes(bytes)
    }
}

/// Text of a task whose lines begin with the task's name each.
pub fn named_lines(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut named = Vec::with_capacity(bytes.len() + bytes.len() / 8);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        named.extend_from_slice(name.as_bytes());
        named.extend_from_slice(b": ");
        named.extend_from_slice(line);
    }
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        named.push(b'\n');
    }
    named
}

/// The same for standard error; bytes that nobody reads are no trouble.
pub fn task_err(bytes: &[u8]) {
    if io::stderr().is_terminal() {
        err_bytes(escape::printed(bytes).as_bytes());
    } else {
        err_bytes(bytes);
    }
}

/// Writes bytes of our own to standard output, unchanged.
///
/// # Errors
/// The output was closed or cannot be written.
pub fn out_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::OutputClosed,
        _ => Failure::Local(format!(
            "standard output cannot be written: {error}; nothing else was changed"
        )),
    })
}

/// Writes bytes of our own to standard error, beside a progress bar; bytes that nobody reads are no trouble.
pub fn err_bytes(bytes: &[u8]) {
    progress::beside_bar(|| {
        let _ = io::stderr().lock().write_all(bytes);
    });
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// The output was closed or cannot be written.
pub fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    out(&json_line(value)?)
}

/// A value as one line of JSON.
///
/// # Errors
/// It has no form in JSON.
pub fn json_line<T: Serialize>(value: &T) -> Result<String, Failure> {
    let line = serde_json::to_string(value)
        .map_err(|error| Failure::Local(format!("this cannot be shown as JSON: {error}")))?;
    Ok(escape::json(&line) + "\n")
}

/// Waits until nobody reads standard output any more; for ever where there is no end to see.
pub async fn output_closed() {
    let (closed, seen) = oneshot::channel();
    std::thread::spawn(move || {
        let stdout = io::stdout();
        let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
        loop {
            match poll(&mut polled, None) {
                Err(Errno::INTR) => {}
                Ok(_) if !polled[0].revents().is_empty() => {
                    _ = closed.send(());
                    return;
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    });
    if seen.await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Writes a line for people to standard error; one that nobody reads is no trouble.
pub fn note(text: &str) {
    err_bytes(format!("{}\n", escape::block(text)).as_bytes());
}

/// Tells why a command failed.
pub fn failure(failure: &Failure, json: bool) {
    let text = match failure {
        Failure::OutputClosed => return,
        Failure::JobFile(bad) if json => {
            serde_json::json!({ "error": failure.to_string(), "exit_code": failure.exit().code(), "mistakes": bad.located() }).to_string()
        }
        _ if json => {
            serde_json::json!({ "error": failure.to_string(), "exit_code": failure.exit().code() }).to_string()
        }
        Failure::JobFile(bad) => {
            let report = mistakes::mistakes(bad, colour(), width());
            return err_bytes((escape::printed(report.trim_end().as_bytes()) + "\n").as_bytes());
        }
        _ => format!("hedge: {}", escape::line(&failure.to_string())),
    };
    note(&if json { escape::json(&text) } else { text });
}

/// Whether standard error takes colours.
pub fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    moves() && !set("NO_COLOR")
}

/// Whether standard error is a terminal on which a line can be drawn anew.
pub fn moves() -> bool {
    let able = |term: &std::ffi::OsString| !term.is_empty() && term != "dumb";
    io::stderr().is_terminal() && std::env::var_os("TERM").as_ref().is_some_and(able)
}

/// Width of text on standard error.
fn width() -> usize {
    let columns = std::env::var("COLUMNS").ok();
    let columns = columns.and_then(|text| text.parse().ok());
    let terminal = || table::width_of(&io::stderr());
    columns.or_else(terminal).unwrap_or(100).clamp(40, 200)
}

/// A duration for people: `412 ms`, `3.2 s`, `4 min 12 s`, `2 h 05 min`.
pub fn time(span_ms: f64) -> String {
    let span = Duration::from_secs_f64((span_ms.max(0.0) / 1000.0).min(1e12));
    let seconds = span.as_secs();
    match seconds {
        0 if span_ms < 9.95 => format!("{span_ms:.1} ms"),
        0 => format!("{span_ms:.0} ms"),
        1..60 => format!("{:.1} s", span.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A number with its noun: `1 task`, `2 tasks`.
pub fn count(number: u64, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short_and_carry_their_unit() {
        let shown = [1.234, 412.4, 3_210.0, 252_000.0, 7_500_000.0].map(time);
        assert_eq!(
            shown,
            ["1.2 ms", "412 ms", "3.2 s", "4 min 12 s", "2 h 05 min"]
        );
    }
}
