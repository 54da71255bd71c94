//! `hedge bench beats`: signs of life of many workers, and what they cost the supervisor.

use super::grid::{Grid, Plan, way_text};
use super::{lines, rounded};
use crate::commands::{Context, block_on, unexpected};
use crate::exit::{Exit, Failure};
use hedge_model::msg::{Reply, Request};
use hedge_model::settings::Way;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long workers may take to hear of the new interval.
const SETTLE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct Figures {
    workers: u16,
    watch: String,
    seconds: f64,
    expected: u64,
    delivered: u64,
    delivered_share: f64,
    supervisor_cpu_share: f64,
    cpu_us_each: f64,
    suspicions: u64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started.
pub fn run(context: &Context, workers: u16, way: Way, seconds: u32) -> Result<Exit, Failure> {
    let figures = block_on(measure(workers, way, seconds))?;
    context.look.print(&figures, || {
        lines(&[
            format!(
                "delivered        {} of {} in {:.1} s, {:.2} %",
                figures.delivered,
                figures.expected,
                figures.seconds,
                figures.delivered_share * 100.0
            ),
            format!(
                "supervisor       {:.1} % of a core, {:.2} µs each",
                figures.supervisor_cpu_share * 100.0,
                figures.cpu_us_each
            ),
            format!("suspicions       {}", figures.suspicions),
        ])
    })?;
    Ok(Exit::Done)
}

async fn measure(workers: u16, way: Way, seconds: u32) -> Result<Figures, Failure> {
    let plan = Plan {
        args: &["--no-sandbox"],
        ..Plan::new(workers, 1)
    };
    let grid = Grid::start(plan).await?;
    grid.watch(way).await?;
    tokio::time::sleep(SETTLE).await;
    let (before, suspected) = count(&grid).await?;
    let (cpu, since) = (grid.supervisor.cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let (after, suspicions) = count(&grid).await?;
    let (cpu, took) = (grid.supervisor.cpu() - cpu, since.elapsed());
    let expected = took.as_secs_f64() / way.interval.as_secs_f64() * f64::from(workers);
    let delivered = after - before;
    Ok(Figures {
        workers,
        watch: way_text(way),
        seconds: rounded(took.as_secs_f64()),
        expected: expected as u64,
        delivered,
        delivered_share: delivered as f64 / expected,
        supervisor_cpu_share: rounded(cpu.as_secs_f64() / took.as_secs_f64()),
        cpu_us_each: rounded(cpu.as_secs_f64() * 1e6 / (delivered.max(1) as f64)),
        suspicions: suspicions - suspected,
    })
}

/// Signs of life and suspicions so far.
async fn count(grid: &Grid) -> Result<(u64, u64), Failure> {
    match grid.client.ask(Request::Workers).await? {
        Reply::Workers(all) => Ok((
            all.iter().map(|worker| worker.beats).sum(),
            all.iter().map(|worker| worker.suspicions).sum(),
        )),
        _ => Err(unexpected()),
    }
}
