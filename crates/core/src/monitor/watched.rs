//! The state of one watched worker: its last heartbeat, its plan, and when it becomes late, suspect and dead.

use super::arrivals::Arrivals;
use super::progress::Tracks;
use super::{Attention, Mode, Settings, WatchMode};
use super::{Liveness, WatchId};
use hedge_model::msg::{Heartbeat, HeartbeatPlan};
use hedge_model::{PeerId, Time};
use std::time::Duration;

/// How long a worker may take to receive a new plan and act on it, beyond the plan's own interval.
const HEARS_WITHIN: Duration = Duration::from_millis(100);
/// After this many delayed heartbeats in a row, the link counts as slower and the heartbeats as current.
const STALE_MAX: u32 = 8;
/// The most status requests that a late check catches up on. Each answer covers only some of a worker's attempts in
/// turn, so that skipped requests would delay news of the others.
const MADE_UP_MAX: u32 = 4;
/// Bytes that the transport adds to each heartbeat: UDP, IP and QUIC headers.
const HEADERS_BYTES: f64 = 70.0;
/// Two clocks drift apart by less than this. That share of the time since the last heartbeat does not count as delay.
const DRIFT: f64 = 0.001;

/// How a worker is watched.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Status {
    /// How recently it was heard.
    pub liveness: Liveness,
    /// Time since its last heartbeat.
    pub silent: Duration,
    /// Whether it sends heartbeats by itself or answers status requests.
    pub mode: Mode,
    /// The interval between two heartbeats.
    pub interval: Duration,
    /// How closely it is watched.
    pub attention: Attention,
    /// Heartbeats so far on this connection.
    pub heartbeats: u64,
    /// How often it was suspect so far on this connection.
    pub suspicions: u64,
    /// Gaps that exceeded the interval by more than a tenth.
    pub late_gaps: u64,
    /// Heartbeats that it sent or that were requested, and that did not arrive, on this connection.
    pub missed: u64,
    /// Heartbeats that were dropped because they were delayed for too long, on this connection.
    pub was_delayed: u64,
    /// Time between the last status request and its answer.
    pub round_trip: Option<Duration>,
}

#[derive(Clone, Debug)]
pub(super) struct Watched {
    pub id: WatchId,
    pub peer: PeerId,
    pub liveness: Liveness,
    pub attention: Attention,
    /// The level that applies from `relax_at` on.
    pub wanted: Attention,
    pub relax_at: Option<Time>,
    pub mode: Mode,
    pub interval: Duration,
    /// How often the worker samples its attempts' progress, by its last plan.
    progress_every: Duration,
    pub link_rate: Option<u64>,
    pub suspicions: u64,
    late_gaps: u64,
    /// The length of the gap that the last heartbeat ended.
    pub last_gap: Duration,
    /// Whether the deadline may be set too late.
    pub retime: bool,
    pub tracks: Tracks,
    /// The number of the last change of its response to its owner that a heartbeat reported.
    pub owner_change: u32,
    last: Time,
    discounted: Duration,
    seq: u64,
    heartbeats: u64,
    /// Heartbeats that did not arrive, and status requests that were answered.
    skipped: u64,
    answered: u64,
    was_delayed: u64,
    arrivals: Arrivals,
    heartbeat_bytes: f64,
    /// The last plan, when it was sent, and the longer of its and the previous interval, which applies until the
    /// worker follows it.
    plan: u32,
    told_at: Time,
    until_heard: Option<Duration>,
    asked: u64,
    request_at: Time,
    asked_at: Time,
    round_trip: Option<Duration>,
    /// Arrival minus sending time, by two clocks, of the least delayed heartbeat; nanoseconds.
    offset: Option<i128>,
    stale: u32,
}

impl Watched {
    pub fn new(now: Time, discounted: Duration, id: WatchId, peer: PeerId, way: WatchMode) -> Self {
        Self {
            id,
            peer,
            liveness: Liveness::Live,
            attention: Attention::Idle,
            wanted: Attention::Idle,
            relax_at: None,
            mode: way.mode,
            interval: way.interval,
            progress_every: Duration::ZERO,
            link_rate: None,
            suspicions: 0,
            late_gaps: 0,
            last_gap: Duration::ZERO,
            retime: false,
            tracks: Tracks::default(),
            owner_change: 0,
            last: now,
            discounted,
            seq: 0,
            heartbeats: 0,
            skipped: 0,
            answered: 0,
            was_delayed: 0,
            arrivals: Arrivals::default(),
            heartbeat_bytes: 30.0,
            plan: 0,
            told_at: now,
            until_heard: None,
            asked: 0,
            request_at: now,
            asked_at: now,
            round_trip: None,
            offset: None,
            stale: 0,
        }
    }

    /// Takes in a heartbeat. Returns whether it counts.
    pub fn on_heartbeat(
        &mut self,
        now: Time,
        discounted: Duration,
        settings: &Settings,
        heartbeat: &Heartbeat,
        bytes: usize,
    ) -> bool {
        if heartbeat.seq <= self.seq {
            return false;
        }
        match heartbeat.answers {
            0 if self.heartbeats > 0 => {
                let skipped = heartbeat.seq - self.seq - 1;
                self.skipped = self.skipped.saturating_add(skipped);
            }
            0 => {}
            _ => self.answered += 1,
        }
        self.seq = heartbeat.seq;
        if self.was_delayed(now, discounted, settings, heartbeat) {
            self.was_delayed += 1;
            return false;
        }
        self.heartbeats += 1;
        self.heartbeat_bytes += (bytes as f64 - self.heartbeat_bytes) * 0.05;
        if heartbeat.answers != 0 && heartbeat.answers == self.asked {
            self.round_trip = Some(now.since(self.asked_at));
        }
        self.last_gap = self.gap(now, discounted);
        let follows = heartbeat.plan == self.plan && self.plan != 0;
        if follows && self.until_heard.take().is_some() {
            // The gap that ends here belongs to two plans.
            self.retime = true;
        } else if self.liveness < Liveness::Dead
            && self.heartbeats > 1
            && self.until_heard.is_none()
        {
            let suspicious = self.suspect_after(settings, self.interval);
            let (gap, interval) = (self.last_gap, self.interval);
            self.arrivals.add(gap, interval, suspicious);
            let late = self.last_gap > self.interval + self.interval / 10;
            self.late_gaps += u64::from(late);
        }
        (self.last, self.discounted) = (self.last.max(now), discounted);
        true
    }

    /// Returns whether a heartbeat was delayed for so long that it says nothing about the present.
    fn was_delayed(
        &mut self,
        now: Time,
        discounted: Duration,
        settings: &Settings,
        heartbeat: &Heartbeat,
    ) -> bool {
        let offset = i128::from(now.0) - i128::from(heartbeat.sent_ns);
        let Some(least) = self.offset else {
            self.offset = Some(offset);
            return false;
        };
        let drift = (now.since(self.last).as_nanos() as f64 * DRIFT) as i128;
        let held = offset - (least + drift);
        if held <= 0 {
            self.offset = Some(offset);
            self.stale = 0;
            return false;
        }
        let held = Duration::from_nanos(u64::try_from(held).unwrap_or(u64::MAX));
        let own = discounted.saturating_sub(self.discounted);
        let stale = held.saturating_sub(own) >= self.suspect_after(settings, self.interval);
        self.stale = if stale { self.stale + 1 } else { 0 };
        if self.stale > STALE_MAX {
            (self.offset, self.stale) = (Some(offset), 0);
            return false;
        }
        stale
    }

    /// Returns the liveness that the present gap implies, and the gap.
    pub fn liveness_after_gap(
        &self,
        now: Time,
        discounted: Duration,
        awake: Time,
        settings: &Settings,
    ) -> (Liveness, Duration) {
        let ladder = [Liveness::Dead, Liveness::Suspect, Liveness::Late];
        let reached =
            |liveness: &Liveness| self.escalates_at(*liveness, discounted, awake, settings) <= now;
        let liveness = ladder.into_iter().find(reached);
        (
            liveness.unwrap_or(Liveness::Live),
            self.gap(now, discounted),
        )
    }

    /// Returns when to check this worker again.
    pub fn next(&self, discounted: Duration, awake: Time, settings: &Settings) -> Option<Time> {
        let worse = match self.liveness {
            Liveness::Live => Some(Liveness::Late),
            Liveness::Late => Some(Liveness::Suspect),
            Liveness::Suspect => Some(Liveness::Dead),
            Liveness::Dead => None,
        };
        let worse = worse.map(|liveness| self.escalates_at(liveness, discounted, awake, settings));
        let ask = self.mode.asks().then_some(self.request_at);
        [worse, ask, self.relax_at].into_iter().flatten().min()
    }

    /// Returns the number of the status request to send now, if one is due.
    pub fn status_request(&mut self, now: Time) -> Option<u64> {
        if !self.mode.asks() || self.request_at > now {
            return None;
        }
        self.request_at = self.request_at + self.interval;
        if self.request_at + self.interval * MADE_UP_MAX <= now {
            self.request_at = now + self.interval;
        }
        self.asked += 1;
        self.asked_at = now;
        Some(self.asked)
    }

    /// Returns the shortest interval that its link can carry.
    pub fn least_interval(&self, settings: &Settings) -> Duration {
        let Some(rate) = self.link_rate else {
            return Duration::ZERO;
        };
        let bytes = self.heartbeat_bytes + HEADERS_BYTES;
        let seconds = bytes / (settings.link_share * rate.max(1) as f64).max(1e-9);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Sets mode and intervals. Returns the plan to send to the worker, if it has changed.
    pub fn set_mode(
        &mut self,
        now: Time,
        mode: Mode,
        interval: Duration,
        progress: Duration,
    ) -> Option<HeartbeatPlan> {
        let told = (self.mode, self.interval, self.progress_every);
        if self.plan != 0 && told == (mode, interval, progress) {
            return None;
        }
        self.progress_every = progress;
        let longer = self.until_heard.unwrap_or(self.interval).max(interval);
        self.until_heard = Some(longer);
        (self.mode, self.interval) = (mode, interval);
        self.plan = self.plan.wrapping_add(1).max(1);
        self.told_at = now;
        self.request_at = now;
        Some(HeartbeatPlan {
            number: self.plan,
            every: mode.sends().then_some(interval),
            progress_every: progress,
        })
    }

    pub fn status(&self, now: Time, discounted: Duration) -> Status {
        Status {
            liveness: self.liveness,
            silent: self.gap(now, discounted),
            mode: self.mode,
            interval: self.interval,
            attention: self.attention,
            heartbeats: self.heartbeats,
            suspicions: self.suspicions,
            late_gaps: self.late_gaps,
            missed: self
                .skipped
                .saturating_add(self.asked.saturating_sub(self.answered)),
            was_delayed: self.was_delayed,
            round_trip: self.round_trip,
        }
    }

    fn gap(&self, now: Time, discounted: Duration) -> Duration {
        let since = now.since(self.last);
        since.saturating_sub(discounted.saturating_sub(self.discounted))
    }

    /// Returns when an ongoing gap makes the worker late, suspect or dead.
    fn escalates_at(
        &self,
        liveness: Liveness,
        discounted: Duration,
        awake: Time,
        settings: &Settings,
    ) -> Time {
        let grace = discounted.saturating_sub(self.discounted);
        let after = |interval| match liveness {
            Liveness::Live => Duration::ZERO,
            Liveness::Late => self.late_after(settings, interval),
            Liveness::Suspect => self.suspect_after(settings, interval),
            Liveness::Dead => self.dead_after(settings, interval),
        };
        let at = match self.until_heard {
            None => self.last + grace + after(self.interval),
            Some(longer) => {
                let told = self.last.max(self.told_at) + HEARS_WITHIN + after(self.interval);
                (self.last + after(longer)).min(told) + grace
            }
        };
        at.max(awake + after(self.interval))
    }

    fn late_after(&self, settings: &Settings, interval: Duration) -> Duration {
        let half = settings
            .suspect_deviations
            .map(|deviations| deviations / 2.0);
        let usual = half.map_or(Duration::ZERO, |half| {
            self.arrivals.patience(half, interval)
        });
        usual
            .max(interval.saturating_mul(2))
            .min(self.suspect_after(settings, interval))
    }

    fn suspect_after(&self, settings: &Settings, interval: Duration) -> Duration {
        let floor = interval.saturating_mul(settings.suspect_heartbeats);
        let usual = settings
            .suspect_deviations
            .map_or(Duration::ZERO, |deviations| {
                self.arrivals.patience(deviations, interval)
            });
        usual.min(settings.suspect_max).max(floor)
    }

    fn dead_after(&self, settings: &Settings, interval: Duration) -> Duration {
        let silent = interval.saturating_mul(settings.dead_heartbeats);
        silent
            .max(settings.dead_min)
            .max(self.suspect_after(settings, interval))
    }
}
