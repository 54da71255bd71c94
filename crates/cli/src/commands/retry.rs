//! `hedge retry`: jobs that failed go on.

use super::named::{each, numbers};
use super::{Context, ask, unexpected};
use crate::args::Several;
use crate::exit::{Exit, Failure};
use hedge_model::msg::{Reply, Request};
use serde_json::json;

/// Lets jobs that failed go on: what of them is not done is tried again.
///
/// # Errors
/// There is no such job, it has not failed, or the grid cannot be reached.
pub fn run(context: &Context, args: &Several) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |job| {
            ask(client, Request::Retry(job)).await?;
            let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
                return Err(unexpected());
            };
            let value = json!({ "job": job, "retried": true, "state": view.state });
            let (open, all) = (view.tasks - view.done, view.tasks);
            context.look.print(&value, || {
                format!("job {job} goes on with {open} of its {all} tasks; `hedge wait {job}` waits for its end\n")
            })?;
            Ok(Exit::Done)
        })
        .await
    })
}
