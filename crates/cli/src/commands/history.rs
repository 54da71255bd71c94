//! The history of a job, for the commands that write it to a file: `hedge trace` and `hedge report`.

use super::{ask, unexpected};
use crate::exit::Failure;
use crate::show::note;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{AttemptLine, GroupLine, JobView, WorkerView};
use hedge_node::client::Client;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// The most attempts of a history. Each takes some 250 bytes of memory.
pub const ATTEMPTS_MAX: usize = 2_000_000;
/// The most groups of a history.
pub const GROUPS_MAX: usize = 100_000;
/// The path that stands for standard output.
const STDOUT: &str = "-";

/// A job with its groups and attempts.
#[derive(Debug)]
pub struct History {
    /// The job.
    pub job: JobView,
    /// Its groups, in the order of the job file.
    pub groups: Vec<GroupLine>,
    /// Its attempts, by the numbers of their tasks.
    pub attempts: Vec<AttemptLine>,
    /// Milliseconds from the job's acceptance to its end, or to now.
    pub now_ms: f64,
    /// Workers that are connected now.
    pub workers: Vec<WorkerView>,
}

impl History {
    /// Fetches everything about a job from the grid.
    ///
    /// # Errors
    /// There is no such job, or the grid cannot be reached.
    pub async fn of(client: &Client, id: JobId) -> Result<Self, Failure> {
        let Reply::Job(job) = ask(client, Request::Job(id)).await? else {
            return Err(unexpected());
        };
        let groups = groups(client, id).await?;
        let (attempts, now_ms) = attempts(client, id).await?;
        let Reply::Workers(workers) = ask(client, Request::Workers).await? else {
            return Err(unexpected());
        };
        Ok(Self {
            job: *job,
            groups,
            attempts,
            now_ms,
            workers,
        })
    }

    /// Returns the name of a worker, given the beginning of its id: its host if it is connected, else that beginning.
    pub fn host(&self, worker: &str) -> String {
        let found = self
            .workers
            .iter()
            .find(|known| known.peer.starts_with(worker));
        found.map_or_else(
            || worker.to_owned(),
            |known| format!("{} {worker}", known.host),
        )
    }
}

async fn groups(client: &Client, job: JobId) -> Result<Vec<GroupLine>, Failure> {
    let (mut groups, mut from) = (Vec::new(), 0);
    loop {
        let Reply::Groups(page) = ask(client, Request::Groups { job, from }).await? else {
            return Err(unexpected());
        };
        let page = *page;
        groups.extend(page.groups);
        match page.next {
            Some(next) if next > from && groups.len() < GROUPS_MAX => from = next,
            Some(_) => {
                note(&format!(
                    "the first {} groups are written, of more",
                    groups.len()
                ));
                return Ok(groups);
            }
            None => return Ok(groups),
        }
    }
}

/// Fetches all attempts, and the age of the job in milliseconds.
async fn attempts(client: &Client, job: JobId) -> Result<(Vec<AttemptLine>, f64), Failure> {
    let (mut attempts, mut from, mut now_ms) = (Vec::new(), 0, 0.0_f64);
    let since = Duration::ZERO;
    loop {
        let request = Request::Attempts { job, from, since };
        let Reply::Attempts(page) = ask(client, request).await? else {
            return Err(unexpected());
        };
        let page = *page;
        attempts.extend(page.attempts);
        now_ms = now_ms.max(page.now_ms);
        match page.next {
            Some(next) if next > from && attempts.len() < ATTEMPTS_MAX => from = next,
            Some(_) => {
                note(&format!(
                    "the attempts of the first {from} tasks are written, of more: {ATTEMPTS_MAX} attempts are brought at most"
                ));
                return Ok((attempts, now_ms));
            }
            None => return Ok((attempts, now_ms)),
        }
    }
}

/// Writes a file, or to standard output. On an error the file that was there before is kept.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if path == Path::new(STDOUT) {
        return crate::show::out_bytes(bytes);
    }
    let failed = |error: std::io::Error| {
        let path = path.display();
        Failure::Local(format!(
            "cannot write {path}: {error}; what was there is kept: name another file with -o"
        ))
    };
    // A device, like /dev/null, is not replaced.
    if fs::metadata(path).is_ok_and(|known| !known.is_file()) {
        return fs::write(path, bytes).map_err(failed);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix(".hedge-");
    let mut file = builder.tempfile_in(folder).map_err(failed)?;
    std::io::Write::write_all(&mut file, bytes).map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(file.path(), mode).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
