//! `hedge jobs`: jobs in a list.

use super::Context;
use crate::args::Jobs;
use crate::exit::{Exit, Failure};
use crate::show;
use crate::show::job::list;
use hedge_model::view::{JobState, JobView};

/// Lists the jobs that the options leave.
///
/// # Errors
/// The grid cannot be reached.
pub fn run(context: &Context, args: &Jobs) -> Result<Exit, Failure> {
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

fn is_wanted(job: &JobView, args: &Jobs) -> bool {
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
