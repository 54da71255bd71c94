//! `hedge trace`: writes a job's attempts as a trace for Perfetto.

use super::Context;
use super::history::{History, write};
use super::named::number;
use crate::args::Export;
use crate::exit::{Exit, Failure};
use crate::show::{count, note};
use crate::trace::encode;

/// Writes the trace of a job, which may still run.
///
/// # Errors
/// There is no such job, the grid cannot be reached, or the file cannot be written.
pub fn run(context: &Context, args: &Export) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let history = History::of(client, job).await?;
        write(&args.out, &encode(&history))?;
        let attempts = count(history.attempts.len() as u64, "attempt");
        note(&format!(
            "{}: {attempts} of job {job}; https://ui.perfetto.dev shows it",
            args.out.display()
        ));
        Ok(Exit::Done)
    })
}
