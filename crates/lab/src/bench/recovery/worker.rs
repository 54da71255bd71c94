//! A worker is frozen or killed: from then to its task running on another worker.

use super::tasks::{
    ARGS, LOOK_EVERY, Started, WAIT_MAX, WORKERS, clear, explained, failed, listen, one_task,
    started, workers,
};
use crate::bench::args::BenchKind;
use crate::bench::block_on;
use crate::bench::grid::{Grid, Plan, way_text};
use crate::bench::{lines, quantile, rounded};
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::JobSpec;
use hedge_model::settings::WatchMode;
use hedge_node::client::new_key;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// Runs that may be repeated because a copy was there already, on mere suspicion.
const REPEATS_MAX: u32 = 1_000;
/// A task says through a pipe that it runs, without starting any other process.
const TASK: &str = "echo \"$HEDGE_ATTEMPT\" > \"$BENCH_PIPE\"; exec sleep 600";
/// How long a task runs before its worker ends, so that the closer watch is on: several intervals at most.
pub(super) const SETTLE: Duration = Duration::from_millis(300);
/// Of a run that takes longer it is told why.
const SLOW: Duration = Duration::from_millis(100);

#[derive(Debug, Serialize)]
struct WorkerFigures {
    kind: &'static str,
    runs: u32,
    /// Runs in which a copy was there before the worker ended, on a suspicion that was none.
    repeated: u32,
    workers: u16,
    network: &'static str,
    watch: String,
    recovery_ms_p50: f64,
    recovery_ms_p95: f64,
    recovery_ms_max: f64,
    recovery_ms: Vec<f64>,
    /// What the supervisor says of the task and the workers right after a slow run.
    slow: Vec<String>,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or does not recover.
pub fn run(
    output: Output,
    kind: BenchKind,
    runs: u32,
    watch: Option<WatchMode>,
    apart: bool,
) -> Result<(), Failure> {
    let figures = block_on(measure(kind, runs, watch, apart))?;
    output.print(&figures, || {
        lines(&[format!(
            "worker {} to its task running elsewhere   {:>8.2} ms, p95 {:.2} ms, at most {:.2} ms",
            figures.kind, figures.recovery_ms_p50, figures.recovery_ms_p95, figures.recovery_ms_max
        )])
    })?;
    Ok(())
}

async fn measure(
    kind: BenchKind,
    runs: u32,
    watch: Option<WatchMode>,
    apart: bool,
) -> Result<WorkerFigures, Failure> {
    let plan = Plan {
        args: ARGS,
        apart,
        ..Plan::new(WORKERS, 1)
    };
    let mut grid = Grid::start(plan).await?;
    if let Some(way) = watch {
        grid.watch(way).await?;
    }
    let pipe = grid.dir.path().join("pipe");
    let starts = listen(&pipe)?;
    let spec = one_task(&pipe, TASK)?;
    let mut all = Vec::new();
    let mut repeated = 0;
    let mut slow = Vec::new();
    while all.len() < runs as usize {
        match once(&mut grid, kind, &spec, &starts).await? {
            Some((took, told)) => {
                all.push(took.as_secs_f64() * 1e3);
                slow.extend(told.map(|told| format!("run {}: {told}", all.len())));
            }
            None if repeated < REPEATS_MAX => repeated += 1,
            None => return Err(failed("workers are suspected all the time")),
        }
    }
    let each = all.iter().copied().map(rounded).collect();
    Ok(WorkerFigures {
        kind: match kind {
            BenchKind::Stop => "stop",
            _ => "kill",
        },
        runs,
        repeated,
        workers: WORKERS,
        network: if apart { "namespaces" } else { "loopback" },
        watch: watch.map_or_else(|| "default".to_owned(), way_text),
        recovery_ms_p50: rounded(quantile(&mut all, 0.5)),
        recovery_ms_p95: rounded(quantile(&mut all, 0.95)),
        recovery_ms_max: rounded(quantile(&mut all, 1.0)),
        recovery_ms: each,
        slow,
    })
}

/// One task ends with its worker, and starts elsewhere; nothing where it ran elsewhere already.
async fn once(
    grid: &mut Grid,
    kind: BenchKind,
    spec: &JobSpec,
    starts: &Receiver<Started>,
) -> Result<Option<(Duration, Option<String>)>, Failure> {
    while starts.try_recv().is_ok() {}
    let job = grid.client.submit(new_key()?, spec).await?;
    started(starts)?;
    tokio::time::sleep(SETTLE).await;
    let mut busy = workers(grid).await?;
    busy.retain(|worker| worker.in_hand > 0);
    let copied = starts.try_recv().is_ok();
    let (1, Some(pid)) = (busy.len(), busy.first().map(|worker| worker.pid)) else {
        clear(grid, job).await?;
        return Ok(None);
    };
    if copied {
        clear(grid, job).await?;
        return Ok(None);
    }
    let since = match kind {
        BenchKind::Stop => signal_tree(pid, Signal::STOP),
        _ => {
            let since = Instant::now();
            signal(pid, Signal::KILL);
            since
        }
    };
    let (again, _) = started(starts)?;
    let took = again.saturating_duration_since(since);
    let told = match took >= SLOW {
        true => Some(explained(grid, job).await?),
        false => None,
    };
    if kind == BenchKind::Stop {
        // A machine that comes back at once would teach the supervisor that this is its way.
        given_up(grid, pid).await?;
        signal_tree(pid, Signal::CONT);
    } else {
        grid.replace(pid)?;
    }
    clear(grid, job).await?;
    Ok(Some((took, told)))
}

/// Waits until a frozen worker is given up.
async fn given_up(grid: &Grid, pid: u32) -> Result<(), Failure> {
    let since = Instant::now();
    while since.elapsed() < WAIT_MAX {
        let all = workers(grid).await?;
        if all
            .iter()
            .any(|worker| worker.pid == pid && worker.liveness == "dead")
        {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed("a frozen worker was not given up"))
}

/// Signals a process and all below it, itself first; the moment before.
fn signal_tree(pid: u32, what: Signal) -> Instant {
    let all = descendants(pid);
    let since = Instant::now();
    all.into_iter().for_each(|pid| signal(pid, what));
    since
}

fn signal(pid: u32, what: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        _ = kill_process(pid, what);
    }
}

/// A process and all below it, itself first.
pub fn descendants(pid: u32) -> Vec<u32> {
    let parent = |pid: u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit(") ")
            .next()?
            .split(' ')
            .nth(1)?
            .parse::<u32>()
            .ok()
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parents: Vec<(u32, u32)> = all.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(above) = found.get(at).copied() {
        at += 1;
        found.extend(
            parents
                .iter()
                .filter(|(_, of)| *of == above)
                .map(|(pid, _)| *pid),
        );
    }
    found
}
