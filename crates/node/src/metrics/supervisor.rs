//! Metrics that a supervisor counts while it leads.

use super::{ByKind, attempt_times, reaction_times};
use hedge_core::monitor::{Found, Liveness};
use hedge_core::supervisor::{Action, Event, Supervisor as Core};
use hedge_model::ending::Fault;
use hedge_model::msg::ToWorker;
use hedge_model::record::Record;
use hedge_model::{Ending, PeerId, TaskId, Time};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::time::Duration;

/// The most tasks whose recovery is timed at once. Further ones are not timed.
const RECOVERING_MAX: usize = 100_000;

/// Whether an attempt was the first of its task or a copy, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    copy: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCopy {
    copy: &'static str,
}

/// Counters and histograms of one supervisor; clones share them. They begin at zero with the process.
#[derive(Clone, Debug)]
pub struct SupervisorMetrics {
    attempts: Family<Ended, Counter>,
    attempt_times: Family<ByCopy, Histogram, fn() -> Histogram>,
    detection: Family<ByKind, Histogram, fn() -> Histogram>,
    recovery: Histogram,
    suspicions: Counter,
    returns: Counter,
    leads: Gauge,
    epochs: Counter,
}

impl Default for SupervisorMetrics {
    fn default() -> Self {
        let metrics = Self {
            attempts: Family::default(),
            attempt_times: Family::new_with_constructor(attempt_times),
            detection: Family::new_with_constructor(reaction_times),
            recovery: reaction_times(),
            suspicions: Counter::default(),
            returns: Counter::default(),
            leads: Gauge::default(),
            epochs: Counter::default(),
        };
        // Series that are there from the start have rates from the start.
        for copy in ["primary", "redundant"] {
            for outcome in ["won", "failed", "moved", "lost", "cancelled"] {
                drop(metrics.attempts.get_or_create(&Ended { copy, outcome }));
            }
            drop(metrics.attempt_times.get_or_create(&ByCopy { copy }));
        }
        for kind in ["suspected", "dead"] {
            drop(metrics.detection.get_or_create(&ByKind { kind }));
        }
        metrics
    }
}

impl SupervisorMetrics {
    /// Adds all of them to a registry whose prefix names the product.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Attempts that ended while this supervisor led";
        registry.register("attempts", help, self.attempts.clone());
        let help = "For how long attempts ran that ended while this supervisor led";
        let unit = Unit::Seconds;
        registry.register_with_unit("attempt", help, unit.clone(), self.attempt_times.clone());
        let help = "From a worker's last heartbeat until it was suspected, or declared dead";
        registry.register_with_unit("detection", help, unit.clone(), self.detection.clone());
        let help = "From the last heartbeat of a worker that was suspected or lost until a task of it was assigned \
                    elsewhere; zero where a copy ran there already";
        registry.register_with_unit("recovery", help, unit, self.recovery.clone());
        let help = "Times that workers were suspected";
        registry.register("suspicions", help, self.suspicions.clone());
        let help = "Times that suspected or dead workers were heard again";
        registry.register("worker_returns", help, self.returns.clone());
        let help = "Whether this supervisor leads";
        registry.register("leader", help, self.leads.clone());
        let help = "Times that this supervisor began to lead";
        registry.register("leaderships", help, self.epochs.clone());
    }

    fn detected(&self, kind: &'static str, silent: Duration) {
        let times = self.detection.get_or_create(&ByKind { kind });
        times.observe(silent.as_secs_f64());
    }

    fn ended(&self, redundant: bool, outcome: &'static str, ran: Duration) {
        let copy = if redundant { "redundant" } else { "primary" };
        self.attempts.get_or_create(&Ended { copy, outcome }).inc();
        let times = self.attempt_times.get_or_create(&ByCopy { copy });
        times.observe(ran.as_secs_f64());
    }
}

/// Updates the metrics from the events and actions of a supervisor's core.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    metrics: SupervisorMetrics,
    /// Tasks of suspected or lost workers that have not been assigned elsewhere, with the worker and its last heartbeat.
    recovering: BTreeMap<TaskId, (PeerId, Time)>,
}

impl Tally {
    pub fn new(metrics: SupervisorMetrics) -> Self {
        Self {
            metrics,
            recovering: BTreeMap::new(),
        }
    }

    /// Counts an event before the core handles it. `now` is the uptime of the process.
    pub fn on_event(&mut self, now: Time, event: &Event, core: &Core) {
        match event {
            // Records that another supervisor or an earlier process proposed are not counted here.
            Event::Committed {
                proposal: Some(_),
                record,
            } => self.committed(record),
            Event::Found(finding) => match finding.what {
                Found::Silent { liveness, silent } => {
                    let kind = match liveness {
                        Liveness::Suspect => "suspected",
                        Liveness::Dead => "dead",
                        Liveness::Live | Liveness::Late => return,
                    };
                    if liveness == Liveness::Suspect {
                        self.metrics.suspicions.inc();
                    }
                    self.metrics.detected(kind, silent);
                    self.missing(finding.peer, now - silent, core);
                }
                Found::Back { was, .. } if was >= Liveness::Suspect => {
                    self.metrics.returns.inc();
                    self.recovering.retain(|_, (peer, _)| *peer != finding.peer);
                }
                _ => {}
            },
            Event::Gone {
                peer,
                silent: false,
            } => self.missing(*peer, now, core),
            Event::Deposed => self.recovering.clear(),
            _ => {}
        }
    }

    /// Counts actions of the core.
    pub fn on_actions(&mut self, now: Time, actions: &[Action]) {
        if self.recovering.is_empty() {
            return;
        }
        for action in actions {
            match action {
                Action::Send {
                    to,
                    msg: ToWorker::Assign(order),
                } => self.assigned(now, order.attempt.task, *to),
                Action::SendAssignment { to, order } => {
                    self.assigned(now, order.order.attempt.task, *to);
                }
                _ => {}
            }
        }
    }

    fn assigned(&mut self, now: Time, task: TaskId, to: PeerId) {
        if let Some((_, since)) = self.recovering.get(&task).filter(|(peer, _)| *peer != to) {
            let took = now.since(*since);
            self.metrics.recovery.observe(took.as_secs_f64());
            self.recovering.remove(&task);
        }
    }

    /// Records whether the core leads.
    pub fn on_leadership(&mut self, leads: bool) {
        let before = self.metrics.leads.set(i64::from(leads));
        if leads && before == 0 {
            self.metrics.epochs.inc();
        }
    }

    fn committed(&mut self, record: &Record) {
        match record {
            Record::TaskDone {
                attempt,
                redundant,
                usage,
                ..
            } => {
                self.metrics.ended(*redundant, "won", usage.running);
                self.recovering.remove(&attempt.task);
            }
            Record::AttemptEnded {
                redundant,
                end,
                usage,
                ..
            } => self.metrics.ended(*redundant, outcome(end), usage.running),
            Record::JobEnded { job, .. } if !self.recovering.is_empty() => {
                self.recovering.retain(|task, _| task.job != *job);
            }
            _ => {}
        }
    }

    /// Starts to time the recovery of a suspected or lost worker's tasks. Its last heartbeat was at `since`.
    fn missing(&mut self, peer: PeerId, since: Time, core: &Core) {
        for (task, elsewhere) in core.tasks_at(peer) {
            if elsewhere {
                self.metrics.recovery.observe(0.0);
            } else if self.recovering.len() < RECOVERING_MAX {
                self.recovering.entry(task).or_insert((peer, since));
            }
        }
    }
}

fn outcome(end: &Ending) -> &'static str {
    match (end.fault(), end) {
        (Fault::Task, _) => "failed",
        (Fault::Worker | Fault::Input, _) => "moved",
        (Fault::Nobody, Ending::Cancelled) => "cancelled",
        (Fault::Nobody, _) => "lost",
    }
}
