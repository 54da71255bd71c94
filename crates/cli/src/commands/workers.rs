//! `hedge workers`: all workers.

use super::{Context, ask, unexpected};
use crate::args::Grid;
use crate::exit::{Exit, Failure};
use crate::show::workers::list;
use hedge_model::msg::{Reply, Request};

/// Lists all workers.
///
/// # Errors
/// The grid cannot be reached.
pub fn run(context: &Context, grid: &Grid) -> Result<Exit, Failure> {
    context.on_grid(grid, async |client| {
        let Reply::Workers(workers) = ask(client, Request::Workers).await? else {
            return Err(unexpected());
        };
        context.look.print(&workers, || list(&workers))?;
        Ok(Exit::Done)
    })
}
