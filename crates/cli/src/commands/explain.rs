//! Prints why a job or one of its tasks is in its state (`hedge explain`).

use super::named::number;
use super::{Context, ask, unexpected};
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use crate::show::explain::text;
use clap::builder::NonEmptyStringValueParser;
use hedge_model::msg::{Reply, Request};

/// Arguments of `explain`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// The task: its id, and its index behind a dot for an array
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    pub task: Option<String>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Prints why the job, or the task that `args` names, is in its state.
///
/// # Errors
/// There is no such job or task, or the grid cannot be reached.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let request = Request::Explain(job, args.task.clone());
        let Reply::Explain(view) = ask(client, request).await? else {
            return Err(unexpected());
        };
        let whole_job = args.task.is_none();
        context.look.print(&view, || text(&view, whole_job))?;
        Ok(Exit::Done)
    })
}
