//! Jobs: the list, one job, and what can be done with it.

use crate::app::App;
use crate::parts::{Json, PathParams, Query, Word};
use crate::problem::Problem;
use axum::extract::State;
use hedge_model::JobId;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{CostView, JobState, JobView};
use hyper::StatusCode;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

/// How long a request may wait for a job's end; who wants to wait for longer asks again.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Some jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Jobs {
    /// The jobs, by their number.
    jobs: Vec<JobView>,
    /// The number behind which the list goes on, if it does.
    next: Option<u64>,
}

/// The job that a path names.
pub fn job_of(path: &PathParams) -> Result<JobId, Problem> {
    path.value("job").map(JobId)
}

/// A job's view.
pub async fn view(app: &App, job: JobId) -> Result<JobView, Problem> {
    match app.ask(Request::Job(job)).await? {
        Reply::Job(view) => Ok(*view),
        _ => Err(Problem::unexpected()),
    }
}

/// List jobs
///
/// Gives a page of them; `next` says where the next page begins.
#[utoipa::path(
    get,
    path = "/v1/jobs",
    tag = "jobs",
    params(
        ("after" = Option<u64>, Query, description = "Only jobs with higher numbers."),
        ("state" = Option<JobState>, Query, description = "Only jobs in this state."),
        ("name" = Option<String>, Query, description = "Only jobs whose name contains this."),
    ),
    responses(
        (status = 200, description = "A page of the jobs that the gateway's ticket may see.", body = Jobs),
        Problem,
    ),
)]
pub async fn list_jobs(State(app): State<App>, query: Query) -> Result<Json<Jobs>, Problem> {
    let query = query.only(&["after", "state", "name"])?;
    let after: Option<u64> = query.one("after")?;
    let state: Option<Word<JobState>> = query.one("state")?;
    let name: Option<String> = query.one("name")?;
    let Reply::Jobs(mut jobs) = app.ask(Request::Jobs(after.map(JobId))).await? else {
        return Err(Problem::unexpected());
    };
    let full = jobs.len() >= hedge_model::msg::JOBS_MAX;
    let next = jobs.last().map(|job| job.id.0).filter(|_| full);
    jobs.retain(|job| {
        let named = |name: &String| job.name.contains(name.as_str());
        state.is_none_or(|Word(state)| job.state == state) && name.as_ref().is_none_or(named)
    });
    Ok(Json(Jobs { jobs, next }))
}

/// Show a job
///
/// With `wait_s` the answer comes once the job has ended, or when that time is over.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}",
    tag = "jobs",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("wait_s" = Option<f64>, Query, minimum = 0, description = "Wait for its end for so many seconds, 60 at most."),
    ),
    responses(
        (status = 200, description = "The job as it is now.", body = JobView),
        Problem,
    ),
)]
pub async fn show_job(
    State(app): State<App>,
    path: PathParams,
    query: Query,
) -> Result<Json<JobView>, Problem> {
    let wait: Option<f64> = query.only(&["wait_s"])?.one("wait_s")?;
    let job = job_of(&path)?;
    match wait {
        None => view(&app, job).await.map(Json),
        Some(wait) => {
            let wait = Duration::try_from_secs_f64(wait);
            let wait =
                wait.map_err(|_| Problem::bad("wait_s is no time; nothing was done".to_owned()))?;
            ended(&app, job, wait.min(WAIT_MAX)).await.map(Json)
        }
    }
}

/// A job once it has ended, or after this time.
async fn ended(app: &App, job: JobId, wait: Duration) -> Result<JobView, Problem> {
    let until = Instant::now() + wait;
    let mut views = app.client().watch(job).await?;
    let mut last = None;
    while let Ok(Some(view)) = timeout_at(until, views.recv()).await {
        if view.state.ended() {
            return Ok(view);
        }
        last = Some(view);
    }
    match last {
        Some(view) => Ok(view),
        None => view(app, job).await,
    }
}

/// Drop a job that has ended, with its results
#[utoipa::path(
    delete,
    path = "/v1/jobs/{job}",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    responses(
        (status = 204, description = "The job is gone."),
        Problem,
    ),
)]
pub async fn forget_job(State(app): State<App>, path: PathParams) -> Result<StatusCode, Problem> {
    app.tell(Request::Forget(job_of(&path)?)).await
}

/// End a job
///
/// A job that has ended already stays as it is.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/cancel",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    responses(
        (status = 204, description = "The job has ended."),
        Problem,
    ),
)]
pub async fn cancel_job(State(app): State<App>, path: PathParams) -> Result<StatusCode, Problem> {
    app.tell(Request::Cancel(job_of(&path)?)).await
}

/// Let a job that failed go on
///
/// What is not done is tried again, what is done stays.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/retry",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    responses(
        (status = 204, description = "The job goes on."),
        Problem,
    ),
)]
pub async fn retry_job(State(app): State<App>, path: PathParams) -> Result<StatusCode, Problem> {
    app.tell(Request::Retry(job_of(&path)?)).await
}

/// Say what a job costs, and for what
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/cost",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    responses(
        (status = 200, description = "The cost; final once the job has ended.", body = CostView),
        Problem,
    ),
)]
pub async fn job_cost(State(app): State<App>, path: PathParams) -> Result<Json<CostView>, Problem> {
    let view = view(&app, job_of(&path)?).await?;
    Ok(Json(view.cost))
}
