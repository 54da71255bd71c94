//! The view of a checkpoint.

use serde::{Deserialize, Serialize};

/// A task's newest checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CheckpointView {
    /// The attempt that made it.
    pub attempt: String,
    /// Where.
    pub worker: String,
    /// How old it is.
    pub age_ms: f64,
    /// Length of its files together.
    pub bytes: u64,
    /// The share of the task's work that was done, where the attempt said so.
    pub share: Option<f64>,
}
