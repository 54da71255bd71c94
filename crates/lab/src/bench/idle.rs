//! `hedge-lab bench idle`: what a worker without tasks costs its machine while it watches, beside a supervisor, for its
//! owner on a desktop, with all that is on by default.

use super::grid::{Grid, Plan};
use super::recovery::{Desktop, all_idle, descendants, failed};
use super::{lines, rounded};
use crate::bench::block_on;
use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use std::fs;
use std::time::{Duration, Instant};

/// After a start there is more to do: what a new worker is measured with, connections, sources that are looked for.
const SETTLE: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize)]
struct IdleFigures {
    seconds: f64,
    /// Of one core, by the worker's process and all below it.
    cpu_percent: f64,
    /// Memory in RAM of the worker's process alone, MiB.
    rss_mib: f64,
    /// The same of all its processes, what several share counted by shares, MiB.
    pss_mib: f64,
    processes: usize,
    threads: usize,
}

/// Measures and prints.
///
/// # Errors
/// There is no X server to start, or the grid cannot be started.
pub fn run(output: Output, seconds: u32) -> Result<(), Failure> {
    let figures = block_on(measure(seconds))?;
    output.print(&figures, || {
        lines(&[
            format!("processor  {:.3} % of a core", figures.cpu_percent),
            format!(
                "memory     {:.1} MiB, {:.1} MiB with its {} processes",
                figures.rss_mib, figures.pss_mib, figures.processes
            ),
        ])
    })?;
    Ok(())
}

async fn measure(seconds: u32) -> Result<IdleFigures, Failure> {
    let dir = tempfile::tempdir();
    let dir = dir.map_err(|error| failed(&format!("no folder for the owner: {error}")))?;
    let _desktop = Desktop::start(
        dir.path(),
        0,
        "[when]\nresume_after = \"500ms\"\n[sources]\n",
    )?;
    let plan = Plan {
        args: &["--no-sandbox"],
        owners: Some(dir.path()),
        ..Plan::new(1, 1)
    };
    let grid = Grid::start(plan).await?;
    all_idle(&grid, 1).await?;
    tokio::time::sleep(SETTLE).await;
    let worker = &grid.workers[0];
    let all = descendants(worker.pid());
    let (before, since) = (ticks(&all), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let took = since.elapsed().as_secs_f64();
    let all = descendants(worker.pid());
    // Linux reports these in hundredths of a second, whatever the kernel's own tick.
    let cpu = ticks(&all).saturating_sub(before) as f64 / 100.0;
    let mib = |bytes: u64| rounded(bytes as f64 / f64::from(1 << 20));
    let shares = all.iter().map(|pid| pss(*pid)).sum();
    Ok(IdleFigures {
        seconds: rounded(took),
        cpu_percent: rounded(cpu / took * 100.0),
        rss_mib: mib(worker.resident()),
        pss_mib: mib(shares),
        processes: all.len(),
        threads: fs::read_dir(format!("/proc/{}/task", worker.pid())).map_or(0, Iterator::count),
    })
}

/// Processor time of processes and of those of their children that have ended.
fn ticks(pids: &[u32]) -> u64 {
    let of = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let fields = fields.split(' ').skip(11).take(4);
        fields
            .filter_map(|field| field.parse::<u64>().ok())
            .sum::<u64>()
    };
    pids.iter().map(of).sum()
}

/// A process' share of memory in RAM, bytes.
fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| {
        line.trim()
            .trim_end_matches("kB")
            .trim()
            .parse::<u64>()
            .ok()
    });
    kib.unwrap_or(0) * 1024
}
