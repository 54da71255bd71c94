//! Parts of requests and responses: parameters of path and query, bodies with limits, JSON.

use crate::problem::{Kind, Problem};
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;
use std::time::Duration;
use tokio::time::timeout;

/// A request is refused when its body makes no progress for this long.
const BODY_STALLS_FOR: Duration = Duration::from_secs(30);
/// The longest JSON body of a request other than a job file, in bytes.
pub const JSON_BYTES_MAX: u64 = 1 << 20;

/// Parameters of a path.
pub struct PathParams(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for PathParams {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = RawPathParams::from_request_parts(parts, state).await;
        let raw = raw.map_err(|error| Problem::bad(format!("the path cannot be read: {error}")))?;
        let pairs = raw.iter();
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(Self(pairs.collect()))
    }
}

impl PathParams {
    /// Returns the text of a parameter that the path has.
    pub fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value)
    }

    /// Returns a parameter as another type. A text that does not parse names nothing, so the problem is `unknown`.
    pub fn value<T: FromStr>(&self, name: &str) -> Result<T, Problem> {
        let text = self.text(name);
        let value = text.parse();
        value.map_err(|_| Problem::unknown(format!("{text:?} is no {name}; nothing was done")))
    }
}

/// Parameters of a query.
pub struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = form_urlencoded::parse(query.as_bytes());
        let pairs = pairs.map(|(name, value)| (name.into_owned(), value.into_owned()));
        Ok(Self(pairs.collect()))
    }
}

impl Query {
    /// Refuses all parameters but these.
    pub fn only(self, names: &[&str]) -> Result<Self, Problem> {
        let stray = self.0.iter().find(|(name, _)| !names.contains(&&**name));
        match stray {
            None => Ok(self),
            Some((name, _)) => Err(Problem::bad(format!(
                "the query has no parameter {name:?}; nothing was done: leave it out{}",
                match names {
                    [] => String::new(),
                    names => format!(", or use one of {}", names.join(", ")),
                }
            ))),
        }
    }

    /// Returns a parameter that may occur once.
    pub fn one<T: FromStr>(&self, name: &str) -> Result<Option<T>, Problem> {
        let mut found = self.0.iter().filter(|(known, _)| known == name);
        let Some((_, text)) = found.next() else {
            return Ok(None);
        };
        if found.next().is_some() {
            let why = format!("the query has {name:?} more than once; nothing was done");
            return Err(Problem::bad(why));
        }
        let value = text.parse().map(Some);
        value.map_err(|_| {
            let why = format!("the query's {name} cannot be {text:?}; nothing was done");
            Problem::bad(why)
        })
    }

    /// Returns all values of a parameter that may occur more than once.
    pub fn all(&self, name: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).collect()
    }
}

/// A value that a query names by its serde word.
#[derive(Clone, Copy, Debug)]
pub struct Word<T>(pub T);

impl<T: DeserializeOwned> FromStr for Word<T> {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        serde_json::from_value(text.into()).map(Self)
    }
}

/// Returns the media type of a request's body, without parameters.
pub fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let media = value.and_then(|value| value.split(';').next());
    media.unwrap_or_default().trim()
}

/// Reads a body of at most `bytes_max` bytes.
pub async fn read(body: Body, bytes_max: u64) -> Result<Bytes, Problem> {
    let mut all = BytesMut::new();
    let mut frames = Frames::new(body, bytes_max);
    while let Some(bytes) = frames.next().await? {
        all.extend_from_slice(&bytes);
    }
    Ok(all.freeze())
}

/// The bytes of a body as they come.
pub struct Frames {
    body: Body,
    left: u64,
    bytes_max: u64,
}

impl Frames {
    /// Reads a body of at most `bytes_max` bytes.
    pub fn new(body: Body, bytes_max: u64) -> Self {
        let left = bytes_max;
        Self {
            body,
            left,
            bytes_max,
        }
    }

    /// Returns the next bytes; none at the end.
    ///
    /// # Errors
    /// The body is too long, stalls, or ends early.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        loop {
            let frame = timeout(BODY_STALLS_FOR, self.body.frame()).await;
            let frame = frame.map_err(|_| {
                let why = "the request's body stopped coming; nothing was done";
                Problem::new(StatusCode::REQUEST_TIMEOUT, Kind::Bad, why)
            })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| {
                Problem::bad(format!(
                    "the request's body broke off: {error}; nothing was done"
                ))
            })?;
            let Ok(bytes) = frame.into_data() else {
                continue;
            };
            self.left = self.left.checked_sub(bytes.len() as u64).ok_or_else(|| {
                let why = format!(
                    "the request's body is longer than {} bytes; nothing was done",
                    self.bytes_max
                );
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Kind::Bad, why)
            })?;
            return Ok(Some(bytes));
        }
    }
}

/// Reads a JSON body.
pub async fn read_json<T: DeserializeOwned>(
    headers: &HeaderMap,
    body: Body,
    bytes_max: u64,
) -> Result<T, Problem> {
    if media_type(headers) != "application/json" {
        return Err(unsupported("application/json"));
    }
    let bytes = read(body, bytes_max).await?;
    let value = serde_json::from_slice(&bytes);
    value.map_err(|error| {
        Problem::bad(format!(
            "the request's body is not as expected: {error}; nothing was done"
        ))
    })
}

/// The request's body must have one of these media types.
pub fn unsupported(forms: &str) -> Problem {
    let why = format!("the request's content type must be {forms}; nothing was done");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Kind::Bad, why)
}

/// A JSON response.
pub struct Json<T>(pub T);

impl<T: Serialize> Json<T> {
    /// The JSON itself.
    ///
    /// # Errors
    /// It cannot be shown so.
    pub fn bytes(&self) -> Result<Bytes, Problem> {
        let body = serde_json::to_vec(&self.0);
        let body = body.map_err(|error| format!("this cannot be shown as JSON: {error}"));
        body.map(Bytes::from).map_err(Problem::local)
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        self.bytes().map(JsonBytes).into_response()
    }
}

/// A response that is JSON already.
pub struct JsonBytes(pub Bytes);

impl IntoResponse for JsonBytes {
    fn into_response(self) -> Response {
        let mut response = self.0.into_response();
        let form = HeaderValue::from_static("application/json");
        response.headers_mut().insert(CONTENT_TYPE, form);
        response
    }
}
