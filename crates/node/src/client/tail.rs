//! Reads what a task prints while it runs, attempt by attempt.

use super::Client;
use super::results::{Access, unexpected_reply};
use crate::ClientError;
use hedge_model::msg::{Offsets, Piece, PrintedRequest, PrintedView, Reply, Request};
use hedge_model::view::LogView;
use hedge_model::{AttemptId, Data, JobId, PeerId};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Reads what a task prints, a part at a time. Parts of two attempts are never mixed: the next attempt is read once
/// the one before is over.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    job: JobId,
    task: String,
    /// The attempt that is read, and the position in it.
    reads: Option<(AttemptId, Offsets)>,
}

/// The result of one read.
#[derive(Debug)]
pub struct News {
    /// The attempt that printed it.
    pub attempt: Option<AttemptId>,
    /// Whether this is the beginning of its output: it is the first attempt read, or the one before is over.
    pub begins: bool,
    /// More of its standard output.
    pub stdout: Part,
    /// More of its standard error.
    pub stderr: Part,
    /// How reading continues.
    pub state: TailState,
}

/// A part of an output stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// How many bytes before this part were lost before they were read.
    pub cut: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The position after the last of them in the stream.
    pub until: u64,
}

/// How reading a task continues.
#[derive(Debug)]
pub enum TailState {
    /// The attempt runs.
    Runs {
        /// Its worker.
        worker: PeerId,
        /// The worker's name, for people.
        place: String,
        /// Bytes that it has printed and that are not read yet.
        left: u64,
    },
    /// The attempt is over, and everything kept of its output is read.
    Over {
        /// How it ended.
        log: Box<LogView>,
        /// Whether this is the task's final output.
        last: bool,
    },
    /// Nothing can be read now, for this reason: a sentence without a full stop.
    Waits(String),
    /// Nothing was printed and nothing will be, for this reason.
    Nothing(String),
}

impl News {
    /// Returns the attempt's worker, if known.
    pub fn worker(&self) -> Option<PeerId> {
        match &self.state {
            TailState::Runs { worker, .. } => Some(*worker),
            TailState::Over { log, .. } => log.worker,
            TailState::Waits(_) | TailState::Nothing(_) => None,
        }
    }

    fn nothing(state: TailState) -> Self {
        Self {
            attempt: None,
            begins: false,
            stdout: Part::default(),
            stderr: Part::default(),
            state,
        }
    }
}

impl Client {
    /// Reads what a task prints, beginning with the first attempt that can be read.
    pub fn tail(&self, job: JobId, task: &str) -> Tail {
        Tail {
            client: self.clone(),
            job,
            task: task.to_owned(),
            reads: None,
        }
    }
}

impl Tail {
    /// Reads what is available now. Call it again at once while there is more, otherwise after a pause.
    ///
    /// # Errors
    /// The grid cannot be reached, which may pass, or it refuses.
    pub async fn next(&mut self) -> Result<News, ClientError> {
        let (attempt, from) = match self.reads {
            Some((attempt, from)) => (Some(attempt), from),
            None => (None, Offsets::default()),
        };
        let request = Request::Printed(PrintedRequest {
            job: self.job,
            task: self.task.clone(),
            attempt,
            from,
        });
        let Reply::Printed(view) = self.client.ask(request.clone()).await? else {
            return Err(unexpected_reply());
        };
        let found = match &view {
            PrintedView::Part { attempt, .. } => Some(*attempt),
            PrintedView::Over { log, .. } => log.attempt,
            PrintedView::Nothing { .. } => None,
        };
        if attempt
            .zip(found)
            .is_some_and(|(asked, found)| asked != found)
        {
            return Err(unexpected_reply());
        }
        self.take(view, request, attempt.is_none(), from).await
    }

    /// Forgets what was read. The next attempt is chosen like the first.
    pub fn restart(&mut self) {
        self.reads = None;
    }

    /// Reads an attempt again from these positions on.
    pub fn rewind(&mut self, attempt: AttemptId, to: Offsets) {
        self.reads = Some((attempt, to));
    }

    async fn take(
        &mut self,
        view: PrintedView,
        request: Request,
        begins: bool,
        from: Offsets,
    ) -> Result<News, ClientError> {
        let (attempt, stdout, stderr, state) = match view {
            PrintedView::Nothing { why, last: true } => {
                return Ok(News::nothing(TailState::Nothing(why)));
            }
            PrintedView::Nothing { why, last: false } => {
                return Ok(News::nothing(TailState::Waits(why)));
            }
            PrintedView::Part {
                attempt,
                worker,
                place,
                pieces,
            } => {
                let (out, err) = (&pieces.stdout, &pieces.stderr);
                if !out.answers(from.stdout) || !err.answers(from.stderr) {
                    return Err(unexpected_reply());
                }
                let (stdout, stderr) = (part(out, from.stdout), part(err, from.stderr));
                let left = |total: u64, part: &Part| total.saturating_sub(part.until);
                let left = left(out.total, &stdout).saturating_add(left(err.total, &stderr));
                let state = TailState::Runs {
                    worker,
                    place,
                    left,
                };
                (Some(attempt), stdout, stderr, state)
            }
            PrintedView::Over { log, grants, last } => {
                let access = Arc::new(Access::new(log.sources.clone(), &grants));
                let (stdout, stderr) = self.client.rest(&log, access, &request, from).await?;
                (log.attempt, stdout, stderr, TailState::Over { log, last })
            }
        };
        let at = Offsets {
            stdout: stdout.until,
            stderr: stderr.until,
        };
        let runs = matches!(state, TailState::Runs { .. });
        self.reads = attempt.filter(|_| runs).map(|attempt| (attempt, at));
        Ok(News {
            attempt,
            begins,
            stdout,
            stderr,
            state,
        })
    }
}

impl Client {
    /// Returns what was kept of the output of an ended attempt, from these positions on.
    async fn rest(
        &self,
        view: &LogView,
        access: Arc<Access>,
        again: &Request,
        from: Offsets,
    ) -> Result<(Part, Part), ClientError> {
        let Some(log) = &view.log else {
            let none = |until| Part {
                until,
                ..Part::default()
            };
            return Ok((none(from.stdout), none(from.stderr)));
        };
        let mut parts = [Part::default(), Part::default()];
        let streams = [
            (&log.stdout, log.stdout_total, from.stdout),
            (&log.stderr, log.stderr_total, from.stderr),
        ];
        for (part, (data, total, from)) in parts.iter_mut().zip(streams) {
            *part = self.rest_of(data, total, from, &access, again).await?;
        }
        let [stdout, stderr] = parts;
        Ok((stdout, stderr))
    }

    async fn rest_of(
        &self,
        data: &Data,
        total: u64,
        from: u64,
        access: &Arc<Access>,
        again: &Request,
    ) -> Result<Part, ClientError> {
        if from >= total {
            return Ok(Part {
                until: from,
                ..Part::default()
            });
        }
        let mut bytes = self.read(data, access, again).await?;
        let oldest = total.saturating_sub(bytes.len() as u64);
        let read = from.saturating_sub(oldest).min(bytes.len() as u64);
        bytes.drain(..read as usize);
        Ok(Part {
            cut: oldest.saturating_sub(from),
            bytes,
            until: total,
        })
    }
}

fn part(piece: &Piece, from: u64) -> Part {
    Part {
        cut: piece.from - from,
        bytes: piece.bytes.to_vec(),
        until: piece.from + piece.bytes.len() as u64,
    }
}

/// How long supervisors may fail to answer before reading ends: long enough for a restart.
const GIVE_UP_AFTER: Duration = Duration::from_secs(15);
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The delay between two reads: short after the task has printed, so that output appears soon, and longer while it
/// prints nothing.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Reads tasks, and retries while no supervisor answers for a moment.
#[derive(Debug, Default)]
pub struct Patience {
    lost_at: Option<Instant>,
}

impl Patience {
    /// Reads what is available now.
    ///
    /// # Errors
    /// The grid refuses, or has not answered for long.
    pub async fn next(&mut self, tail: &mut Tail) -> Result<News, ClientError> {
        loop {
            let error = match tail.next().await {
                Ok(news) => {
                    self.lost_at = None;
                    return Ok(news);
                }
                Err(error @ (ClientError::Unreachable(_) | ClientError::Busy(_))) => error,
                Err(error) => return Err(error),
            };
            let lost_at = *self.lost_at.get_or_insert_with(Instant::now);
            if lost_at.elapsed() >= GIVE_UP_AFTER {
                return Err(error);
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}

/// The delay between two reads.
#[derive(Debug)]
pub struct PollDelay(Duration);

impl Default for PollDelay {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl PollDelay {
    /// Shortens the delay after something was printed.
    pub fn shorten(&mut self) {
        self.0 = PAUSE_MIN;
    }

    /// Waits until the next read is due. Once the job has ended, that is soon.
    pub async fn wait(&mut self, ended: &mut watch::Receiver<bool>) {
        let over = *ended.borrow();
        let pause = if over { PAUSE_MIN } else { self.0 };
        self.0 = (self.0 * 3 / 2).min(PAUSE_MAX);
        let end = async {
            // The sender is gone, or the end was seen before.
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
