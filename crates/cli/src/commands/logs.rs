//! `hedge logs`: what tasks printed.

use super::named::number;
use super::results::{print, tell_cut};
use super::{Context, ask, unexpected};
use crate::args::Logs;
use crate::exit::{Exit, Failure};
use crate::show::{self, escape};
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{TaskFilter, TaskLine};
use hedge_node::client::{Client, Printed};
use serde_json::json;

/// Shows what one task printed, or what each task of a job printed.
///
/// # Errors
/// There is no such job or task, or the grid cannot be reached.
pub fn run(context: &Context, args: &Logs) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        match &args.task {
            Some(task) => one(context, client, job, task).await,
            None => all(context, client, job).await,
        }
    })
}

async fn one(context: &Context, client: &Client, job: JobId, task: &str) -> Result<Exit, Failure> {
    let printed = client.printed(job, task).await?;
    let view = &printed.view;
    if context.look.json {
        show::json(&value(&printed))?;
        return Ok(exit(tell_cut(&printed)));
    }
    if view.log.is_none() {
        let (task, end) = (escape::line(&view.task), escape::line(&view.end));
        show::note(&format!("{task}: {end}; nothing was printed"));
    }
    Ok(exit(print(&printed)?))
}

/// Shows the output of all tasks that have ended, in the order of their numbers; where there are several, each line
/// begins with the name of its task.
async fn all(context: &Context, client: &Client, job: JobId) -> Result<Exit, Failure> {
    let (mut from, mut whole, mut first) = (0, true, true);
    loop {
        let filter = TaskFilter::All;
        let Reply::Tasks(page) = ask(client, Request::Tasks { job, filter, from }).await? else {
            return Err(unexpected());
        };
        let alone = first && page.tasks.len() == 1 && page.next.is_none();
        for task in page.tasks.iter().filter(|task| has_ended(task)) {
            let printed = client.printed(job, &task.task).await?;
            whole &= match (context.look.json, alone) {
                (true, _) => {
                    show::json(&value(&printed))?;
                    tell_cut(&printed)
                }
                (false, true) => print(&printed)?,
                (false, false) => print_named(&printed)?,
            };
        }
        first = false;
        match page.next {
            Some(next) if next > from => from = next,
            _ => return Ok(exit(whole)),
        }
    }
}

/// Whether an attempt of a task has ended, so that there is something to show.
fn has_ended(task: &TaskLine) -> bool {
    task.state == "done" || task.attempts > 0
}

/// Prints what one task printed, its name before each line; whether all of it was kept.
fn print_named(printed: &Printed) -> Result<bool, Failure> {
    let name = escape::line(&printed.view.task).into_owned();
    show::task_err(&show::named_lines(&name, &printed.stderr));
    show::task_out(&show::named_lines(&name, &printed.stdout))?;
    Ok(tell_cut(printed))
}

fn value(printed: &Printed) -> serde_json::Value {
    let view = &printed.view;
    let totals = view
        .log
        .as_ref()
        .map_or((0, 0), |log| (log.stdout_total, log.stderr_total));
    json!({
        "task": view.task,
        "worker": view.worker.map(|worker| worker.to_string()),
        "end": view.end,
        "exit_code": view.exit_code,
        "signal": view.signal,
        "stdout": String::from_utf8_lossy(&printed.stdout),
        "stderr": String::from_utf8_lossy(&printed.stderr),
        "stdout_total_bytes": totals.0,
        "stderr_total_bytes": totals.1,
    })
}

/// What was printed and not kept is as good as a file that could not be brought.
fn exit(whole: bool) -> Exit {
    if whole { Exit::Done } else { Exit::Failed }
}
