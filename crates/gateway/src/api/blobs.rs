//! Content by its hash: uploads for jobs to come, and downloads with ranges.

use crate::app::App;
use crate::parts::{Frames, Json, PathParams};
use crate::problem::{Kind, Problem};
use crate::uploads::FILE_BYTES_MAX;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hedge_model::Hash;
use hedge_node::client::OpenFile;
use hyper::header::{self, HeaderValue};
use hyper::{HeaderMap, Method, StatusCode};
use serde::Serialize;
use std::io;
use std::ops::Range;
use utoipa::ToSchema;

/// Content that was uploaded.
#[derive(Debug, Serialize, ToSchema)]
pub struct Uploaded {
    /// Its BLAKE3 hash.
    blake3: String,
    /// Its length.
    bytes: u64,
}

/// Upload a file for jobs to come
///
/// It is kept until no submission has used it for an hour, or the gateway ends. Repeating it is harmless.
#[utoipa::path(
    put,
    path = "/v1/blobs/{hash}",
    tag = "files",
    params(("hash" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits.")),
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses(
        (status = 200, description = "The content was here already.", body = Uploaded),
        (status = 201, description = "The content is here.", body = Uploaded),
        Problem,
    ),
)]
pub async fn upload_blob(
    State(app): State<App>,
    path: PathParams,
    body: Body,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    let hash: Hash = path.value("hash")?;
    let (bytes, new) = app
        .uploads()
        .add(hash, Frames::new(body, FILE_BYTES_MAX))
        .await?;
    let uploaded = Uploaded {
        blake3: hash.to_string(),
        bytes,
    };
    let status = if new {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(uploaded)))
}

/// Upload a file whose hash is not known
///
/// As `PUT /v1/blobs/{hash}`; the gateway computes the hash.
#[utoipa::path(
    post,
    path = "/v1/blobs",
    tag = "files",
    request_body(content = [u8], content_type = "application/octet-stream"),
    responses(
        (status = 201, description = "The content is here.", body = Uploaded),
        Problem,
    ),
)]
pub async fn upload_unnamed(
    State(app): State<App>,
    body: Body,
) -> Result<(StatusCode, Json<Uploaded>), Problem> {
    let frames = Frames::new(body, FILE_BYTES_MAX);
    let (hash, bytes) = app.uploads().add_unnamed(frames).await?;
    let blake3 = hash.to_string();
    Ok((StatusCode::CREATED, Json(Uploaded { blake3, bytes })))
}

/// Download a file that was uploaded
///
/// Ranges of bytes can be asked for. What jobs left is at `/v1/jobs/{job}/blobs/{hash}`.
#[utoipa::path(
    get,
    path = "/v1/blobs/{hash}",
    tag = "files",
    params(
        ("hash" = String, Path, description = "BLAKE3 of the content, 64 hexadecimal digits."),
        ("range" = Option<String>, Header, description = "One range of bytes, like `bytes=0-99`."),
    ),
    responses(
        (status = 200, description = "The content.", body = [u8], content_type = "application/octet-stream"),
        (status = 206, description = "The range.", body = [u8], content_type = "application/octet-stream"),
        Problem,
    ),
)]
pub async fn download_blob(
    State(app): State<App>,
    method: Method,
    path: PathParams,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let hash: Hash = path.value("hash")?;
    let size = app.uploads().size(hash).ok_or_else(|| {
        Problem::unknown(format!(
            "no content with the hash {hash} was uploaded here; what a job left is at /v1/jobs/JOB/blobs/{hash}"
        ))
    })?;
    respond(Content::Upload { app, hash, size }, hash, &method, &headers)
}

/// Content that can be read part by part.
pub enum Content {
    /// It was uploaded.
    Upload {
        /// Where it is.
        app: App,
        /// Its hash.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
    },
    /// A job left it.
    Result(OpenFile),
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Self::Upload { size, .. } => *size,
            Self::Result(file) => file.size(),
        }
    }

    async fn read(&self, from: u64) -> io::Result<Bytes> {
        match self {
            Self::Upload { app, hash, .. } => {
                let (app, hash) = (app.clone(), *hash);
                let read = tokio::task::spawn_blocking(move || app.uploads().read(hash, from));
                Ok(read.await??.into())
            }
            Self::Result(file) => file.read(from).await.map_err(io::Error::other),
        }
    }
}

/// Sends content, or the range of it that is asked for.
pub fn respond(
    content: Content,
    hash: Hash,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let size = content.size();
    let tag = format!("\"{hash}\"");
    let part = match range(headers, &tag, size) {
        Asked::All => None,
        Asked::Part(part) => Some(part),
        Asked::Nothing => {
            let why = format!("the content has {size} bytes, and the range lies behind them");
            let problem = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, Kind::Bad, why);
            let mut response = problem.into_response();
            set(
                &mut response,
                header::CONTENT_RANGE,
                &format!("bytes */{size}"),
            );
            return Ok(response);
        }
    };
    let sent = part.clone().unwrap_or(0..size);
    let length = sent.end - sent.start;
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => stream_of(content, sent),
    };
    let mut response = body.into_response();
    if let Some(part) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let range = format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1));
        set(&mut response, header::CONTENT_RANGE, &range);
    }
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    set(
        &mut response,
        header::CONTENT_TYPE,
        "application/octet-stream",
    );
    set(&mut response, header::CONTENT_DISPOSITION, "attachment");
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(&mut response, header::ETAG, &tag);
    Ok(response)
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(name, value);
    }
}

fn stream_of(content: Content, part: Range<u64>) -> Body {
    Body::from_stream(stream::try_unfold(
        (content, part),
        async |(content, part)| {
            if part.is_empty() {
                return Ok(None);
            }
            let mut bytes = content.read(part.start).await?;
            if bytes.is_empty() {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
            let left = part.end - part.start;
            bytes.truncate(bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
            let part = part.start + bytes.len() as u64..part.end;
            Ok(Some((bytes, (content, part))))
        },
    ))
}

/// What a request asks for of some content.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    All,
    Part(Range<u64>),
    Nothing,
}

/// The range that a request asks for. Several ranges, and those of another content, are as good as none.
fn range(headers: &HeaderMap, tag: &str, size: u64) -> Asked {
    let shown = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    let Some(range) = shown(header::RANGE).and_then(|range| range.trim().strip_prefix("bytes="))
    else {
        return Asked::All;
    };
    if shown(header::IF_RANGE).is_some_and(|known| known != tag) {
        return Asked::All;
    }
    let Some((from, to)) = range.split_once('-') else {
        return Asked::All;
    };
    let part = match (from.trim(), to.trim()) {
        ("", to) => to
            .parse()
            .ok()
            .map(|last: u64| size.saturating_sub(last)..size),
        (from, "") => from.parse().ok().map(|from| from..size),
        (from, to) => from
            .parse()
            .ok()
            .zip(to.parse().ok())
            .and_then(|(from, to): (u64, u64)| {
                (from <= to).then(|| from..to.saturating_add(1).min(size))
            }),
    };
    match part {
        None => Asked::All,
        Some(part) if part.start >= part.end => Asked::Nothing,
        Some(part) => Asked::Part(part),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_stay_within_the_content() {
        let asked = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, text.parse().unwrap());
            range(&headers, "\"tag\"", 10)
        };
        assert_eq!(range(&HeaderMap::new(), "", 10), Asked::All);
        assert_eq!(asked("bytes=0-0"), Asked::Part(0..1));
        assert_eq!(asked("bytes=2-"), Asked::Part(2..10));
        assert_eq!(asked("bytes=-3"), Asked::Part(7..10));
        assert_eq!(asked("bytes=-30"), Asked::Part(0..10));
        assert_eq!(asked("bytes=9-18446744073709551615"), Asked::Part(9..10));
        assert_eq!(asked("bytes=10-"), Asked::Nothing);
        assert_eq!(asked("bytes=-0"), Asked::Nothing);
        for odd in [
            "bytes=3-2",
            "bytes=1-2,4-5",
            "bytes=x-",
            "rows=1-2",
            "bytes=",
            "bytes=-",
        ] {
            assert_eq!(asked(odd), Asked::All, "{odd}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, "bytes=0-0".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(range(&headers, "\"tag\"", 10), Asked::All);
    }
}
