//! Metrics that a worker counts.

use super::{ByKind, ByOutcome, attempt_times, reaction_times};
use hedge_model::ending::Fault;
use hedge_model::msg::{Outcome, Report};
use hedge_model::owner::{Cause, OwnerResponse, OwnerState};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Instant;

/// Counters and histograms of one worker; clones share them. They begin at zero with the process.
#[derive(Clone, Debug)]
pub struct WorkerMetrics {
    attempts: Family<ByOutcome, Counter>,
    attempt_times: Histogram,
    running: Gauge,
    connected: Gauge,
    connections: Counter,
    owner: Gauge,
    owner_returns: Family<ByKind, Counter>,
    vacate: Histogram,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        let metrics = Self {
            attempts: Family::default(),
            attempt_times: attempt_times(),
            running: Gauge::default(),
            connected: Gauge::default(),
            connections: Counter::default(),
            owner: Gauge::default(),
            owner_returns: Family::default(),
            vacate: reaction_times(),
        };
        // Series that are there from the start have rates from the start.
        for outcome in ["done", "failed", "moved", "cancelled", "returned"] {
            drop(metrics.attempts.get_or_create(&ByOutcome { outcome }));
        }
        metrics
    }
}

impl WorkerMetrics {
    /// Adds all of them to a registry whose prefix names the product.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("worker");
        let help = "Attempts whose processes ended here";
        registry.register("attempts", help, self.attempts.clone());
        let help = "For how long attempts ran here";
        registry.register_with_unit("attempt", help, Unit::Seconds, self.attempt_times.clone());
        let help = "Attempts that are staged or run here";
        registry.register("running", help, self.running.clone());
        let help = "Whether a supervisor that leads is connected";
        registry.register("connected", help, self.connected.clone());
        let help = "Times that a supervisor that leads was connected";
        registry.register("connections", help, self.connections.clone());
        let help = "Whether the owner keeps this worker from working as if nobody were there";
        registry.register("owner_present", help, self.owner.clone());
        let help = "Times that the owner came back, by the kind of activity";
        registry.register("owner_returns", help, self.owner_returns.clone());
        let help =
            "From when the owner was to have the machine back until nothing ran here any more";
        registry.register_with_unit("vacate", help, Unit::Seconds, self.vacate.clone());
    }
}

/// Updates the metrics from what the worker does.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    metrics: WorkerMetrics,
    response: OwnerResponse,
    /// Since when the worker vacates the machine, while attempts still run.
    vacates: Option<Instant>,
}

impl Tally {
    pub fn new(metrics: WorkerMetrics) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Counts an attempt whose process has ended.
    pub fn ended(&self, report: &Report) {
        let outcome = match &report.outcome {
            Outcome::Done(_) => "done",
            Outcome::Returned => "returned",
            Outcome::Ended(end) => match end.fault() {
                Fault::Task => "failed",
                Fault::Worker | Fault::Input => "moved",
                Fault::Nobody => "cancelled",
            },
        };
        self.metrics
            .attempts
            .get_or_create(&ByOutcome { outcome })
            .inc();
        self.metrics
            .attempt_times
            .observe(report.usage.running.as_secs_f64());
    }

    /// Records whether a leader is connected.
    pub fn connected(&self, connected: bool) {
        self.metrics.connected.set(i64::from(connected));
        self.metrics.connections.inc_by(u64::from(connected));
    }

    /// Records the worker's response to its owner.
    pub fn owner(&mut self, state: &OwnerState) {
        let before = std::mem::replace(&mut self.response, state.response);
        self.metrics
            .owner
            .set(i64::from(state.response != OwnerResponse::Work));
        if before == OwnerResponse::Work
            && state.response != OwnerResponse::Work
            && let Some(kind) = state.why.first().map(|cause| kind(*cause))
        {
            self.metrics
                .owner_returns
                .get_or_create(&ByKind { kind })
                .inc();
        }
        match (before, state.response) {
            (OwnerResponse::Vacate, OwnerResponse::Vacate) => {}
            (_, OwnerResponse::Vacate) => self.vacates = Some(Instant::now()),
            _ => self.vacates = None,
        }
    }

    /// Records how many attempts are staged or run.
    pub fn running(&mut self, count: usize) {
        self.metrics.running.set(count as i64);
        if count == 0
            && let Some(since) = self.vacates.take()
        {
            self.metrics.vacate.observe(since.elapsed().as_secs_f64());
        }
    }
}

fn kind(cause: Cause) -> &'static str {
    match cause {
        Cause::Activity(activity) => activity.name(),
        Cause::Unwatched => "unwatched",
        Cause::Battery => "battery",
        Cause::Metered => "metered",
        Cause::Hours => "hours",
    }
}
