//! `hedge manifest`: what a job left.

use super::Context;
use super::named::number;
use crate::args::One;
use crate::exit::{Exit, Failure};
use crate::show::manifest::Manifest;

/// Lists a job's result files with their hashes and whose work they are, and the tasks that left none.
///
/// # Errors
/// There is no such job, it has not ended, or the grid cannot be reached.
pub fn run(context: &Context, args: &One) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let manifest = Manifest::of(&client.results(job).await?);
        context.look.print(&manifest, || manifest.text())?;
        Ok(Exit::Done)
    })
}
