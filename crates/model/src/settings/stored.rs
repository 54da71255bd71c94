//! Settings as journals of earlier versions hold them.

use std::sync::Arc;

/// The name and value that a stored setting has today.
pub(super) fn current(name: &Arc<str>, value: &Arc<str>) -> (Arc<str>, Arc<str>) {
    let name = match &**name {
        "beats_per_second" => "heartbeats_per_second".into(),
        "suspect_beats" => "suspect_heartbeats".into(),
        "dead_beats" => "dead_heartbeats".into(),
        _ => name.clone(),
    };
    let value = match value.strip_prefix("asks ") {
        Some(interval) if name.starts_with("watch_") => format!("poll {interval}").into(),
        _ => value.clone(),
    };
    (name, value)
}
