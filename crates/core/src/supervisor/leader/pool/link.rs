//! Admission control by link rate. The leader probes a worker's link when the worker attaches, and again when the
//! result is old and the worker idle. A worker with too slow a link gets no tasks until a later probe succeeds.

use crate::supervisor::Action;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::units::show_rate;
use hedge_model::view::LinkView;
use hedge_model::{PeerId, Time};
use std::time::Duration;

/// Fraction of the required rate that is enough: an Ethernet of 1 Gbit/s carries 940 Mbit/s.
const MET_AT: f64 = 0.9;
/// How long after a failed probe a slow link is probed again. Doubles each time up to the maximum.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Maximum of [`AGAIN_AFTER`].
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);
/// Age from which an idle worker's link is probed again.
const STALE_AFTER: Duration = Duration::from_secs(600);
/// How long until a busy worker is checked again.
const BUSY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long a supervisor waits for the worker's result after its own.
const REPORT_WITHIN: Duration = Duration::from_millis(400);
/// Bytes sent each way if no rate is required: enough to detect a slow link, and little for a fast one.
const LIGHT_BYTES: u64 = 128 << 10;
/// Maximum of those bytes in flight.
const LIGHT_WINDOW: u64 = 32 << 10;
/// How long the bytes in flight occupy a link of the required rate, in seconds: longer than any round trip, and short
/// enough that the worker behind a link of half the rate is not declared dead during the probe.
const QUEUED_FOR: f64 = 0.4;
/// Operating systems accept no larger window, in bytes; faster links need no limit.
const WINDOW_MAX: u32 = 128 << 10;
/// Burst that a link may pass before its rate shows, in bytes: more than the buckets of usual traffic shapers.
const AT_ONCE_BYTES: u64 = 128 << 10;
/// How long the probe occupies a link of the required rate, in seconds.
const BUSY_FOR: f64 = 0.3;

/// A transfer slower than the known rate divided by this schedules a probe: the link may have become slower, or the
/// sender was busy.
const SUSPECTED_AT: u64 = 4;

/// What is known about a worker's link.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    /// Bytes per second to the worker and from it, and the round trip.
    measured: Option<(Option<u64>, u64, Option<Duration>)>,
    /// Whether a probe runs; its result at the worker and its result here.
    probing: bool,
    worker_result: Option<u64>,
    own_result: Option<Measured>,
    /// Failed probes in a row.
    failures: u32,
    kept_out: Option<String>,
}

/// A supervisor's result of probing a worker's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes per second that arrived from the worker; 0 if the probe failed.
    pub up: u64,
    /// The round trip.
    pub round_trip: Option<Duration>,
}

/// Limits of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureMost {
    /// Maximum bytes each way.
    pub bytes: u64,
    /// Maximum bytes in flight, so that heartbeats are not delayed for long; 0 is no limit.
    pub window: u32,
}

/// The rate that was last required, in bits per second.
#[derive(Debug, Default)]
pub(crate) struct RequestedRate(u64);

impl LinkState {
    /// Why the worker is not admitted.
    pub fn kept_out(&self) -> Option<&str> {
        self.kept_out.as_deref()
    }

    /// Bytes per second in the slower direction.
    pub fn rate(&self) -> Option<u64> {
        self.measured
            .map(|(down, up, _)| down.unwrap_or(up).min(up))
    }

    /// Bytes per second to the worker.
    pub fn down(&self) -> Option<u64> {
        self.measured.and_then(|(down, ..)| down)
    }

    /// Returns the view for users.
    pub fn view(&self) -> Option<LinkView> {
        self.measured.map(|(down, up, round_trip)| LinkView {
            down_bits_per_second: down.map(|down| down.saturating_mul(8)),
            up_bits_per_second: up.saturating_mul(8),
            round_trip_ms: round_trip.map(|span| span.as_secs_f64() * 1e3),
        })
    }
}

impl Leadership<'_> {
    /// Probes the link of a worker that attached. If a rate is required, the worker is not admitted until the probe
    /// ends.
    pub(crate) fn on_link_up(&mut self, ix: WorkerIx) {
        let wanted = self.state.settings.min_link;
        let leader = &mut *self.leader;
        leader.asked_rate.0 = wanted;
        let link = leader.pool[ix].link_mut();
        *link = LinkState::default();
        leader.timers.clear(Timer::Link(ix));
        link.kept_out = (wanted > 0).then(|| "its link is being measured".to_owned());
        self.measure_link(ix);
    }

    fn measure_link(&mut self, ix: WorkerIx) {
        let (wanted, again) = (self.state.settings.min_link, self.now + AGAIN_AFTER);
        let worker = &mut self.leader.pool[ix];
        if !worker.state().reachable() {
            return self.probe_link_at(ix, again);
        }
        let link = worker.link_mut();
        if std::mem::replace(&mut link.probing, true) {
            return;
        }
        (link.worker_result, link.own_result) = (None, None);
        let busy = (wanted as f64 / 8.0 * BUSY_FOR) as u64;
        let (bytes, window) = match wanted {
            0 => (LIGHT_BYTES, LIGHT_WINDOW),
            _ => (
                AT_ONCE_BYTES.saturating_add(busy),
                (wanted as f64 / 8.0 * QUEUED_FOR) as u64,
            ),
        };
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        self.out.push(Action::MeasureLink {
            peer: worker.peer(),
            most: MeasureMost {
                bytes,
                window: if window > WINDOW_MAX { 0 } else { window },
            },
        });
    }

    /// Handles the worker's result of the current probe.
    pub(crate) fn on_link_acknowledged(&mut self, ix: WorkerIx, arrived: u64) {
        let link = self.leader.pool[ix].link_mut();
        if link.probing {
            link.worker_result = Some(arrived);
            if link.own_result.is_some() {
                self.link_measured(ix);
            }
        }
    }

    /// Handles this supervisor's result of the current probe.
    pub(crate) fn on_link_measured(&mut self, peer: PeerId, found: Measured) {
        let (now, wanted) = (self.now, self.state.settings.min_link);
        let Some(ix) = self.leader.pool.find(peer) else {
            return;
        };
        let leader = &mut *self.leader;
        let link = leader.pool[ix].link_mut();
        if !link.probing {
            return;
        }
        link.own_result = Some(found);
        // One slow direction decides. Otherwise the worker has time to report.
        if link.worker_result.is_some() || is_slow(found.up, wanted) {
            self.link_measured(ix);
        } else {
            self.probe_link_at(ix, now + REPORT_WITHIN);
        }
    }

    /// Handles a worker's result that is overdue, or starts the next probe.
    pub(crate) fn on_link_timer(&mut self, ix: WorkerIx) {
        let now = self.now;
        let worker = &self.leader.pool[ix];
        if worker.link().probing {
            if worker.link().own_result.is_some() {
                self.link_measured(ix);
            }
        } else if worker.load().in_hand().is_empty() {
            self.measure_link(ix);
        } else {
            self.probe_link_at(ix, now + BUSY_AGAIN_AFTER);
        }
    }

    fn probe_link_at(&mut self, ix: WorkerIx, at: Time) {
        let leader = &mut *self.leader;
        leader.timers.set(at, Timer::Link(ix));
    }

    /// Evaluates a probe when both results are known or the worker's is overdue. A direction without a result counts
    /// as 0.
    fn link_measured(&mut self, ix: WorkerIx) {
        let (now, wanted) = (self.now, self.state.settings.min_link);
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        let link = worker.link_mut();
        link.probing = false;
        let found = link.own_result.take().unwrap_or_default();
        let down = link.worker_result.take();
        if down.unwrap_or(0) > 0 || found.up > 0 {
            link.measured = Some((down, found.up, found.round_trip));
        }
        let carried = match down {
            Some(down) => down.min(found.up),
            None if is_slow(found.up, wanted) => found.up,
            None => 0,
        };
        let before = link.kept_out.is_some();
        let slow = is_slow(carried, wanted);
        link.kept_out = slow.then(|| too_slow(carried.saturating_mul(8), wanted));
        link.failures = if slow { link.failures + 1 } else { 0 };
        let again = match link.failures {
            0 => STALE_AFTER,
            times => (AGAIN_AFTER * 2_u32.pow((times - 1).min(6))).min(AGAIN_AFTER_MAX),
        };
        if let Some(rate) = link.rate().filter(|rate| *rate > 0) {
            let peer = worker.peer();
            self.out.push(Action::LinkRate { peer, rate });
        }
        if before != slow {
            leader.pool_changed(ix);
        }
        self.probe_link_at(ix, now + again);
    }

    /// Updates a worker's rate from a large transfer, which gives a lower bound. A higher rate replaces the known
    /// one, and the next probe is postponed. A much lower rate schedules a probe, because it may have other causes
    /// than the link.
    pub(crate) fn note_transfer_rate(&mut self, ix: WorkerIx, bytes: u64, took: Duration) {
        let now = self.now;
        let worker = &mut self.leader.pool[ix];
        let peer = worker.peer();
        let link = worker.link_mut();
        let nanos = took.as_nanos().max(1);
        let rate = (u128::from(bytes) * 1_000_000_000 / nanos).min(u128::from(u64::MAX / 8)) as u64;
        let before = link.rate();
        let Some((down, up, _)) = link.measured.as_mut() else {
            return;
        };
        let known = down.unwrap_or(*up);
        if link.probing || link.kept_out.is_some() {
            return;
        }
        if rate >= known {
            *down = Some(rate);
            let after = link
                .rate()
                .filter(|rate| before != Some(*rate) && *rate > 0);
            self.out
                .extend(after.map(|rate| Action::LinkRate { peer, rate }));
            self.probe_link_at(ix, now + STALE_AFTER);
        } else if rate < known / SUSPECTED_AT {
            let soon = now + BUSY_AGAIN_AFTER;
            self.leader.timers.set_no_later(soon, Timer::Link(ix));
        }
    }

    /// Probes all links when the required rate has changed. Until then, each worker stays admitted or not.
    pub(crate) fn follow_min_link(&mut self) {
        let wanted = self.state.settings.min_link;
        let leader = &mut *self.leader;
        if std::mem::replace(&mut leader.asked_rate.0, wanted) == wanted {
            return;
        }
        let all = leader.pool.len() as WorkerIx;
        (0..all).for_each(|ix| self.measure_link(ix));
    }
}

/// Returns whether `carried` bytes per second are less than the required rate `wanted` in bits per second.
fn is_slow(carried: u64, wanted: u64) -> bool {
    (carried as f64 * 8.0) < wanted as f64 * MET_AT
}

fn too_slow(carried: u64, wanted: u64) -> String {
    let wanted = show_rate(wanted);
    if carried == 0 {
        return format!("its link could not be measured, and the grid asks for {wanted}");
    }
    let carried = show_rate(carried);
    format!("its link carries {carried}, and the grid asks for {wanted}")
}
