//! Bringing what a job made and printed.

use super::{ask, unexpected};
use crate::exit::Failure;
use crate::show::{
    self, escape,
    manifest::{Brought, Manifest},
};
use hedge_model::data::Data;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{LogView, ResultsView};
use hedge_model::{JobId, JobSpec};
use hedge_node::client::Client;
use std::io;
use std::path::{Path, PathBuf};

/// Most folders tried for results before giving up.
const FOLDERS_MAX: u32 = 10_000;
/// Most lines shown of what a failed task wrote to its standard error.
const TAIL_LINES_MAX: usize = 20;

/// Checks early that results can go where the user wants them: into `out`, else, where there will be `files`,
/// into a new folder here. What was computed for an hour must not fail at its last step.
///
/// # Errors
/// The path is no folder, or cannot be written.
pub fn check_out(out: Option<&Path>, files: bool) -> Result<(), Failure> {
    let Some(folder) = out.or(files.then_some(Path::new("."))) else {
        return Ok(());
    };
    let wrong = |why: String| {
        let folder = folder.display();
        Err(Failure::Arguments(format!(
            "results cannot go to {folder}: {why}; nothing was started: give --out DIR, it is made if needed"
        )))
    };
    let path = match std::path::absolute(folder) {
        Ok(path) => path,
        Err(error) => return wrong(error.to_string()),
    };
    let Some(there) = path.ancestors().find(|path| path.exists()) else {
        return wrong("there is no such place".to_owned());
    };
    if !there.is_dir() {
        return wrong(format!("{} is no folder", there.display()));
    }
    use rustix::fs::Access;
    match rustix::fs::access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) => Ok(()),
        Err(error) => wrong(format!("{}: {error}", there.display())),
    }
}

/// What a job left, and what it did not.
///
/// # Errors
/// There is no such job, it has not ended, or the grid failed.
pub async fn results(client: &Client, job: JobId) -> Result<Box<ResultsView>, Failure> {
    match ask(client, Request::Results(job)).await? {
        Reply::Results(results) => Ok(results),
        _ => Err(unexpected()),
    }
}

/// Brings a job's result files into `out`, where they replace files of the same name, else into a fresh folder
/// named after the job. A job without result files makes no folder.
///
/// # Errors
/// The grid or the disk failed; files that were brought before stay.
pub async fn bring(
    client: &Client,
    job: JobId,
    name: &str,
    out: Option<&Path>,
) -> Result<Brought, Failure> {
    let results = results(client, job).await?;
    let manifest = Manifest::of(&results);
    let brought = |paths| Brought { paths, manifest };
    if results.files.is_empty() {
        return Ok(brought(Vec::new()));
    }
    let Some(out) = out else {
        let paths = client.fetch(&results, &fresh_folder(name)?).await?;
        return Ok(brought(paths));
    };
    std::fs::create_dir_all(out).map_err(|error| cannot_make(out, &error))?;
    let staging = out.join(format!(".hedge-fetch-{}", std::process::id()));
    std::fs::create_dir(&staging).map_err(|error| cannot_make(&staging, &error))?;
    let fetched = match client.fetch(&results, &staging).await {
        Ok(paths) => move_all(&paths, &staging, out),
        Err(error) => Err(error.into()),
    };
    // What could not be moved is brought again by `hedge fetch`.
    let _ = std::fs::remove_dir_all(&staging);
    fetched.map(brought)
}

/// Moves files into their place, replacing those of the same name.
fn move_all(paths: &[PathBuf], from: &Path, to: &Path) -> Result<Vec<PathBuf>, Failure> {
    let moved = paths.iter().map(|path| {
        let target = to.join(path.strip_prefix(from).unwrap_or(path));
        let parent = target.parent().unwrap_or(to);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::rename(path, &target))
            .map_err(|error| {
                Failure::Local(format!(
                    "cannot write {}: {error}; the grid keeps the results",
                    target.display()
                ))
            })?;
        Ok(target)
    });
    moved.collect()
}

/// What one task printed, the whole of what was kept.
pub struct Printed {
    /// Who printed it and how it ended.
    pub view: LogView,
    /// End of the standard output.
    pub stdout: Vec<u8>,
    /// End of the standard error.
    pub stderr: Vec<u8>,
}

/// Brings what a task printed.
///
/// # Errors
/// There is no such task, or the grid failed.
pub async fn printed(client: &Client, job: JobId, task: &str) -> Result<Printed, Failure> {
    let Reply::Log(view) = ask(client, Request::Logs(job, task.to_owned())).await? else {
        return Err(unexpected());
    };
    let (stdout, stderr) = match &view.log {
        Some(log) => (
            content(client, &log.stdout, &view).await?,
            content(client, &log.stderr, &view).await?,
        ),
        None => (Vec::new(), Vec::new()),
    };
    Ok(Printed {
        view: *view,
        stdout,
        stderr,
    })
}

/// Prints what every task of a program's job printed, in the order of their numbers.
///
/// # Errors
/// The grid failed, or nobody reads any more.
pub async fn print_all(client: &Client, job: JobId, spec: &JobSpec) -> Result<(), Failure> {
    for number in 0..spec.task_count() {
        let printed = printed(client, job, &spec.label(number)).await?;
        show::task_err(&printed.stderr);
        show::task_out(&printed.stdout)?;
    }
    Ok(())
}

/// Tells people what the task that made a job fail wrote to its standard error, as far as it can be had.
pub async fn tell_failure(client: &Client, job: JobId) {
    let Ok(Reply::Explain(view)) = client.ask(Request::Explain(job, None)).await else {
        return;
    };
    let Some(task) = view.tasks.iter().find(|task| task.failures > 0) else {
        return;
    };
    let Ok(printed) = printed(client, job, &task.task).await else {
        return;
    };
    let text = String::from_utf8_lossy(&printed.stderr);
    let lines: Vec<&str> = text.trim_end().lines().collect();
    if lines.is_empty() {
        return;
    }
    let name = escape::line(&task.task);
    show::note(&format!("{name} wrote to its standard error:"));
    for line in &lines[lines.len().saturating_sub(TAIL_LINES_MAX)..] {
        show::note(&format!("  {}", escape::line(line)));
    }
}

async fn content(client: &Client, data: &Data, view: &LogView) -> Result<Vec<u8>, Failure> {
    match data {
        Data::Inline(bytes) => Ok(bytes.to_vec()),
        Data::Blob { .. } => Ok(client.read(data, view).await?),
    }
}

/// `NAME-results`, or `NAME-results-2` and so on where that exists: results of earlier runs are never touched.
fn fresh_folder(name: &str) -> Result<PathBuf, Failure> {
    let safe: String = name
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '-'
            }
        })
        .collect();
    let safe = match safe.trim_start_matches('.') {
        "" => "job",
        safe => safe,
    };
    for number in 1..=FOLDERS_MAX {
        let folder = PathBuf::from(match number {
            1 => format!("{safe}-results"),
            _ => format!("{safe}-results-{number}"),
        });
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(cannot_make(&folder, &error)),
        }
    }
    Err(Failure::Local(format!(
        "there are {FOLDERS_MAX} folders named {safe}-results already; the grid keeps the results: give --out DIR"
    )))
}

fn cannot_make(folder: &Path, error: &io::Error) -> Failure {
    Failure::Local(format!(
        "the folder {} for the results cannot be made: {error}; give --out DIR with a place that can be written",
        folder.display()
    ))
}
