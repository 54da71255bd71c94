//! Shows what a program prints while it runs.

use super::live::{Printer, note_missing};
use crate::exit::Failure;
use crate::show::{escape, note};
use hedge_model::msg::Offsets;
use hedge_model::spec::Redundancy;
use hedge_model::{AttemptId, JobId, JobSpec};
use hedge_node::client::{
    Client, News, Part, Patience, PollDelay, Repetition, Tail, TailState, Transcript,
};
use std::io::{self, IsTerminal};
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The time limit for the last output after the job has ended.
const LAST_MAX: Duration = Duration::from_secs(10);

/// Shows what the tasks of a program print, one task after the other, so that the order is always the same. On a
/// terminal, and of a single task without redundancy, output is shown while the task runs. Otherwise it is shown when the
/// task is done, because another attempt could win.
pub struct Stream<'a> {
    reading: Pin<Box<dyn Future<Output = Result<bool, Failure>> + 'a>>,
    read: Option<Result<bool, Failure>>,
    ended: watch::Sender<bool>,
}

/// Nobody reads the output any more.
#[derive(Clone, Copy, Debug)]
pub struct Closed;

impl<'a> Stream<'a> {
    /// Starts with the first task.
    pub fn start(client: &'a Client, job: JobId, spec: &'a JobSpec) -> Self {
        let (ended, job_ended) = watch::channel(false);
        Self {
            reading: Box::pin(read_all(client, job, spec, job_ended)),
            read: None,
            ended,
        }
    }

    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Closed> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                read = &mut self.reading, if self.read.is_none() => {
                    let closed = matches!(read, Err(Failure::OutputClosed));
                    self.read = Some(read);
                    if closed {
                        return Err(Closed);
                    }
                }
            }
        }
    }

    /// Shows the rest after the job has ended. Returns whether all that the tasks printed was shown, and nothing else.
    ///
    /// # Errors
    /// The grid failed, or nobody reads any more.
    pub async fn finish(self) -> Result<bool, Failure> {
        self.ended.send_replace(true);
        match self.read {
            Some(read) => read,
            None => self.reading.await,
        }
    }
}

/// Does `work` while a stream, if there is one, is shown.
///
/// # Errors
/// Nobody reads any more, and the work was dropped. A later call does not report that again.
pub async fn beside<T>(
    stream: &mut Option<Stream<'_>>,
    work: impl Future<Output = T>,
) -> Result<T, Closed> {
    match stream {
        Some(stream) => stream.beside(work).await,
        None => Ok(work.await),
    }
}

async fn read_all(
    client: &Client,
    job: JobId,
    spec: &JobSpec,
    ended: watch::Receiver<bool>,
) -> Result<bool, Failure> {
    let alone = spec.task_count() == 1 && spec.qos().redundancy == Redundancy::None;
    let live = alone || io::stdout().is_terminal();
    let mut whole = true;
    for number in 0..spec.task_count() {
        let task = spec.label(number);
        let mut reader = Reader {
            name: escape::line(&task).into_owned(),
            tail: client.tail(job, &task),
            printer: Printer::default(),
            out: Shown::default(),
            err: Shown::default(),
            mixed: false,
            live,
            ended: ended.clone(),
        };
        whole &= reader.run().await?;
    }
    Ok(whole)
}

/// Shows one task.
struct Reader {
    name: String,
    tail: Tail,
    printer: Printer,
    out: Shown,
    err: Shown,
    /// Whether standard output also has output of an attempt that does not count.
    mixed: bool,
    /// Whether the task is shown while it runs.
    live: bool,
    ended: watch::Receiver<bool>,
}

/// How much of a stream was shown.
#[derive(Default)]
struct Shown {
    transcript: Transcript,
    /// The part that was shown already and that the present attempt prints again.
    repetition: Option<Repetition>,
    cut: bool,
}

impl Reader {
    async fn run(&mut self) -> Result<bool, Failure> {
        let (mut delay, mut patience) = (PollDelay::default(), Patience::default());
        let mut waits_since: Option<Instant> = None;
        loop {
            let news = patience.next(&mut self.tail).await?;
            let over = match news.state {
                TailState::Over { last, .. } => last,
                TailState::Nothing(_) => true,
                TailState::Runs { .. } | TailState::Waits(_) => false,
            };
            if !self.live && !over {
                self.tail.restart();
            } else if self.take(&news, &mut delay).await? {
                continue;
            }
            if over {
                break;
            }
            let waits = matches!(news.state, TailState::Waits(_)) && *self.ended.borrow();
            let since = waits.then(|| waits_since.unwrap_or_else(Instant::now));
            if since.is_some_and(|since| since.elapsed() >= LAST_MAX) {
                note(&format!(
                    "hedge: the end of the output of {} cannot be had: its worker does not give it. What stands above \
                     is what was printed until then",
                    self.name
                ));
                self.printer.end().await?;
                return Ok(false);
            }
            waits_since = since;
            delay.wait(&mut self.ended).await;
        }
        self.printer.end().await?;
        let cut = self.out.cut || self.err.cut;
        Ok(!cut && (!self.mixed || io::stdout().is_terminal()))
    }

    /// Handles what was read. Returns whether to read more at once.
    async fn take(&mut self, news: &News, delay: &mut PollDelay) -> Result<bool, Failure> {
        if news.begins {
            self.out.begin();
            self.err.begin();
        }
        if !news.stdout.bytes.is_empty() || !news.stderr.bytes.is_empty() {
            delay.shorten();
        }
        let again = self.show(news).await?;
        Ok(again || matches!(news.state, TailState::Runs { left: 1.., .. }))
    }

    /// Shows more of both streams. Returns whether one of them must be read again from its beginning.
    async fn show(&mut self, news: &News) -> Result<bool, Failure> {
        let last = matches!(news.state, TailState::Over { last: true, .. });
        let out = self.out.take(&news.stdout, last);
        let err = self.err.take(&news.stderr, last);
        for (stream, fresh, part) in [("output", out, &news.stdout), ("error", err, &news.stderr)] {
            if part.cut > 0 && fresh.is_some() {
                note_missing(&self.name, stream, part.cut);
            }
        }
        let fresh = |from: Option<usize>, part: &'_ Part| match from {
            Some(from) => part.bytes[from..].to_vec(),
            None => Vec::new(),
        };
        let bytes = (fresh(out, &news.stdout), fresh(err, &news.stderr));
        self.printer.print(&bytes.0, &bytes.1).await?;
        let Some(attempt) = news.attempt.filter(|_| out.is_none() || err.is_none()) else {
            return Ok(false);
        };
        self.printer.end().await?;
        self.mixed |= out.is_none();
        for (stream, same) in [("output", out), ("error", err)] {
            if same.is_none() {
                self.note_other(attempt, stream);
            }
        }
        self.tail.rewind(
            attempt,
            Offsets {
                stdout: out.map_or(0, |_| news.stdout.until),
                stderr: err.map_or(0, |_| news.stderr.until),
            },
        );
        Ok(true)
    }

    fn note_other(&self, attempt: AttemptId, stream: &str) {
        note(&format!(
            "hedge: another attempt of {}, {attempt}, printed something else to its standard {stream}. What stands above \
             is of an attempt that does not count; all of this attempt's standard {stream} follows",
            self.name
        ));
    }
}

impl Shown {
    /// Handles that another attempt is read now.
    fn begin(&mut self) {
        self.repetition = (!self.transcript.is_empty()).then(Repetition::default);
    }

    /// Handles more output of the attempt. Returns how many bytes of it were shown before; none if the attempt printed
    /// something else than was shown, so that it must be shown from its beginning.
    fn take(&mut self, part: &Part, last: bool) -> Option<usize> {
        let from = match &mut self.repetition {
            None => 0,
            Some(repetition) => {
                let taken = match part.cut {
                    0 => repetition.take(&self.transcript, &part.bytes).ok(),
                    _ => None,
                };
                let whole = repetition.is_whole(&self.transcript);
                match taken {
                    Some(from) if whole => {
                        self.repetition = None;
                        from
                    }
                    Some(from) if !last => return Some(from),
                    _ => {
                        *self = Self::default();
                        return None;
                    }
                }
            }
        };
        self.cut |= part.cut > 0;
        self.transcript.add(part.cut, &part.bytes[from..]);
        Some(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part {
        Part {
            cut: 0,
            bytes: text.as_bytes().to_vec(),
            until: text.len() as u64,
        }
    }

    #[test]
    fn an_attempt_that_prints_the_same_goes_on_where_the_one_before_ended() {
        let mut shown = Shown::default();
        shown.begin();
        assert_eq!(shown.take(&part("one two "), false), Some(0));
        shown.begin();
        assert_eq!(shown.take(&part("one "), false), Some(4));
        assert_eq!(shown.take(&part("two three"), true), Some(4));
        shown.begin();
        assert_eq!(shown.take(&part("one two three"), true), Some(13));
    }

    #[test]
    fn an_attempt_that_prints_something_else_is_shown_from_its_beginning() {
        for (other, last) in [("one zwei", false), ("one", true)] {
            let mut shown = Shown::default();
            shown.begin();
            assert_eq!(shown.take(&part("one two"), false), Some(0));
            shown.begin();
            assert_eq!(shown.take(&part(other), last), None);
            assert_eq!(shown.take(&part(other), last), Some(0));
        }
        // One that is not the last may have printed less.
        let mut shown = Shown::default();
        shown.begin();
        assert_eq!(shown.take(&part("one two"), false), Some(0));
        shown.begin();
        assert_eq!(shown.take(&part("one"), false), Some(3));
        shown.begin();
        assert_eq!(shown.take(&part("one two three"), true), Some(7));
    }
}
