//! `hedge-lab bench alarms`: what watching closely costs where nothing is wrong. Workers are well, and their tasks keep
//! every processor busy; each suspicion is false, and so is each copy that follows from it.

use super::grid::{Grid, Plan, Process, job};
use super::{lines, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::failure::unexpected;
use crate::output::Output;
use hedge_model::msg::{Reply, Request};
use hedge_model::settings::WatchMode;
use hedge_model::spec::Group;
use serde::Serialize;
use std::process::Command;
use std::time::{Duration, Instant};

/// Workers without tasks, where copies may start.
const IDLE: u16 = 2;
/// A task: two seconds of all the processor that it gets.
const TASK: &str = "timeout 2 sh -c 'while :; do :; done'; true";
const LOAD: &str = "while :; do :; done";

#[derive(Debug, Serialize)]
struct AlarmsFigures {
    workers: u16,
    busy: u16,
    interval_ms: f64,
    load: u16,
    with_detector: Half,
    without_detector: Half,
}

#[derive(Debug, Serialize)]
struct Half {
    seconds: f64,
    deaths: u64,
    suspicions: u64,
    copies: u64,
    copies_share_of_worker_time: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a job fails.
pub fn run(
    output: Output,
    workers: u16,
    interval: Duration,
    minutes: u32,
    load: u16,
) -> Result<(), Failure> {
    let figures = block_on(measure(workers, interval, minutes, load))?;
    output.print(&figures, || {
        let line = |name: &str, half: &Half| {
            format!(
                "{name:<18} {} deaths, {} suspicions, {} copies with {:.3} % of the worker time",
                half.deaths,
                half.suspicions,
                half.copies,
                half.copies_share_of_worker_time * 100.0
            )
        };
        lines(&[
            line("with the detector", &figures.with_detector),
            line("without it", &figures.without_detector),
        ])
    })?;
    Ok(())
}

async fn measure(
    workers: u16,
    interval: Duration,
    minutes: u32,
    load: u16,
) -> Result<AlarmsFigures, Failure> {
    let busy = workers - IDLE;
    let mut loads = Vec::new();
    for _ in 0..load {
        loads.push(Process::start(Command::new("sh").args(["-c", LOAD]))?);
    }
    let span = Duration::from_secs(60) * minutes;
    let mut halves = Vec::new();
    for deviations in [None, Some("0")] {
        let plan = Plan {
            args: &["--no-sandbox"],
            ..Plan::new(workers, 1)
        };
        let grid = Grid::start(plan).await?;
        grid.watch(WatchMode::heartbeats(interval)).await?;
        if let Some(deviations) = deviations {
            grid.set("suspect_deviations", deviations).await?;
        }
        halves.push(half(&grid, workers, busy, span).await?);
    }
    drop(loads);
    let (Some(without_detector), Some(with_detector)) = (halves.pop(), halves.pop()) else {
        return Err(unexpected());
    };
    Ok(AlarmsFigures {
        workers,
        busy,
        interval_ms: rounded(interval.as_secs_f64() * 1e3),
        load,
        with_detector,
        without_detector,
    })
}

async fn half(grid: &Grid, workers: u16, busy: u16, span: Duration) -> Result<Half, Failure> {
    let spec = job(Group::program("spin", &["sh", "-c", TASK]), busy.into())?;
    let since = Instant::now();
    let (mut copies, mut lost, mut copied_ns) = (0, 0, 0_u64);
    while since.elapsed() < span {
        let (_, view) = grid.run(&spec).await?;
        // Precedence makes none of them critical: each copy follows from a suspicion.
        copies += view.attempts.redundant;
        lost += view.attempts.lost;
        copied_ns += view.cost.redundant.occupied_ns;
    }
    let took = since.elapsed();
    let Reply::Workers(all) = grid.client.ask(Request::Workers).await? else {
        return Err(unexpected());
    };
    let given_up: u64 = all.iter().map(|worker| worker.lost).sum();
    let gone = u64::from(workers)
        .saturating_sub(all.iter().filter(|one| one.liveness != "dead").count() as u64);
    Ok(Half {
        seconds: rounded(took.as_secs_f64()),
        deaths: given_up.max(lost) + gone,
        suspicions: all.iter().map(|worker| worker.suspicions).sum(),
        copies,
        copies_share_of_worker_time: copied_ns as f64
            / 1e9
            / (took.as_secs_f64() * f64::from(workers)),
    })
}
