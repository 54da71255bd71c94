//! How things are shown: text or JSON on standard output, progress and trouble on standard error.

use crate::exit::Failure;
use serde::Serialize;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

pub mod cost;
pub mod doctor;
pub mod explain;
pub mod job;
pub mod manifest;
pub mod progress;
pub mod summary;
pub mod table;
pub mod workers;

/// How this call of `hedge` shows things.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// JSON instead of text.
    pub json: bool,
}

impl Look {
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
    out_bytes(text.as_bytes())
}

/// Writes what a program printed to standard output, unchanged.
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

/// Writes what a program printed to standard error, unchanged; bytes that nobody reads are no trouble.
pub fn err_bytes(bytes: &[u8]) {
    let _ = io::stderr().lock().write_all(bytes);
}

/// Prints a value as one line of JSON.
///
/// # Errors
/// The output was closed or cannot be written.
pub fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    let mut line = serde_json::to_string(value)
        .map_err(|error| Failure::Local(format!("this cannot be shown as JSON: {error}")))?;
    line.push('\n');
    out(&line)
}

/// Writes a line for people to standard error; one that nobody reads is no trouble.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Tells why a command failed.
pub fn failure(failure: &Failure, json: bool) {
    let text = match failure {
        Failure::OutputClosed => return,
        Failure::JobFile(bad) if json => {
            serde_json::json!({ "error": failure.to_string(), "exit_code": failure.exit() as u8, "mistakes": bad.to_json() }).to_string()
        }
        _ if json => {
            serde_json::json!({ "error": failure.to_string(), "exit_code": failure.exit() as u8 }).to_string()
        }
        Failure::JobFile(bad) => bad.show(colour(), width()).trim_end().to_owned(),
        _ => format!("hedge: {failure}"),
    };
    note(&text);
}

/// Whether standard error takes colours.
pub fn colour() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal()
        && !set("NO_COLOR")
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Width of text on standard error.
fn width() -> usize {
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    columns.unwrap_or(100).clamp(40, 200)
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
