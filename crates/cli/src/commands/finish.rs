//! What is told and brought when a job has ended.

use super::Context;
use super::follow::exit;
use super::interrupt::Interrupts;
use super::place::{bring, keep_logs};
use super::results::{tell_cut, tell_failure};
use super::stream::Stream;
use crate::exit::{Exit, Failure};
use crate::show::{self, manifest::Brought, summary::Ended};
use hedge_model::view::{JobState, JobView, LogView};
use hedge_model::{JobId, JobSpec};
use hedge_node::client::Client;
use std::path::Path;

/// The number of the only task of a job, as a task is named.
const ONLY: &str = "0";
/// What shells add to the number of a signal that ended a program.
const SIGNALLED: i32 = 128;

/// What the user wants of a job that has ended.
pub struct Wish<'a> {
    /// Bring result files at all.
    pub results: bool,
    /// Where to.
    pub out: Option<&'a Path>,
    /// The job, if it is a program whose output is what the user wants to see.
    pub program: Option<&'a JobSpec>,
    /// What shows that output.
    pub stream: Option<Stream<'a>>,
    /// The job, if the grid ends with this command: what is not brought now is lost.
    pub last: Option<&'a JobSpec>,
    /// End as the job's only program did.
    pub exit_code: bool,
}

/// Brings the results of a job that has ended and tells how it went.
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
    let stream = wish.stream.take();
    let wish = &wish;
    let only = match view.tasks {
        1 => client.log(view.id, ONLY).await.ok(),
        _ => None,
    };
    let mut ended = Ended::new(view.clone());
    if let Some(only) = &only {
        (ended.exit_code, ended.signal) = (only.exit_code, only.signal);
    }
    let exit = match wish.program {
        Some(spec) => {
            let shown = match stream {
                Some(stream) => rest(stream, view.id, interrupts).await,
                None => Ok(true),
            };
            finish_program(
                context,
                client,
                ended,
                view,
                (spec, shown),
                wish,
                interrupts,
            )
            .await?
        }
        None => finish_files(context, client, ended, view, wish, interrupts).await?,
    };
    match (wish.exit_code, only) {
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

/// The exit code of a job's only program. Where the program had none, because the job was cancelled or the program was
/// ended for a limit, that of the job.
fn as_program(exit: Exit, only: &LogView) -> Exit {
    match (only.exit_code, only.signal) {
        (Some(0), _) => exit,
        (Some(code), _) => Exit::Program(code.clamp(0, 255) as u8),
        (None, Some(signal)) => Exit::Program((SIGNALLED + signal).clamp(0, 255) as u8),
        (None, None) => exit,
    }
}

async fn finish_files(
    context: &Context,
    client: &Client,
    mut ended: Ended,
    view: JobView,
    wish: &Wish<'_>,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let done = view.state == JobState::Done;
    let mut brought = Brought::default();
    if wish.results && (done || wish.last.is_some()) {
        let last = wish.last.is_some();
        brought = bring(client, view.id, &view.name, wish.out, last, interrupts).await?;
    }
    if let Some(spec) = wish.last.filter(|_| !done) {
        let folder = brought.folder.clone().or(wish.out.map(Path::to_owned));
        match keep_logs(client, view.id, spec, folder).await {
            Ok(logs) => brought.logs = logs,
            Err(failure) => show::note(&format!("hedge: {failure}")),
        }
    }
    if view.state == JobState::Failed && !context.look.json {
        tell_failure(client, view.id).await;
    }
    let trouble = brought.trouble.take();
    ended.add(brought);
    let told = context.look.print(&ended, || ended.text(&view));
    // Where results are matters more than a reader that is gone.
    match (trouble, told) {
        (Some(trouble), _) => Err(Failure::Local(trouble)),
        (None, Ok(()) | Err(Failure::OutputClosed)) => Ok(exit(view.state)),
        (None, Err(failure)) => Err(failure),
    }
}

/// Shows the rest of what a program printed; whether all of it was shown, and nothing else.
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

async fn finish_program(
    context: &Context,
    client: &Client,
    mut ended: Ended,
    view: JobView,
    (spec, shown): (&JobSpec, Result<bool, Failure>),
    wish: &Wish<'_>,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    let done = view.state == JobState::Done;
    let leaves = spec.groups().iter().any(|group| !group.outputs.is_empty());
    let mut brought = Brought::default();
    if leaves && (done || wish.last.is_some()) {
        let last = wish.last.is_some();
        brought = bring(client, view.id, &view.name, wish.out, last, interrupts).await?;
    }
    let trouble = brought.trouble.take();
    ended.add(brought);
    let shown = if context.look.json {
        let shown = match spec.task_count() {
            1 => add_printed(&mut ended, client, &spec.label(0)).await,
            _ => Ok(true),
        };
        show::json(&ended)?;
        shown
    } else {
        if !done {
            show::note(ended.text(&view).trim_end());
        } else if let Some(results) = ended.results_text() {
            show::note(&results);
        }
        shown
    };
    let code = exit(view.state);
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

/// Adds what a program printed; whether all of that was kept.
async fn add_printed(ended: &mut Ended, client: &Client, task: &str) -> Result<bool, Failure> {
    let printed = client.printed(ended.job, task).await?;
    let text = |bytes| Some(String::from_utf8_lossy(bytes).into_owned());
    (ended.stdout, ended.stderr) = (text(&printed.stdout), text(&printed.stderr));
    Ok(tell_cut(&printed))
}
