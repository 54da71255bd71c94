//! `hedge-lab bench tasks`: tasks a second.

use super::grid::{Grid, Plan, Process, job};
use super::rates::{IN_FLIGHT, ROUNDS, Rate, per_task, worker_cpu};
use super::{lines, raw, rounded};
use crate::bench::args::BenchRuntime;
use crate::bench::block_on;
use crate::failure::Failure;
use crate::output::Output;
use hedge_model::spec::Group;
use serde::Serialize;
use std::process::Command;
use std::time::Duration;

/// Tasks that wait while the memory of a supervisor is measured.
const WAITING: u32 = 100_000;

#[derive(Debug, Serialize)]
struct ProcessFigures {
    #[serde(flatten)]
    rate: Rate,
    in_flight: u32,
    no_sandbox_tasks_per_s: f64,
    raw_per_s: f64,
    ratio: f64,
    ratio_no_sandbox: f64,
    supervisor_cpu_us_per_task: f64,
}

#[derive(Debug, Serialize)]
struct NoopFigures {
    #[serde(flatten)]
    rate: Rate,
    supervisor_cpu_us_per_task: f64,
    waiting_tasks: u32,
    supervisor_idle_mib: f64,
    supervisor_waiting_mib: f64,
}

/// Loops that keep CPUs busy, until they are dropped.
fn busy_loops(count: u16) -> Result<Vec<Process>, Failure> {
    let one = |_| Process::start(Command::new("sh").args(["-c", "while :; do :; done"]));
    (0..count).map(one).collect()
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a measured job fails.
pub fn run(
    output: Output,
    runtime: BenchRuntime,
    count: u32,
    busy: u16,
    plan: Plan<'_>,
) -> Result<(), Failure> {
    let _busy = busy_loops(busy)?;
    match runtime {
        BenchRuntime::Process => {
            let figures = block_on(process(count, plan))?;
            output.print(&figures, || {
                lines(&[
                    format!(
                        "tasks a second        {:>8.0}   ratio {:.2}",
                        figures.rate.tasks_per_s, figures.ratio
                    ),
                    format!(
                        "without a sandbox     {:>8.0}   ratio {:.2}",
                        figures.no_sandbox_tasks_per_s, figures.ratio_no_sandbox
                    ),
                    format!("plain loop            {:>8.0}", figures.raw_per_s),
                    format!(
                        "supervisor CPU        {:>8.1} µs a task",
                        figures.supervisor_cpu_us_per_task
                    ),
                    format!(
                        "worker CPU            {:>8.1} µs a task",
                        figures.rate.worker_cpu_us_per_task
                    ),
                ])
            })?;
            Ok(())
        }
        BenchRuntime::Python => block_on(super::python::run(output, count, plan)),
        BenchRuntime::Noop => {
            let figures = block_on(noop(count, plan))?;
            output.print(&figures, || lines(&[
                    format!("tasks a second        {:>8.0}", figures.rate.tasks_per_s),
                    format!("supervisor CPU        {:>8.1} µs a task", figures.supervisor_cpu_us_per_task),
                    format!("worker CPU            {:>8.1} µs a task", figures.rate.worker_cpu_us_per_task),
                    format!(
                        "supervisor memory     {:>8.1} MiB with {} waiting tasks, {:.1} MiB without",
                        figures.supervisor_waiting_mib, figures.waiting_tasks, figures.supervisor_idle_mib
                    ),
]))?;
            Ok(())
        }
    }
}

async fn process(count: u32, plan: Plan<'_>) -> Result<ProcessFigures, Failure> {
    let workers = plan.workers;
    let cpus = IN_FLIGHT.div_ceil(workers.into());
    let in_flight = cpus * u32::from(workers);
    let plan = Plan { cpus, ..plan };
    let grid = Grid::start(plan).await?;
    let args = &["--no-sandbox"];
    let open = Grid::start(Plan { args, ..plan }).await?;
    let spec = job(
        Group::program("true", &["/usr/bin/true"]),
        count.div_ceil(ROUNDS),
    )?;
    let tasks = spec.task_count();
    let (mut ours, mut unboxed, mut raw) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        raw += raw::spawn_and_wait(tasks, in_flight as usize)?;
        ours += grid.run(&spec).await?.0;
        unboxed += open.run(&spec).await?.0;
    }
    let total = tasks * ROUNDS;
    let rate = |time: Duration| rounded(f64::from(total) / time.as_secs_f64());
    let mut ours_rate = Rate::of(&grid, ("process", &plan), total, ours, worker_cpu(&grid))?;
    ours_rate.elections += open.elections()?;
    Ok(ProcessFigures {
        rate: ours_rate,
        in_flight,
        no_sandbox_tasks_per_s: rate(unboxed),
        raw_per_s: rate(raw),
        ratio: rounded(raw.as_secs_f64() / ours.as_secs_f64()),
        ratio_no_sandbox: rounded(raw.as_secs_f64() / unboxed.as_secs_f64()),
        supervisor_cpu_us_per_task: per_task(grid.supervisor.cpu(), total),
    })
}

async fn noop(count: u32, plan: Plan<'_>) -> Result<NoopFigures, Failure> {
    let group = super::grid::noop();
    let alone = Grid::start(Plan { workers: 0, ..plan }).await?;
    let idle = alone.supervisor.resident();
    alone
        .client
        .submit(
            hedge_node::client::new_key()?,
            &job(group.clone(), WAITING)?,
        )
        .await?;
    let waiting = alone.supervisor.resident();
    drop(alone);
    let grid = Grid::start(Plan {
        cpus: IN_FLIGHT,
        ..plan
    })
    .await?;
    let spec = job(group, count)?;
    let (supervisor, worker) = (grid.supervisor.cpu(), worker_cpu(&grid));
    let (time, _) = grid.run(&spec).await?;
    let mib = |bytes: u64| rounded(bytes as f64 / f64::from(1 << 20));
    let used = worker_cpu(&grid) - worker;
    Ok(NoopFigures {
        rate: Rate::of(&grid, ("noop", &plan), count, time, used)?,
        supervisor_cpu_us_per_task: per_task(grid.supervisor.cpu() - supervisor, count),
        waiting_tasks: WAITING,
        supervisor_idle_mib: mib(idle),
        supervisor_waiting_mib: mib(waiting),
    })
}
