//! `hedge forget`: drops ended jobs.

use super::confirm::confirm_irreversible;
use super::named::{each, numbers};
use super::{Context, ask};
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use hedge_model::msg::Request;
use serde_json::json;

/// Arguments of `forget`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Numbers of the jobs, or last
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<JobName>,
    /// Do it without asking first
    #[arg(long)]
    pub yes: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Drops ended jobs, after the user has confirmed that: their records, their results and what they printed.
///
/// # Errors
/// There is no such job or it has not ended (of several jobs the others are dropped all the same, and only the last
/// one's failure is returned), the user declines or cannot be asked, or the grid cannot be reached.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
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

/// Describes what the user has to confirm.
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
