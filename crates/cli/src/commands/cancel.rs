//! `hedge cancel`: the end of a job.

use super::{Context, ask};
use crate::args::One;
use crate::exit::{Exit, Failure};
use hedge_model::JobId;
use hedge_model::msg::Request;
use serde_json::json;

/// Ends a job.
///
/// # Errors
/// There is no such job, it has ended, or the grid cannot be reached.
pub fn run(context: &Context, args: &One) -> Result<Exit, Failure> {
    let job = JobId(args.id);
    context.on_grid(&args.grid, async |client| {
        ask(client, Request::Cancel(job)).await?;
        context
            .look
            .print(&json!({ "job": job, "cancelled": true }), || {
                format!("job {job} is cancelled\n")
            })?;
        Ok(Exit::Done)
    })
}
