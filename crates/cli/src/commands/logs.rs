//! `hedge logs`: what a task printed.

use super::Context;
use super::results::{print, tell_cut};
use crate::args::Logs;
use crate::exit::{Exit, Failure};
use crate::show::{self, escape};
use hedge_model::JobId;
use serde_json::json;

/// Shows what a task printed.
///
/// # Errors
/// There is no such job or task, or the grid cannot be reached.
pub fn run(context: &Context, args: &Logs) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let printed = client.printed(JobId(args.id), &args.task).await?;
        let view = &printed.view;
        let totals = view
            .log
            .as_ref()
            .map_or((0, 0), |log| (log.stdout_total, log.stderr_total));
        if context.look.json {
            show::json(&json!({
                "task": view.task,
                "worker": view.worker.map(|worker| worker.to_string()),
                "end": view.end,
                "stdout": String::from_utf8_lossy(&printed.stdout),
                "stderr": String::from_utf8_lossy(&printed.stderr),
                "stdout_total_bytes": totals.0,
                "stderr_total_bytes": totals.1,
            }))?;
            return Ok(exit(tell_cut(&printed)));
        }
        if view.log.is_none() {
            let (task, end) = (escape::line(&view.task), escape::line(&view.end));
            show::note(&format!("{task}: {end}; nothing was printed"));
        }
        Ok(exit(print(&printed)?))
    })
}

/// What was printed and not kept is as good as a file that could not be brought.
fn exit(whole: bool) -> Exit {
    if whole { Exit::Done } else { Exit::Failed }
}
