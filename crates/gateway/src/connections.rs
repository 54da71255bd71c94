//! Bounds the connections of the gateway in number and time, and chooses the one that a new one replaces.

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tower_service::Service;

/// The most connections: far more than the programs and pages of one user open, and fewer than a process may open files.
pub const CONNECTIONS_MAX: usize = 256;
/// The time limit for the head of a request, and for a connection without a request.
const HEAD_WITHIN: Duration = Duration::from_secs(20);
/// The longest head of a request in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most header lines of a request.
const HEADERS_MAX: usize = 64;
/// The time limit for running requests once the gateway ends.
const END_WITHIN: Duration = Duration::from_millis(500);

/// All open connections.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    last: u64,
    open: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    task: Option<AbortHandle>,
    /// Since when it has had no request; none while one is answered.
    idle_since: Option<Instant>,
}

impl Connections {
    /// Returns the number of open connections.
    pub fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Answers the requests of a new connection. If there are too many connections, closes the one that has been idle for
    /// longest; if none is idle, closes the new one.
    pub fn serve<S>(&self, stream: S, router: Router, ending: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(number) = self.add() else { return };
        let place = Place {
            connections: self.clone(),
            number,
        };
        let task = tokio::spawn(async move {
            // Dropped with the task, even if the task is aborted.
            let place = place;
            answer(stream, router, &place, ending).await;
        });
        if let Some(known) = self.lock().open.get_mut(&number) {
            known.task = Some(task.abort_handle());
        }
    }

    fn add(&self) -> Option<u64> {
        let mut table = self.lock();
        if table.open.len() >= CONNECTIONS_MAX {
            let idle = table.open.iter();
            let idle = idle.filter_map(|(number, known)| Some((known.idle_since?, *number)));
            let (_, number) = idle.min()?;
            let evicted = table.open.remove(&number)?;
            if let Some(task) = evicted.task {
                task.abort();
            }
        }
        table.last += 1;
        let number = table.last;
        let connection = Connection {
            task: None,
            idle_since: Some(Instant::now()),
        };
        table.open.insert(number, connection);
        Some(number)
    }

    fn set_idle(&self, number: u64, idle_since: Option<Instant>) {
        if let Some(known) = self.lock().open.get_mut(&number) {
            known.idle_since = idle_since;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place in the table.
#[derive(Debug)]
struct Place {
    connections: Connections,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.lock().open.remove(&self.number);
    }
}

/// A request that is being answered, until the last byte of its response was sent.
#[derive(Debug)]
struct Answering {
    connections: Connections,
    number: u64,
}

impl Answering {
    fn begin(place: &Place) -> Self {
        let (connections, number) = (place.connections.clone(), place.number);
        connections.set_idle(number, None);
        Self {
            connections,
            number,
        }
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connections.set_idle(self.number, Some(Instant::now()));
    }
}

async fn answer<S>(stream: S, router: Router, place: &Place, mut ending: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answering = Answering::begin(place);
        let mut router = router.clone();
        async move {
            let request: Request = request.map(Body::new);
            let response = Service::call(&mut router, request).await;
            response.map(|response: Response| with_guard(response, answering))
        }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // The client may close the connection or send something else than HTTP.
        _ = &mut connection => return,
        _ = ending.wait_for(|ending| *ending) => {}
    }
    connection.as_mut().graceful_shutdown();
    _ = timeout(END_WITHIN, connection).await;
}

/// Keeps the request counted as being answered until the response's body was sent.
fn with_guard(response: Response, answering: Answering) -> Response {
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_dropped = &answering;
            frame
        }))
    })
}

/// Serves connections until the gateway ends; `accept` waits for the next one.
pub async fn accept_all<S, F>(
    connections: &Connections,
    router: &Router,
    ending: &watch::Receiver<bool>,
    mut accept: impl FnMut() -> F,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = std::io::Result<S>>,
{
    let mut ended = ending.clone();
    let mut ended = pin!(ended.wait_for(|ending| *ending));
    loop {
        let accepted = tokio::select! {
            accepted = accept() => accepted,
            _ = &mut ended => return,
        };
        match accepted {
            Ok(stream) => connections.serve(stream, router.clone(), ending.clone()),
            Err(error) => {
                // For example too few descriptors, until connections end.
                tracing::warn!(%error, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
