//! The stream of events.

use crate::app::App;
use crate::feed::FOLLOWERS_MAX;
use crate::parts::Query;
use crate::problem::Problem;
use crate::sse;
use axum::extract::State;
use axum::response::Response;
use hyper::HeaderMap;

/// Follow the grid
///
/// Sends `reset`, then everything as it is (`grid`, `worker` and `job` for each), then `ready`, and from then on what
/// changes. A job or worker is sent whole each time. A client that shows the last `id` goes on behind it: after the loss of
/// its connection, a restart of the gateway and a change of leader. Where too much has happened since, or the gateway is
/// another one, it begins with `reset` again.
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "grid",
    params(("last-event-id" = Option<String>, Header, description = "Where to go on.")),
    responses(
        (status = 200, description = "Server-sent events; `Change` has their names and data.", body = sse::Event, content_type = "text/event-stream"),
        Problem,
    ),
)]
pub async fn follow_grid(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    query.only(&[])?;
    let follower = app.feed().follow(sse::last_id(&headers));
    let follower = follower.ok_or_else(|| {
        let why = format!("{FOLLOWERS_MAX} clients follow the grid already; close one of them");
        Problem::busy(why)
    })?;
    Ok(sse::respond(follower))
}
