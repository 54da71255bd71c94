//! `hedge-lab bench latency`: from submission to result, one small task at a time.

use super::grid::{Grid, Plan, hedge, job};
use super::{lines, quantile, raw, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::spec::{Group, Runtime};
use serde::Serialize;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Whole commands that are timed: each is a process that starts, connects and ends.
const COMMANDS: u32 = 20;

#[derive(Debug, Serialize)]
struct LatencyFigures {
    count: u32,
    process_ms_p50: f64,
    process_ms_p95: f64,
    noop_ms_p50: f64,
    raw_spawn_ms_p50: f64,
    submit_command_ms_p50: f64,
    run_command_ms_p50: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a measured job fails.
pub fn run(output: Output, count: u32) -> Result<(), Failure> {
    let figures = block_on(measure(count))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "process task          {:>8.2} ms, p95 {:.2} ms",
                figures.process_ms_p50, figures.process_ms_p95
            ),
            format!("no-op task            {:>8.2} ms", figures.noop_ms_p50),
            format!("plain spawn and wait  {:>8.2} ms", figures.raw_spawn_ms_p50),
            format!(
                "hedge submit --wait   {:>8.1} ms as a whole command",
                figures.submit_command_ms_p50
            ),
            format!(
                "hedge run             {:>8.1} ms as a whole command",
                figures.run_command_ms_p50
            ),
        ])
    })?;
    Ok(())
}

async fn measure(count: u32) -> Result<LatencyFigures, Failure> {
    let grid = Grid::start(Plan::new(1, 4)).await?;
    let process = Group::program("true", &["/usr/bin/true"]);
    let noop = Group {
        runtime: Runtime::Noop,
        ..process.clone()
    };
    let mut process = times(&grid, process, count).await?;
    let mut noop = times(&grid, noop, count).await?;
    let dir = grid.dir.path().to_string_lossy().into_owned();
    let mut submit = commands(&["submit", "--wait", "--dir", &dir, "--", "true"])?;
    let mut run = commands(&["run", "--", "true"])?;
    Ok(LatencyFigures {
        count,
        process_ms_p50: rounded(quantile(&mut process, 0.5)),
        process_ms_p95: rounded(quantile(&mut process, 0.95)),
        noop_ms_p50: rounded(quantile(&mut noop, 0.5)),
        raw_spawn_ms_p50: rounded(quantile(&mut raw::each_alone(count)?, 0.5)),
        submit_command_ms_p50: rounded(quantile(&mut submit, 0.5)),
        run_command_ms_p50: rounded(quantile(&mut run, 0.5)),
    })
}

async fn times(grid: &Grid, group: Group, count: u32) -> Result<Vec<f64>, Failure> {
    let spec = job(group, 1)?;
    let mut all = Vec::with_capacity(count as usize);
    for _ in 0..count {
        all.push(grid.run(&spec).await?.0.as_secs_f64() * 1e3);
    }
    Ok(all)
}

fn commands(args: &[&str]) -> Result<Vec<f64>, Failure> {
    let failed = |error: std::io::Error| Failure::Local(format!("cannot start hedge: {error}"));
    let program = hedge()?;
    let mut all = Vec::new();
    for _ in 0..COMMANDS {
        let since = Instant::now();
        let output = Command::new(&program)
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(failed)?;
        all.push(since.elapsed().as_secs_f64() * 1e3);
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(Failure::Local(format!(
                "`hedge {}` failed: {said}",
                args.join(" ")
            )));
        }
    }
    Ok(all)
}
