//! Server-sent events: their encoding, and responses that stream them.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;
use utoipa::ToSchema;

/// Without events a comment is sent at this interval, so that both ends notice a dead connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Appends an event. A client that shows `id` later continues behind it.
pub fn event(to: &mut Vec<u8>, name: &str, id: Option<&str>, data: &impl Serialize) {
    // These are our own types, with text and numbers alone. JSON has no line breaks of its own.
    let data = serde_json::to_string(data).unwrap_or_default();
    raw_event(to, name, id, &data);
}

/// Appends an event whose data is one line of JSON.
pub fn raw_event(to: &mut Vec<u8>, name: &str, id: Option<&str>, data: &str) {
    let event = name;
    Event { event, id, data }.write(to);
}

/// A server-sent event.
#[derive(ToSchema)]
pub struct Event<'a> {
    /// Its name.
    event: &'a str,
    /// What a client shows as `Last-Event-ID` to go on behind it.
    #[schema(nullable = false)]
    id: Option<&'a str>,
    /// One line of JSON.
    data: &'a str,
}

impl Event<'_> {
    fn write(&self, to: &mut Vec<u8>) {
        let Self { event, id, data } = self;
        let id = id.map_or(String::new(), |id| format!("id: {id}\n"));
        let text = format!("event: {event}\n{id}data: {data}\n\n");
        to.extend_from_slice(text.as_bytes());
    }
}

/// Returns the id of the last event that a client has received.
pub fn last_id(headers: &HeaderMap) -> Option<&str> {
    headers.get("last-event-id")?.to_str().ok()
}

/// A source of events.
pub trait Source: Send + 'static {
    /// Waits for the next events and returns their bytes; none at the end. It may be dropped and called again.
    fn next(&mut self) -> impl Future<Output = Option<Vec<u8>>> + Send;
}

/// Returns a response that sends events as they come, and reads from the source only as fast as the client reads.
pub fn respond(source: impl Source) -> Response {
    let stream = stream::unfold(source, |mut source| async move {
        let bytes = match tokio::time::timeout(KEEP_ALIVE, source.next()).await {
            Ok(bytes) => bytes?,
            Err(_) => b":\n\n".to_vec(),
        };
        Some((Ok::<_, Infallible>(Bytes::from(bytes)), source))
    });
    let mut response = Body::from_stream(stream).into_response();
    let form = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(CONTENT_TYPE, form);
    response
}
