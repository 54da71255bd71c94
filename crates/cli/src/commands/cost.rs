//! `hedge cost`: shows what a job costs.

use super::named::number;
use super::{Context, ask, unexpected};
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use crate::show::cost::{csv, text};
use hedge_model::msg::{Reply, Request};

/// Arguments of `cost`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// Print comma-separated values
    #[arg(long)]
    pub csv: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Shows what a job costs, as text, JSON or comma-separated values.
///
/// # Errors
/// There is no such job, or the grid cannot be reached.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
            return Err(unexpected());
        };
        let show = || if args.csv { csv(&view) } else { text(&view) };
        context.look.print(&view.cost, show)?;
        Ok(Exit::Done)
    })
}
