//! The forms in which output of a task is shown part by part.

use crate::commands::live::{Printer, note_missing, write};
use crate::exit::Failure;
use crate::show::hold::Hold;
use crate::show::{self, escape};
use hedge_model::view::{LogView, OutputEnd, OutputPart, OutputView};
use hedge_model::{AttemptId, PeerId};
use hedge_node::client::News;

/// A line without an end that is longer than this is shown in parts, bytes.
const LINE_BYTES_MAX: usize = 64 << 10;

/// How output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Plain,
    /// Whole lines, each behind its task's name.
    Named,
    /// A JSON object for the task.
    Json,
    /// A JSON object for each part.
    Events,
}

/// Shows the output of one task.
pub struct Sink {
    task: String,
    form: Form,
    /// The attempt that is shown, and its worker.
    made: (Option<AttemptId>, Option<PeerId>),
    printer: Printer,
    held: [Hold; 2],
    /// Standard output and standard error, as far as they wait to be shown.
    waiting: [Vec<u8>; 2],
    /// Bytes that were read of each.
    read: [u64; 2],
    /// Bytes that were not kept of each.
    cut: [u64; 2],
}

impl Sink {
    /// Nothing is shown yet.
    pub fn new(task: &str, form: Form) -> Self {
        Self {
            task: task.to_owned(),
            form,
            made: (None, None),
            printer: Printer::default(),
            held: Default::default(),
            waiting: Default::default(),
            read: [0; 2],
            cut: [0; 2],
        }
    }

    /// Bytes that were read.
    pub fn read(&self) -> u64 {
        self.read.iter().sum()
    }

    /// Shows a part.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn part(&mut self, news: &News) -> Result<(), Failure> {
        if let Some(attempt) = news.attempt {
            self.made = (Some(attempt), news.worker());
        }
        let parts = [(&news.stdout, "output"), (&news.stderr, "error")];
        for (stream, (part, name)) in parts.into_iter().enumerate() {
            self.read[stream] += part.bytes.len() as u64;
            self.cut[stream] += part.cut;
            if part.cut > 0 && !self.is_json() {
                note_missing(&escape::line(&self.task), name, part.cut);
            }
        }
        let (out, err) = (&news.stdout.bytes, &news.stderr.bytes);
        match self.form {
            Form::Plain => self.printer.print(out, err).await,
            Form::Named => {
                self.wait_for_lines([out, err]);
                self.lines(false).await
            }
            Form::Json => {
                self.wait_for_lines([out, err]);
                Ok(())
            }
            Form::Events => {
                let [held_out, held_err] = &mut self.held;
                let text = (held_out.take(out), held_err.take(err));
                self.event([text.0, text.1], [news.stdout.cut, news.stderr.cut])
            }
        }
    }

    /// Shows that an attempt is over.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn end(&mut self, log: &LogView, last: bool) -> Result<(), Failure> {
        self.rest().await?;
        if self.form == Form::Events {
            show::json(&OutputEnd::new(&self.task, log, last))?;
        }
        Ok(())
    }

    /// Shows what waits: nothing follows. Whether all was kept.
    ///
    /// # Errors
    /// Nobody reads any more.
    pub async fn close(&mut self) -> Result<bool, Failure> {
        self.rest().await?;
        if self.form == Form::Json {
            let [out, err] = &self.waiting;
            let totals = [0, 1].map(|stream| self.read[stream] + self.cut[stream]);
            let view = OutputView::new(&self.task, self.made, None, [out, err], totals);
            show::json(&view)?;
        }
        Ok(self.cut == [0; 2])
    }

    fn is_json(&self) -> bool {
        matches!(self.form, Form::Json | Form::Events)
    }

    async fn rest(&mut self) -> Result<(), Failure> {
        match self.form {
            Form::Plain => self.printer.end().await,
            Form::Named => self.lines(true).await,
            Form::Json => Ok(()),
            Form::Events => {
                let [out, err] = &mut self.held;
                let text = [out.rest(), err.rest()];
                self.event(text, [0; 2])
            }
        }
    }

    fn wait_for_lines(&mut self, parts: [&[u8]; 2]) {
        for (waiting, part) in self.waiting.iter_mut().zip(parts) {
            waiting.extend_from_slice(part);
        }
    }

    /// Shows whole lines, and where nothing follows, what is left.
    async fn lines(&mut self, rest: bool) -> Result<(), Failure> {
        let name = escape::line(&self.task).into_owned();
        let [out, err] = &mut self.waiting;
        let named = |waiting: &mut Vec<u8>| {
            let end = waiting.iter().rposition(|byte| *byte == b'\n');
            let whole = match end {
                _ if rest || waiting.len() > LINE_BYTES_MAX => waiting.len(),
                Some(end) => end + 1,
                None => 0,
            };
            let lines: Vec<u8> = waiting.drain(..whole).collect();
            show::named_lines(&name, &lines)
        };
        let (out, err) = (named(out), named(err));
        write(out, err).await
    }

    fn event(&self, [out, err]: [Vec<u8>; 2], cut: [u64; 2]) -> Result<(), Failure> {
        if out.is_empty() && err.is_empty() && cut == [0; 2] {
            return Ok(());
        }
        let texts = [out, err].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        show::json(&OutputPart::new(&self.task, self.made, texts, cut))
    }
}
