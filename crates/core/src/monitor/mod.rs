//! The failure detector: a state machine that takes heartbeats as they arrive and is checked at deadlines that it sets.
//!
//! A worker either sends heartbeats by itself or answers status requests (poll mode). The interval depends on what
//! the worker has in hand, on the budget of heartbeats for the whole pool, and on its link. A worker that is not
//! heard becomes late, suspect and dead; a heartbeat makes it live again. If a check itself runs late, every worker
//! gets that much grace, so that a frozen supervisor suspects no worker.
//!
//! The cost of a heartbeat does not grow with the pool: it touches one worker.

mod arrivals;
mod deadlines;
mod progress;
mod settings;
mod watched;

pub use hedge_model::settings::{Mode, WatchMode};
pub use settings::{Attention, Settings};
pub use watched::Status;

use deadlines::Deadlines;
use hedge_model::msg::{Heartbeat, HeartbeatPlan};
use hedge_model::owner::OwnerNote;
use hedge_model::{AttemptId, PeerId, Time};
use std::time::Duration;
use watched::Watched;

/// Identifies a watched worker's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId {
    slot: u32,
    life: u32,
}

/// How recently a worker was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Heartbeats arrive.
    Live,
    /// The last heartbeat is overdue. This has no effect on its tasks.
    Late,
    /// Several heartbeats are missing, and that is unusual for this worker.
    Suspect,
    /// Declared dead.
    Dead,
}

impl Liveness {
    /// Returns the name for programs and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Late => "late",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

/// A finding about a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// The worker.
    pub peer: PeerId,
    /// The finding.
    pub what: Found,
}

/// What a check or a heartbeat showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found {
    /// A worker's gap has reached the next level.
    Silent {
        /// Its new state: late, suspect or dead.
        liveness: Liveness,
        /// The length of the gap so far.
        silent: Duration,
    },
    /// A worker that was not live was heard again.
    Back {
        /// Its state before.
        was: Liveness,
        /// The length of the gap.
        silent: Duration,
    },
    /// The progress of an attempt, reported at intervals.
    Progress(AttemptId, Progress),
    /// A running attempt makes no progress.
    Stalled {
        /// The attempt.
        attempt: AttemptId,
        /// Time since its last progress.
        idle: Duration,
    },
    /// A stalled attempt makes progress again.
    Moving(AttemptId),
    /// A heartbeat reported a change of the worker's response to its owner.
    Owner(OwnerNote),
}

/// The progress of an attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// CPU time used so far.
    pub cpu: Duration,
    /// Bytes written so far.
    pub written: u64,
    /// Thousandths of its work that are done, if the task reports them.
    pub permille: Option<u16>,
    /// It reports that it waits for something, or it is paused.
    pub waits: bool,
}

/// An output of the monitor for its shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Pass this to the supervisor's core.
    Found(Finding),
    /// Send a worker its heartbeat plan.
    Plan {
        /// The connection.
        id: WatchId,
        /// The worker.
        peer: PeerId,
        /// The plan.
        plan: HeartbeatPlan,
    },
    /// Send a worker a status request.
    Ask {
        /// The connection.
        id: WatchId,
        /// The worker.
        peer: PeerId,
        /// The number of the request, which the heartbeat that answers it repeats.
        seq: u64,
    },
}

/// The failure detector of one supervisor.
#[derive(Clone, Debug)]
pub struct Monitor {
    settings: Settings,
    slots: Vec<Slot>,
    free: Vec<u32>,
    deadlines: Deadlines,
    counts: [u32; 3],
    stretches: [u32; 3],
    /// The total time by which checks ran late. It does not count as a gap of any worker.
    discounted: Duration,
    /// Gaps before this time do not count: the supervisor was frozen and still reads what arrived meanwhile.
    awake: Time,
    /// When a heartbeat was last taken in or a check ran, and the longest time without either since the last check.
    seen: Time,
    unseen: Duration,
    fired: Vec<u32>,
}

/// A check that is late by at least this much follows a freeze of the supervisor.
const FROZEN: Duration = Duration::from_millis(500);
/// After a freeze gaps begin to count only after this time. On a busy machine it takes that long to read everything
/// that arrived meanwhile, and until disconnected workers are connected again.
const CATCH_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Slot {
    life: u32,
    watched: Option<Box<Watched>>,
}

impl Monitor {
    /// Creates a monitor that watches no worker yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            slots: Vec::new(),
            free: Vec::new(),
            deadlines: Deadlines::default(),
            counts: [0; 3],
            stretches: [1; 3],
            discounted: Duration::ZERO,
            awake: Time(0),
            seen: Time(0),
            unseen: Duration::ZERO,
            fired: Vec::new(),
        }
    }

    /// Returns the settings in use.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Applies new settings to all workers.
    pub fn set(&mut self, now: Time, settings: Settings, out: &mut Vec<Output>) {
        self.settings = settings;
        self.stretches = settings.stretches(self.counts);
        self.send_modes(now, out);
    }

    /// Starts to watch an admitted worker, whose heartbeats count from 1, and sends it a heartbeat plan.
    pub fn start(&mut self, now: Time, peer: PeerId, out: &mut Vec<Output>) -> WatchId {
        // No check ran while no worker was watched.
        self.deadlines.advance(now, &mut self.fired);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                life: 0,
                watched: None,
            });
            self.slots.len() as u32 - 1
        });
        let place = &mut self.slots[slot as usize];
        place.life = place.life.wrapping_add(1);
        let id = WatchId {
            slot,
            life: place.life,
        };
        let way = self.settings.way(Attention::Idle);
        place.watched = Some(Box::new(Watched::new(now, self.discounted, id, peer, way)));
        self.counts[Attention::Idle as usize] += 1;
        self.apply_budget(now, out);
        self.send_mode(now, slot, out);
        self.set_timer(now, slot);
        id
    }

    /// Stops watching a worker whose connection has closed.
    pub fn stop(&mut self, now: Time, id: WatchId, out: &mut Vec<Output>) {
        let Some(watched) = self.watched(id) else {
            return;
        };
        let attention = watched.attention;
        self.counts[attention as usize] -= 1;
        self.deadlines.clear(id.slot);
        self.slots[id.slot as usize].watched = None;
        self.free.push(id.slot);
        self.apply_budget(now, out);
    }

    /// Adapts to a change of what a worker has in hand: it is watched more closely at once, or less closely after a
    /// while.
    pub fn set_attention(&mut self, now: Time, id: WatchId, to: Attention, out: &mut Vec<Output>) {
        let relax = self.settings.relax_after;
        let Some(watched) = self.watched(id) else {
            return;
        };
        watched.wanted = to;
        if to >= watched.attention {
            watched.relax_at = None;
            self.apply(now, id.slot, to, out);
        } else if watched.relax_at.is_none() {
            watched.relax_at = Some(now + relax);
            self.set_timer(now, id.slot);
        }
    }

    /// Records the measured rate of a worker's link in its slower direction, in bytes per second.
    pub fn measured(&mut self, now: Time, id: WatchId, rate: u64, out: &mut Vec<Output>) {
        if let Some(watched) = self.watched(id) {
            watched.link_rate = Some(rate);
            self.send_mode(now, id.slot, out);
            self.set_timer(now, id.slot);
        }
    }

    /// Handles a heartbeat of `bytes`, sent by itself or as an answer, that arrived at `now`. A heartbeat is ignored
    /// if a later one overtook it, or if it was delayed by more than a suspicious gap.
    pub fn heartbeat(
        &mut self,
        now: Time,
        id: WatchId,
        heartbeat: &Heartbeat,
        bytes: usize,
        out: &mut Vec<Output>,
    ) {
        self.note_time(now);
        let (settings, discounted) = (self.settings, self.discounted);
        let Some(watched) = self.watched(id) else {
            return;
        };
        if !watched.on_heartbeat(now, discounted, &settings, heartbeat, bytes) {
            return;
        }
        let (peer, was) = (watched.peer, watched.liveness);
        let silent = watched.last_gap;
        watched.liveness = Liveness::Live;
        let found = |what| Output::Found(Finding { peer, what });
        if was != Liveness::Live {
            let excess = silent.saturating_sub(watched.interval);
            watched.tracks.discount_gap(now, excess);
            out.push(found(Found::Back { was, silent }));
        }
        if let Some(note) = heartbeat
            .owner
            .filter(|note| note.change > watched.owner_change)
        {
            watched.owner_change = note.change;
            out.push(found(Found::Owner(note)));
        }
        watched
            .tracks
            .on_heartbeat(now, &settings, heartbeat, |what| out.push(found(what)));
        if std::mem::take(&mut watched.retime) || was != Liveness::Live {
            self.set_timer(now, id.slot);
        }
    }

    /// Checks the workers whose deadlines have passed.
    ///
    /// If the check runs late, the time in which the monitor took in nothing does not count as a gap of any worker. Time in which
    /// other workers were heard does count.
    pub fn check(&mut self, now: Time, out: &mut Vec<Output>) {
        self.note_time(now);
        let unseen = std::mem::take(&mut self.unseen);
        if let Some(due) = self.deadlines.next() {
            let late = now.since(due).min(unseen);
            if late > self.shortest() {
                self.discounted += late;
            }
            if late >= FROZEN {
                self.awake = now + CATCH_UP;
            }
        }
        let mut fired = std::mem::take(&mut self.fired);
        self.deadlines.advance(now, &mut fired);
        for slot in fired.drain(..) {
            self.check_one(now, slot, out);
        }
        self.fired = fired;
    }

    /// Returns when the next check is due.
    pub fn next_check(&self) -> Option<Time> {
        if !self.fired.is_empty() {
            return Some(Time(0));
        }
        self.deadlines.next()
    }

    /// Returns how a worker is watched now.
    pub fn status(&self, now: Time, id: WatchId) -> Option<Status> {
        let place = self.slots.get(id.slot as usize)?;
        let watched = place.watched.as_ref().filter(|_| place.life == id.life)?;
        Some(watched.status(now, self.discounted))
    }

    fn note_time(&mut self, now: Time) {
        self.unseen = self.unseen.max(now.since(self.seen));
        self.seen = self.seen.max(now);
    }

    fn watched(&mut self, id: WatchId) -> Option<&mut Watched> {
        let slot = self.slots.get_mut(id.slot as usize)?;
        slot.watched.as_deref_mut().filter(|_| slot.life == id.life)
    }

    fn at(&mut self, slot: u32) -> Option<&mut Watched> {
        self.slots.get_mut(slot as usize)?.watched.as_deref_mut()
    }

    /// Returns the shortest interval in use.
    fn shortest(&self) -> Duration {
        let used = |attention: &Attention| self.counts[*attention as usize] > 0;
        let interval = |attention: Attention| {
            self.settings.way(attention).interval * self.stretches[attention as usize]
        };
        let all = Attention::ALL.into_iter().filter(used).map(interval);
        all.min().unwrap_or(WatchMode::INTERVAL_MAX)
    }

    fn check_one(&mut self, now: Time, slot: u32, out: &mut Vec<Output>) {
        let (settings, discounted, awake) = (self.settings, self.discounted, self.awake);
        let Some(watched) = self.at(slot) else {
            return;
        };
        if watched.relax_at.is_some_and(|at| at <= now) {
            watched.relax_at = None;
            let wanted = watched.wanted;
            self.apply(now, slot, wanted, out);
        }
        let Some(watched) = self.at(slot) else {
            return;
        };
        let (id, peer) = (watched.id, watched.peer);
        if let Some(seq) = watched.status_request(now) {
            out.push(Output::Ask { id, peer, seq });
        }
        let (liveness, silent) = watched.liveness_after_gap(now, discounted, awake, &settings);
        if liveness > watched.liveness {
            watched.liveness = liveness;
            watched.suspicions += u64::from(liveness == Liveness::Suspect);
            let what = Found::Silent { liveness, silent };
            out.push(Output::Found(Finding { peer, what }));
        }
        self.set_timer(now, slot);
    }

    fn set_timer(&mut self, now: Time, slot: u32) {
        let (settings, discounted, awake) = (self.settings, self.discounted, self.awake);
        let Some(watched) = self.at(slot) else {
            return;
        };
        match watched.next(discounted, awake, &settings) {
            Some(at) => self
                .deadlines
                .set(slot, at.max(now + Duration::from_nanos(1))),
            None => self.deadlines.clear(slot),
        }
    }

    fn apply(&mut self, now: Time, slot: u32, attention: Attention, out: &mut Vec<Output>) {
        let Some(watched) = self.at(slot) else {
            return;
        };
        let old = std::mem::replace(&mut watched.attention, attention);
        if old == attention {
            return;
        }
        self.counts[old as usize] -= 1;
        self.counts[attention as usize] += 1;
        self.apply_budget(now, out);
        self.send_mode(now, slot, out);
        self.set_timer(now, slot);
    }

    /// Adapts the intervals to the budget.
    fn apply_budget(&mut self, now: Time, out: &mut Vec<Output>) {
        let wanted = self.settings.stretches(self.counts);
        // Shrink intervals only if they would stay within the budget with a quarter more workers.
        let more = self.counts.map(|count| count + count / 4);
        let safe = self.settings.stretches(more);
        let mut changed = false;
        for level in 0..wanted.len() {
            let now = self.stretches[level];
            let next = if wanted[level] > now {
                wanted[level]
            } else {
                safe[level].min(now)
            };
            changed |= next != now;
            self.stretches[level] = next;
        }
        if changed {
            self.send_modes(now, out);
        }
    }

    fn send_modes(&mut self, now: Time, out: &mut Vec<Output>) {
        for slot in 0..self.slots.len() as u32 {
            self.send_mode(now, slot, out);
            self.set_timer(now, slot);
        }
    }

    /// Sends a worker its heartbeat plan, if that has changed.
    fn send_mode(&mut self, now: Time, slot: u32, out: &mut Vec<Output>) {
        let (settings, stretches) = (self.settings, self.stretches);
        let Some(watched) = self.at(slot) else {
            return;
        };
        let way = settings.way(watched.attention);
        let stretch = stretches[watched.attention as usize];
        let interval = way.interval.saturating_mul(stretch);
        let interval = interval
            .max(watched.least_interval(&settings))
            .min(WatchMode::INTERVAL_MAX);
        if let Some(plan) = watched.set_mode(now, way.mode, interval, settings.progress_every) {
            let (id, peer) = (watched.id, watched.peer);
            out.push(Output::Plan { id, peer, plan });
        }
    }
}

#[cfg(test)]
mod tests;
