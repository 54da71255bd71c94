//! `hedge logs`: what a task printed.

use super::Context;
use super::results::printed;
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
        let printed = printed(client, JobId(args.id), &args.task).await?;
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
            return Ok(Exit::Done);
        }
        if view.log.is_none() {
            let (task, end) = (escape::line(&view.task), escape::line(&view.end));
            show::note(&format!("{task}: {end}; nothing was printed"));
        }
        for (name, kept, total) in [
            ("output", printed.stdout.len(), totals.0),
            ("error", printed.stderr.len(), totals.1),
        ] {
            if total > kept as u64 {
                show::note(&format!(
                    "of {total} bytes of standard {name} the last {kept} were kept"
                ));
            }
        }
        show::task_err(&printed.stderr);
        show::task_out(&printed.stdout)?;
        Ok(Exit::Done)
    })
}
