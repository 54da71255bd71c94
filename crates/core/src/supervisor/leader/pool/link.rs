//! Which workers have a link that is fast enough: measured when they come, and again when that is old and they are
//! idle; one that is too slow is kept out until a later measurement lets it in.

use crate::supervisor::Action;
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::units::show_rate;
use hedge_model::view::LinkView;
use hedge_model::{PeerId, Time};
use std::time::Duration;

/// The part of the rate asked for at which a link will do: a real Ethernet of 1 Gbit/s carries 940 Mbit/s.
const MET_AT: f64 = 0.9;
/// Until a link that was too slow is measured again; doubles each time ...
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// ... up to this.
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(300);
/// A link that will do is measured again when this old ...
const STALE_AFTER: Duration = Duration::from_secs(600);
/// ... and its worker idle; one that is busy is looked at again after so long.
const BUSY_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How long after its own measurement a supervisor waits for the worker's.
const REPORT_WITHIN: Duration = Duration::from_millis(400);
/// Sent each way where no rate is asked for: enough to tell a slow link, nothing to a fast one.
const LIGHT_BYTES: u64 = 128 << 10;
/// Of that on its way at once.
const LIGHT_WINDOW: u64 = 32 << 10;
/// What is on its way at once keeps a link of the rate asked for busy for so long, seconds: longer than any round trip,
/// and short enough that one of half the rate is not taken for dead while it is measured.
const QUEUED_FOR: f64 = 0.4;
/// Systems take no larger limit; faster links need none.
const WINDOW_MAX: u32 = 128 << 10;
/// What a link may let pass at once before it shows its rate, bytes: more than the buckets of usual shapers.
const AT_ONCE_BYTES: u64 = 128 << 10;
/// How long a link of the rate asked for is kept busy.
const BUSY_FOR: f64 = 0.3;

/// A transfer at less than this part of the rate that is known makes a measurement due: the link may have become slower,
/// or who sent may have been busy.
const SUSPECTED_AT: u64 = 4;

/// What is known of a worker's link.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    /// Bytes a second from the supervisor to the worker and back, and the round trip.
    measured: Option<(Option<u64>, u64, Option<Duration>)>,
    /// A measurement is under way: what the worker said of it, and what was found here.
    asked: bool,
    said: Option<u64>,
    found: Option<Measured>,
    /// Measurements in a row that kept it out.
    refused: u32,
    kept_out: Option<String>,
}

/// What a supervisor finds when it measures a worker's link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes a second that arrived from the worker; 0 where the link could not be measured.
    pub up: u64,
    /// The round trip.
    pub round_trip: Option<Duration>,
}

/// What measuring a link may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasureMost {
    /// Most bytes each way.
    pub bytes: u64,
    /// Most bytes on their way at once, so that heartbeats do not wait behind them for long; 0 is no limit.
    pub window: u32,
}

/// The rate by which links were judged last, bits a second.
#[derive(Debug, Default)]
pub(crate) struct RequestedRate(u64);

impl LinkState {
    /// Why it is kept out.
    pub fn kept_out(&self) -> Option<&str> {
        self.kept_out.as_deref()
    }

    /// Bytes a second in the slower direction.
    pub fn rate(&self) -> Option<u64> {
        self.measured
            .map(|(down, up, _)| down.unwrap_or(up).min(up))
    }

    /// Bytes a second to the worker.
    pub fn down(&self) -> Option<u64> {
        self.measured.and_then(|(down, ..)| down)
    }

    /// For people.
    pub fn view(&self) -> Option<LinkView> {
        self.measured.map(|(down, up, round_trip)| LinkView {
            down_bits_per_second: down.map(|down| down.saturating_mul(8)),
            up_bits_per_second: up.saturating_mul(8),
            round_trip_ms: round_trip.map(|span| span.as_secs_f64() * 1e3),
        })
    }
}

impl Leadership<'_> {
    /// A worker came: where a rate is asked for it waits outside until its link is measured.
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
        if std::mem::replace(&mut link.asked, true) {
            return;
        }
        (link.said, link.found) = (None, None);
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

    /// What the worker says of the measurement under way.
    pub(crate) fn on_link_acknowledged(&mut self, ix: WorkerIx, arrived: u64) {
        let link = self.leader.pool[ix].link_mut();
        if link.asked {
            link.said = Some(arrived);
            if link.found.is_some() {
                self.link_measured(ix);
            }
        }
    }

    /// What was found here.
    pub(crate) fn on_link_measured(&mut self, peer: PeerId, found: Measured) {
        let (now, wanted) = (self.now, self.state.settings.min_link);
        let Some(ix) = self.leader.pool.find(peer) else {
            return;
        };
        let leader = &mut *self.leader;
        let link = leader.pool[ix].link_mut();
        if !link.asked {
            return;
        }
        link.found = Some(found);
        // One slow direction decides; else the worker has its time to say what it saw.
        if link.said.is_some() || is_slow(found.up, wanted) {
            self.link_measured(ix);
        } else {
            self.probe_link_at(ix, now + REPORT_WITHIN);
        }
    }

    /// The worker's word is late, or it is time to measure again.
    pub(crate) fn on_link_timer(&mut self, ix: WorkerIx) {
        let now = self.now;
        let worker = &self.leader.pool[ix];
        if worker.link().asked {
            if worker.link().found.is_some() {
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

    /// Both sides have said what they saw, or one of them has not in time: that direction carried nothing.
    fn link_measured(&mut self, ix: WorkerIx) {
        let (now, wanted) = (self.now, self.state.settings.min_link);
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        let link = worker.link_mut();
        link.asked = false;
        let found = link.found.take().unwrap_or_default();
        let down = link.said.take();
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
        link.refused = if slow { link.refused + 1 } else { 0 };
        let again = match link.refused {
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

    /// A large transfer reached a worker, which shows what its link carries at least: more than is known is taken over, as
    /// much is as good as a measurement, and much less makes one due, as there are other reasons for it than the link.
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
        if link.asked || link.kept_out.is_some() {
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
            self.leader.timers.set_by(soon, Timer::Link(ix));
        }
    }

    /// Another rate is asked for: all are measured by it; until then each stays in or out.
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

/// Whether so many bytes a second are less than the rate asked for, bits a second.
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
