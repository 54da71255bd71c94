//! Open jobs: they are opened, extended and closed, and the ends of their tasks are told as they come.

use super::jobs::job_of;
use super::submit::{Accepted, Submission, created, extend, long, read_submission, submit};
use crate::app::App;
use crate::parts::{JSON_BYTES_MAX, Json, PathParams, Query, read_json};
use crate::problem::{Kind, Problem};
use crate::sse;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use data_encoding::BASE64;
use hedge_job::{FILE_BYTES_MAX, Purpose};
use hedge_model::msg::Request;
use hedge_model::view::{EndKind, EndedTask, EndsView};
use hedge_model::{Data, FileEntry, Hash, JobId};
use hedge_node::ClientError;
use hyper::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use utoipa::ToSchema;

/// While no supervisor leads, the ends are asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// For so long no supervisor may answer before a stream ends: as long as a restart of a supervisor takes.
const UNREACHABLE_FOR: Duration = Duration::from_secs(60);

/// Tasks that were added to an open job.
#[derive(Debug, Serialize, ToSchema)]
pub struct Added {
    /// The job.
    job: JobId,
    /// The number of the first task; the others follow it in the order of the submission.
    first: u32,
    /// How many tasks they are.
    tasks: u32,
}

/// Tasks of a job.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskNames {
    /// Tasks by number or label, or arrays by their id.
    tasks: Vec<String>,
}

/// A task that ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct End {
    /// Its label.
    task: String,
    /// Its number.
    number: u32,
    /// How it ended.
    end: EndKind,
    /// Why it was given up, a clause; empty for a task that is done.
    why: String,
    /// What it left.
    files: Vec<EndFile>,
}

/// A file that a task left.
#[derive(Debug, Serialize, ToSchema)]
pub struct EndFile {
    /// Its path in the task's scratch directory.
    path: String,
    /// Its length.
    bytes: u64,
    /// BLAKE3 of its content.
    blake3: String,
    /// Its content, where it is short. Longer content is at `/v1/jobs/{job}/blobs/{hash}`.
    base64: Option<String>,
}

/// Tasks that ended, with the position behind them.
#[derive(Debug, Serialize, ToSchema)]
pub struct Ends {
    /// The tasks, in the order of their ends.
    tasks: Vec<End>,
    /// How many ends the job has had up to here: what `after` and `Last-Event-ID` take.
    next: u64,
    /// Whether the job has ended and no more follow.
    over: bool,
}

impl From<EndedTask> for End {
    fn from(task: EndedTask) -> Self {
        Self {
            task: task.task,
            number: task.number,
            end: task.end,
            why: task.why,
            files: task.files.iter().map(EndFile::from).collect(),
        }
    }
}

impl From<&FileEntry> for EndFile {
    fn from(file: &FileEntry) -> Self {
        let (hash, base64) = match &file.data {
            Data::Inline(bytes) => {
                let hash = Hash(*blake3::hash(bytes).as_bytes());
                (hash, Some(BASE64.encode(bytes)))
            }
            Data::Blob { hash, .. } => (*hash, None),
        };
        Self {
            path: file.path.to_string(),
            bytes: file.data.size(),
            blake3: hash.to_string(),
            base64,
        }
    }
}

impl From<EndsView> for Ends {
    fn from(view: EndsView) -> Self {
        Self {
            tasks: view.tasks.into_iter().map(End::from).collect(),
            next: view.next,
            over: view.over,
        }
    }
}

/// Open a job
///
/// Tasks can be added to it until it is closed. The job file need not have tasks. It closes itself once its client has not
/// asked about it for `open_timeout`.
#[utoipa::path(
    post,
    path = "/v1/jobs/open",
    tag = "jobs",
    request_body = Submission,
    responses(
        (status = 201, description = "The job is accepted.", body = Accepted, headers(("location" = String, description = "The job's path."))),
        Problem,
    ),
)]
pub async fn open_job(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let _long = long(&app, &headers).await?;
    let submission: Submission = read_json(&headers, body, FILE_BYTES_MAX).await?;
    let read = read_submission(submission)?;
    created(submit(&app, Purpose::Open, read).await?)
}

/// Add tasks to an open job
///
/// The job file has tasks alone, any number of them; they may wait for tasks that the job has. All of them are added, or
/// none. Answers once they are part of the job and the grid holds their files. Repeating it with the same key is harmless.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/extend",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    request_body = Submission,
    responses(
        (status = 200, description = "The tasks are part of the job.", body = Added),
        Problem,
    ),
)]
pub async fn extend_job(
    State(app): State<App>,
    path: PathParams,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Added>, Problem> {
    let job = job_of(&path)?;
    let _long = long(&app, &headers).await?;
    let submission: Submission = read_json(&headers, body, FILE_BYTES_MAX).await?;
    let added = extend(&app, job, read_submission(submission)?).await?;
    Ok(Json(Added {
        job: added.job,
        first: added.first,
        tasks: added.tasks,
    }))
}

/// Close an open job
///
/// It ends once its tasks have.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/close",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    responses(
        (status = 204, description = "Nothing can be added any more."),
        Problem,
    ),
)]
pub async fn close_job(State(app): State<App>, path: PathParams) -> Result<StatusCode, Problem> {
    app.tell(Request::Close(job_of(&path)?)).await
}

/// Release what tasks of an open job leave
///
/// It is dropped once the tasks that the job has have read it.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/release",
    tag = "jobs",
    params(("job" = u64, Path, description = "Number of the job.")),
    request_body = TaskNames,
    responses(
        (status = 204, description = "It is released."),
        Problem,
    ),
)]
pub async fn release_tasks(
    State(app): State<App>,
    path: PathParams,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let (job, tasks) = task_names(&path, &headers, body).await?;
    app.client().release(job, &tasks).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Cancel tasks of a job
///
/// Tasks that have ended stay as they are. A cancelled task counts as failed; its attempts are ended at once.
#[utoipa::path(
    post,
    path = "/v1/jobs/{job}/tasks/cancel",
    tag = "tasks",
    params(("job" = u64, Path, description = "Number of the job.")),
    request_body = TaskNames,
    responses(
        (status = 204, description = "The tasks are given up."),
        Problem,
    ),
)]
pub async fn cancel_tasks(
    State(app): State<App>,
    path: PathParams,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let (job, tasks) = task_names(&path, &headers, body).await?;
    app.client().cancel_tasks(job, &tasks).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The job and the tasks of it that a request names.
async fn task_names(
    path: &PathParams,
    headers: &HeaderMap,
    body: Body,
) -> Result<(JobId, Vec<String>), Problem> {
    let job = job_of(path)?;
    let names: TaskNames = read_json(headers, body, JSON_BYTES_MAX).await?;
    Ok((job, names.tasks))
}

/// Follow the ends of an open job's tasks
///
/// Sends `ends` as soon as tasks are done or given up, with what they left; the last one is `over`. A client that shows the
/// last `id` goes on behind it: after the loss of its connection, a restart of the gateway and a change of leader. A task
/// whose outputs were lost and that ran again is told again.
#[utoipa::path(
    get,
    path = "/v1/jobs/{job}/ends",
    tag = "tasks",
    params(
        ("job" = u64, Path, description = "Number of the job."),
        ("after" = Option<u64>, Query, description = "How many ends are known already."),
        ("last-event-id" = Option<String>, Header, description = "The same; counts before `after`."),
    ),
    responses(
        (status = 200, description = "Server-sent events named `ends`; `Ends` has their data.", body = sse::Event, content_type = "text/event-stream"),
        Problem,
    ),
)]
pub async fn follow_ends(
    State(app): State<App>,
    path: PathParams,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let query = query.only(&["after"])?;
    let job = job_of(&path)?;
    let asked: Option<u64> = query.one("after")?;
    let after = match sse::last_id(&headers) {
        Some(id) => id
            .parse()
            .map_err(|_| Problem::bad(format!("{id:?} is no position among ends; leave it out")))?,
        None => asked.unwrap_or(0),
    };
    // A job that cannot be followed is refused before the stream begins.
    super::jobs::view(&app, job).await?;
    Ok(sse::respond(EndsSource {
        app,
        job,
        after,
        over: false,
        lost_at: None,
        asked: JoinSet::new(),
    }))
}

/// The ends of a job's tasks from a position on.
struct EndsSource {
    app: App,
    job: JobId,
    after: u64,
    over: bool,
    /// Since when no supervisor answers.
    lost_at: Option<Instant>,
    /// The request that waits for the next end. It outlives a call that was dropped, so that one at most is open.
    asked: JoinSet<Result<EndsView, ClientError>>,
}

impl sse::Source for EndsSource {
    async fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        while !self.over {
            let view = match self.ask().await {
                Ok(view) => view,
                Err(problem) if self.waits_after(&problem) => {
                    tokio::time::sleep(ASK_AGAIN).await;
                    continue;
                }
                Err(problem) => {
                    self.over = true;
                    sse::event(&mut bytes, "problem", None, &problem);
                    return Some(bytes);
                }
            };
            self.lost_at = None;
            (self.after, self.over) = (view.next, view.over);
            if view.over || !view.tasks.is_empty() {
                let id = self.after.to_string();
                sse::event(&mut bytes, "ends", Some(&id), &Ends::from(view));
                return Some(bytes);
            }
        }
        None
    }
}

impl EndsSource {
    async fn ask(&mut self) -> Result<EndsView, Problem> {
        if self.asked.is_empty() {
            let (client, job, after) = (self.app.client().clone(), self.job, self.after);
            self.asked
                .spawn(async move { client.ends(job, after).await });
        }
        match self.asked.join_next().await {
            Some(Ok(answer)) => Ok(answer?),
            _ => Err(Problem::busy("the gateway ends; follow the job again")),
        }
    }

    /// Whether a supervisor that leads may still come.
    fn waits_after(&mut self, problem: &Problem) -> bool {
        let since = *self.lost_at.get_or_insert_with(Instant::now);
        matches!(problem.kind, Kind::Unreachable | Kind::Busy) && since.elapsed() < UNREACHABLE_FOR
    }
}
