//! `hedge jobs`: all jobs.

use super::Context;
use crate::args::Grid;
use crate::exit::{Exit, Failure};
use crate::show::job::list;

/// Lists all jobs.
///
/// # Errors
/// The grid cannot be reached.
pub fn run(context: &Context, grid: &Grid) -> Result<Exit, Failure> {
    context.on_grid(grid, async |client| {
        let jobs = client.jobs().await?;
        context.look.print(&jobs, || list(&jobs))?;
        Ok(Exit::Done)
    })
}
