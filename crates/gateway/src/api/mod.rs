//! The paths of the interface, and their description.

mod about;
mod blobs;
mod events;
mod grid;
mod jobs;
mod logs;
mod open;
mod plan;
mod results;
mod submit;
mod tasks;

use crate::app::App;
use crate::problem::Problem;
use axum::Router;
use axum::extract::Request;
use hedge_model::view::{JobState, OutputEnd, OutputPart, TaskFilter};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the interface is, for people who read its description.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hedgerow",
        description = "A grid, for programs on the same machine: `hedge gateway` serves this. Over TCP each request shows \
                       a token; the socket needs none. Errors are problem details (RFC 9457).",
    ),
    components(schemas(
        Problem,
        JobState,
        TaskFilter,
        crate::feed::Change,
        open::Ends,
        OutputPart,
        OutputEnd
    )),
    modifiers(&Bearer),
    security((), ("token" = [])),
    tags(
        (name = "jobs", description = "Jobs: submitting, following and ending them."),
        (name = "tasks", description = "Tasks of a job, their attempts and what they print."),
        (name = "files", description = "What jobs read and leave."),
        (name = "grid", description = "Workers, members, tickets and settings."),
        (name = "gateway", description = "The gateway itself."),
    ),
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(about::about))
        .routes(routes!(about::openapi))
        .routes(routes!(jobs::list_jobs, submit::submit_job))
        .routes(routes!(submit::submit_jobs))
        .routes(routes!(jobs::show_job, jobs::forget_job))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(open::open_job))
        .routes(routes!(open::extend_job))
        .routes(routes!(open::close_job))
        .routes(routes!(open::release_tasks))
        .routes(routes!(open::cancel_tasks))
        .routes(routes!(open::follow_ends))
        .routes(routes!(jobs::job_cost))
        .routes(routes!(tasks::explain_job))
        .routes(routes!(tasks::list_groups))
        .routes(routes!(tasks::list_attempts))
        .routes(routes!(tasks::list_tasks))
        .routes(routes!(tasks::explain_task))
        .routes(routes!(logs::show_log))
        .routes(routes!(logs::follow_log))
        .routes(routes!(results::list_results))
        .routes(routes!(results::download_result))
        .routes(routes!(blobs::upload_unnamed))
        .routes(routes!(blobs::upload_blob, blobs::download_blob))
        .routes(routes!(plan::plan_job))
        .routes(routes!(events::follow_grid))
        .routes(routes!(crate::metrics::metrics))
        .routes(routes!(grid::list_workers))
        .routes(routes!(grid::drain_worker))
        .routes(routes!(grid::list_members))
        .routes(routes!(grid::revoke_member))
        .routes(routes!(grid::upgrade_members))
        .routes(routes!(grid::list_tickets, grid::make_ticket))
        .routes(routes!(grid::revoke_ticket))
        .routes(routes!(grid::list_settings))
        .routes(routes!(grid::change_setting))
}

/// The description of the interface, OpenAPI 3.1 as JSON.
pub fn document() -> String {
    let (_, description) = routes().split_for_parts();
    // It has text and numbers alone.
    let text = description.to_pretty_json().unwrap_or_default();
    text + "\n"
}

/// Answers all paths.
pub fn router(app: App) -> Router {
    let (router, _) = routes().split_for_parts();
    router
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

async fn no_such_path(request: Request) -> Problem {
    let path = request.uri().path();
    Problem::unknown(format!(
        "there is no path {path:?}; GET /v1/openapi.json lists all"
    ))
}

async fn no_such_method(request: Request) -> Problem {
    let method = request.method();
    let why =
        format!("this path does not know the method {method}; GET /v1/openapi.json lists all");
    Problem::method(why)
}
