//! `hedge wait`: waits until jobs have ended.

use super::Context;
use super::finish::{Wish, finish};
use super::follow::{Followed, follow};
use super::interrupt::Interrupts;
use super::named::{check_one_folder, each, numbers};
use super::nested::TaskWaits;
use super::place::check_out;
use super::submit::detached;
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use crate::show::progress::Progress;
use hedge_model::JobId;
use hedge_node::client::Client;
use std::path::PathBuf;

/// Arguments of `wait`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of the job, or last; of several, the end of all is waited for
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<JobName>,
    /// Bring the results into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// End with the exit status of the program, for a job of one task; 128 and the signal's number for a signal
    #[arg(long)]
    pub exit_code: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Waits until each job has ended, reports how it ended, and writes its results if `--out` is given.
///
/// # Errors
/// There is no such job, the grid cannot be reached, or the results cannot be written.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    check_one_folder(args.jobs.len(), args.out.is_some())?;
    check_out(args.out.as_deref(), false)?;
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |job| {
            wait(context, client, job, args).await
        })
        .await
    })
}

async fn wait(
    context: &Context,
    client: &Client,
    job: JobId,
    args: &Args,
) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::new()?;
    let waits = TaskWaits::begin(job);
    let mut progress = Progress::new(context.look.style(false));
    let followed = follow(client, job, &mut progress, &mut interrupts).await;
    drop((progress, waits));
    let view = match followed? {
        Followed::Ended(view) => *view,
        Followed::Interrupted if args.jobs.len() > 1 => {
            return Err(Failure::Interrupted(format!(
                "the jobs go on without this terminal; job {job} has not ended: `hedge wait {job}` comes back to it"
            )));
        }
        Followed::Interrupted => return Ok(detached(job)),
    };
    let wish = Wish {
        results: args.out.is_some(),
        out: args.out.as_deref(),
        program: None,
        stream: None,
        last: None,
        exit_code: args.exit_code,
    };
    finish(context, client, view, wish, &mut interrupts).await
}
