//! `hedge-lab bench gateway`: what the HTTP interface costs and carries, beside the native client.

use super::grid::{Grid, Plan, Process, hedge, job};
use super::http::Http;
use super::{lines, quantile, rounded};
use crate::bench::block_on;
use crate::failure::{Failure, unexpected};
use crate::output::Output;
use hedge_model::JobId;
use hedge_model::spec::{Group, Runtime};
use serde::Serialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Connections that submit at once.
const CONNECTIONS: usize = 16;
/// Jobs in one batch, and tasks of each.
const BATCH: (usize, u32) = (100, 100);
/// Tasks of the job that pages look at.
const PAGE_TASKS: u32 = 100_000;
/// A page asks for groups and attempts of a job of that size this often.
const PAGE_ASKS_EVERY: Duration = Duration::from_secs(2);
/// How long that job may go on without a task that is done.
const PROGRESS_WITHIN: Duration = Duration::from_secs(60);
/// How long what was submitted may take to end.
const ENDS_WITHIN: Duration = Duration::from_secs(300);
/// How long a gateway may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Serialize)]
struct GatewayFigures {
    seconds: u32,
    /// Jobs of one task, each a request, over 16 connections.
    single_submissions_per_s: f64,
    single_gateway_cpu_share: f64,
    single_supervisor_cpu_share: f64,
    /// The same jobs, from the first submission to the last end.
    single_done_per_s: f64,
    /// Tasks in batches of 100 jobs with 100 tasks each, over one connection.
    batch_tasks_per_s: f64,
    batch_gateway_cpu_share: f64,
    /// The same tasks, from the first batch to the last end.
    batch_tasks_done_per_s: f64,
    /// One task without a process at a time, from the request to its end.
    http_noop_ms_p50: f64,
    native_noop_ms_p50: f64,
    /// Pages that follow the grid and look at one job.
    pages: usize,
    workers: u16,
    page_tasks: u32,
    idle_supervisor_cpu_share: f64,
    pages_supervisor_cpu_share: f64,
    pages_gateway_cpu_share: f64,
}

/// Measures and prints.
///
/// # Errors
/// The grid cannot be started, or a request fails.
pub fn run(
    output: Output,
    seconds: u32,
    workers: u16,
    pages: usize,
    hold: bool,
) -> Result<(), Failure> {
    let figures = block_on(measure(seconds, workers, pages, hold))?;
    output.print(&figures, || {
        lines(&[
            format!(
                "single submissions   {:>9.0} a second; gateway {:.0} %, supervisor {:.0} % of a core; {:.0} a second done",
                figures.single_submissions_per_s,
                figures.single_gateway_cpu_share * 100.0,
                figures.single_supervisor_cpu_share * 100.0,
                figures.single_done_per_s
            ),
            format!(
                "tasks in batches     {:>9.0} a second; gateway {:.0} % of a core; {:.0} a second done",
                figures.batch_tasks_per_s,
                figures.batch_gateway_cpu_share * 100.0,
                figures.batch_tasks_done_per_s
            ),
            format!(
                "no-op task           {:>9.2} ms through HTTP, {:.2} ms by the native client",
                figures.http_noop_ms_p50, figures.native_noop_ms_p50
            ),
            format!(
                "{} pages, {} workers  {:>7.1} % of a core for the supervisor, {:.1} % without them; gateway {:.1} %",
                figures.pages,
                figures.workers,
                figures.pages_supervisor_cpu_share * 100.0,
                figures.idle_supervisor_cpu_share * 100.0,
                figures.pages_gateway_cpu_share * 100.0
            ),
        ])
    })?;
    Ok(())
}

/// A gateway of a measured grid.
struct Gateway {
    process: Process,
    socket: PathBuf,
}

impl Gateway {
    async fn start(grid: &Grid) -> Result<Self, Failure> {
        let socket = grid.dir.path().join("gateway.sock");
        let mut command = Command::new(hedge()?);
        command
            .args(["gateway", "--socket"])
            .arg(&socket)
            .arg("--dir")
            .arg(grid.dir.path())
            .env("HEDGE_LOG", "error")
            .stdout(std::process::Stdio::null());
        let process = Process::start(&mut command)?;
        let since = Instant::now();
        while Http::open(&socket).await.is_err() {
            if since.elapsed() > LISTENS_WITHIN {
                return Err(Failure::Local("the gateway does not listen".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { process, socket })
    }

    async fn open(&self) -> Result<Http, Failure> {
        Http::open(&self.socket).await
    }
}

async fn measure(
    seconds: u32,
    workers: u16,
    pages: usize,
    hold: bool,
) -> Result<GatewayFigures, Failure> {
    let grid = Grid::start(Plan::new(1, 4)).await?;
    let gateway = Gateway::start(&grid).await?;
    // What is submitted faster than it is done piles up.
    let unlimited = json!({ "value": u32::MAX.to_string() }).to_string();
    let path = "/v1/settings/client_jobs";
    let mut http = gateway.open().await?;
    http.json("PUT", path, unlimited.as_bytes()).await?;
    let (http, native) = latencies(&grid, &gateway).await?;
    let single = singles(&grid, &gateway, seconds).await?;
    let batch = batches(&grid, &gateway, seconds).await?;
    drop((gateway, grid));
    // Their own grid: workers that only send heartbeats take no tasks.
    let grid = Grid::start(Plan::new(1, 4)).await?;
    let senders = grid.senders(workers).await?;
    let gateway = Gateway::start(&grid).await?;
    let id = page_job(&gateway).await?;
    let idle = shares(&grid, &gateway, seconds, std::future::pending()).await?;
    let looking = look(&gateway, id, pages);
    let busy = shares(&grid, &gateway, seconds, looking).await?;
    if hold {
        eprintln!("held: --dir {}; Ctrl-C ends it", grid.dir.path().display());
        _ = tokio::signal::ctrl_c().await;
    }
    drop(senders);
    Ok(GatewayFigures {
        seconds,
        single_submissions_per_s: rounded(single.per_s),
        single_gateway_cpu_share: rounded(single.gateway),
        single_supervisor_cpu_share: rounded(single.supervisor),
        single_done_per_s: rounded(single.done_per_s),
        batch_tasks_per_s: rounded(batch.per_s),
        batch_gateway_cpu_share: rounded(batch.gateway),
        batch_tasks_done_per_s: rounded(batch.done_per_s),
        http_noop_ms_p50: rounded(http),
        native_noop_ms_p50: rounded(native),
        pages,
        workers,
        page_tasks: PAGE_TASKS,
        idle_supervisor_cpu_share: rounded(idle.0),
        pages_supervisor_cpu_share: rounded(busy.0),
        pages_gateway_cpu_share: rounded(busy.1),
    })
}

fn noop() -> Group {
    Group {
        runtime: Runtime::Noop,
        ..Group::program("noop", &["/usr/bin/true"])
    }
}

fn noop_job(tasks: u32) -> Value {
    json!({ "name": "noop", "task": [{
        "id": "noop", "command": ["true"], "runtime": "noop", "array": format!("0..{tasks}"),
    }] })
}

/// The median time of one task at a time: through HTTP, and by the native client, in turns.
async fn latencies(grid: &Grid, gateway: &Gateway) -> Result<(f64, f64), Failure> {
    const COUNT: usize = 400;
    let spec = job(noop(), 1)?;
    let body = noop_job(1).to_string();
    let mut http = gateway.open().await?;
    let (mut over, mut native) = (Vec::new(), Vec::new());
    for _ in 0..COUNT {
        let since = Instant::now();
        let made = http.json("POST", "/v1/jobs", body.as_bytes()).await?;
        let path = format!("/v1/jobs/{}?wait_s=30", made["job"]);
        let view = http.json("GET", &path, b"").await?;
        over.push(since.elapsed().as_secs_f64() * 1e3);
        if view["state"] != "done" {
            return Err(Failure::Local(format!(
                "a measured job is {}",
                view["state"]
            )));
        }
        native.push(grid.run(&spec).await?.0.as_secs_f64() * 1e3);
    }
    Ok((quantile(&mut over, 0.5), quantile(&mut native, 0.5)))
}

/// What was submitted, and then done.
struct Carried {
    per_s: f64,
    done_per_s: f64,
    /// Shares of a core while it was submitted.
    gateway: f64,
    supervisor: f64,
}

impl Carried {
    /// So many were submitted since then, the last of them by these connections; waits until they are done.
    async fn since(
        grid: &Grid,
        gateway: &Gateway,
        (since, before): (Instant, [Duration; 2]),
        count: u64,
        last: Vec<(Http, Value)>,
    ) -> Result<Self, Failure> {
        let (took, after) = (since.elapsed().as_secs_f64(), cpus(grid, gateway));
        let share = |at: usize| (after[at] - before[at]).as_secs_f64() / took;
        for (mut http, job) in last {
            let path = format!("/v1/jobs/{job}?wait_s=30");
            let ended = Instant::now() + ENDS_WITHIN;
            while http.json("GET", &path, b"").await?["state"] != "done" {
                if Instant::now() > ended {
                    return Err(Failure::Local(format!("job {job} does not end")));
                }
            }
        }
        Ok(Self {
            per_s: count as f64 / took,
            done_per_s: count as f64 / since.elapsed().as_secs_f64(),
            gateway: share(0),
            supervisor: share(1),
        })
    }
}

/// Submits jobs of one task over several connections.
async fn singles(grid: &Grid, gateway: &Gateway, seconds: u32) -> Result<Carried, Failure> {
    let body = noop_job(1).to_string();
    let began = (Instant::now(), cpus(grid, gateway));
    let until = began.0 + Duration::from_secs(seconds.into());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (mut http, body) = (gateway.open().await?, body.clone());
        tasks.spawn(async move {
            let (mut count, mut last) = (0_u64, Value::Null);
            while count == 0 || Instant::now() < until {
                let made = http.json("POST", "/v1/jobs", body.as_bytes()).await?;
                (count, last) = (count + 1, made["job"].clone());
            }
            Ok::<_, Failure>((count, (http, last)))
        });
    }
    let (mut count, mut last) = (0, Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (more, job) = done.map_err(|error| Failure::Local(error.to_string()))??;
        count += more;
        last.push(job);
    }
    Carried::since(grid, gateway, began, count, last).await
}

/// Submits tasks in batches of jobs over one connection.
async fn batches(grid: &Grid, gateway: &Gateway, seconds: u32) -> Result<Carried, Failure> {
    let (jobs, tasks) = BATCH;
    let entry = json!({ "job": noop_job(tasks) });
    let body = json!({ "jobs": vec![entry; jobs] }).to_string();
    let mut http = gateway.open().await?;
    let began = (Instant::now(), cpus(grid, gateway));
    let until = began.0 + Duration::from_secs(seconds.into());
    let (mut count, mut last) = (0_u64, Value::Null);
    while count == 0 || Instant::now() < until {
        let made = http.json("POST", "/v1/batch", body.as_bytes()).await?;
        for result in made["jobs"].as_array().ok_or_else(unexpected)? {
            if let Some(problem) = result.get("problem") {
                return Err(Failure::Local(format!("a job was refused: {problem}")));
            }
            last = result["job"].clone();
            count += u64::from(tasks);
        }
    }
    Carried::since(grid, gateway, began, count, vec![(http, last)]).await
}

/// A job of many tasks that are done, and one that goes on.
async fn page_job(gateway: &Gateway) -> Result<JobId, Failure> {
    let mut http = gateway.open().await?;
    let mut job = noop_job(PAGE_TASKS);
    let waits = json!({ "id": "waits", "command": ["sleep", "3600"] });
    job["task"]
        .as_array_mut()
        .ok_or_else(unexpected)?
        .push(waits);
    let made = http
        .json("POST", "/v1/jobs", job.to_string().as_bytes())
        .await?;
    let id = JobId(made["job"].as_u64().ok_or_else(unexpected)?);
    let (mut done, mut since) = (0, Instant::now());
    loop {
        let view = http.json("GET", &format!("/v1/jobs/{id}"), b"").await?;
        let now = view["done"].as_u64().ok_or_else(unexpected)?;
        if now >= PAGE_TASKS.into() {
            return Ok(id);
        }
        if now > done {
            (done, since) = (now, Instant::now());
        }
        if since.elapsed() > PROGRESS_WITHIN {
            return Err(Failure::Local(format!(
                "{done} tasks of the job of the pages are done, and no more for {PROGRESS_WITHIN:?}: {}",
                view["waits"]
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn cpus(grid: &Grid, gateway: &Gateway) -> [Duration; 2] {
    [gateway.process.cpu(), grid.supervisor.cpu()]
}

/// Shares of a core of supervisor and gateway while something is done.
async fn shares(
    grid: &Grid,
    gateway: &Gateway,
    seconds: u32,
    work: impl Future<Output = Result<(), Failure>>,
) -> Result<(f64, f64), Failure> {
    let mut work = std::pin::pin!(work);
    // What begins is not what goes on.
    tokio::select! {
        done = &mut work => done?,
        () = tokio::time::sleep(Duration::from_secs(3)) => {}
    }
    let (before, since) = (cpus(grid, gateway), Instant::now());
    tokio::select! {
        done = &mut work => done?,
        () = tokio::time::sleep(Duration::from_secs(seconds.into())) => {}
    }
    let (took, after) = (since.elapsed().as_secs_f64(), cpus(grid, gateway));
    let share = |at: usize| (after[at] - before[at]).as_secs_f64() / took;
    Ok((share(1), share(0)))
}

/// Does what so many pages do that show one job.
async fn look(gateway: &Gateway, id: JobId, pages: usize) -> Result<(), Failure> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..pages {
        let mut events = gateway.open().await?;
        tasks.spawn(async move { events.drain("/v1/events").await });
        let mut http = gateway.open().await?;
        tasks.spawn(async move {
            let mut since = 0.0;
            loop {
                http.json(
                    "GET",
                    &format!("/v1/jobs/{id}/groups?max_age_ms=1000&from=0"),
                    b"",
                )
                .await?;
                let mut from = Some(0);
                let mut now = 0.0;
                while let Some(at) = from {
                    let path = format!(
                        "/v1/jobs/{id}/attempts?max_age_ms=1000&since_ms={since}&from={at}"
                    );
                    let page = http.json("GET", &path, b"").await?;
                    now = page["now_ms"].as_f64().unwrap_or(now);
                    from = page["next"].as_u64();
                }
                since = f64::max(0.0, (now / 1e3 - 2.0).floor() * 1e3);
                tokio::time::sleep(PAGE_ASKS_EVERY).await;
            }
        });
    }
    let ended = tasks.join_next().await.ok_or_else(unexpected)?;
    ended.map_err(|error| Failure::Local(error.to_string()))?
}
