//! The grid: workers, members, tickets, settings.

use crate::app::App;
use crate::parts::{JSON_BYTES_MAX, Json, PathParams, read_json};
use crate::problem::Problem;
use axum::body::Body;
use axum::extract::State;
use hedge_model::msg::{Reply, Request, Role};
use hedge_model::units::parse_duration;
use hedge_model::view::{MemberView, SettingView, TicketView, WorkerView};
use hyper::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// List all workers
#[utoipa::path(
    get,
    path = "/v1/workers",
    tag = "grid",
    responses(
        (status = 200, description = "All workers.", body = Vec<WorkerView>),
        Problem,
    ),
)]
pub async fn list_workers(State(app): State<App>) -> Result<Json<Vec<WorkerView>>, Problem> {
    match app.ask(Request::Workers).await? {
        Reply::Workers(workers) => Ok(Json(workers)),
        _ => Err(Problem::unexpected()),
    }
}

/// Let a worker finish what it runs and leave
#[utoipa::path(
    post,
    path = "/v1/workers/{worker}/drain",
    tag = "grid",
    params(("worker" = String, Path, description = "Beginning of the worker's id, or its host name.")),
    responses(
        (status = 204, description = "The worker takes no further tasks."),
        Problem,
    ),
)]
pub async fn drain_worker(State(app): State<App>, path: PathParams) -> Result<StatusCode, Problem> {
    app.tell(Request::Drain(path.text("worker").to_owned()))
        .await
}

/// List all members
#[utoipa::path(
    get,
    path = "/v1/members",
    tag = "grid",
    responses(
        (status = 200, description = "All peers that were let in.", body = Vec<MemberView>),
        Problem,
    ),
)]
pub async fn list_members(State(app): State<App>) -> Result<Json<Vec<MemberView>>, Problem> {
    match app.ask(Request::Members).await? {
        Reply::Members(members) => Ok(Json(members)),
        _ => Err(Problem::unexpected()),
    }
}

/// Revoke a member for good
#[utoipa::path(
    delete,
    path = "/v1/members/{member}",
    tag = "grid",
    params(("member" = String, Path, description = "Beginning of the member's id, or a worker's host name.")),
    responses(
        (status = 204, description = "The peer is a member no more."),
        Problem,
    ),
)]
pub async fn revoke_member(
    State(app): State<App>,
    path: PathParams,
) -> Result<StatusCode, Problem> {
    app.tell(Request::Revoke(path.text("member").to_owned()))
        .await
}

/// Let the supervisors use the newest format that all of them speak
///
/// Supervisors that run an older release can no longer take part.
#[utoipa::path(
    post,
    path = "/v1/upgrade",
    tag = "grid",
    responses(
        (status = 204, description = "The supervisors use the newest format that all of them speak."),
        Problem,
    ),
)]
pub async fn upgrade_members(State(app): State<App>) -> Result<StatusCode, Problem> {
    app.tell(Request::Upgrade).await
}

/// A ticket to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTicket {
    /// For whom: `worker`, `client`, `supervisor`, `admin` or `relay`.
    role: Role,
    /// How long it lets peers in, like `1d`; without end if it is left out.
    valid_for: Option<String>,
    /// How many peers it lets in; any number if it is left out.
    #[schema(minimum = 1)]
    uses: Option<u32>,
}

/// A ticket that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct MadeTicket {
    /// Its text, which is a secret.
    ticket: String,
}

/// List all tickets
#[utoipa::path(
    get,
    path = "/v1/tickets",
    tag = "grid",
    responses(
        (status = 200, description = "All tickets, without their secrets.", body = Vec<TicketView>),
        Problem,
    ),
)]
pub async fn list_tickets(State(app): State<App>) -> Result<Json<Vec<TicketView>>, Problem> {
    match app.ask(Request::Tickets).await? {
        Reply::Tickets(tickets) => Ok(Json(tickets)),
        _ => Err(Problem::unexpected()),
    }
}

/// Make a ticket
#[utoipa::path(
    post,
    path = "/v1/tickets",
    tag = "grid",
    request_body = NewTicket,
    responses(
        (status = 201, description = "The ticket.", body = MadeTicket),
        Problem,
    ),
)]
pub async fn make_ticket(
    State(app): State<App>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<MadeTicket>), Problem> {
    let new: NewTicket = read_json(&headers, body, JSON_BYTES_MAX).await?;
    let valid_for = new.valid_for.as_deref().map(parse_duration).transpose();
    let request = Request::Ticket {
        role: new.role,
        valid_for: valid_for.map_err(|error| Problem::bad(error.to_string()))?,
        uses: new.uses,
    };
    match app.ask(request).await? {
        Reply::Ticket(ticket) => Ok((StatusCode::CREATED, Json(MadeTicket { ticket }))),
        _ => Err(Problem::unexpected()),
    }
}

/// Let nobody in by a ticket any more
#[utoipa::path(
    delete,
    path = "/v1/tickets/{ticket}",
    tag = "grid",
    params(("ticket" = String, Path, description = "Beginning of the ticket's id.")),
    responses(
        (status = 204, description = "The ticket lets nobody in any more."),
        Problem,
    ),
)]
pub async fn revoke_ticket(
    State(app): State<App>,
    path: PathParams,
) -> Result<StatusCode, Problem> {
    let ticket = path.text("ticket").to_owned();
    app.tell(Request::RevokeTicket(ticket)).await
}

/// A value for a setting.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewValue {
    /// The value as text, like `500ms`, `10 GiB` or `3`.
    value: String,
}

/// List all settings of the grid
#[utoipa::path(
    get,
    path = "/v1/settings",
    tag = "grid",
    responses(
        (status = 200, description = "All settings.", body = Vec<SettingView>),
        Problem,
    ),
)]
pub async fn list_settings(State(app): State<App>) -> Result<Json<Vec<SettingView>>, Problem> {
    match app.ask(Request::Settings).await? {
        Reply::Settings(settings) => Ok(Json(settings)),
        _ => Err(Problem::unexpected()),
    }
}

/// Change a setting for the whole grid
#[utoipa::path(
    put,
    path = "/v1/settings/{setting}",
    tag = "grid",
    params(("setting" = String, Path, description = "Name of the setting.")),
    request_body = NewValue,
    responses(
        (status = 204, description = "The setting is changed in the whole grid."),
        Problem,
    ),
)]
pub async fn change_setting(
    State(app): State<App>,
    path: PathParams,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, Problem> {
    let new: NewValue = read_json(&headers, body, JSON_BYTES_MAX).await?;
    let request = Request::Set {
        name: path.text("setting").to_owned(),
        value: new.value,
    };
    app.tell(request).await
}
