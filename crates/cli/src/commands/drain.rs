//! `hedge drain`: a worker finishes and leaves.

use super::access::Right;
use super::{Context, ask};
use crate::args::Drain;
use crate::exit::{Exit, Failure};
use hedge_model::msg::Request;
use serde_json::json;

/// Asks a worker to finish and leave.
///
/// # Errors
/// There is no such worker or several are meant, or the grid cannot be reached.
pub fn run(context: &Context, args: &Drain) -> Result<Exit, Failure> {
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        ask(client, Request::Drain(args.worker.clone())).await?;
        let text = || {
            format!(
                "{} takes no new tasks and leaves when its running ones are done\n",
                args.worker
            )
        };
        context
            .look
            .print(&json!({ "worker": args.worker, "draining": true }), text)?;
        Ok(Exit::Done)
    })
}
