//! What supervisors and workers count for scrapers, by the conventions of OpenMetrics. No label contains a
//! job, task or peer id, so the number of series is bounded.

mod supervisor;
mod worker;

pub use supervisor::SupervisorMetrics;
pub(crate) use supervisor::Tally as SupervisorTally;
pub(crate) use worker::Tally as WorkerTally;
pub use worker::WorkerMetrics;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::histogram::Histogram;

/// Bounds of detection, recovery and vacate times, seconds.
const REACTION_BOUNDS: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
];
/// Bounds of the times of attempts, seconds.
const ATTEMPT_BOUNDS: [f64; 12] = [
    0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 86400.0,
];

/// A label that says of which kind something is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: &'static str,
}

/// A label that says how something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

fn reaction_times() -> Histogram {
    Histogram::new(REACTION_BOUNDS)
}

fn attempt_times() -> Histogram {
    Histogram::new(ATTEMPT_BOUNDS)
}
