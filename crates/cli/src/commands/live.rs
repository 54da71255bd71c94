//! Prints output of tasks while they run, for several commands.

use crate::exit::Failure;
use crate::show::hold::Hold;
use crate::show::{self, note};
use std::io::{self, IsTerminal};

/// Prints the streams of one task. A slow reader of the terminal or pipe blocks nothing else.
#[derive(Debug, Default)]
pub struct Printer {
    out: Hold,
    err: Hold,
}

impl Printer {
    /// Prints more of both streams.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn print(&mut self, stdout: &[u8], stderr: &[u8]) -> Result<(), Failure> {
        let held = |hold: &mut Hold, bytes: &[u8], terminal| match terminal {
            true => hold.take(bytes),
            false => bytes.to_vec(),
        };
        let out = held(&mut self.out, stdout, io::stdout().is_terminal());
        let err = held(&mut self.err, stderr, io::stderr().is_terminal());
        write(out, err).await
    }

    /// Prints the rest at the end of the streams.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn end(&mut self) -> Result<(), Failure> {
        write(self.out.rest(), self.err.rest()).await
    }
}

/// Writes output of a task on another thread.
///
/// # Errors
/// Nobody reads any more.
pub async fn write(out: Vec<u8>, err: Vec<u8>) -> Result<(), Failure> {
    if out.is_empty() && err.is_empty() {
        return Ok(());
    }
    let writing = tokio::task::spawn_blocking(move || {
        show::task_err(&err);
        match out.is_empty() {
            true => Ok(()),
            false => show::task_out(&out),
        }
    });
    let written = writing.await;
    written
        .map_err(|error| Failure::Local(format!("what a task printed cannot be shown: {error}")))?
}

/// Tells the user that a part of a stream is missing.
pub fn note_missing(task: &str, stream: &str, cut: u64) {
    note(&format!(
        "hedge: {cut} bytes of the standard {stream} of {task} are missing here: the task printed more than is kept. \
         What follows is whole. Let the task write to a file among its outputs instead"
    ));
}
