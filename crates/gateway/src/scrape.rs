//! The endpoint at which a supervisor or a worker shows its metrics to scrapers.

use crate::connections::{Connections, accept_all};
use crate::guard::Hosts;
use crate::listen::ListenError;
use crate::metrics::{of_grid, respond, respond_plain};
use crate::problem::{Kind, Problem};
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use hedge_model::msg::{Reply, Request as Ask};
use hedge_node::metrics::{SupervisorMetrics, WorkerMetrics};
use hedge_node::supervisor::Supervisor;
use hyper::header::{ACCEPT, HOST};
use hyper::{HeaderMap, StatusCode};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Whose metrics are shown.
#[derive(Clone, Debug)]
pub enum Scraped {
    /// A supervisor's, with those of the grid while it leads.
    Supervisor(SupervisorMetrics, Supervisor),
    /// A worker's.
    Worker(WorkerMetrics),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Version {
    version: &'static str,
}

#[derive(Debug)]
struct Shared {
    scraped: Scraped,
    /// On the loopback interface, the host names of accepted requests: web pages could send requests under other names.
    hosts: Option<Hosts>,
}

/// A socket that listens for scrapers.
#[derive(Debug)]
pub struct Scrapers(std::net::TcpListener, SocketAddr);

impl Scrapers {
    /// Opens the socket.
    ///
    /// # Errors
    /// The system refuses.
    pub fn open(address: SocketAddr) -> Result<Self, ListenError> {
        let open = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((listener, address))
        };
        let opened = open().map_err(|error| ListenError::System {
            at: address.to_string(),
            error,
        });
        opened.map(|(listener, address)| Self(listener, address))
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.1
    }

    /// Answers scrapers until the future is dropped.
    ///
    /// # Errors
    /// The socket cannot be registered with the runtime.
    pub async fn answer(self, scraped: Scraped) -> io::Result<()> {
        let Self(listener, address) = self;
        let listener = TcpListener::from_std(listener)?;
        let hosts = address.ip().is_loopback().then(|| Hosts::of(address));
        let shared = Arc::new(Shared { scraped, hosts });
        let router = Router::new()
            .route("/metrics", get(metrics))
            .fallback(|| async { Problem::unknown("there is only /metrics here") })
            .with_state(shared);
        let (_end, ending) = watch::channel(false);
        let accept = || async { listener.accept().await.map(|(stream, _)| stream) };
        accept_all(&Connections::default(), &router, &ending, accept).await;
        Ok(())
    }
}

async fn metrics(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let shown = |name| headers.get(name)?.to_str().ok();
    let host = shown(HOST).unwrap_or_default();
    let open_metrics = shown(ACCEPT).is_some_and(|forms| forms.contains("openmetrics-text"));
    if shared.hosts.as_ref().is_some_and(|hosts| !hosts.has(host)) {
        return Err(Problem::new(
            StatusCode::MISDIRECTED_REQUEST,
            Kind::NotAllowed,
            "metrics are not shown under this host name; use the address that was printed",
        ));
    }
    let mut registry = Registry::with_prefix("hedge");
    let build = Family::<Version, Gauge>::default();
    let version = env!("CARGO_PKG_VERSION");
    build.get_or_create(&Version { version }).set(1);
    registry.register("build_info", "The version that runs", build);
    match &shared.scraped {
        Scraped::Worker(metrics) => metrics.register(&mut registry),
        Scraped::Supervisor(metrics, supervisor) => {
            metrics.register(&mut registry);
            let client = supervisor.client();
            // A follower knows no workers; the leader shows them.
            if let Ok(jobs) = client.jobs().await
                && let Ok(Reply::Workers(workers)) = client.ask(Ask::Workers).await
            {
                of_grid(&mut registry, &jobs, &workers);
            }
        }
    }
    match open_metrics {
        true => respond(&registry),
        false => respond_plain(&registry),
    }
}
