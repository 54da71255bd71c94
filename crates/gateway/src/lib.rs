//! A gateway: a client of a grid that speaks HTTP to programs and browsers on the same machine. It has the rights of its
//! ticket and no more, follows the leader as every client does, and keeps no state of jobs of its own.
//!
//! It listens at a Unix socket that its owner alone may open, or on the loopback interface, where each request shows a
//! token. Every path of the interface begins with `/v1`; `docs/openapi.json` describes it.

mod api;
mod app;
mod connections;
mod feed;
mod guard;
mod listen;
mod metrics;
mod parts;
mod problem;
mod scrape;
mod shared;
mod sse;
mod token;
mod ui;
mod uploads;

pub use api::document;
pub use app::GatewayConfig;
pub use feed::{
    Change, Feed, Follower, GridState, Incident, IncidentKind, JobGone, Notice, WorkerGone,
};
pub use listen::{Listen, ListenError};
pub use scrape::{Scraped, Scrapers};
pub use token::Token;
pub use ui::report;

use app::App;
use axum::Router;
use axum::middleware::from_fn;
use axum::routing::get;
use connections::{Connections, accept_all};
use guard::{Guard, guarded};
use hedge_node::Client;
use listen::Listener;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The time limit for all connections to end, a little longer than that of each.
const END_WITHIN: Duration = Duration::from_millis(700);
/// The interval at which a gateway with `exit_when_idle` counts its connections.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// Why a gateway ended, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// One of its files or folders cannot be used.
    #[error("cannot {what} {}: {error}; nothing was started", path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// The address at which a gateway can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// At this socket.
    Socket(PathBuf),
    /// At this address, with the token.
    Loopback(SocketAddr),
}

/// Answers requests until `stop` ends; calls `started` with the address.
///
/// # Errors
/// It cannot listen, or its folder cannot be used.
pub async fn serve(
    client: Client,
    config: GatewayConfig,
    started: impl FnOnce(&Reached),
    stop: impl Future<Output = ()>,
) -> Result<(), GatewayError> {
    let app = App::open(client, &config).await?;
    let listener = Listener::open(&config.listen).await?;
    let (end, ending) = watch::channel(false);
    let connections = app.connections().clone();
    let accepting = async {
        match &listener {
            Listener::Socket(listener, _) => {
                let router = router(app.clone(), Guard::Socket);
                let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
                accept_all(&connections, &router, &ending, accept).await;
            }
            Listener::Loopback(listener) => {
                // It was bound a moment ago.
                let Ok(address) = listener.local_addr() else {
                    return;
                };
                let guard = Guard::token(config.token.clone(), address);
                let router = router(app.clone(), guard);
                let accept = || async {
                    let (stream, _) = listener.accept().await?;
                    stream.set_nodelay(true)?;
                    Ok(stream)
                };
                accept_all(&connections, &router, &ending, accept).await;
            }
        }
    };
    started(&reached(&listener, &config.listen));
    tokio::select! {
        () = accepting => {}
        () = stop => {}
        () = idle(&connections, config.exit_when_idle) => {}
    }
    end.send_replace(true);
    _ = tokio::time::timeout(END_WITHIN, all_closed(&connections)).await;
    Ok(())
}

fn reached(listener: &Listener, listen: &Listen) -> Reached {
    match (listener, listen) {
        (Listener::Loopback(listener), Listen::Loopback(given)) => {
            Reached::Loopback(listener.local_addr().unwrap_or(*given))
        }
        (_, Listen::Socket(path)) => Reached::Socket(path.clone()),
        (_, Listen::Loopback(given)) => Reached::Loopback(*given),
    }
}

/// Returns once there has been no connection for `limit`; never without a limit.
async fn idle(connections: &Connections, limit: Option<Duration>) {
    let Some(limit) = limit else {
        return std::future::pending().await;
    };
    let mut idle_since = Instant::now();
    while idle_since.elapsed() < limit {
        tokio::time::sleep(IDLE_LOOK.min(limit)).await;
        if connections.count() > 0 {
            idle_since = Instant::now();
        }
    }
}

async fn all_closed(connections: &Connections) {
    while connections.count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn router(app: App, guard: Guard) -> Router {
    let mut router = api::router(app);
    if matches!(guard, Guard::Token(_)) {
        // Browsers cannot use the socket.
        router = router
            .route("/", get(ui::file))
            .route("/ui/{*path}", get(ui::file));
    }
    router.layer(from_fn(move |request, next| {
        guarded(guard.clone(), request, next)
    }))
}
