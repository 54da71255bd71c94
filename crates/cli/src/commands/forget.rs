//! `hedge forget`: an ended job is dropped.

use super::confirm::confirm_irreversible;
use super::named::{each, numbers};
use super::{Context, ask};
use crate::args::{Forget, JobName};
use crate::exit::{Exit, Failure};
use hedge_model::msg::Request;
use serde_json::json;

/// Drops an ended job: its record, its results and what it printed.
///
/// # Errors
/// There is no such job, it has not ended, or the grid cannot be reached.
pub fn run(context: &Context, args: &Forget) -> Result<Exit, Failure> {
    confirm_irreversible(&what(&args.jobs), args.yes)?;
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |job| {
            ask(client, Request::Forget(job)).await?;
            let value = json!({ "job": job, "forgotten": true });
            let text = || format!("job {job} is forgotten\n");
            context.look.print(&value, text)?;
            Ok(Exit::Done)
        })
        .await
    })
}

/// What is about to happen.
fn what(jobs: &[JobName]) -> String {
    let names = jobs.iter().map(|job| match job {
        JobName::Number(number) => format!("job {number}"),
        JobName::Last => "the last job".to_owned(),
    });
    let names: Vec<String> = names.collect();
    match names.len() {
        1 => format!("{} will be dropped with its results", names[0]),
        _ => format!("{} will be dropped with their results", names.join(", ")),
    }
}
