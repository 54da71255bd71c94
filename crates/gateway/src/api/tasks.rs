//! Tasks, groups and attempts of a job, and explanations.

use super::jobs::job_of;
use crate::app::App;
use crate::parts::{Json, JsonBytes, PathParams, Query, Word};
use crate::problem::Problem;
use axum::extract::State;
use hedge_model::msg::{Reply, Request};
use hedge_model::view::{AttemptsView, ExplainView, GroupsView, TaskFilter, TasksView};
use std::time::Duration;

/// List the tasks of a job
///
/// Gives a page of them; `next` says where the next page begins.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/tasks",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("state" = Option<TaskFilter>, Query, description = "Only these tasks."),
        ("from" = Option<u32>, Query, maximum = 4294967295_u32, description = "Only tasks from this number on."),
    ),
    responses(
        (status = 200, description = "A page of the tasks.", body = TasksView),
        Problem,
    ),
)]
pub async fn list_tasks(
    State(app): State<App>,
    path: PathParams,
    query: Query,
) -> Result<Json<TasksView>, Problem> {
    let query = query.only(&["state", "from"])?;
    let state: Option<Word<TaskFilter>> = query.one("state")?;
    let request = Request::Tasks {
        job: job_of(&path)?,
        filter: state.map_or_else(TaskFilter::default, |Word(state)| state),
        from: query.one("from")?.unwrap_or(0),
    };
    match app.ask(request).await? {
        Reply::Tasks(page) => Ok(Json(*page)),
        _ => Err(Problem::unexpected()),
    }
}

/// List the groups of a job
///
/// Gives a page of them; `next` says where the next page begins.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/groups",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("from" = Option<u32>, Query, maximum = 4294967295_u32, description = "Only groups from this position on."),
        ("max_age_ms" = Option<u32>, Query, maximum = 4294967295_u32, description = "An answer that was given to somebody else so lately will do; 2000 at most."),
    ),
    responses(
        (status = 200, description = "A page of the groups: how they depend on each other, and how far each is.", body = GroupsView),
        Problem,
    ),
)]
pub async fn list_groups(
    State(app): State<App>,
    path: PathParams,
    query: Query,
) -> Result<JsonBytes, Problem> {
    let query = query.only(&["from", "max_age_ms"])?;
    let job = job_of(&path)?;
    let from = query.one("from")?.unwrap_or(0);
    let what = format!("{job}/groups?{from}");
    let ask = || async {
        match app.ask(Request::Groups { job, from }).await? {
            Reply::Groups(page) => Json(page).bytes(),
            _ => Err(Problem::unexpected()),
        }
    };
    let answer = app.answers().get(&what, max_age(&query)?, ask);
    answer.await.map(JsonBytes)
}

/// How old an answer that was given to somebody else may be; none by default.
fn max_age(query: &Query) -> Result<Duration, Problem> {
    let age = query.one::<u32>("max_age_ms")?.unwrap_or(0);
    Ok(Duration::from_millis(age.into()))
}

/// List the attempts of a job
///
/// Gives a page of them; `next` says where the next page begins.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/attempts",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("from" = Option<u32>, Query, maximum = 4294967295_u32, description = "Only attempts of tasks from this number on."),
        ("since_ms" = Option<f64>, Query, minimum = 0, description = "Of attempts that ended, only those that did so later, counted from the job's acceptance."),
        ("max_age_ms" = Option<u32>, Query, maximum = 4294967295_u32, description = "An answer that was given to somebody else so lately will do; 2000 at most."),
    ),
    responses(
        (status = 200, description = "A page of the attempts that may still succeed, and of those that ended since.", body = AttemptsView),
        Problem,
    ),
)]
pub async fn list_attempts(
    State(app): State<App>,
    path: PathParams,
    query: Query,
) -> Result<JsonBytes, Problem> {
    let query = query.only(&["from", "since_ms", "max_age_ms"])?;
    let since_ms: f64 = query.one("since_ms")?.unwrap_or(0.0);
    let since = Duration::try_from_secs_f64(since_ms / 1e3);
    let since = since.map_err(|_| Problem::bad("since_ms is no time; nothing was done"))?;
    let job = job_of(&path)?;
    let from = query.one("from")?.unwrap_or(0);
    let what = format!("{job}/attempts?{from}&{since_ms}");
    let ask = || async {
        match app.ask(Request::Attempts { job, from, since }).await? {
            Reply::Attempts(page) => Json(page).bytes(),
            _ => Err(Problem::unexpected()),
        }
    };
    let answer = app.answers().get(&what, max_age(&query)?, ask);
    answer.await.map(JsonBytes)
}

/// Say why a job is where it is
///
/// Names what holds it up, and its critical tasks.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/explain",
    tag = "tasks",
    params(("job" = u64, Path, description = "Number of the job.")),
    responses(
        (status = 200, description = "The job, its critical tasks, and up to 20 tasks that hold it up.", body = ExplainView),
        Problem,
    ),
)]
pub async fn explain_job(
    State(app): State<App>,
    path: PathParams,
) -> Result<Json<ExplainView>, Problem> {
    explain(&app, &path, None).await
}

/// Say where a task is, where it ran and why there
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/tasks/{task}",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("task" = String, Path, description = "The task's number or label, like `frame.12`."),
    ),
    responses(
        (status = 200, description = "The job, and the task with all its attempts.", body = ExplainView),
        Problem,
    ),
)]
pub async fn explain_task(
    State(app): State<App>,
    path: PathParams,
) -> Result<Json<ExplainView>, Problem> {
    let task = path.text("task").to_owned();
    explain(&app, &path, Some(task)).await
}

async fn explain(
    app: &App,
    path: &PathParams,
    task: Option<String>,
) -> Result<Json<ExplainView>, Problem> {
    match app.ask(Request::Explain(job_of(path)?, task)).await? {
        Reply::Explain(view) => Ok(Json(*view)),
        _ => Err(Problem::unexpected()),
    }
}
