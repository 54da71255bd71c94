//! What this gateway is.

use crate::app::App;
use crate::parts::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use utoipa::ToSchema;

/// What this gateway is.
#[derive(Debug, Serialize, ToSchema)]
pub struct About {
    /// The release of `hedge`.
    version: &'static str,
    /// The role of the gateway's ticket, `client` or `admin`: what requests may do.
    role: &'static str,
}

/// Say what this gateway is
#[utoipa::path(
    get,
    path = "/v1",
    tag = "gateway",
    responses(
        (status = 200, description = "The gateway answers.", body = About),
        crate::problem::Problem,
    ),
)]
pub async fn about(State(app): State<App>) -> Json<About> {
    Json(About {
        version: env!("CARGO_PKG_VERSION"),
        role: app.role().name(),
    })
}

/// Describe the interface
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "gateway",
    responses(
        (status = 200, description = "This description.", body = Object),
        crate::problem::Problem,
    ),
)]
pub async fn openapi() -> Response {
    let mut response = super::document().into_response();
    let form = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, form);
    response
}
