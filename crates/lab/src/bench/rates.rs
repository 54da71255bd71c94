//! What benchmarks of many tasks have in common: how they are run, and the figures that all of them print.

use super::grid::{Grid, Plan};
use super::rounded;
use crate::failure::Failure;
use serde::Serialize;
use std::time::Duration;

/// Attempts at once, in the grid and in the plain loop.
pub const IN_FLIGHT: u32 = 4;
/// The ways that are compared take turns, so that other load on the machine affects all of them equally.
pub const ROUNDS: u32 = 5;

/// How fast a grid ran tasks.
#[derive(Debug, Serialize)]
pub struct Rate {
    runtime: &'static str,
    count: u32,
    workers: u16,
    supervisors: u16,
    in_memory: bool,
    pub tasks_per_s: f64,
    pub worker_cpu_us_per_task: f64,
    seconds: f64,
    /// Leaders after the first.
    pub elections: usize,
}

impl Rate {
    /// Returns the figures of a grid that was started by `plan` and ran `count` tasks in `time`, for which its workers
    /// used `worker_cpu`.
    pub fn of(
        grid: &Grid,
        (runtime, plan): (&'static str, &Plan<'_>),
        count: u32,
        time: Duration,
        worker_cpu: Duration,
    ) -> Result<Self, Failure> {
        Ok(Self {
            runtime,
            count,
            workers: plan.workers,
            supervisors: plan.supervisors,
            in_memory: plan.in_memory,
            tasks_per_s: rounded(f64::from(count) / time.as_secs_f64()),
            worker_cpu_us_per_task: per_task(worker_cpu, count),
            seconds: rounded(time.as_secs_f64()),
            elections: grid.elections()?,
        })
    }
}

/// Returns the CPU time that all workers of a grid have used.
pub fn worker_cpu(grid: &Grid) -> Duration {
    grid.workers.iter().map(|worker| worker.cpu()).sum()
}

/// Returns microseconds of CPU time for each task.
pub fn per_task(cpu: Duration, count: u32) -> f64 {
    rounded(cpu.as_secs_f64() * 1e6 / f64::from(count))
}
