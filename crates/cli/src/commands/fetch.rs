//! `hedge fetch`: writes the results of a job to a folder.

use super::interrupt::Interrupts;
use super::named::{check_one_folder, each, numbers};
use super::place::{Destination, bring, check_out};
use super::{Context, ask, unexpected};
use crate::args::{Grid, JobName};
use crate::exit::{Exit, Failure};
use crate::show::{self, escape};
use clap::builder::NonEmptyStringValueParser;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_node::client::Client;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `fetch`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Number of the job, or last; several go to a folder each
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<JobName>,
    /// Only what this task left, also while the job runs; an array's task by its id and index, like frame.12. Repeatable
    #[arg(long, value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    pub task: Vec<String>,
    /// Folder for the results [default: a new folder NAME-results]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Writes the results of jobs, or of single tasks, to a folder.
///
/// # Errors
/// There is no such job, it has no results yet, or the grid or the disk failed.
pub fn run(context: &Context, args: &Args) -> Result<Exit, Failure> {
    check_one_folder(args.jobs.len(), args.out.is_some())?;
    check_out(args.out.as_deref(), true)?;
    if args.jobs.len() > 1 && !args.task.is_empty() {
        return Err(Failure::Arguments(
            "--task names tasks of one job, and several jobs are named; nothing was brought: name one".to_owned(),
        ));
    }
    context.on_grid(&args.grid, async |client| {
        let jobs = numbers(client, &args.jobs).await?;
        each(&jobs, context.look.json, async |job| {
            fetch(context, client, job, args).await
        })
        .await
    })
}

async fn fetch(
    context: &Context,
    client: &Client,
    job: JobId,
    args: &Args,
) -> Result<Exit, Failure> {
    let Reply::Job(view) = ask(client, Request::Job(job)).await? else {
        return Err(unexpected());
    };
    let mut interrupts = Interrupts::new()?;
    let listed = client.outputs(job, &args.task).await?;
    let to = Destination {
        out: args.out.as_deref(),
        name: &view.name,
        grid_ends: false,
    };
    let brought = bring(client, &listed, &to, &mut interrupts).await?;
    let waiting = !args.task.is_empty() && !listed.missing.is_empty();
    let results = &brought.paths;
    if waiting {
        let tasks = listed.missing.join(", ");
        show::note(&format!(
            "not done, and so not fetched: {}; `hedge explain {job} TASK` says why",
            escape::line(&tasks)
        ));
    } else if results.is_empty() && brought.trouble.is_none() {
        show::note(&format!(
            "job {job} left no files; what its tasks printed: `hedge logs {job} TASK`"
        ));
    }
    let text = || {
        let lines = results
            .iter()
            .map(|path| format!("{}\n", escape::line(&path.display().to_string())));
        lines.collect()
    };
    context.look.print(
        &json!({ "job": job, "results": results, "manifest": brought.manifest }),
        text,
    )?;
    match brought.trouble {
        Some(trouble) => Err(Failure::Local(trouble)),
        None if waiting => Ok(Exit::Failed),
        None => Ok(Exit::Done),
    }
}
