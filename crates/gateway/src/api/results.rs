//! What jobs left.

use super::blobs::{Content, respond};
use super::jobs::job_of;
use crate::app::App;
use crate::parts::{Json, PathParams, Query};
use crate::problem::Problem;
use axum::extract::State;
use axum::response::Response;
use hedge_model::view::FileLine;
use hyper::{HeaderMap, Method};
use serde::Serialize;
use utoipa::ToSchema;

/// A page of what a job left.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultsPage {
    /// The files, in the order of their tasks.
    files: Vec<FileLine>,
    /// Where the next page begins, if there is one.
    next: Option<u64>,
    /// On the first page: tasks that would have left files and did not, the first 1,000 of them.
    missing: Vec<String>,
    /// On the first page: how many there are.
    missing_count: u32,
}

/// List what a job left
///
/// Lists the results of a job that has ended; with `task` what these tasks left, also while the job runs.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/results",
    tag = "files",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("task" = Option<Vec<String>>, Query, explode, description = "Only what this task left, by its number or label. Repeatable."),
        ("from" = Option<u64>, Query, description = "Where the page begins."),
    ),
    responses(
        (status = 200, description = "A page of the files.", body = ResultsPage),
        Problem,
    ),
)]
pub async fn list_results(
    State(app): State<App>,
    path: PathParams,
    query: Query,
) -> Result<Json<ResultsPage>, Problem> {
    let query = query.only(&["task", "from"])?;
    let (job, tasks) = (job_of(&path)?, query.all("task"));
    let from = query.one("from")?.unwrap_or(0);
    let (results, next) = app.client().outputs_page(job, &tasks, from).await?;
    Ok(Json(ResultsPage {
        files: results.files().map(FileLine::from).collect(),
        next,
        missing: results.missing,
        missing_count: results.missing_count,
    }))
}

/// Download a file that a job left
///
/// Ranges of bytes can be asked for.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/blobs/{hash}",
    tag = "files",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("hash" = String, Path, description = "BLAKE3 of the file's content, as the list of results has it."),
        ("task" = Option<Vec<String>>, Query, explode, description = "The task that left it: finds it sooner, and while the job runs."),
        ("range" = Option<String>, Header, description = "One range of bytes, like `bytes=0-99`."),
    ),
    responses(
        (status = 200, description = "The content.", body = [u8], content_type = "application/octet-stream"),
        (status = 206, description = "The range.", body = [u8], content_type = "application/octet-stream"),
        Problem,
    ),
)]
pub async fn download_result(
    State(app): State<App>,
    method: Method,
    path: PathParams,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = query.only(&["task"])?;
    let (job, tasks) = (job_of(&path)?, query.all("task"));
    let hash = path.value("hash")?;
    let mut next = Some(0);
    while let Some(from) = next {
        let page;
        (page, next) = app.client().outputs_page(job, &tasks, from).await?;
        if let Some(file) = app.client().open_file(&page, hash).await? {
            return respond(Content::Result(file), hash, &method, &headers);
        }
    }
    Err(Problem::unknown(format!(
        "job {job} left no file with the hash {hash}; GET /v1/jobs/{job}/results lists what it left"
    )))
}
