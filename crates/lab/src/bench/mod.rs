//! `hedge-lab bench`: the grid's own figures, each beside a limit measured in the same run.

mod alarms;
pub mod args;
mod bulk;
mod estimates;
mod gateway;
mod grid;
mod heartbeats;
mod http;
mod idle;
mod latency;
mod link;
mod live;
mod network;
mod python;
mod rates;
mod raw;
mod recovery;
mod tasks;

use crate::failure::{Failure, unexpected};
use crate::output::Output;
use args::{Bench, BenchKind};
use std::future::Future;
use std::time::Duration;

/// What is measured with where nothing else is said.
const RECORDS: u32 = 1_000_000;
const PROGRESS_INTERVAL: Duration = Duration::from_millis(1);
const STALL_AFTER: Duration = Duration::from_millis(100);

/// Measures on a grid of its own, on loopback.
///
/// # Errors
/// The grid cannot be started, or a measured job fails.
pub fn run(output: Output, args: &Bench) -> Result<(), Failure> {
    match args {
        Bench::Tasks {
            runtime,
            count,
            workers,
            in_memory,
            supervisors,
            busy,
        } => {
            let plan = grid::Plan {
                in_memory: *in_memory,
                supervisors: *supervisors,
                ..grid::Plan::new(*workers, 1)
            };
            tasks::run(output, *runtime, *count, *busy, plan)
        }
        Bench::Recovery { .. } => recover(output, args),
        Bench::Alarms {
            workers,
            interval,
            minutes,
            load,
        } => alarms::run(output, *workers, *interval, *minutes, *load),
        Bench::Heartbeats {
            workers,
            interval,
            asks,
            seconds,
            processes,
        } => {
            let way = grid::way(*interval, *asks);
            heartbeats::run(output, *workers, way, *seconds, *processes)
        }
        Bench::Link { rate } => link::run(output, rate),
        Bench::Idle { seconds } => idle::run(output, *seconds),
        Bench::Live { runs } => live::run(output, *runs),
        Bench::Estimates { runs, seed } => estimates::run(output, *runs, *seed),
        Bench::Gateway {
            seconds,
            workers,
            pages,
            hold,
        } => gateway::run(output, *seconds, *workers, (*pages).into(), *hold),
        Bench::Bulk { megabytes, runs } => bulk::run(output, *megabytes, *runs),
        Bench::Latency { count } => latency::run(output, *count),
    }
}

/// Measures an end of the kind that was asked for.
fn recover(output: Output, args: &Bench) -> Result<(), Failure> {
    let Bench::Recovery {
        kind,
        runs,
        interval,
        asks,
        progress_interval,
        stall_after,
        fast,
        loopback,
        records,
    } = args
    else {
        return Err(unexpected());
    };
    let (worker, apart_wanted) = match kind {
        BenchKind::Stop | BenchKind::Kill => (true, true),
        BenchKind::Leader | BenchKind::Pair => (false, true),
        BenchKind::Restart | BenchKind::Stall | BenchKind::Owner => (false, false),
    };
    let stall = *kind == BenchKind::Stall;
    let unused = [
        ("--interval", interval.is_some() && !worker),
        ("--progress-interval", progress_interval.is_some() && !stall),
        ("--stall-after", stall_after.is_some() && !stall),
        ("--fast", *fast && *kind != BenchKind::Leader),
        ("--loopback", *loopback && !apart_wanted),
        (
            "--records",
            records.is_some() && *kind != BenchKind::Restart,
        ),
    ];
    if let Some((option, _)) = unused.iter().find(|(_, unused)| *unused) {
        let why =
            format!("{option} has no effect for this --kind; nothing was measured: leave it out");
        return Err(Failure::Arguments(why));
    }
    match kind {
        BenchKind::Leader => recovery::leader::run(output, *runs, *fast, apart(*loopback)?),
        BenchKind::Restart => recovery::restart::run(output, *runs, records.unwrap_or(RECORDS)),
        BenchKind::Stall => {
            let look = progress_interval.unwrap_or(PROGRESS_INTERVAL);
            recovery::stall::run(output, *runs, look, stall_after.unwrap_or(STALL_AFTER))
        }
        BenchKind::Owner => recovery::owner::run(output, *runs),
        BenchKind::Pair => recovery::pair::run(output, *runs, apart(*loopback)?),
        BenchKind::Stop | BenchKind::Kill => {
            let watch = interval.map(|interval| grid::way(interval, *asks));
            recovery::worker::run(output, *kind, *runs, watch, apart(*loopback)?)
        }
    }
}

/// Runs one future on this thread.
///
/// # Errors
/// What the future fails with, or a system that gives no runtime.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Local(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// Whether peers are on machines of their own: where that is possible, and unless it is not wanted.
fn apart(loopback: bool) -> Result<bool, Failure> {
    let apart = !loopback && network::possible();
    if apart && !network::inside() {
        match network::enter()? {}
    }
    Ok(apart)
}

/// The value that `share` of the sorted values do not exceed.
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).ceil() as usize;
    values.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

fn lines(all: &[String]) -> String {
    all.join("\n") + "\n"
}
