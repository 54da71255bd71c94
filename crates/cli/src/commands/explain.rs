//! `hedge explain`: why a job or a task is where it is.

use super::{Context, ask, block_on, unexpected};
use crate::args::Explain;
use crate::exit::{Exit, Failure};
use crate::show::explain::text;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};

/// Explains.
///
/// # Errors
/// There is no such job or task, or the grid cannot be reached.
pub fn run(context: &Context, args: &Explain) -> Result<Exit, Failure> {
    block_on(async {
        let client = context.connect(&args.grid).await?;
        let request = Request::Explain(JobId(args.id), args.task.clone());
        let Reply::Explain(view) = ask(&client, request).await? else {
            return Err(unexpected());
        };
        context
            .look
            .print(&view, || text(&view, args.task.is_none()))?;
        Ok(Exit::Done)
    })
}
