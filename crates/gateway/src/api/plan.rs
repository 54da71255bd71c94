//! What each level of redundancy would buy a job and cost.

use super::submit::{settings, syntax};
use crate::app::App;
use crate::parts::{Json, Query, read};
use crate::problem::Problem;
use axum::body::Body;
use axum::extract::State;
use hedge_job::JobFile;
use hedge_model::JobSpec;
use hedge_model::msg::{Reply, Request};
use hedge_sim::eval::{MACHINES_MAX, Options, Plan, Trace, machines, plan, prices};
use hyper::HeaderMap;
use std::sync::Arc;

/// Longest job file that is simulated while a client waits, bytes.
const JOB_BYTES_MAX: u64 = 1 << 20;
/// Simulated runs unless a request says otherwise, and at most: a request is answered within seconds.
const RUNS: u32 = 100;
const RUNS_MAX: u32 = 1000;
/// Tasks of a job that is simulated, at most, for the same reason.
const TASKS_MAX: u32 = 10_000;

/// Say what each level of redundancy would buy a job and cost
///
/// Nothing runs: the scheduler runs the job in virtual time, on the grid's workers as they are now or on machines of usual
/// speeds. Input files are not looked for.
#[utoipa::path(
    post,
    path = "/v1/plan",
    tag = "jobs",
    params(
        ("machines" = Option<u32>, Query, minimum = 1, maximum = 100000, description = "So many machines of usual speeds, instead of the grid's workers."),
        ("runs" = Option<u32>, Query, minimum = 1, maximum = 4294967295_u32, description = "Simulated runs, 1000 at most."),
        ("seed" = Option<u64>, Query, description = "What all random numbers follow from."),
        ("set" = Option<Vec<String>>, Query, explode, description = "NAME=VALUE: sets a parameter of the job file. Repeatable."),
    ),
    request_body(
        description = "A job file: TOML, or JSON of the same shape.",
        content((String = "application/toml"), (Object = "application/json")),
    ),
    responses(
        (status = 200, description = "The plan: one entry for each level of redundancy.", body = Object),
        Problem,
    ),
)]
pub async fn plan_job(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Plan>, Problem> {
    let query = query.only(&["machines", "runs", "seed", "set"])?;
    let syntax = syntax(&headers)?;
    let assumed: Option<usize> = query.one("machines")?;
    let options = Options {
        runs: query.one("runs")?.unwrap_or(RUNS).min(RUNS_MAX),
        seed: query.one("seed")?.unwrap_or(1),
        ..Options::default()
    };
    let set = settings(&query)?;
    let bytes = read(body, JOB_BYTES_MAX).await?;
    let text = String::from_utf8(bytes.into())
        .map_err(|_| Problem::bad("the job file is not UTF-8 text; nothing was run"))?;
    let read =
        move || JobFile::parse_with("job", syntax, text, &set).map(|file| file.tasks().clone());
    let spec = tokio::task::spawn_blocking(read).await;
    let spec =
        spec.map_err(|error| Problem::local(format!("the job cannot be read: {error}")))??;
    if spec.task_count() > TASKS_MAX {
        let why = format!(
            "jobs of {TASKS_MAX} tasks at most are planned here; nothing was run: use `hedge plan`"
        );
        return Err(Problem::bad(why));
    }
    let (speeds, trace, prices) = pool(&app, assumed, &spec).await?;
    let _plan = app.plan().await?;
    let planned =
        tokio::task::spawn_blocking(move || plan(&spec, &speeds, &trace, &options, &prices)).await;
    let planned =
        planned.map_err(|error| Problem::local(format!("the plan broke off: {error}")))?;
    planned.map(Json).map_err(|error| match error {
        hedge_sim::Error::Run(_) => Problem::local(error.to_string()),
        _ => Problem::bad(error.to_string()),
    })
}

/// Speeds of machines, when they are there, and what they cost by the names of settings.
type Pool = (Vec<f64>, Trace, Vec<(Arc<str>, Arc<str>)>);

/// So many machines, or the grid's workers as they are for this job.
async fn pool(app: &App, assumed: Option<usize>, spec: &JobSpec) -> Result<Pool, Problem> {
    if let Some(count) = assumed {
        if !(1..=MACHINES_MAX).contains(&count) {
            let why = format!("machines lie between 1 and {MACHINES_MAX}; nothing was run");
            return Err(Problem::bad(why));
        }
        return Ok((Vec::new(), Trace::steady(count), Vec::new()));
    }
    let Reply::Workers(workers) = app.ask(Request::Workers).await? else {
        return Err(Problem::unexpected());
    };
    let Reply::Settings(settings) = app.ask(Request::Settings).await? else {
        return Err(Problem::unexpected());
    };
    let speeds = machines(spec, &workers);
    if speeds.is_empty() {
        let why = "the grid has no worker that could run this job now; `machines` plans for others";
        return Err(Problem::bad(why));
    }
    let trace = Trace::steady(speeds.len());
    Ok((speeds, trace, prices(settings)))
}
