//! `hedge bench`: the grid's own figures, each beside a limit measured in the same run.

mod alarms;
mod beats;
mod grid;
mod idle;
mod lab;
mod latency;
mod link;
mod live;
mod raw;
mod recovery;
mod tasks;

use super::Context;
use crate::args::{Bench, BenchKind};
use crate::exit::{Exit, Failure};

/// Measures on a grid of its own, on loopback.
///
/// # Errors
/// The grid cannot be started, or a measured job fails.
pub fn run(context: &Context, args: &Bench) -> Result<Exit, Failure> {
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
            tasks::run(context, *runtime, *count, *busy, plan)
        }
        Bench::Recovery { .. } => recover(context, args),
        Bench::Alarms {
            workers,
            interval,
            minutes,
            load,
        } => alarms::run(context, *workers, *interval, *minutes, *load),
        Bench::Beats {
            workers,
            interval,
            asks,
            seconds,
            processes,
        } => {
            let way = grid::way(*interval, *asks);
            beats::run(context, *workers, way, *seconds, *processes)
        }
        Bench::Link { rate } => link::run(context, rate),
        Bench::Idle { seconds } => idle::run(context, *seconds),
        Bench::Live { runs } => live::run(context, *runs),
        Bench::Latency { count } => latency::run(context, *count),
    }
}

/// Measures an end of the kind that was asked for.
fn recover(context: &Context, args: &Bench) -> Result<Exit, Failure> {
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
        return Err(super::unexpected());
    };
    match kind {
        BenchKind::Leader => recovery::leader::run(context, *runs, *fast, apart(*loopback)?),
        BenchKind::Restart => recovery::restart::run(context, *runs, *records),
        BenchKind::Stall => recovery::stall::run(context, *runs, *progress_interval, *stall_after),
        BenchKind::Owner => recovery::owner::run(context, *runs),
        BenchKind::Pair => recovery::pair::run(context, *runs, apart(*loopback)?),
        BenchKind::Stop | BenchKind::Kill => {
            let watch = interval.map(|interval| grid::way(interval, *asks));
            recovery::worker::run(context, *kind, *runs, watch, apart(*loopback)?)
        }
    }
}

/// Whether peers are on machines of their own: where that is possible, and unless it is not wanted.
fn apart(loopback: bool) -> Result<bool, Failure> {
    let apart = !loopback && lab::possible();
    if apart && !lab::inside() {
        match lab::enter()? {}
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
