//! Submitting jobs: one as a job file, or many with files that were uploaded before.

use crate::app::App;
use crate::parts::{Json, Query, media_type, read, read_json, unsupported};
use crate::problem::Problem;
use crate::uploads::{FileContent, Named, SubmittedFiles};
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use data_encoding::BASE64;
use futures_util::StreamExt;
use futures_util::stream;
use hedge_job::{FILE_BYTES_MAX, Found, JobFile, Purpose, Setting, Syntax};
use hedge_model::msg::Extended;
use hedge_model::spec::SpecError;
use hedge_model::{Hash, JobId, JobSpec, SubmitKey};
use hedge_node::client::{InputFiles, new_key};
use hyper::header::{CONTENT_LENGTH, HeaderValue, LOCATION};
use hyper::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Submissions in one request, at most.
const BATCH_MAX: usize = 1000;
/// Submissions of one request that are under way at once.
const TOGETHER_MAX: usize = 32;
/// A body that is longer than this waits until few others are in memory.
const LONG_BYTES: u64 = 1 << 20;
/// The name that a job file has in messages, and a job without a name of its own.
const NAME: &str = "job";

/// A job that is accepted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Accepted {
    /// Its number.
    job: JobId,
    /// The name of the submission: repeating it with the same name is harmless.
    key: String,
}

/// A job to submit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The job file as JSON.
    job: Option<serde_json::Map<String, serde_json::Value>>,
    /// The job file as TOML, instead.
    toml: Option<String>,
    /// The files that it names, by their paths beside the job file.
    #[serde(default)]
    files: BTreeMap<String, UploadedFile>,
    /// Values for the job's parameters.
    #[serde(default)]
    set: BTreeMap<String, String>,
    /// Name of this submission, 32 hexadecimal digits; drawn if it is left out.
    key: Option<String>,
}

/// A file that was uploaded, or that comes with the submission.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UploadedFile {
    /// BLAKE3 of its content, which was uploaded.
    blake3: Option<String>,
    /// Its content in Base64, instead: for small files.
    base64: Option<String>,
    /// Whether it may be run.
    #[serde(default)]
    executable: bool,
}

/// Jobs to submit.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The jobs, 1000 at most.
    jobs: Vec<Submission>,
}

/// What became of each job of a batch, in their order.
#[derive(Debug, Serialize, ToSchema)]
pub struct BatchResults {
    /// One for each job.
    jobs: Vec<BatchResult>,
}

/// What became of a job of a batch.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum BatchResult {
    /// It is accepted.
    Accepted(Accepted),
    /// It is not accepted.
    Refused {
        /// Why.
        problem: Problem,
    },
}

/// Submit a job
///
/// The body is a job file; `POST /v1/batch` submits jobs with files. Answers once the grid has accepted the job and stored
/// it.
#[utoipa::path(
    post,
    path = "/v1/jobs",
    tag = "jobs",
    params(
        ("key" = Option<String>, Query, description = "Name of this submission, 32 hexadecimal digits: repeating it with the same name is harmless."),
        ("set" = Option<Vec<String>>, Query, explode, description = "NAME=VALUE: sets a parameter of the job file. Repeatable."),
    ),
    request_body(
        description = "A job file: TOML, or JSON of the same shape.",
        content((String = "application/toml"), (Object = "application/json")),
    ),
    responses(
        (status = 201, description = "The job is accepted.", body = Accepted, headers(("location" = String, description = "The job's path."))),
        Problem,
    ),
)]
pub async fn submit_job(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let query = query.only(&["key", "set"])?;
    let syntax = syntax(&headers)?;
    let key = key(query.one::<String>("key")?.as_deref())?;
    let set = settings(&query)?;
    let _long = long(&app, &headers).await?;
    let bytes = read(body, FILE_BYTES_MAX).await?;
    let text = String::from_utf8(bytes.into())
        .map_err(|_| Problem::bad("the job file is not UTF-8 text; nothing was submitted"))?;
    let read = Read {
        key,
        syntax,
        text,
        set,
        files: Vec::new(),
    };
    created(submit(&app, Purpose::Job, read).await?)
}

/// The response that says that a job is accepted.
pub fn created(accepted: Accepted) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(format!("/v1/jobs/{}", accepted.job));
    let mut response = (StatusCode::CREATED, Json(accepted)).into_response();
    if let Ok(location) = location {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Submit many jobs, or jobs with files
///
/// Each job is accepted or refused by itself. Files are uploaded first, with `PUT /v1/blobs/{hash}`.
#[utoipa::path(
    post,
    path = "/v1/batch",
    tag = "jobs",
    request_body = Batch,
    responses(
        (status = 200, description = "What became of each job, in their order.", body = BatchResults),
        Problem,
    ),
)]
pub async fn submit_jobs(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<BatchResults>, Problem> {
    let _long = long(&app, &headers).await?;
    let batch: Batch = read_json(&headers, body, FILE_BYTES_MAX).await?;
    if batch.jobs.len() > BATCH_MAX {
        let why = format!("a batch has {BATCH_MAX} jobs at most; nothing was submitted: split it");
        return Err(Problem::bad(why));
    }
    let each = batch.jobs.into_iter().map(|submission| {
        let app = app.clone();
        async move {
            match submit_one(&app, submission).await {
                Ok(accepted) => BatchResult::Accepted(accepted),
                Err(problem) => BatchResult::Refused { problem },
            }
        }
    });
    let jobs = stream::iter(each).buffered(TOGETHER_MAX).collect().await;
    Ok(Json(BatchResults { jobs }))
}

async fn submit_one(app: &App, submission: Submission) -> Result<Accepted, Problem> {
    let read = read_submission(submission)?;
    submit(app, Purpose::Job, read).await
}

/// A submission that is understood as far as its form goes.
pub struct Read {
    /// The submission's name.
    pub key: SubmitKey,
    /// How the job file is written.
    pub syntax: Syntax,
    /// The job file.
    pub text: String,
    /// Values for its parameters.
    pub set: Vec<Setting>,
    /// The files that it may name.
    pub files: Vec<Named>,
}

/// Understands a submission as far as its form goes.
pub fn read_submission(submission: Submission) -> Result<Read, Problem> {
    let key = key(submission.key.as_deref())?;
    let (syntax, text) = match (submission.job, submission.toml) {
        (Some(job), None) => {
            let text = serde_json::to_string_pretty(&job);
            let text =
                text.map_err(|error| Problem::bad(format!("the job file is no JSON: {error}")))?;
            (Syntax::Json, text)
        }
        (None, Some(text)) => (Syntax::Toml, text),
        _ => {
            return Err(Problem::bad(
                "a submission has either `job` or `toml`; nothing was submitted",
            ));
        }
    };
    let files = submission.files.into_iter();
    let files = files.map(|(path, file)| named(path, file));
    let files = files.collect::<Result<Vec<_>, Problem>>()?;
    let set = submission.set.into_iter().collect();
    Ok(Read {
        key,
        syntax,
        text,
        set,
        files,
    })
}

fn named(path: String, file: UploadedFile) -> Result<Named, Problem> {
    let content = match (file.blake3, file.base64) {
        (Some(text), None) => text.parse().map(FileContent::Uploaded).map_err(|_| {
            let why = format!("{text:?} is no BLAKE3 hash; nothing was submitted");
            Problem::bad(why)
        })?,
        (None, Some(text)) => match BASE64.decode(text.as_bytes()) {
            Ok(bytes) => FileContent::Here(bytes),
            Err(error) => {
                let why =
                    format!("the content of {path:?} is no Base64: {error}; nothing was submitted");
                return Err(Problem::bad(why));
            }
        },
        _ => {
            let why =
                format!("the file {path:?} has either `blake3` or `base64`; nothing was submitted");
            return Err(Problem::bad(why));
        }
    };
    Ok(Named {
        path,
        content,
        executable: file.executable,
    })
}

/// Submits a job that is for this.
pub async fn submit(app: &App, purpose: Purpose, read: Read) -> Result<Accepted, Problem> {
    let key = read.key;
    let prepared = prepare(app, purpose, read).await?;
    let job = app
        .client()
        .submit_with(key, &prepared.spec, &prepared.inputs)
        .await?;
    let key = key.to_string();
    Ok(Accepted { job, key })
}

/// Adds the tasks of a submission to an open job.
pub async fn extend(app: &App, job: JobId, read: Read) -> Result<Extended, Problem> {
    let (key, purpose) = (read.key, Purpose::Extension);
    let prepared = prepared(app, purpose, read, |found, content| {
        found.extension(content)
    });
    let prepared = prepared.await?;
    let client = app.client();
    let extended = client.extend(job, key, &prepared.spec, &prepared.inputs);
    Ok(extended.await?)
}

/// A job, or what is added to one, that can be submitted.
pub struct Prepared<T> {
    /// The job.
    pub spec: T,
    /// Its large input files.
    pub inputs: InputFiles,
    /// Where these are, until they are submitted.
    _files: Option<SubmittedFiles>,
}

/// Reads a job file and finds the files that it names among those of its submission.
pub async fn prepare(
    app: &App,
    purpose: Purpose,
    read: Read,
) -> Result<Prepared<JobSpec>, Problem> {
    prepared(app, purpose, read, Found::job).await
}

async fn prepared<T: Send + 'static>(
    app: &App,
    purpose: Purpose,
    read: Read,
    take: impl FnOnce(Found, &[(Hash, u64)]) -> Result<T, SpecError> + Send + 'static,
) -> Result<Prepared<T>, Problem> {
    let app = app.clone();
    // Large files are hashed, and a large job is checked for long.
    let prepared = tokio::task::spawn_blocking(move || {
        let file = JobFile::parse_as(purpose, NAME, read.syntax, read.text, &read.set)?;
        let folder = app.uploads().folder(&read.files)?;
        let found = file.find_within(folder.path())?;
        finish(&app, found, &read.files, folder, take)
    });
    let prepared = prepared.await;
    prepared.map_err(|error| {
        Problem::local(format!(
            "the job cannot be read: {error}; nothing was submitted"
        ))
    })?
}

fn finish<T>(
    app: &App,
    mut found: Found,
    named: &[Named],
    folder: SubmittedFiles,
    take: impl FnOnce(Found, &[(Hash, u64)]) -> Result<T, SpecError>,
) -> Result<Prepared<T>, Problem> {
    let packed = found.pack(folder.path());
    packed.map_err(|why| Problem::bad(format!("{why}; nothing was submitted")))?;
    let digests = app.uploads().digests(named);
    let uploads = found.uploads().iter().map(|upload| {
        let name = upload.path.strip_prefix(folder.path()).ok();
        let digest = name.and_then(|name| digests.get(name)).cloned();
        (upload.path.clone(), digest)
    });
    let (inputs, read) = InputFiles::read_unknown(uploads.collect());
    let content = read.into_iter().map(|(path, read)| {
        read.map_err(|error| {
            let name = path.strip_prefix(folder.path()).unwrap_or(&path).display();
            Problem::local(format!(
                "the input {name} cannot be read: {error}; nothing was submitted"
            ))
        })
    });
    let content = content.collect::<Result<Vec<_>, Problem>>()?;
    app.uploads().learn(&inputs);
    let spec = take(found, &content);
    let spec = spec.map_err(|error| Problem::bad(format!("{error}; nothing was submitted")))?;
    let files = (!content.is_empty()).then_some(folder);
    Ok(Prepared {
        spec,
        inputs,
        _files: files,
    })
}

fn key(text: Option<&str>) -> Result<SubmitKey, Problem> {
    let Some(text) = text else {
        return Ok(new_key()?);
    };
    let key = text.parse();
    key.map_err(|_| {
        Problem::bad(format!(
            "the key {text:?} is not 32 hexadecimal digits; nothing was submitted"
        ))
    })
}

/// The syntax of a job file, by the media type of its request.
pub fn syntax(headers: &HeaderMap) -> Result<Syntax, Problem> {
    match media_type(headers) {
        "application/toml" => Ok(Syntax::Toml),
        "application/json" => Ok(Syntax::Json),
        _ => Err(unsupported("application/toml or application/json")),
    }
}

/// The job file's parameters that a query sets.
pub fn settings(query: &Query) -> Result<Vec<Setting>, Problem> {
    let set = query.all("set").into_iter().map(|text| {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let pair = pair.map(|(name, value)| (name.to_owned(), value.to_owned()));
        pair.ok_or_else(|| Problem::bad(format!("{text:?} is no pair: write NAME=VALUE")))
    });
    set.collect()
}

/// Waits with a body that takes much memory.
pub async fn long<'a>(
    app: &'a App,
    headers: &HeaderMap,
) -> Result<Option<tokio::sync::SemaphorePermit<'a>>, Problem> {
    let length = headers.get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    match length {
        Some(bytes) if bytes <= LONG_BYTES => Ok(None),
        _ => app.large_request().await.map(Some),
    }
}
