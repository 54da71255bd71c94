//! A worker of a critical task is killed while another runs the same task: what that costs the job, against a run in
//! which nothing happens.

use super::tasks::{
    ARGS, Started, WORKERS, all_idle, critical_task, failed, listen, started, workers,
};
use crate::bench::block_on;
use crate::bench::grid::{Grid, Plan};
use crate::bench::{lines, quantile, rounded};
use crate::failure::Failure;
use crate::failure::unexpected;
use crate::output::Output;
use hedge_model::msg::{Reply, Request};
use hedge_model::{JobId, JobSpec};
use hedge_node::client::new_key;
use serde::Serialize;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

/// A paced task, which needs next to nothing of a processor, so that no contention is measured.
const TASK: &str = "echo \"$HEDGE_ATTEMPT\" > \"$BENCH_PIPE\"; exec sleep 0.5";
/// How long both attempts have run when a worker ends: a part of what the task takes.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Debug, Serialize)]
struct PairFigures {
    kind: &'static str,
    pairs: u32,
    workers: u16,
    network: &'static str,
    undisturbed_ms_p50: f64,
    disturbed_ms_p50: f64,
    delay_ms_p50: f64,
    delay_ms_max: f64,
    delay_ms: Vec<f64>,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a job does not end.
pub fn run(output: Output, pairs: u32, apart: bool) -> Result<(), Failure> {
    let figures = block_on(measure(pairs, apart))?;
    output.print(&figures, || {
        lines(&[format!(
            "delay by the loss of a worker   {:>8.2} ms, at most {:.2} ms; the job takes {:.1} ms",
            figures.delay_ms_p50, figures.delay_ms_max, figures.undisturbed_ms_p50
        )])
    })?;
    Ok(())
}

async fn measure(pairs: u32, apart: bool) -> Result<PairFigures, Failure> {
    let plan = Plan {
        args: ARGS,
        apart,
        ..Plan::new(WORKERS, 1)
    };
    let mut grid = Grid::start(plan).await?;
    let pipe = grid.dir.path().join("pipe");
    let starts = listen(&pipe)?;
    let spec = critical_task(&pipe, TASK, 2)?;
    let (mut quiet, mut hit, mut delays) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..pairs {
        let undisturbed = once(&mut grid, &spec, &starts, false).await?;
        let disturbed = once(&mut grid, &spec, &starts, true).await?;
        delays.push(disturbed - undisturbed);
        quiet.push(undisturbed);
        hit.push(disturbed);
    }
    let each = delays.iter().copied().map(rounded).collect();
    Ok(PairFigures {
        kind: "pair",
        pairs,
        workers: WORKERS,
        network: if apart { "namespaces" } else { "loopback" },
        undisturbed_ms_p50: rounded(quantile(&mut quiet, 0.5)),
        disturbed_ms_p50: rounded(quantile(&mut hit, 0.5)),
        delay_ms_p50: rounded(quantile(&mut delays, 0.5)),
        delay_ms_max: rounded(quantile(&mut delays, 1.0)),
        delay_ms: each,
    })
}

/// One job; milliseconds from its submission to its end. `kills` ends the worker that began first.
async fn once(
    grid: &mut Grid,
    spec: &JobSpec,
    starts: &Receiver<Started>,
    kills: bool,
) -> Result<f64, Failure> {
    while starts.try_recv().is_ok() {}
    let since = Instant::now();
    let job = grid.client.submit(new_key()?, spec).await?;
    let mut news = grid.client.watch(job).await?;
    let (_, first) = started(starts)?;
    started(starts)?;
    let killed = if kills {
        tokio::time::sleep(SETTLE).await;
        let pid = worker_of(grid, job, &first).await?;
        grid.kill(pid)?;
        Some(pid)
    } else {
        None
    };
    let mut done = false;
    while let Some(view) = news.recv().await {
        done = view.state == hedge_model::view::JobState::Done;
    }
    let took = since.elapsed();
    if !done {
        return Err(failed("a measured job did not end done"));
    }
    if let Some(pid) = killed {
        grid.replace(pid)?;
    }
    all_idle(grid, WORKERS).await?;
    Ok(took.as_secs_f64() * 1e3)
}

/// The process of the worker that runs an attempt.
async fn worker_of(grid: &Grid, job: JobId, attempt: &str) -> Result<u32, Failure> {
    let Reply::Explain(view) = grid.client.ask(Request::Explain(job, None)).await? else {
        return Err(unexpected());
    };
    let attempts = view.tasks.iter().flat_map(|task| &task.attempts);
    let worker = attempts
        .filter(|one| one.attempt == attempt)
        .find_map(|one| one.worker.split(' ').next());
    let worker = worker.ok_or_else(|| failed("the attempt is not known"))?;
    let all = workers(grid).await?;
    let known = all.iter().find(|one| one.peer.starts_with(worker));
    known
        .map(|worker| worker.pid)
        .ok_or_else(|| failed("its worker is not known"))
}
