//! The leading supervisor of three is killed: from then to the first task that the next leader assigned.

use crate::bench::block_on;
use crate::bench::grid::{Grid, Plan, job, wait};
use crate::bench::{lines, quantile, rounded};
use crate::failure::Failure;
use crate::failure::unexpected;
use crate::output::Output;
use hedge_model::msg::{Reply, Request};
use hedge_model::spec::Group;
use hedge_model::view::MemberView;
use hedge_model::{JobId, JobSpec};
use hedge_node::client::new_key;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SUPERVISORS: u16 = 3;
const WORKERS: u16 = 2;
/// Tasks of the job that goes on meanwhile, of [`TASK`] each: more than the runs can use up.
const TASKS_PER_RUN: u32 = 5_000;
/// A task writes down its attempt, whose name has the leader's epoch, and the time at which it began.
const TASK: &str = "echo \"$HEDGE_ATTEMPT $(date +%s%N)\" >> \"$BENCH_LOG\"; sleep 0.02";

#[derive(Debug, Serialize)]
struct LeaderFigures {
    kind: &'static str,
    runs: u32,
    fast: bool,
    supervisors: u16,
    network: &'static str,
    recovery_ms_p50: f64,
    recovery_ms_p95: f64,
    recovery_ms_max: f64,
    recovery_ms: Vec<f64>,
    lost_attempts: u64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or does not recover.
pub fn run(output: Output, runs: u32, fast: bool, apart: bool) -> Result<(), Failure> {
    let figures = block_on(measure(runs, fast, apart))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "leader killed to next assignment   {:>6.0} ms, p95 {:.0} ms, at most {:.0} ms",
                figures.recovery_ms_p50, figures.recovery_ms_p95, figures.recovery_ms_max
            ),
            format!(
                "attempts lost                      {:>6}",
                figures.lost_attempts
            ),
        ])
    })?;
    Ok(())
}

async fn measure(runs: u32, fast: bool, apart: bool) -> Result<LeaderFigures, Failure> {
    let plan = Plan {
        supervisors: SUPERVISORS,
        args: &["--no-sandbox", "--task-priority", "normal"],
        fast,
        apart,
        ..Plan::new(WORKERS, 1)
    };
    let mut grid = Grid::start(plan).await?;
    let log = grid.dir.path().join("log");
    let spec = work(&log, TASKS_PER_RUN.saturating_mul(runs))?;
    let job = grid.client.submit(new_key()?, &spec).await?;
    let mut times = Vec::with_capacity(runs as usize);
    for _ in 0..runs {
        let leader = wait(async || leader(&grid).await, "three connected supervisors").await?;
        let before = wait(async || last_epoch(&log), "the first task").await?;
        let killed = grid.kill_supervisor(leader);
        let next = wait(
            async || first_after(&log, before),
            "the next leader's first task",
        )
        .await?;
        let span = next.duration_since(killed).unwrap_or(Duration::ZERO);
        times.push(span.as_secs_f64() * 1e3);
        grid.restart_supervisor(leader, plan)?;
    }
    let each = times.iter().copied().map(rounded).collect();
    Ok(LeaderFigures {
        kind: "leader",
        runs,
        fast,
        supervisors: SUPERVISORS,
        network: if apart { "namespaces" } else { "loopback" },
        recovery_ms_p50: rounded(quantile(&mut times, 0.5)),
        recovery_ms_p95: rounded(quantile(&mut times, 0.95)),
        recovery_ms_max: rounded(quantile(&mut times, 1.0)),
        recovery_ms: each,
        lost_attempts: lost(&grid, job).await?,
    })
}

pub(super) fn work(log: &Path, count: u32) -> Result<JobSpec, Failure> {
    let task = Group::program("pulse", &["sh", "-c", TASK]);
    let env = vec![("BENCH_LOG".into(), log.to_string_lossy().into())];
    job(Group { env, ..task }, count)
}

async fn lost(grid: &Grid, job: JobId) -> Result<u64, Failure> {
    match grid.client.ask(Request::Job(job)).await? {
        Reply::Job(view) => Ok(view.attempts.lost),
        _ => Err(unexpected()),
    }
}

/// The number of the supervisor that leads, once all have their votes and are connected.
async fn leader(grid: &Grid) -> Option<usize> {
    let Ok(Reply::Members(members)) = grid.client.ask(Request::Members).await else {
        return None;
    };
    let seated = |member: &&MemberView| {
        member.connected
            && member
                .place
                .as_deref()
                .is_some_and(|place| place != "learner")
    };
    if members.iter().filter(seated).count() < SUPERVISORS.into() {
        return None;
    }
    let leads = |member: &&MemberView| member.place.as_deref() == Some("leader");
    let peer = &members.iter().find(leads)?.peer;
    (0..SUPERVISORS.into()).find(|number| {
        let dir = grid.supervisor_dir(*number).join("supervisor");
        let key = hedge_net::load_or_create_identity(&dir);
        key.is_ok_and(|key| hedge_net::peer_id(&key).to_string() == *peer)
    })
}

/// Epochs and beginnings of the tasks so far.
fn begun(log: &Path) -> Vec<(u64, SystemTime)> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let line = |line: &str| {
        let (attempt, at) = line.split_once(' ')?;
        // JOB.TASK/GENERATION.EPOCH.NUMBER
        let (_, rest) = attempt.split_once('/')?;
        let epoch = rest.split('.').nth(1)?.parse().ok()?;
        Some((epoch, UNIX_EPOCH + Duration::from_nanos(at.parse().ok()?)))
    };
    text.lines().filter_map(line).collect()
}

pub(super) fn last_epoch(log: &Path) -> Option<u64> {
    begun(log).into_iter().map(|(epoch, _)| epoch).max()
}

pub(super) fn first_after(log: &Path, epoch: u64) -> Option<SystemTime> {
    let later = begun(log).into_iter().filter(|(of, _)| *of > epoch);
    later.map(|(_, at)| at).min()
}
