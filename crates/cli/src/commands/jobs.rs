//! `hedge jobs`: all jobs.

use super::{Context, ask, block_on, unexpected};
use crate::args::Grid;
use crate::exit::{Exit, Failure};
use crate::show::job::list;
use hedge_model::msg::{Reply, Request};

/// Lists all jobs.
///
/// # Errors
/// The grid cannot be reached.
pub fn run(context: &Context, grid: &Grid) -> Result<Exit, Failure> {
    block_on(async {
        let client = context.connect(grid).await?;
        let Reply::Jobs(jobs) = ask(&client, Request::Jobs).await? else {
            return Err(unexpected());
        };
        context.look.print(&jobs, || list(&jobs))?;
        Ok(Exit::Done)
    })
}
