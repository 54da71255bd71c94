//! `hedge watch`: prints what changes in the grid as lines of JSON.

use super::follow::exit;
use super::interrupt::Interrupts;
use super::named::number;
use super::{Context, ask, unexpected};
use crate::args::Watch;
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_gateway::{Change, Feed, Follower, Notice};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_node::client::Client;

/// Follows the grid until it is interrupted, or one job until it has ended.
///
/// # Errors
/// There is no such job, or the grid cannot be reached at the beginning.
pub fn run(context: &Context, args: &Watch) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let mut interrupts = Interrupts::new()?;
        let job = match args.job {
            Some(name) => Some(number(client, name).await?),
            None => None,
        };
        if let Some(job) = job
            && let Some(exit) = ended(client, job).await?
        {
            return Ok(exit);
        }
        let feed = Feed::in_memory(client.clone());
        let follower = feed.follow(None).ok_or_else(unexpected)?;
        tokio::select! {
            exit = follow(follower, job) => exit,
            () = interrupts.next() => Ok(Exit::Done),
            () = show::output_closed() => Ok(Exit::Done),
        }
    })
}

/// Shows a job that has ended already.
async fn ended(client: &Client, job: JobId) -> Result<Option<Exit>, Failure> {
    let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
        return Err(unexpected());
    };
    if !view.state.ended() {
        return Ok(None);
    }
    let state = view.state;
    write(&[Notice::Change(Change::Job(view))]).await?;
    Ok(Some(exit(state)))
}

async fn follow(mut follower: Follower, job: Option<JobId>) -> Result<Exit, Failure> {
    while let Some(mut notices) = follower.notices().await {
        let mut over = None;
        if let Some(job) = job {
            notices.retain(|notice| is_about(notice, job));
            over = notices.iter().find_map(end);
        }
        write(&notices).await?;
        if let Some(exit) = over {
            return Ok(exit);
        }
    }
    Ok(Exit::Done)
}

/// Returns whether a notice is about the job.
fn is_about(notice: &Notice, job: JobId) -> bool {
    match notice {
        Notice::Change(Change::Job(view)) => view.id == job,
        Notice::Change(Change::JobGone(gone)) => gone.id == job,
        Notice::Change(Change::Grid(_)) => true,
        _ => false,
    }
}

/// Returns the exit code if the notice is the end of the job.
fn end(notice: &Notice) -> Option<Exit> {
    match notice {
        Notice::Change(Change::Job(view)) => view.state.ended().then(|| exit(view.state)),
        Notice::Change(Change::JobGone(_)) => Some(Exit::Failed),
        _ => None,
    }
}

/// Writes lines on another thread, so that a slow reader blocks nothing else.
async fn write(notices: &[Notice]) -> Result<(), Failure> {
    let mut lines = String::new();
    for notice in notices {
        lines += &show::json_line(notice)?;
    }
    let writing = tokio::task::spawn_blocking(move || show::out_bytes(lines.as_bytes()));
    let written = writing.await;
    written.map_err(|error| Failure::Local(format!("the events cannot be shown: {error}")))?
}
