//! A task gets nowhere any more: from its last progress to a copy of it running on another worker.

use super::tasks::{ARGS, Started, WORKERS, clear, failed, listen, one_task, started};
use crate::bench::block_on;
use crate::bench::grid::{Grid, Plan};
use crate::bench::{lines, quantile, rounded};
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::JobSpec;
use hedge_node::client::new_key;
use serde::Serialize;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// Says that it runs, works for a while, says so, and then does nothing: to read from a pipe that nobody writes to
/// costs nothing, and no process starts or ends after its last word.
const TASK: &str = "echo \"start $HEDGE_ATTEMPT\" > \"$BENCH_PIPE\"; mkfifo never; exec 9<> never; i=0; \
     while [ $i -lt 20000 ]; do i=$((i+1)); done; echo \"last $HEDGE_ATTEMPT\" > \"$BENCH_PIPE\"; read -r _ <&9";
/// Runs that may be repeated because a copy was there too early, on a suspicion.
const REPEATS_MAX: u32 = 1_000;

#[derive(Debug, Serialize)]
struct StallFigures {
    kind: &'static str,
    runs: u32,
    repeated: u32,
    workers: u16,
    progress_interval_ms: f64,
    stall_after_ms: f64,
    recovery_ms_p50: f64,
    recovery_ms_p95: f64,
    recovery_ms_max: f64,
    over_ms_p50: f64,
    over_ms_max: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or nobody notices.
pub fn run(
    output: Output,
    runs: u32,
    every: Duration,
    stall_after: Duration,
) -> Result<(), Failure> {
    let figures = block_on(measure(runs, every, stall_after))?;
    output.print(&figures, || {
        lines(&[format!(
            "last progress to a copy running   {:>8.2} ms, p95 {:.2} ms, at most {:.2} ms; {:.0} ms were allowed",
            figures.recovery_ms_p50,
            figures.recovery_ms_p95,
            figures.recovery_ms_max,
            figures.stall_after_ms
        )])
    })?;
    Ok(())
}

async fn measure(
    runs: u32,
    every: Duration,
    stall_after: Duration,
) -> Result<StallFigures, Failure> {
    let plan = Plan {
        args: ARGS,
        ..Plan::new(WORKERS, 1)
    };
    let grid = Grid::start(plan).await?;
    let text = |span: Duration| format!("{}us", span.as_micros());
    grid.set("progress_every", &text(every)).await?;
    grid.set("stall_after", &text(stall_after)).await?;
    let pipe = grid.dir.path().join("pipe");
    let said = listen(&pipe)?;
    let spec = one_task(&pipe, TASK)?;
    let mut all = Vec::new();
    let mut repeated = 0;
    while all.len() < runs as usize {
        match once(&grid, &spec, &said, stall_after).await? {
            Some(took) => all.push(took.as_secs_f64() * 1e3),
            None if repeated < REPEATS_MAX => repeated += 1,
            None => return Err(failed("workers are suspected all the time")),
        }
    }
    let allowed = stall_after.as_secs_f64() * 1e3;
    let half = quantile(&mut all, 0.5);
    let most = quantile(&mut all, 1.0);
    Ok(StallFigures {
        kind: "stall",
        runs,
        repeated,
        workers: WORKERS,
        progress_interval_ms: every.as_secs_f64() * 1e3,
        stall_after_ms: allowed,
        recovery_ms_p50: rounded(half),
        recovery_ms_p95: rounded(quantile(&mut all, 0.95)),
        recovery_ms_max: rounded(most),
        over_ms_p50: rounded(half - allowed),
        over_ms_max: rounded(most - allowed),
    })
}

/// One task that stalls; nothing where a copy was there before.
async fn once(
    grid: &Grid,
    spec: &JobSpec,
    said: &Receiver<Started>,
    stall_after: Duration,
) -> Result<Option<Duration>, Failure> {
    while said.try_recv().is_ok() {}
    let job = grid.client.submit(new_key()?, spec).await?;
    started(said)?;
    let (last, what) = started(said)?;
    let (copy, _) = if what.starts_with("last") {
        started(said)?
    } else {
        (last, what)
    };
    clear(grid, job).await?;
    let took = copy.saturating_duration_since(last);
    Ok((took >= stall_after).then_some(took))
}
