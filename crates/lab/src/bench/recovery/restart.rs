//! A supervisor that is alone is killed and started again on a long journal: from its start to its first assignment.

use super::leader::{first_after, last_epoch, work};
use super::tasks::failed;
use crate::bench::block_on;
use crate::bench::grid::{Grid, Plan, job, noop, wait};
use crate::bench::{lines, quantile, rounded};
use crate::failure::Failure;
use crate::output::Output;
use hedge_node::client::new_key;
use serde::Serialize;
use std::time::{Duration, SystemTime};

/// Tasks in one job that fills the journal.
const TASKS_MAX: u32 = 250_000;
/// Records that are not filled in, but come from what runs meanwhile: a snapshot that is due with the last of them
/// would make the journal short.
const LEFT: u32 = 20_000;
/// Tasks of the job that goes on meanwhile: more than a run can use up.
const TASKS_PER_RUN: u32 = 5_000;

#[derive(Debug, Serialize)]
struct RestartFigures {
    kind: &'static str,
    runs: u32,
    /// Records that lie in the log and are read again at each start, when it was first killed.
    records: u64,
    journal_mib: f64,
    restart_ms_p50: f64,
    restart_ms_max: f64,
    restart_ms: Vec<f64>,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or does not come back.
pub fn run(output: Output, runs: u32, records: u32) -> Result<(), Failure> {
    let figures = block_on(measure(runs, records))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "start to first assignment   {:>6.0} ms, at most {:.0} ms",
                figures.restart_ms_p50, figures.restart_ms_max
            ),
            format!(
                "read again                  {:>6} records, {:.0} MiB",
                figures.records, figures.journal_mib
            ),
        ])
    })?;
    Ok(())
}

async fn measure(runs: u32, records: u32) -> Result<RestartFigures, Failure> {
    let plan = Plan {
        args: &["--no-sandbox", "--task-priority", "normal"],
        ..Plan::new(1, 4)
    };
    let mut grid = Grid::start(plan).await?;
    let mut left = records.saturating_sub(LEFT);
    while left > 0 {
        let count = left.min(TASKS_MAX);
        grid.run(&job(noop(), count)?).await?;
        left -= count;
    }
    let log = grid.dir.path().join("log");
    let spec = work(&log, TASKS_PER_RUN.saturating_mul(runs))?;
    grid.client.submit(new_key()?, &spec).await?;
    let journal = grid.supervisor_dir(0).join("supervisor/journal");
    let (mut times, mut found) = (Vec::new(), (0, 0));
    for run in 0..runs {
        let before = wait(async || last_epoch(&log), "the first task").await?;
        grid.kill_supervisor(0);
        if run == 0 {
            found = (records_in(&journal)?, bytes_in(&journal));
        }
        let start = SystemTime::now();
        grid.restart_supervisor(0, plan)?;
        let next = wait(async || first_after(&log, before), "an assignment").await?;
        let span = next.duration_since(start).unwrap_or(Duration::ZERO);
        times.push(span.as_secs_f64() * 1e3);
    }
    Ok(RestartFigures {
        kind: "restart",
        runs,
        records: found.0,
        journal_mib: rounded(found.1 as f64 / f64::from(1 << 20)),
        restart_ms: times.iter().copied().map(rounded).collect(),
        restart_ms_p50: rounded(quantile(&mut times, 0.5)),
        restart_ms_max: rounded(quantile(&mut times, 1.0)),
    })
}

fn records_in(journal: &std::path::Path) -> Result<u64, Failure> {
    let mut count = 0;
    for line in hedge_store::dump(journal).map_err(|error| failed(&error.to_string()))? {
        let line = line.map_err(|error| failed(&error.to_string()))?;
        if let hedge_store::What::Records { records, .. } = line.what {
            count += records.len() as u64;
        }
    }
    Ok(count)
}

fn bytes_in(journal: &std::path::Path) -> u64 {
    let files = std::fs::read_dir(journal).into_iter().flatten().flatten();
    files
        .filter_map(|file| Some(file.metadata().ok()?.len()))
        .sum()
}
