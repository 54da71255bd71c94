//! `hedge forget`: an ended job is dropped.

use super::confirm::irreversible;
use super::{Context, ask};
use crate::args::Forget;
use crate::exit::{Exit, Failure};
use hedge_model::JobId;
use hedge_model::msg::Request;
use serde_json::json;

/// Drops an ended job: its record, its results and what it printed.
///
/// # Errors
/// There is no such job, it has not ended, or the grid cannot be reached.
pub fn run(context: &Context, args: &Forget) -> Result<Exit, Failure> {
    let what = format!("job {} is dropped with its results", args.id);
    irreversible(&what, args.yes)?;
    context.on_grid(&args.grid, async |client| {
        ask(client, Request::Forget(JobId(args.id))).await?;
        let text = || format!("job {} is forgotten\n", args.id);
        let value = json!({ "job": args.id, "forgotten": true });
        context.look.print(&value, text)?;
        Ok(Exit::Done)
    })
}
