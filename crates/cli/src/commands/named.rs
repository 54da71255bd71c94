//! Finds the jobs that a command line names, and does something with each.

use crate::args::JobName;
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_model::JobId;
use hedge_node::client::Client;

/// Returns the numbers of these jobs, each once, in the order of the command line.
///
/// # Errors
/// The newest job is named and there is none, or the grid cannot be reached.
pub async fn numbers(client: &Client, names: &[JobName]) -> Result<Vec<JobId>, Failure> {
    let mut numbers = Vec::with_capacity(names.len());
    for name in names {
        let number = number(client, *name).await?;
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Returns the number of this job.
///
/// # Errors
/// The newest job is named and there is none, or the grid cannot be reached.
pub async fn number(client: &Client, name: JobName) -> Result<JobId, Failure> {
    if let JobName::Number(number) = name {
        return Ok(JobId(number));
    }
    let last = client.jobs().await?.last().map(|job| job.id);
    last.ok_or_else(|| {
        Failure::Arguments(
            "there is no last job: this client has none on the grid; `hedge submit JOB.toml` makes one"
                .to_owned(),
        )
    })
}

/// Does something with each job. If it fails for one of several jobs, reports that and goes on with the others.
///
/// # Errors
/// It failed for the last job.
pub async fn each(
    jobs: &[JobId],
    json: bool,
    mut work: impl AsyncFnMut(JobId) -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let mut first = None;
    let Some((last, before)) = jobs.split_last() else {
        return Ok(Exit::Done);
    };
    for job in before {
        let exit = match work(*job).await {
            Err(stop @ (Failure::OutputClosed | Failure::Interrupted(_))) => return Err(stop),
            Ok(exit) => exit,
            Err(failure) => {
                show::failure(&failure, json);
                failure.exit()
            }
        };
        first = first.or(Some(exit).filter(|exit| *exit != Exit::Done));
    }
    let exit = work(*last).await;
    match (exit, first) {
        (Ok(Exit::Done), Some(first)) => Ok(first),
        (exit, _) => exit,
    }
}

/// Refuses a folder for the results of several jobs, which would mix.
///
/// # Errors
/// There are several jobs and a folder.
pub fn check_one_folder(jobs: usize, out: bool) -> Result<(), Failure> {
    if jobs > 1 && out {
        return Err(Failure::Arguments(
            "--out takes the results of one job; nothing was brought: `hedge fetch` with several jobs and without --out \
             brings each to a folder of its own"
                .to_owned(),
        ));
    }
    Ok(())
}
