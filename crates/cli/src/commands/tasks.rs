//! `hedge tasks`: a job's tasks.

use super::named::number;
use super::{Context, ask, unexpected};
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use crate::show;
use crate::show::tasks::{any, lines};
use hedge_model::msg::{Reply, Request};
use hedge_model::view::TaskFilter;

/// Arguments of `tasks`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// Only tasks that failed at least once and are not done
    #[arg(long, conflicts_with_all = ["running", "waiting", "done"])]
    pub failed: bool,
    /// Only tasks that run
    #[arg(long, conflicts_with_all = ["waiting", "done"])]
    pub running: bool,
    /// Only tasks that are not done and do not run
    #[arg(long, conflicts_with = "done")]
    pub waiting: bool,
    /// Only tasks that are done
    #[arg(long)]
    pub done: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Lists a job's tasks, page after page, so that a job of any size is listed in bounded memory.
///
/// # Errors
/// There is no such job, the grid cannot be reached, or nobody reads any more.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    let filter = filter(args);
    context.on_grid(&args.grid, async |client| {
        let job = number(client, args.job).await?;
        let (mut from, mut count) = (0, 0);
        loop {
            let request = Request::Tasks { job, filter, from };
            let Reply::Tasks(page) = ask(client, request).await? else {
                return Err(unexpected());
            };
            if context.look.json {
                for task in &page.tasks {
                    show::json(task)?;
                }
            } else if !page.tasks.is_empty() {
                show::out(&lines(&page.tasks))?;
            }
            count += page.tasks.len();
            match page.next {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        if count == 0 && !context.look.json {
            show::note(&any(job, filter));
        }
        Ok(Exit::Done)
    })
}

fn filter(args: &Args) -> TaskFilter {
    match (args.failed, args.running, args.waiting, args.done) {
        (true, ..) => TaskFilter::Failed,
        (_, true, ..) => TaskFilter::Running,
        (_, _, true, _) => TaskFilter::Waiting,
        (_, _, _, true) => TaskFilter::Done,
        _ => TaskFilter::All,
    }
}
