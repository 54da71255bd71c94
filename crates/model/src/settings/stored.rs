//! Translates settings in journals of earlier versions.

use std::sync::Arc;

/// Returns the present name and value of a stored setting.
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
