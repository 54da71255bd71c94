//! Problem details (RFC 9457): the response to a request that was not carried out, with the text that the command line
//! prints for it.

use axum::response::{IntoResponse, Response};
use hedge_job::{BadJobFile, Located};
use hedge_model::msg::RefusalKind;
use hedge_node::ClientError;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use std::collections::BTreeMap;
use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response as Described, ResponseBuilder};
use utoipa::{IntoResponses, ToSchema};

/// The media type of problems.
const FORM: &str = "application/problem+json";
/// Seconds after which a client may repeat a request that could not be answered.
const RETRY_AFTER_S: &str = "1";

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// The status, as a number.
    pub status: u16,
    /// The status, in words.
    pub title: String,
    /// What happened, what was kept, and what to do.
    pub detail: String,
    /// What kind of problem it is.
    pub kind: Kind,
    /// Mistakes of a job file, with their places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub mistakes: Vec<Located>,
}

/// Kinds of problems, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The request is wrong in itself.
    Bad,
    /// There is no such thing.
    Unknown,
    /// The token is missing or wrong, or the grid does not allow it.
    NotAllowed,
    /// Not now; try again.
    Busy,
    /// The grid cannot be reached.
    Unreachable,
    /// Something failed on this machine.
    Local,
}

impl Problem {
    /// Creates a problem with this status and kind.
    pub fn new(status: StatusCode, kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            detail: detail.into(),
            kind,
            mistakes: Vec::new(),
        }
    }

    /// The request is wrong.
    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, Kind::Bad, detail)
    }

    /// There is no such thing.
    pub fn unknown(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, Kind::Unknown, detail)
    }

    /// The gateway has too much to do.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, Kind::Busy, detail)
    }

    /// Something on this machine failed.
    pub fn local(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, Kind::Local, detail)
    }

    /// The supervisor's reply is not one to the request.
    pub fn unexpected() -> Self {
        Self::new(
            StatusCode::BAD_GATEWAY,
            Kind::Local,
            "the supervisor answered something else than it was asked; it may be of another version: compare \
             `hedge --version` there and here",
        )
    }

    /// The path has no such method.
    pub fn method(detail: String) -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, Kind::Bad, detail)
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let (status, kind) = match &error {
            ClientError::Unreachable(_) => (StatusCode::SERVICE_UNAVAILABLE, Kind::Unreachable),
            ClientError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, Kind::Busy),
            ClientError::NotAllowed(_) => (StatusCode::FORBIDDEN, Kind::NotAllowed),
            ClientError::Local(_) => (StatusCode::INTERNAL_SERVER_ERROR, Kind::Local),
            ClientError::Refused(refusal) => match refusal.kind {
                RefusalKind::Bad => (StatusCode::BAD_REQUEST, Kind::Bad),
                RefusalKind::Unknown => (StatusCode::NOT_FOUND, Kind::Unknown),
                RefusalKind::NotAllowed => (StatusCode::FORBIDDEN, Kind::NotAllowed),
                RefusalKind::Busy | RefusalKind::NotLeading => {
                    (StatusCode::SERVICE_UNAVAILABLE, Kind::Busy)
                }
            },
        };
        Self::new(status, kind, error.to_string())
    }
}

impl From<BadJobFile> for Problem {
    fn from(bad: BadJobFile) -> Self {
        Self {
            mistakes: bad.located(),
            ..Self::bad(bad.to_string())
        }
    }
}

/// Lets the description of every path name the problem as a response.
impl IntoResponses for Problem {
    fn responses() -> BTreeMap<String, RefOr<Described>> {
        let schema = Ref::from_schema_name(Self::name());
        let content = ContentBuilder::new().schema(Some(schema)).build();
        let response = ResponseBuilder::new()
            .description("It was not done.")
            .content(FORM, content)
            .build();
        BTreeMap::from([("default".to_owned(), response.into())])
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        // Text and numbers can always be encoded.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let form = HeaderValue::from_static(FORM);
        headers.insert(CONTENT_TYPE, form);
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
