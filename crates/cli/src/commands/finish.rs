//! What is told and brought when a job has ended.

use super::Context;
use super::follow::exit;
use super::interrupt::Interrupts;
use super::place::{bring, keep_logs};
use super::results::{print_all, tell_cut, tell_failure};
use crate::exit::{Exit, Failure};
use crate::show::{self, manifest::Brought, summary::Ended};
use hedge_model::JobSpec;
use hedge_model::view::{JobState, JobView};
use hedge_node::client::Client;
use std::path::Path;

/// What the user wants of a job that has ended.
pub struct Wish<'a> {
    /// Bring result files at all.
    pub results: bool,
    /// Where to.
    pub out: Option<&'a Path>,
    /// The job, if it is a program whose output is what the user wants to see.
    pub program: Option<&'a JobSpec>,
    /// The job, if the grid ends with this command: what is not brought now is lost.
    pub last: Option<&'a JobSpec>,
}

/// Brings the results of a job that has ended and tells how it went.
///
/// # Errors
/// The grid or the disk failed, or nobody reads any more.
pub async fn finish(
    context: &Context,
    client: &Client,
    view: JobView,
    wish: &Wish<'_>,
    interrupts: &mut Interrupts,
) -> Result<Exit, Failure> {
    match wish.program {
        Some(spec) => finish_program(context, client, view, spec).await,
        None => finish_files(context, client, view, wish, interrupts).await,
    }
}

async fn finish_files(
    context: &Context,
    client: &Client,
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
    let ended = Ended::new(view.clone(), brought);
    let told = context.look.print(&ended, || ended.text(&view));
    // Where results are matters more than a reader that is gone.
    match (trouble, told) {
        (Some(trouble), _) => Err(Failure::Local(trouble)),
        (None, Ok(()) | Err(Failure::OutputClosed)) => Ok(exit(view.state)),
        (None, Err(failure)) => Err(failure),
    }
}

async fn finish_program(
    context: &Context,
    client: &Client,
    view: JobView,
    spec: &JobSpec,
) -> Result<Exit, Failure> {
    let done = view.state == JobState::Done;
    let mut ended = Ended::new(view.clone(), Brought::default());
    let shown = if context.look.json {
        let shown = match spec.task_count() {
            1 => add_printed(&mut ended, client, &spec.label(0)).await,
            _ => Ok(true),
        };
        show::json(&ended)?;
        shown
    } else {
        let shown = print_all(client, view.id, spec).await;
        if !done {
            show::note(ended.text(&view).trim_end());
        }
        shown
    };
    let code = exit(view.state);
    match shown {
        Ok(false) if done => Ok(Exit::Failed),
        Ok(_) | Err(Failure::OutputClosed) => Ok(code),
        Err(failure) if done => Err(failure),
        Err(failure) => {
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
