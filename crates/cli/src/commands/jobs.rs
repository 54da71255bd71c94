//! `hedge jobs`: jobs in a list.

use super::Context;
use crate::args::Grid;
use crate::exit::{Exit, Failure};
use crate::show;
use crate::show::job::list;
use clap::builder::NonEmptyStringValueParser;
use hedge_model::view::{JobState, JobView};

/// Arguments of `jobs`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Only jobs that have not ended
    #[arg(long, conflicts_with_all = ["failed", "ended"])]
    pub running: bool,
    /// Only jobs that failed
    #[arg(long, conflicts_with = "ended")]
    pub failed: bool,
    /// Only jobs that have ended
    #[arg(long)]
    pub ended: bool,
    /// Only jobs whose name contains this
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Only jobs of this owner, by the beginning of its id
    #[arg(long, value_name = "OWNER", value_parser = NonEmptyStringValueParser::new())]
    pub owner: Option<String>,
    /// Only the newest jobs, so many
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Lists the jobs that the options leave.
///
/// # Errors
/// The grid cannot be reached.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let mut jobs = client.jobs().await?;
        let any = !jobs.is_empty();
        jobs.retain(|job| is_wanted(job, args));
        if let Some(limit) = args.limit {
            jobs.drain(..jobs.len().saturating_sub(limit));
        }
        if any && jobs.is_empty() && !context.look.json {
            show::note("no job is left by these options: `hedge jobs` lists all");
            return Ok(Exit::Done);
        }
        context.look.print(&jobs, || list(&jobs))?;
        Ok(Exit::Done)
    })
}

fn is_wanted(job: &JobView, args: &Args) -> bool {
    let state = match (args.running, args.failed, args.ended) {
        (true, ..) => !job.state.ended(),
        (_, true, _) => job.state == JobState::Failed,
        (_, _, true) => job.state.ended(),
        _ => true,
    };
    let named = |name: &String| job.name.contains(name.as_str());
    let owned = |owner: &String| job.owner.starts_with(owner.as_str());
    state && args.name.as_ref().is_none_or(named) && args.owner.as_ref().is_none_or(owned)
}
