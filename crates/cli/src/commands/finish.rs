//! Reports a job that has ended, and writes its results where the user wants them.

use super::Context;
use super::follow::exit;
use super::interrupt::Interrupts;
use super::place::{Destination, bring, keep_logs};
use super::results::{tell_cut, tell_failure};
use super::stream::Stream;
use crate::exit::{Exit, Failure};
use crate::show::{self, manifest::Brought, summary::Ended};
use hedge_model::view::{JobState, JobView, LogView};
use hedge_model::{JobId, JobSpec};
use hedge_node::client::Client;
use std::path::Path;

/// The name of the only task of a job.
const ONLY: &str = "0";
/// Shells add this to the number of the signal that ended a program.
const SIGNALLED: i32 = 128;

/// What the user wants of a job that has ended.
pub struct Wish<'a> {
    /// Whether to write result files.
    pub results: bool,
    /// The folder for them.
    pub out: Option<&'a Path>,
    /// The job, if it is a program whose output the user wants to see.
    pub program: Option<&'a JobSpec>,
    /// Shows that output.
    pub stream: Option<Stream<'a>>,
    /// The job, if the grid ends with this command: what is not written now is lost.
    pub last: Option<&'a JobSpec>,
    /// Whether to exit as the job's only program did.
    pub exit_code: bool,
}

/// Writes the results of a job that has ended, as far as the user wants them, and reports how it went.
///
/// # Errors
/// The grid or the disk failed, or nobody reads any more.
pub async fn finish(
    context: &Context,
    client: &Client,
    view: JobView,
    mut wish: Wish<'_>,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let only = match view.tasks {
        1 => client.log(view.id, ONLY).await.ok(),
        _ => None,
    };
    let mut ended = Ended::new(view.clone());
    if let Some(only) = &only {
        (ended.exit_code, ended.signal) = (only.exit_code, only.signal);
    }
    let (exit_code, program) = (wish.exit_code, wish.program);
    let stream = wish.stream.take();
    let finish = Finish {
        context,
        client,
        view,
        wish,
        ended,
        interrupts,
    };
    let exit = match program {
        Some(spec) => finish.program(spec, stream).await?,
        None => finish.files().await?,
    };
    match (exit_code, only) {
        (false, _) => Ok(exit),
        (true, Some(only)) => Ok(as_program(exit, &only)),
        (true, None) => {
            show::note(
                "--exit-code has no effect: the job has several tasks, or how its task ended cannot be had",
            );
            Ok(exit)
        }
    }
}

/// Returns the exit code of a job's only program. A program that was cancelled or ended for a limit has none; then the
/// job's is returned.
fn as_program(exit: Exit, only: &LogView) -> Exit {
    match (only.exit_code, only.signal) {
        (Some(0), _) => exit,
        (Some(code), _) => Exit::Program(code.clamp(0, 255) as u8),
        (None, Some(signal)) => Exit::Program((SIGNALLED + signal).clamp(0, 255) as u8),
        (None, None) => exit,
    }
}

/// A job that has ended, while its results are written and reported.
struct Finish<'a> {
    context: &'a Context,
    client: &'a Client,
    view: JobView,
    wish: Wish<'a>,
    ended: Ended,
    interrupts: &'a mut Interrupts,
}

impl Finish<'_> {
    fn is_done(&self) -> bool {
        self.view.state == JobState::Done
    }

    /// Writes the result files. Of a job that is not done the grid keeps them, unless it ends with this command.
    async fn bring(&mut self) -> Result<Brought, Failure> {
        let grid_ends = self.wish.last.is_some();
        if !self.is_done() && !grid_ends {
            return Ok(Brought::default());
        }
        let results = self.client.results(self.view.id).await?;
        let to = Destination {
            out: self.wish.out,
            name: &self.view.name,
            grid_ends,
        };
        bring(self.client, &results, &to, self.interrupts).await
    }

    /// Finishes a job whose results are files.
    async fn files(mut self) -> Result<Exit, Failure> {
        let mut brought = match self.wish.results {
            true => self.bring().await?,
            false => Brought::default(),
        };
        if let Some(spec) = self.wish.last.filter(|_| !self.is_done()) {
            let out = self.wish.out.map(Path::to_owned);
            let folder = brought.folder.clone().or(out);
            match keep_logs(self.client, self.view.id, spec, folder).await {
                Ok(logs) => brought.logs = logs,
                Err(failure) => show::note(&format!("hedge: {failure}")),
            }
        }
        let look = &self.context.look;
        if self.view.state == JobState::Failed && !look.json {
            tell_failure(self.client, self.view.id).await;
        }
        let trouble = brought.trouble.take();
        self.ended.add(brought);
        let told = look.print(&self.ended, || self.ended.text(&self.view));
        // Where the results are matters more than a reader that is gone.
        match (trouble, told) {
            (Some(trouble), _) => Err(Failure::Local(trouble)),
            (None, Ok(()) | Err(Failure::OutputClosed)) => Ok(exit(self.view.state)),
            (None, Err(failure)) => Err(failure),
        }
    }

    /// Finishes a job that is a program, whose output the user wants to see.
    async fn program(
        mut self,
        spec: &JobSpec,
        stream: Option<Stream<'_>>,
    ) -> Result<Exit, Failure> {
        let mut shown = match stream {
            Some(stream) => rest(stream, self.view.id, self.interrupts).await,
            None => Ok(true),
        };
        let has_outputs = spec.groups().iter().any(|group| !group.outputs.is_empty());
        let mut brought = match has_outputs {
            true => self.bring().await?,
            false => Brought::default(),
        };
        let trouble = brought.trouble.take();
        self.ended.add(brought);
        let done = self.is_done();
        if self.context.look.json {
            shown = match spec.task_count() {
                1 => add_printed(&mut self.ended, self.client, &spec.label(0)).await,
                _ => Ok(true),
            };
            show::json(&self.ended)?;
        } else if !done {
            show::note(self.ended.text(&self.view).trim_end());
        } else if let Some(results) = self.ended.results_text() {
            show::note(&results);
        }
        let code = exit(self.view.state);
        match (shown, trouble) {
            (_, Some(trouble)) => Err(Failure::Local(trouble)),
            (Ok(false), None) if done => Ok(Exit::Failed),
            (Ok(_) | Err(Failure::OutputClosed), None) => Ok(code),
            (Err(failure), None) if done => Err(failure),
            (Err(failure), None) => {
                show::note(&format!("hedge: {failure}"));
                Ok(code)
            }
        }
    }
}

/// Shows the rest of a program's output. Returns whether all of it was shown, and nothing else.
async fn rest(
    stream: Stream<'_>,
    job: JobId,
    interrupts: &mut Interrupts,
) -> Result<bool, Failure> {
    tokio::select! {
        shown = stream.finish() => shown,
        () = interrupts.next() => Err(Failure::Interrupted(format!(
            "job {job} has ended, and not all of its output was printed; a grid that goes on keeps it: `hedge logs {job}`"
        ))),
    }
}

/// Adds a program's output to the report. Returns whether the grid kept all of it.
async fn add_printed(ended: &mut Ended, client: &Client, task: &str) -> Result<bool, Failure> {
    let printed = client.printed(ended.job, task).await?;
    let text = |bytes| Some(String::from_utf8_lossy(bytes).into_owned());
    (ended.stdout, ended.stderr) = (text(&printed.stdout), text(&printed.stderr));
    Ok(tell_cut(&printed))
}
