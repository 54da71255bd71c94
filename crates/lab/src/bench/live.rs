//! `hedge-lab bench live`: what redundancy is worth on real processes, some of which are slow and one of which dies.

use super::grid::{Grid, Plan};
use super::recovery::tasks::{ARGS, LOOK_EVERY, WAIT_MAX, failed, listen, started, workers};
use super::{lines, quantile, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::JobSpec;
use hedge_model::msg::Request;
use hedge_model::spec::{CriticalRule, Draft, Estimate, Group, Qos, Redundancy};
use hedge_model::view::WorkerView;
use hedge_node::client::new_key;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Workers of the fork-join job, of which the first are slowed and the next is killed.
const WORKERS: u16 = 6;
const SLOWED: usize = 2;
/// Tasks of a slowed worker stand still for the first of these and go on for the second, over and over: they
/// take five times as long.
const STILL: Duration = Duration::from_millis(80);
const GOES: Duration = Duration::from_millis(20);
/// When the worker is killed, from the job's beginning: its first of the parallel tasks runs then.
const KILL_AFTER: Duration = Duration::from_millis(900);
/// Parallel tasks.
const PARTS: u32 = 12;
/// A task is so many steps of 20 ms, in which it sleeps: it takes as long as it is let, and hardly any CPU.
const STEP_MS: u32 = 20;
const PART_STEPS: u32 = 50;
const END_STEPS: u32 = 20;
/// Workers of the job that fills them.
const FILLED: u16 = 8;
/// Its tasks.
const K: u32 = 3;

#[derive(Debug, Serialize)]
struct LiveFigures {
    runs: u32,
    none: Side,
    auto: Side,
    /// 95th percentile of `auto` over that of `none`; the aim is at most 0.7.
    p95_ratio: f64,
    /// Worker time of `auto` beyond that of `none`, as a share of it; the aim is at most 0.25.
    extra: f64,
    /// From the submission of a second job to its task's start while copies of the first fill all workers,
    /// ms; the aim is at most 50.
    fill_start_ms_p50: f64,
    fill_start_ms_max: f64,
}

#[derive(Debug, Serialize)]
struct Side {
    makespan_ms_p50: f64,
    makespan_ms_p95: f64,
    makespan_ms: Vec<f64>,
    worker_s: f64,
    copies: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a measured job fails.
pub fn run(output: Output, runs: u32) -> Result<(), Failure> {
    let figures = block_on(async {
        let none = side(runs, Redundancy::None).await?;
        let auto = side(runs, Redundancy::Auto).await?;
        let mut fill = filled(runs).await?;
        Ok(LiveFigures {
            runs,
            p95_ratio: rounded(auto.makespan_ms_p95 / none.makespan_ms_p95),
            extra: rounded(auto.worker_s / none.worker_s - 1.0),
            none,
            auto,
            fill_start_ms_p50: rounded(quantile(&mut fill, 0.5)),
            fill_start_ms_max: rounded(quantile(&mut fill, 1.0)),
        })
    })?;
    output.print(&figures, || {
        let side = |name: &str, side: &Side| {
            format!(
                "{name}   makespan {:>6.0} ms, p95 {:>6.0} ms, worker time {:>6.1} s, copies {:.1} in a run",
                side.makespan_ms_p50, side.makespan_ms_p95, side.worker_s, side.copies
            )
        };
        lines(&[
            side("none", &figures.none),
            side("auto", &figures.auto),
            format!(
                "p95 of auto over none {:.2}, worker time {:+.0} %",
                figures.p95_ratio,
                figures.extra * 100.0
            ),
            format!(
                "a second job on workers that are filled starts after {:.1} ms, at most {:.1} ms",
                figures.fill_start_ms_p50, figures.fill_start_ms_max
            ),
        ])
    })?;
    Ok(())
}

/// The fork-join job so many times on a grid of its own.
async fn side(runs: u32, redundancy: Redundancy) -> Result<Side, Failure> {
    let plan = Plan {
        args: ARGS,
        ..Plan::new(WORKERS, 1)
    };
    let mut grid = Grid::start(plan).await?;
    let slowed = grid.workers[..SLOWED].iter().map(|worker| worker.pid());
    let _slow = Slow::start(slowed.collect());
    let spec = fork_join(redundancy)?;
    let (mut all, mut held, mut copies) = (Vec::new(), Duration::ZERO, 0);
    for _ in 0..runs {
        all_here(&grid, WORKERS).await?;
        let victim = grid.workers[SLOWED].pid();
        let kill = tokio::spawn(async move {
            tokio::time::sleep(KILL_AFTER).await;
            Pid::from_raw(victim as i32).map(|pid| kill_process(pid, Signal::KILL))
        });
        let (took, view) = grid.run(&spec).await?;
        let killed = kill.await.ok().flatten();
        if !matches!(killed, Some(Ok(()))) {
            return Err(failed("the worker could not be killed"));
        }
        all.push(took.as_secs_f64() * 1e3);
        copies += view.attempts.redundant;
        for part in [view.cost.useful, view.cost.redundant, view.cost.lost] {
            held += Duration::from_nanos(part.occupied_ns);
        }
        grid.replace(victim)?;
    }
    let each = all.iter().copied().map(rounded).collect();
    Ok(Side {
        makespan_ms_p50: rounded(quantile(&mut all, 0.5)),
        makespan_ms_p95: rounded(quantile(&mut all, 0.95)),
        makespan_ms: each,
        worker_s: held.as_secs_f64(),
        copies: copies as f64 / f64::from(runs),
    })
}

/// Waits until so many workers are live and idle.
async fn all_here(grid: &Grid, count: u16) -> Result<(), Failure> {
    let idle = |worker: &&WorkerView| worker.liveness == "live" && worker.in_hand == 0;
    until(grid, "the workers did not come back", |all| {
        all.iter().filter(idle).count() >= count.into()
    })
    .await
}

async fn until(
    grid: &Grid,
    otherwise: &str,
    reached: impl Fn(&[WorkerView]) -> bool,
) -> Result<(), Failure> {
    let since = Instant::now();
    while since.elapsed() < WAIT_MAX {
        if reached(&workers(grid).await?) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(failed(otherwise))
}

/// K long tasks fill all workers with copies; how long another job waits for its start, in milliseconds.
async fn filled(runs: u32) -> Result<Vec<f64>, Failure> {
    let plan = Plan {
        args: ARGS,
        ..Plan::new(FILLED, 1)
    };
    let grid = Grid::start(plan).await?;
    let pipe = grid.dir.path().join("pipe");
    let starts = listen(&pipe)?;
    let long = Group {
        array: Some((0, K)),
        ..Group::program("long", &["sleep", "600"])
    };
    let long = job("long", Redundancy::Fill, vec![long])?;
    let env = ("BENCH_PIPE".into(), pipe.to_string_lossy().into());
    let says = Group {
        env: vec![env],
        ..Group::program("says", &["sh", "-c", "echo runs > \"$BENCH_PIPE\""])
    };
    let says = job("says", Redundancy::None, vec![says])?;
    let mut all = Vec::new();
    for _ in 0..runs {
        all_here(&grid, FILLED).await?;
        let first = grid.client.submit(new_key()?, &long).await?;
        until(&grid, "not all workers were filled", |all| {
            all.iter().filter(|worker| worker.in_hand > 0).count() >= FILLED.into()
        })
        .await?;
        let since = Instant::now();
        grid.client.submit(new_key()?, &says).await?;
        let (at, _) = started(&starts)?;
        all.push(at.duration_since(since).as_secs_f64() * 1e3);
        grid.client.ask(Request::Cancel(first)).await?;
    }
    Ok(all)
}

/// One task, parallel ones, and one that waits for them.
fn fork_join(redundancy: Redundancy) -> Result<JobSpec, Failure> {
    let paced = |id: &str, steps: u32| {
        let script =
            format!("at=0; while [ $at -lt {steps} ]; do sleep 0.0{STEP_MS}; at=$((at+1)); done");
        let takes = Duration::from_millis(u64::from(steps * STEP_MS));
        Group {
            estimate: Estimate {
                cpu_time: Some(takes),
                ..Estimate::default()
            }
            .into(),
            ..Group::program(id, &["sh", "-c", &script])
        }
    };
    let parts = Group {
        array: Some((0, PARTS)),
        deps: vec!["fork".into()],
        ..paced("part", PART_STEPS)
    };
    let join = Group {
        deps: vec!["part".into()],
        ..paced("join", END_STEPS)
    };
    job(
        "fork-join",
        redundancy,
        vec![paced("fork", END_STEPS), parts, join],
    )
}

fn job(name: &str, redundancy: Redundancy, groups: Vec<Group>) -> Result<JobSpec, Failure> {
    let draft = Draft {
        name: name.into(),
        qos: Qos {
            redundancy,
            ..Qos::default()
        },
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups,
        outline: false,
    };
    JobSpec::new(draft).map_err(|error| failed(&error.to_string()))
}

/// Stops and continues the processes below some workers, not the workers themselves, until it is dropped.
struct Slow {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Slow {
    fn start(workers: Vec<u32>) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let seen = over.clone();
        let thread = std::thread::spawn(move || {
            while !seen.load(Ordering::Relaxed) {
                signal(&workers, Signal::STOP);
                std::thread::sleep(STILL);
                signal(&workers, Signal::CONT);
                std::thread::sleep(GOES);
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Sends a signal to all descendants of some processes.
fn signal(ancestors: &[u32], signal: Signal) {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in all {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        // The parent stands two fields behind the name, which may hold anything but ends with `)`.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        if let Some(parent) = rest.split(' ').nth(1).and_then(|text| text.parse().ok()) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut open: Vec<u32> = ancestors.to_vec();
    while let Some(next) = open.pop() {
        for child in children.remove(&next).into_iter().flatten() {
            if let Some(pid) = Pid::from_raw(child as i32) {
                // It may have ended meanwhile.
                let _ = kill_process(pid, signal);
            }
            open.push(child);
        }
    }
}
