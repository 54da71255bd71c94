//! What is told and brought when a job has ended.

use super::Context;
use super::follow::exit;
use super::results::{bring, print_all, printed, tell_failure};
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
) -> Result<Exit, Failure> {
    let done = view.state == JobState::Done;
    let mut brought = Brought::default();
    if done && wish.results && wish.program.is_none() {
        brought = bring(client, view.id, &view.name, wish.out).await?;
    }
    if view.state == JobState::Failed && !context.look.json {
        match wish.program.filter(|spec| spec.task_count() == 1) {
            // Whoever runs one program wants to see all that it printed, above all when it failed.
            Some(spec) => {
                let shown = print_all(client, view.id, spec).await;
                if let Err(closed @ Failure::OutputClosed) = shown {
                    return Err(closed);
                }
            }
            None => tell_failure(client, view.id).await,
        }
    }
    let code = exit(view.state);
    let Some(spec) = wish.program else {
        let ended = Ended::new(view.clone(), brought);
        context.look.print(&ended, || ended.text(&view))?;
        return Ok(code);
    };
    if context.look.json {
        let mut ended = Ended::new(view.clone(), brought);
        if done && spec.task_count() == 1 {
            let printed = printed(client, view.id, &spec.label(0)).await?;
            ended.stdout = Some(String::from_utf8_lossy(&printed.stdout).into_owned());
        }
        show::json(&ended)?;
    } else if done {
        print_all(client, view.id, spec).await?;
    } else {
        let ended = Ended::new(view.clone(), brought);
        show::note(ended.text(&view).trim_end());
    }
    Ok(code)
}
