//! `hedge cancel`: the end of jobs.

use super::named::{each, numbers};
use super::{Context, ask, unexpected};
use crate::args::Several;
use crate::exit::{Exit, Failure};
use crate::show::job::state;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::JobState;
use hedge_node::client::Client;
use serde_json::json;

/// Ends jobs. A job that has ended already stays as it is, and that is told.
///
/// # Errors
/// There is no such job, or the grid cannot be reached.
pub fn run(context: &Context, args: &Several) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |job| {
            cancel(context, client, job).await
        })
        .await
    })
}

async fn cancel(context: &Context, client: &Client, job: JobId) -> Result<Exit, Failure> {
    ask(client, Request::Cancel(job)).await?;
    let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
        return Err(unexpected());
    };
    let cancelled = view.state == JobState::Cancelled;
    let value = json!({ "job": job, "cancelled": cancelled, "state": view.state });
    context.look.print(&value, || match cancelled {
        true => format!("job {job} is cancelled\n"),
        false => format!("job {job} had ended already: {}\n", state(view.state)),
    })?;
    Ok(Exit::Done)
}
