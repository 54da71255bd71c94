//! Who is alive: a machine of its own, fed with heartbeats as they arrive and asked when it says so.
//!
//! A worker is watched in one of two ways: it sends heartbeats by itself, or it is asked and answers. Which, and how
//! often, depends on what it has in hand, on the budget of heartbeats for the whole pool, and on its link. One that
//! is silent goes from live to late, suspect and dead; a heartbeat brings it back. A check that itself
//! ran late gives every worker that much grace, so that a frozen supervisor suspects nobody.
//!
//! The cost of a heartbeat does not grow with the pool: it touches its worker alone.

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

/// Names one connection of a watched worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId {
    slot: u32,
    life: u32,
}

/// Whether a worker shows heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Liveness {
    /// Heartbeats arrive.
    Live,
    /// The last heartbeat is overdue; stops nothing.
    Late,
    /// Several are missing, and that is unusual for it.
    Suspect,
    /// Given up.
    Dead,
}

impl Liveness {
    /// For programs and people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Late => "late",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

/// What was found out about a worker.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Finding {
    /// Whom it concerns.
    pub peer: PeerId,
    /// What.
    pub what: Found,
}

/// What a check or a heartbeat found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found {
    /// A worker has been silent for longer than before.
    Silent {
        /// Its state from now on: late, suspect or dead.
        liveness: Liveness,
        /// For how long.
        silent: Duration,
    },
    /// A silent worker gave a heartbeat.
    Back {
        /// What it had been.
        was: Liveness,
        /// For how long it was silent.
        silent: Duration,
    },
    /// How far an attempt is, now and then.
    Progress(AttemptId, Progress),
    /// An attempt runs and gets nowhere.
    Stalled {
        /// Which.
        attempt: AttemptId,
        /// Since its last progress.
        idle: Duration,
    },
    /// A stalled attempt gets on again.
    Moving(AttemptId),
    /// A heartbeat told of a change in how a worker stands to its owner.
    Owner(OwnerNote),
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// CPU time used so far.
    pub cpu: Duration,
    /// Bytes written so far.
    pub written: u64,
    /// Thousandths of its work that are done, where the task says so.
    pub permille: Option<u16>,
    /// It waits for something and says so, or is paused.
    pub waits: bool,
}

/// What a monitor wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Hand this to the supervisor's core.
    Found(Finding),
    /// Tell a worker how to send heartbeats.
    Plan {
        /// On which connection.
        id: WatchId,
        /// Whom.
        peer: PeerId,
        /// What.
        plan: HeartbeatPlan,
    },
    /// Ask a worker for a heartbeat.
    Ask {
        /// On which connection.
        id: WatchId,
        /// Whom.
        peer: PeerId,
        /// The question's number, which the answer repeats.
        seq: u64,
    },
}

/// The monitor of one supervisor.
#[derive(Clone, Debug)]
pub struct Monitor {
    settings: Settings,
    slots: Vec<Slot>,
    free: Vec<u32>,
    deadlines: Deadlines,
    counts: [u32; 3],
    stretches: [u32; 3],
    /// All time by which checks ran late, which is nobody's gap.
    discounted: Duration,
    /// No gap counts before this: the supervisor was frozen, and reads what came meanwhile.
    awake: Time,
    /// When a heartbeat was last taken in, or looked for, and the longest time without either since the last check.
    seen: Time,
    unseen: Duration,
    fired: Vec<u32>,
}

/// A check that was late by this much follows a wake-up ...
const FROZEN: Duration = Duration::from_millis(500);
/// ... after which it takes so long, on a busy machine, until everything that came meanwhile is read, and workers that
/// had heard nothing are connected again.
const CATCH_UP: Duration = Duration::from_secs(1);

#[derive(Clone, Debug)]
struct Slot {
    life: u32,
    watched: Option<Box<Watched>>,
}

impl Monitor {
    /// Watches nobody yet.
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

    /// How workers are watched.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Workers are watched like this from now on.
    pub fn set(&mut self, now: Time, settings: Settings, out: &mut Vec<Output>) {
        self.settings = settings;
        self.stretches = settings.stretches(self.counts);
        self.send_modes(now, out);
    }

    /// Starts to watch a worker that was let in; its heartbeats count from 1. It is told how to send heartbeats.
    pub fn start(&mut self, now: Time, peer: PeerId, out: &mut Vec<Output>) -> WatchId {
        // Nobody looked at the time while nobody was watched.
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

    /// Stops to watch a worker whose connection is closed.
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

    /// What a worker has in hand changed: it is watched more closely at once, or less after a while.
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

    /// What was measured of a worker's link: bytes a second in the slower direction.
    pub fn measured(&mut self, now: Time, id: WatchId, rate: u64, out: &mut Vec<Output>) {
        if let Some(watched) = self.watched(id) {
            watched.link_rate = Some(rate);
            self.send_mode(now, id.slot, out);
            self.set_timer(now, id.slot);
        }
    }

    /// A heartbeat, or the answer to a question, of `bytes` arrived at `now`. Stale ones, overtaken by a later one
    /// or held up for longer than a gap that is suspicious, say nothing.
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

    /// Evaluations at those whose time has come.
    ///
    /// Where it comes late, the time in which nothing was taken in either is nobody's gap; while others were heard,
    /// one who was not was silent.
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

    /// When the next check is due.
    pub fn next_check(&self) -> Option<Time> {
        if !self.fired.is_empty() {
            return Some(Time(0));
        }
        self.deadlines.next()
    }

    /// A worker as it is watched now.
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

    /// The shortest interval at which anybody is watched.
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

    /// Brings the intervals in line with the budget.
    fn apply_budget(&mut self, now: Time, out: &mut Vec<Output>) {
        let wanted = self.settings.stretches(self.counts);
        // Intervals shrink again only where they would stay so with a quarter more workers.
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

    /// Tells a worker how to send heartbeats, if that is another way than before.
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
