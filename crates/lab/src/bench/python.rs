//! `hedge-lab bench tasks --runtime python`: tasks that are forked from an interpreter, beside the same tasks that start
//! one each.

use super::grid::{Grid, Plan, job};
use super::tasks::{IN_FLIGHT, ROUNDS, per_task};
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
    runtime: &'static str,
    count: u32,
    workers: u16,
    supervisors: u16,
    in_memory: bool,
    in_flight: u32,
    tasks_per_s: f64,
    process_tasks_per_s: f64,
    ratio: f64,
    worker_cpu_us_per_task: f64,
    seconds: f64,
    /// Leaders after the first.
    elections: usize,
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
                figures.tasks_per_s, figures.ratio
            ),
            format!("an interpreter each   {:>8.0}", figures.process_tasks_per_s),
            format!(
                "worker CPU            {:>8.1} µs a task, its interpreter's start included",
                figures.worker_cpu_us_per_task
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
        let all = || grid.workers.iter().map(|worker| worker.cpu());
        let before: Duration = all().sum();
        warm += grid.run(&many).await?.0;
        cpu += all().sum::<Duration>() - before;
    }
    let total = f64::from(many.task_count() * ROUNDS);
    let executed = f64::from(few.task_count() * ROUNDS);
    let rate = |tasks: f64, time: Duration| tasks / time.as_secs_f64();
    let (fast, slow) = (rate(total, warm), rate(executed, cold));
    Ok(PythonFigures {
        runtime: "python",
        count: many.task_count() * ROUNDS,
        workers,
        supervisors: plan.supervisors,
        in_memory: plan.in_memory,
        in_flight: cpus * u32::from(workers),
        tasks_per_s: rounded(fast),
        process_tasks_per_s: rounded(slow),
        ratio: rounded(fast / slow),
        worker_cpu_us_per_task: per_task(cpu, total),
        seconds: rounded(warm.as_secs_f64()),
        elections: grid.elections()?,
    })
}
