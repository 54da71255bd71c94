//! `hedge jobs`: all jobs.

use super::{Context, ask, unexpected};
use crate::args::Grid;
use crate::exit::{Exit, Failure};
use crate::show::job::list;
use hedge_model::msg::{Reply, Request};

/// Lists all jobs.
///
/// # Errors
/// The grid cannot be reached.
pub fn run(context: &Context, grid: &Grid) -> Result<Exit, Failure> {
    context.on_grid(grid, async |client| {
        let Reply::Jobs(jobs) = ask(client, Request::Jobs).await? else {
            return Err(unexpected());
        };
        context.look.print(&jobs, || list(&jobs))?;
        Ok(Exit::Done)
    })
}
