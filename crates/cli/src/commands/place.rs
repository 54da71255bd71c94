//! The folder for results: checked before a job starts, and written when it has ended.

use super::interrupt::Interrupts;
use crate::exit::Failure;
use crate::show::{
    self,
    manifest::{Brought, Manifest},
};
use hedge_model::view::ResultFile;
use hedge_model::{JobId, JobSpec};
use hedge_node::client::{Client, Results, Unwritten};
use rustix::fs::Access;
use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};

/// The most names that are tried for a new folder of results.
const FOLDERS_MAX: u32 = 10_000;
/// The longest part of a job's name in the name of a folder, in bytes: file systems allow 255 in all.
const NAME_BYTES_MAX: usize = 200;
/// The most names of results that are checked before a job starts.
const CHECKED_MAX: usize = 10_000;
/// The most tasks whose output is written after a job of `hedge run` did not succeed.
const LOGS_MAX: u32 = 10_000;

/// Checks that results can be written to `out`, or, if there will be `files`, to a new folder in the current one. It is
/// checked before the job starts, so that hours of computing do not fail at the last step.
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
    // A link that leads nowhere exists, too: no folder can be made in its place.
    let Some(there) = path
        .ancestors()
        .find(|path| path.symlink_metadata().is_ok())
    else {
        return wrong("there is no such place".to_owned());
    };
    if !there.exists() {
        return wrong(format!("{} is a link that leads nowhere", there.display()));
    }
    if !there.is_dir() {
        return wrong(format!("{} is no folder", there.display()));
    }
    match writable(there) {
        Ok(()) => Ok(()),
        Err(error) => wrong(format!("{}: {error}", there.display())),
    }
}

/// Checks before a job starts that no file in `out` has the place of a folder for the results that its tasks name.
///
/// # Errors
/// A file lies where a folder is needed, or the folder cannot be written.
pub fn check_names(out: Option<&Path>, spec: &JobSpec) -> Result<(), Failure> {
    let Some(out) = out.filter(|out| out.exists()) else {
        return Ok(());
    };
    let groups = (0..spec.groups().len()).filter(|group| spec.is_result(*group));
    let names = groups.flat_map(|at| {
        let group = &spec.groups()[at];
        (0..group.count()).flat_map(move |offset| {
            group.with_values(offset, |values| {
                let outputs = group.outputs.iter();
                let named = outputs.map(|output| values.expand(output).into_owned());
                named.collect::<Vec<String>>()
            })
        })
    });
    let mut seen = HashSet::new();
    for name in names.take(CHECKED_MAX) {
        // Only the folders above a pattern are known.
        let plain = Path::new(&name)
            .ancestors()
            .skip(1)
            .find(|path| !path.to_string_lossy().contains(['*', '?', '[', '{']));
        let folders = plain.into_iter().flat_map(Path::ancestors);
        for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
            let there = out.join(folder);
            if !seen.insert(there.clone()) {
                break;
            }
            let wrong = |why: &str| {
                Err(Failure::Arguments(format!(
                    "the result {name:?} cannot go to {}: {} {why}; nothing was started: remove that, or give \
                     another --out DIR",
                    out.display(),
                    there.display()
                )))
            };
            if there.symlink_metadata().is_err() {
                continue;
            }
            if !there.is_dir() {
                return wrong("is no folder");
            }
            if writable(&there).is_err() {
                return wrong("cannot be written");
            }
        }
    }
    Ok(())
}

fn writable(folder: &Path) -> rustix::io::Result<()> {
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK)
}

/// Where the result files of a job go.
pub struct Destination<'a> {
    /// The folder that the user named. Files of the same name are replaced there.
    pub out: Option<&'a Path>,
    /// The job's name. Without `out` a new folder is named after it.
    pub name: &'a str,
    /// Whether the grid ends with this command. Files that cannot be written to the folder then go to another one,
    /// because they would be lost.
    pub grid_ends: bool,
}

/// Writes a job's result files to their destination. A job without result files makes no folder.
///
/// # Errors
/// The grid failed, the folder cannot be made although the grid keeps the results, or the user interrupted.
pub async fn bring(
    client: &Client,
    results: &Results,
    to: &Destination<'_>,
    interrupts: &mut Interrupts,
) -> Result<Brought, Failure> {
    let (job, grid_ends) = (results.job(), to.grid_ends);
    let mut brought = Brought {
        manifest: Manifest::of(results),
        ..Brought::default()
    };
    if results.files().next().is_none() {
        return Ok(brought);
    }
    let (names, moved) = names(results.files());
    if let Some((from, to)) = moved.first() {
        let others = others(moved.len());
        show::note(&format!(
            "tasks left results of the same name: {from} goes to {to}{others}"
        ));
    }
    let failed = match results_folder(to.out, to.name) {
        Ok(folder) => {
            let places: Vec<PathBuf> = names.iter().map(|name| folder.join(name)).collect();
            let written = tokio::select! {
                written = client.write(results, &places) => written,
                () = interrupted(grid_ends, interrupts) => return Err(given_up(job, &folder)),
            };
            (brought.paths, brought.folder) = (written.paths, Some(folder));
            written.failed
        }
        Err(failure) if !grid_ends => return Err(failure),
        Err(failure) => {
            let unwritten = |at: usize| Unwritten {
                at,
                place: PathBuf::from(&names[at]),
                why: failure.to_string(),
            };
            (0..names.len()).map(unwritten).collect()
        }
    };
    if let Some(first) = failed.first() {
        let what = format!(
            "{} of {} result files cannot be written: {}: {}{}",
            failed.len(),
            names.len(),
            first.place.display(),
            first.why,
            others(failed.len())
        );
        brought.trouble = Some(if grid_ends {
            format!("{what}. {}", rescue(client, results, failed, &names).await)
        } else {
            let folder = brought.folder.as_deref().unwrap_or(Path::new("DIR"));
            format!(
                "{what}. The others are whole, and the grid keeps all of them: `hedge fetch {job} --out {}` brings them \
                 again once that is mended",
                folder.display()
            )
        });
    }
    Ok(brought)
}

/// Returns at the user's first signal. If the grid ends with this command, never returns: the second signal stops the
/// grid.
async fn interrupted(grid_ends: bool, interrupts: &mut Interrupts) {
    interrupts.next().await;
    if grid_ends {
        show::note("writing the results; once more quits, and what is not written is lost");
        std::future::pending().await
    }
}

fn given_up(job: JobId, folder: &Path) -> Failure {
    let folder = folder.display();
    Failure::Interrupted(format!(
        "interrupted: the results in {folder} are whole, and not all are there. The grid keeps all of them: \
         `hedge fetch {job} --out {folder}` brings them"
    ))
}

/// Saves files that could not be written to their places, before the grid ends. Returns a sentence that says where they
/// are.
async fn rescue(
    client: &Client,
    results: &Results,
    failed: Vec<Unwritten>,
    names: &[String],
) -> String {
    let count = failed.len();
    let made = tempfile::Builder::new().prefix("hedge-results-").tempdir();
    let folder = match made {
        Ok(folder) => folder.keep(),
        Err(error) => {
            return format!(
                "They are lost: no folder for them can be made in {} either: {error}",
                std::env::temp_dir().display()
            );
        }
    };
    let lost = client.rescue(results, failed, names, &folder).await;
    let Some(first) = lost.first() else {
        return format!(
            "They are in {} instead: move them from there",
            folder.display()
        );
    };
    let place = &names[first.at];
    format!(
        "{} of them are in {} instead; {} are lost: {place}: {}",
        count - lost.len(),
        folder.display(),
        lost.len(),
        first.why
    )
}

/// Writes what all tasks of a job printed to a folder `logs` in `folder`, or in a new one named after the job. Returns
/// that folder; none if nothing was printed.
///
/// # Errors
/// The folder cannot be written.
pub async fn keep_logs(
    client: &Client,
    job: JobId,
    spec: &JobSpec,
    folder: Option<PathBuf>,
) -> Result<Option<PathBuf>, Failure> {
    let mut logs: Option<PathBuf> = None;
    for number in 0..spec.task_count().min(LOGS_MAX) {
        let label = spec.label(number);
        let Ok(printed) = client.printed(job, &label).await else {
            show::note(&format!("what {label} printed cannot be had"));
            continue;
        };
        for (end, bytes) in [("stdout", printed.stdout), ("stderr", printed.stderr)] {
            if bytes.is_empty() {
                continue;
            }
            let logs = match &logs {
                Some(logs) => logs,
                None => {
                    let into = match &folder {
                        Some(folder) => folder.clone(),
                        None => results_folder(None, spec.name())?,
                    };
                    let into = into.join("logs");
                    std::fs::create_dir_all(&into).map_err(|error| cannot_make(&into, &error))?;
                    logs.insert(into)
                }
            };
            let path = logs.join(format!("{}.{end}", label.replace('/', "-")));
            std::fs::write(&path, bytes).map_err(|error| {
                _ = std::fs::remove_file(&path);
                Failure::Local(format!("cannot write {}: {error}", path.display()))
            })?;
        }
    }
    Ok(logs)
}

/// Returns the path of each file below the folder for results. It is the path in the task's directory, unless another
/// task's file has that path or needs a folder there; then it is below a folder named after the task. Also returns those
/// moved paths, from where to where.
fn names<'a>(files: impl Iterator<Item = &'a ResultFile>) -> (Vec<String>, Vec<(String, String)>) {
    let (mut taken, mut folders) = (HashSet::new(), HashSet::new());
    let (mut names, mut moved) = (Vec::new(), Vec::new());
    for made in files {
        let path = made.file.path.to_string();
        let task = made.task.replace('/', "-");
        let mut name = path.clone();
        let mut number = 0;
        while folders.contains(&name)
            || std::iter::successors(Some(&*name), |name| Some(name.rsplit_once('/')?.0))
                .any(|part| taken.contains(part))
        {
            number += 1;
            name = match number {
                1 => format!("{task}/{path}"),
                _ => format!("{task}-{number}/{path}"),
            };
        }
        let above = std::iter::successors(Some(&*name), |name| Some(name.rsplit_once('/')?.0));
        folders.extend(above.skip(1).map(str::to_owned));
        taken.insert(name.clone());
        if name != path {
            moved.push((path, name.clone()));
        }
        names.push(name);
    }
    (names, moved)
}

fn others(count: usize) -> String {
    match count {
        0 | 1 => String::new(),
        count => format!(", and {} more", count - 1),
    }
}

fn results_folder(out: Option<&Path>, name: &str) -> Result<PathBuf, Failure> {
    let Some(out) = out else {
        return fresh_folder(name);
    };
    std::fs::create_dir_all(out).map_err(|error| cannot_make(out, &error))?;
    Ok(out.to_owned())
}

/// Makes the folder `NAME-results`, or `NAME-results-2` and so on if that exists: earlier results are never changed.
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
        safe => &safe[..safe.floor_char_boundary(NAME_BYTES_MAX)],
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
        "there are {FOLDERS_MAX} folders named {safe}-results already: give --out DIR"
    )))
}

fn cannot_make(folder: &Path, error: &io::Error) -> Failure {
    Failure::Local(format!(
        "the folder {} for the results cannot be made: {error}; give --out DIR with a place that can be written",
        folder.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_model::{AttemptId, Data, Epoch, FileEntry, Hash, PeerId, TaskId};

    fn made(task: &str, path: &str) -> ResultFile {
        let file = FileEntry {
            path: path.into(),
            executable: false,
            data: Data::Inline([].into()),
        };
        let task_id = TaskId {
            job: JobId(1),
            number: 0,
        };
        ResultFile {
            task: task.to_owned(),
            attempt: AttemptId {
                task: task_id,
                generation: 0,
                epoch: Epoch(1),
                number: 1,
            },
            worker: PeerId([0; 32]),
            hash: Hash([0; 32]),
            file,
        }
    }

    #[test]
    fn no_two_results_get_one_name_or_a_name_in_anothers_way() {
        let files = [
            made("a", "out"),
            made("b", "out"),
            made("c", "out/deep"),
            made("d", "dir/file"),
            made("e", "dir"),
            made("b", "b"),
            made("f", "plain"),
        ];
        let (names, moved) = names(files.iter());
        assert_eq!(
            names,
            [
                "out",
                "b/out",
                "c/out/deep",
                "dir/file",
                "e/dir",
                "b/b",
                "plain"
            ]
        );
        assert_eq!(moved.len(), 4);
    }
}
