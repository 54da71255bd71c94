//! `hedge-lab bench heartbeats`: heartbeats of many workers, and what they cost the supervisor.

use super::grid::{Grid, Plan, way_text};
use super::{lines, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::failure::unexpected;
use crate::output::Output;
use hedge_model::msg::{Reply, Request};
use hedge_model::settings::WatchMode;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long workers may take to hear of the new interval.
const SETTLE: Duration = Duration::from_secs(3);
/// Plain datagrams show their cost in less time.
const RAW_SECONDS_MAX: u32 = 10;

#[derive(Debug, Serialize)]
struct HeartbeatsFigures {
    workers: u16,
    /// Where their heartbeats come from: `bench` is this process, `processes` whole workers.
    from: &'static str,
    watch: String,
    seconds: f64,
    /// As many as are due in that time.
    expected: u64,
    /// Those that the senders sent, or were asked for.
    sent: u64,
    delivered: u64,
    /// Of those that are due.
    delivered_share: f64,
    /// Of those that were sent or asked for, as with plain datagrams.
    arrived_share: f64,
    /// Of those delivered, those that were on their way for so long that they say nothing.
    held_up_share: f64,
    supervisor_cpu_share: f64,
    cpu_us_each: f64,
    suspicions: u64,
    /// Of the gaps between two heartbeats, those longer than the interval by more than a tenth.
    late_gaps_share: f64,
    /// As many datagrams of 1,200 bytes over plain UDP on loopback, into one thread that only counts them.
    raw_udp: super::raw::Datagrams,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started.
pub fn run(
    output: Output,
    workers: u16,
    way: WatchMode,
    seconds: u32,
    processes: bool,
) -> Result<(), Failure> {
    let figures = block_on(measure(workers, way, seconds, processes))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "delivered        {} of {} in {:.1} s, {:.2} %; {:.2} % of {} sent; {:.2} % held up",
                figures.delivered,
                figures.expected,
                figures.seconds,
                figures.delivered_share * 100.0,
                figures.arrived_share * 100.0,
                figures.sent,
                figures.held_up_share * 100.0
            ),
            format!(
                "supervisor       {:.1} % of a core, {:.2} µs each",
                figures.supervisor_cpu_share * 100.0,
                figures.cpu_us_each
            ),
            format!(
                "gaps             {:.2} % longer than the interval",
                figures.late_gaps_share * 100.0
            ),
            format!("suspicions       {}", figures.suspicions),
            format!(
                "plain UDP        {:.2} % delivered, {:.1} % of a core, {:.2} µs each",
                figures.raw_udp.delivered_share * 100.0,
                figures.raw_udp.receiver_cpu_share * 100.0,
                figures.raw_udp.cpu_us_each
            ),
        ])
    })?;
    Ok(())
}

async fn measure(
    workers: u16,
    way: WatchMode,
    seconds: u32,
    processes: bool,
) -> Result<HeartbeatsFigures, Failure> {
    let plan = Plan {
        args: &["--no-sandbox"],
        ..Plan::new(if processes { workers } else { 0 }, 1)
    };
    let grid = Grid::start(plan).await?;
    let senders = match processes {
        true => None,
        false => Some(grid.senders(workers).await?),
    };
    grid.watch(way).await?;
    tokio::time::sleep(SETTLE).await;
    let before = count(&grid).await?;
    let (cpu, since) = (grid.supervisor.cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let after = count(&grid).await?;
    let (cpu, took) = (grid.supervisor.cpu() - cpu, since.elapsed());
    let expected = took.as_secs_f64() / way.interval.as_secs_f64() * f64::from(workers);
    let held_up = after.held_up - before.held_up;
    let delivered = after.heartbeats - before.heartbeats + held_up;
    let sent = delivered + after.missed.saturating_sub(before.missed);
    drop((senders, grid));
    let raw = tokio::task::spawn_blocking(move || {
        super::raw::datagrams(workers, way.interval, seconds.min(RAW_SECONDS_MAX))
    });
    let raw_udp = raw
        .await
        .map_err(|error| Failure::Local(error.to_string()))??;
    Ok(HeartbeatsFigures {
        workers,
        from: if processes { "processes" } else { "bench" },
        watch: way_text(way),
        seconds: rounded(took.as_secs_f64()),
        expected: expected as u64,
        sent,
        delivered,
        delivered_share: delivered as f64 / expected,
        arrived_share: delivered as f64 / sent.max(1) as f64,
        held_up_share: held_up as f64 / delivered.max(1) as f64,
        supervisor_cpu_share: rounded(cpu.as_secs_f64() / took.as_secs_f64()),
        cpu_us_each: rounded(cpu.as_secs_f64() * 1e6 / (delivered.max(1) as f64)),
        suspicions: after.suspicions - before.suspicions,
        late_gaps_share: (after.late_gaps - before.late_gaps) as f64 / delivered.max(1) as f64,
        raw_udp,
    })
}

/// What all workers together showed so far.
struct Counted {
    heartbeats: u64,
    held_up: u64,
    missed: u64,
    suspicions: u64,
    late_gaps: u64,
}

async fn count(grid: &Grid) -> Result<Counted, Failure> {
    match grid.client.ask(Request::Workers).await? {
        Reply::Workers(all) => Ok(Counted {
            heartbeats: all.iter().map(|worker| worker.heartbeats).sum(),
            held_up: all.iter().map(|worker| worker.held_up_heartbeats).sum(),
            missed: all.iter().map(|worker| worker.missed_heartbeats).sum(),
            suspicions: all.iter().map(|worker| worker.suspicions).sum(),
            late_gaps: all.iter().map(|worker| worker.late_gaps).sum(),
        }),
        _ => Err(unexpected()),
    }
}
