//! What the kinds of ends share: one task that says when it runs, and a grid to wait for.

use crate::bench::grid::Grid;
use crate::failure::Failure;
use crate::failure::unexpected;
use hedge_model::msg::{Reply, Request};
use hedge_model::spec::{CriticalRule, Draft, Group, Qos, Redundancy};
use hedge_model::view::WorkerView;
use hedge_model::{JobId, JobSpec};
use rustix::fs::{Mode, mkfifoat};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

/// How many workers there are.
pub const WORKERS: u16 = 4;
/// At idle priority it would be measured how busy the machine is with other things.
pub const ARGS: &[&str] = &["--no-sandbox", "--task-priority", "normal"];
/// A start or a recovery that takes longer has failed.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at the grid.
pub const LOOK_EVERY: Duration = Duration::from_millis(5);

/// When a task said something, and what.
pub type Started = (Instant, String);

/// Ends a job and waits until all workers are there and idle.
///
/// # Errors
/// They do not come back.
pub async fn clear(grid: &Grid, job: JobId) -> Result<(), Failure> {
    grid.client.ask(Request::Cancel(job)).await?;
    all_idle(grid, WORKERS).await
}

/// Waits until so many workers are there, ready and idle.
///
/// # Errors
/// They do not come.
pub async fn all_idle(grid: &Grid, count: u16) -> Result<(), Failure> {
    let since = Instant::now();
    while since.elapsed() < WAIT_MAX {
        let here = workers(grid).await?;
        let idle = |worker: &&WorkerView| {
            worker.liveness == "live" && worker.usage == "ready" && worker.in_hand == 0
        };
        if here.iter().filter(idle).count() >= count.into() {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed("the workers did not come back"))
}

/// All workers as they are now.
///
/// # Errors
/// The supervisor is gone.
pub async fn workers(grid: &Grid) -> Result<Vec<WorkerView>, Failure> {
    match grid.client.ask(Request::Workers).await? {
        Reply::Workers(all) => Ok(all),
        _ => Err(unexpected()),
    }
}

/// What the supervisor says now of a job's tasks, their attempts, and the workers.
///
/// # Errors
/// The supervisor is gone.
pub async fn explained(grid: &Grid, job: JobId) -> Result<String, Failure> {
    let Reply::Explain(view) = grid.client.ask(Request::Explain(job, None)).await? else {
        return Err(unexpected());
    };
    let mut said = Vec::new();
    for task in view.tasks {
        said.push(format!("{}: {}", task.task, task.why));
        let attempts = task.attempts.into_iter();
        said.extend(attempts.map(|one| {
            let (name, at, state, why) = (one.attempt, one.worker, one.state, one.why);
            format!("{name} at {at}: {state}, {why}")
        }));
    }
    for worker in workers(grid).await? {
        let peer: String = worker.peer.chars().take(10).collect();
        said.push(format!(
            "{peer}: {}, {}, silent for {:.1} ms, {} suspicions, {} gaps",
            worker.liveness, worker.usage, worker.silent_ms, worker.suspicions, worker.late_gaps
        ));
    }
    Ok(said.join("; "))
}

/// A job of one critical task without copies, a script that writes to the pipe in `BENCH_PIPE`.
///
/// # Errors
/// Never, for the scripts of these modules.
pub fn one_task(pipe: &Path, script: &str) -> Result<JobSpec, Failure> {
    // Nothing runs twice in advance: what is measured is a start after the loss.
    critical_task(pipe, script, 1)
}

/// The same with so many attempts in advance.
///
/// # Errors
/// Never, for the scripts of these modules.
pub fn critical_task(pipe: &Path, script: &str, copies: u32) -> Result<JobSpec, Failure> {
    let env = ("BENCH_PIPE".into(), pipe.to_string_lossy().into());
    let group = Group {
        env: vec![env],
        critical: true,
        ..Group::program("task", &["sh", "-c", script])
    };
    let qos = Qos {
        copies,
        redundancy: Redundancy::Critical,
        ..Qos::default()
    };
    let draft = Draft {
        name: "bench".into(),
        qos,
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: vec![group],
        outline: false,
    };
    JobSpec::new(draft).map_err(|error| failed(&error.to_string()))
}

/// What tasks say, and when.
///
/// # Errors
/// The pipe cannot be made.
pub fn listen(pipe: &Path) -> Result<Receiver<Started>, Failure> {
    let no_pipe = |error: std::io::Error| failed(&format!("no pipe for the tasks: {error}"));
    let mode = Mode::RUSR | Mode::WUSR;
    mkfifoat(rustix::fs::CWD, pipe, mode).map_err(|error| no_pipe(error.into()))?;
    // Open for writing too, so that it never ends.
    let file = std::fs::File::options().read(true).write(true).open(pipe);
    let file = file.map_err(no_pipe)?;
    let (said, starts) = sync_channel(64);
    std::thread::spawn(move || {
        for line in BufReader::new(file).lines() {
            let Ok(line) = line else { return };
            if said.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    });
    Ok(starts)
}

/// Waits until a task says something.
///
/// # Errors
/// None does.
pub fn started(starts: &Receiver<Started>) -> Result<Started, Failure> {
    let started = starts.recv_timeout(WAIT_MAX);
    started.map_err(|_| failed("the task did not start"))
}

/// A measurement that cannot go on.
pub fn failed(why: &str) -> Failure {
    Failure::Local(why.to_owned())
}
