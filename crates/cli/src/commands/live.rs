//! What the commands share that show output of tasks as it comes.

use crate::exit::Failure;
use crate::show::hold::Hold;
use crate::show::{self, note};
use hedge_node::ClientError;
use hedge_node::client::{News, Tail};
use std::future::pending;
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long no supervisor may answer before reading ends: long enough for one to restart.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Pauses between two looks at a task: short after it has printed, so that its output is seen as it comes, and longer
/// while it prints nothing.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Reads tasks, also while no supervisor answers for a moment.
#[derive(Debug, Default)]
pub struct Patience {
    lost_at: Option<Instant>,
}

impl Patience {
    /// What there is to read now.
    ///
    /// # Errors
    /// The grid refuses, or has not answered for long.
    pub async fn next(&mut self, tail: &mut Tail) -> Result<News, Failure> {
        loop {
            let error = match tail.next().await {
                Ok(news) => {
                    self.lost_at = None;
                    return Ok(news);
                }
                Err(error @ (ClientError::Unreachable(_) | ClientError::Busy(_))) => error,
                Err(error) => return Err(error.into()),
            };
            let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
            if lost_at.elapsed() >= GIVE_UP_AFTER {
                return Err(error.into());
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// How long to wait between two looks.
#[derive(Debug)]
pub struct PollDelay(Duration);

impl Default for PollDelay {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl PollDelay {
    /// Something was printed.
    pub fn shorten(&mut self) {
        self.0 = PAUSE_MIN;
    }

    /// Waits until the next look. Once the job has ended, that is soon.
    pub async fn wait(&mut self, ended: &mut watch::Receiver<bool>) {
        let over = *ended.borrow();
        let pause = if over { PAUSE_MIN } else { self.0 };
        self.0 = (self.0 * 3 / 2).min(PAUSE_MAX);
        let end = async {
            // Nobody says it any more, or it was said before.
            if over || ended.changed().await.is_err() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = end => {}
        }
    }
}

/// Prints the streams of one task as they come. A slow reader holds up nothing but this.
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

    /// Prints what was held back: nothing follows.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn end(&mut self) -> Result<(), Failure> {
        write(self.out.rest(), self.err.rest()).await
    }
}

/// Writes output of a task on a thread of its own.
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

/// Tells that a part of a stream is missing.
pub fn note_missing(task: &str, stream: &str, cut: u64) {
    note(&format!(
        "hedge: {cut} bytes of the standard {stream} of {task} are missing here: the task printed more than is kept. \
         What follows is whole. Let the task write to a file among its outputs instead"
    ));
}
