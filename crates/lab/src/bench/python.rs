//! `hedge-lab bench tasks --runtime python`: tasks that are forked from an interpreter, beside the same tasks that start
//! one each.

use super::grid::{Grid, Plan, job};
use super::rates::{IN_FLIGHT, ROUNDS, Rate, worker_cpu};
use super::{lines, rounded};
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::spec::{Group, Runtime};
use serde::Serialize;
use std::time::Duration;

/// What a task does: each module takes an interpreter of its own some time to import.
const CODE: &str = "import json, decimal, tempfile, concurrent.futures";
const MODULES: [&str; 4] = ["json", "decimal", "tempfile", "concurrent.futures"];
/// Tasks that start an interpreter each, for one of those that are forked.
const SHARE: u32 = 10;

#[derive(Debug, Serialize)]
struct PythonFigures {
    #[serde(flatten)]
    rate: Rate,
    in_flight: u32,
    process_tasks_per_s: f64,
    ratio: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a measured job fails.
pub async fn run(output: Output, count: u32, plan: Plan<'_>) -> Result<(), Failure> {
    let figures = measure(count, plan).await?;
    output.print(&figures, || {
        lines(&[
            format!(
                "tasks a second        {:>8.0}   ratio {:.1}",
                figures.rate.tasks_per_s, figures.ratio
            ),
            format!("an interpreter each   {:>8.0}", figures.process_tasks_per_s),
            format!(
                "worker CPU            {:>8.1} µs a task, its interpreter's start included",
                figures.rate.worker_cpu_us_per_task
            ),
        ])
    })
}

async fn measure(count: u32, plan: Plan<'_>) -> Result<PythonFigures, Failure> {
    let workers = plan.workers;
    let cpus = IN_FLIGHT.div_ceil(workers.into());
    let plan = Plan { cpus, ..plan };
    let grid = Grid::start(plan).await?;
    let process = Group::program("python", &["python3", "-c", CODE]);
    let forked = Group {
        runtime: Runtime::Python,
        preload: MODULES.iter().map(|name| (*name).into()).collect(),
        ..process.clone()
    };
    let many = job(forked, count.div_ceil(ROUNDS))?;
    let few = job(process, count.div_ceil(ROUNDS * SHARE))?;
    let (mut warm, mut cold, mut cpu) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        cold += grid.run(&few).await?.0;
        let before = worker_cpu(&grid);
        warm += grid.run(&many).await?.0;
        cpu += worker_cpu(&grid) - before;
    }
    let (total, executed) = (many.task_count() * ROUNDS, few.task_count() * ROUNDS);
    let rate = |tasks: u32, time: Duration| f64::from(tasks) / time.as_secs_f64();
    let (fast, slow) = (rate(total, warm), rate(executed, cold));
    Ok(PythonFigures {
        rate: Rate::of(&grid, ("python", &plan), total, warm, cpu)?,
        in_flight: cpus * u32::from(workers),
        process_tasks_per_s: rounded(slow),
        ratio: rounded(fast / slow),
    })
}
