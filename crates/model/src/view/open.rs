//! The view of an open job.

use serde::{Deserialize, Serialize};

/// How an open job stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum OpenView {
    /// Groups can be added.
    Open {
        /// After so long it closes itself, unless its client is heard of.
        closes_in_ms: f64,
    },
    /// Somebody closed it.
    Closed,
    /// It closed itself, because its client was gone.
    TimedOut,
}
