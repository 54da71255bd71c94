//! A job as a trace of Perfetto: `TracePacket`s with track events, see `protos/perfetto/trace` in its sources.

mod flows;
mod wire;

use crate::commands::history::History;
use flows::{Arrows, arrows};
use hedge_model::view::{AttemptLine, GroupLine};
use std::collections::BTreeMap;
use wire::Message;

/// Attempts that end so are marked where they end.
const FAULTS: [&str; 4] = ["failed", "lost", "moved", "stalled"];
/// All packets are of one sequence.
const SEQUENCE: u64 = 1;

/// Numbers of fields, by the message that has them.
mod field {
    pub mod packet {
        pub const TIMESTAMP: u32 = 8;
        pub const SEQUENCE: u32 = 10;
        pub const TRACK_EVENT: u32 = 11;
        pub const SEQUENCE_FLAGS: u32 = 13;
        pub const TRACK_DESCRIPTOR: u32 = 60;
    }
    pub mod track {
        pub const UUID: u32 = 1;
        pub const NAME: u32 = 2;
        pub const PARENT: u32 = 5;
        pub const COUNTER: u32 = 8;
    }
    pub mod event {
        pub const ANNOTATION: u32 = 4;
        pub const TYPE: u32 = 9;
        pub const TRACK: u32 = 11;
        pub const CATEGORY: u32 = 22;
        pub const NAME: u32 = 23;
        pub const COUNTER_VALUE: u32 = 30;
        pub const FLOW: u32 = 47;
        pub const FLOW_END: u32 = 48;
    }
    pub mod annotation {
        pub const TEXT: u32 = 6;
        pub const NAME: u32 = 10;
    }
}

/// Values of `TrackEvent.Type`.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Begin = 1,
    End = 2,
    Instant = 3,
    Counter = 4,
}

/// The trace of a job, as bytes of Perfetto's `Trace` message.
pub fn encode(history: &History) -> Vec<u8> {
    let mut trace = Trace::default();
    let job = &history.job;
    let root = trace.track(&format!("job {} {}", job.id, job.name), None);
    let arrows = arrows(history);
    let groups = trace.track("groups", Some(root));
    for (at, group) in history.groups.iter().enumerate() {
        trace.group(groups, at, group, history, &arrows);
    }
    for (worker, slots) in slots(history) {
        let track = trace.track(&history.host(worker), Some(root));
        for (at, slot) in slots.iter().enumerate() {
            let track = trace.track(&format!("slot {}", at + 1), Some(track));
            for attempt in slot {
                trace.attempt(track, *attempt, history, &arrows);
            }
        }
    }
    trace.unplaced(root, history);
    trace.running(root, history);
    trace.bytes
}

/// For each worker its slots, with the attempts that ran there one after the other, by their places in the history.
fn slots(history: &History) -> BTreeMap<&str, Vec<Vec<usize>>> {
    let attempts = &history.attempts;
    let start = |at: &usize| attempts[*at].start_ms;
    let mut placed: Vec<usize> = (0..attempts.len())
        .filter(|at| start(at).is_some())
        .collect();
    placed.sort_by(|a, b| {
        start(a)
            .partial_cmp(&start(b))
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut workers: BTreeMap<&str, Vec<(f64, Vec<usize>)>> = BTreeMap::new();
    for at in placed {
        let (from, until) = span(&attempts[at], history).unwrap_or_default();
        let slots = workers.entry(&attempts[at].worker).or_default();
        match slots.iter_mut().find(|(free_at, _)| *free_at <= from) {
            Some((free_at, slot)) => {
                *free_at = until;
                slot.push(at);
            }
            None => slots.push((until, vec![at])),
        }
    }
    let bare = |slots: Vec<(f64, Vec<usize>)>| slots.into_iter().map(|(_, slot)| slot).collect();
    let workers = workers.into_iter();
    workers
        .map(|(worker, slots)| (worker, bare(slots)))
        .collect()
}

/// From when until when an attempt was, milliseconds behind the job's acceptance; one that goes on is until now.
fn span(attempt: &AttemptLine, history: &History) -> Option<(f64, f64)> {
    let start = attempt.start_ms?.max(0.0);
    Some((start, attempt.end_ms.unwrap_or(history.now_ms).max(start)))
}

/// What is written.
#[derive(Debug, Default)]
struct Trace {
    bytes: Vec<u8>,
    tracks: u64,
}

impl Trace {
    /// Describes a track; gives its number.
    fn track(&mut self, name: &str, parent: Option<u64>) -> u64 {
        self.describe(name, parent, false)
    }

    fn describe(&mut self, name: &str, parent: Option<u64>, counts: bool) -> u64 {
        self.tracks += 1;
        let mut track = Message::default();
        track.number(field::track::UUID, self.tracks);
        track.text(field::track::NAME, name);
        if let Some(parent) = parent {
            track.number(field::track::PARENT, parent);
        }
        if counts {
            track.message(field::track::COUNTER, &Message::default());
        }
        let mut packet = Message::default();
        packet.message(field::packet::TRACK_DESCRIPTOR, &track);
        self.packet(packet);
        self.tracks
    }

    fn packet(&mut self, mut packet: Message) {
        packet.number(field::packet::SEQUENCE, SEQUENCE);
        if self.bytes.is_empty() {
            // Nothing came before.
            packet.number(field::packet::SEQUENCE_FLAGS, 1);
        }
        let mut outer = Message::default();
        outer.message(1, &packet);
        self.bytes.extend(outer.into_bytes());
    }

    fn event(&mut self, at_ms: f64, track: u64, kind: Kind, fill: impl FnOnce(&mut Message)) {
        let mut event = Message::default();
        event.number(field::event::TYPE, kind as u64);
        event.number(field::event::TRACK, track);
        fill(&mut event);
        let mut packet = Message::default();
        packet.number(field::packet::TIMESTAMP, (at_ms.max(0.0) * 1e6) as u64);
        packet.message(field::packet::TRACK_EVENT, &event);
        self.packet(packet);
    }

    fn attempt(&mut self, track: u64, at: usize, history: &History, arrows: &Arrows) {
        let attempt = &history.attempts[at];
        let Some((start, end)) = span(attempt, history) else {
            return;
        };
        self.event(start, track, Kind::Begin, |event| {
            about(event, attempt);
            arrows.of_attempt(at).mark(event);
        });
        if FAULTS.contains(&&*attempt.state) {
            self.event(end, track, Kind::Instant, |event| {
                event.text(field::event::NAME, &attempt.state);
                event.text(field::event::CATEGORY, "fault");
                note(event, "attempt", &attempt.attempt);
            });
        }
        self.event(end, track, Kind::End, |_| {});
    }

    /// A group from the start of its first attempt to the end of its last.
    fn group(
        &mut self,
        parent: u64,
        at: usize,
        group: &GroupLine,
        history: &History,
        arrows: &Arrows,
    ) {
        let track = self.track(&group.id, Some(parent));
        let (start, end) = arrows
            .span_of_group(at)
            .unwrap_or((history.now_ms, history.now_ms));
        self.event(start, track, Kind::Begin, |event| {
            event.text(field::event::NAME, &group.id);
            event.text(field::event::CATEGORY, "group");
            note(event, "tasks", &group.tasks.to_string());
            note(event, "done", &group.done.to_string());
            note(event, "critical", &group.critical.to_string());
            arrows.of_group(at).mark(event);
        });
        self.event(end, track, Kind::End, |_| {});
    }

    /// Attempts whose times are not known.
    fn unplaced(&mut self, root: u64, history: &History) {
        let mut unplaced = history
            .attempts
            .iter()
            .filter(|one| one.start_ms.is_none())
            .peekable();
        if unplaced.peek().is_none() {
            return;
        }
        let track = self.track("times not known", Some(root));
        for attempt in unplaced {
            let at = attempt.end_ms.unwrap_or(0.0);
            self.event(at, track, Kind::Instant, |event| about(event, attempt));
        }
    }

    /// How many attempts ran at each time.
    fn running(&mut self, root: u64, history: &History) {
        let track = self.describe("attempts that run", Some(root), true);
        let spans = history.attempts.iter().filter_map(|one| span(one, history));
        let mut steps: Vec<(f64, i64)> = spans
            .flat_map(|(start, end)| [(start, 1), (end, -1)])
            .collect();
        steps.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        let mut running = 0;
        for (at, step) in steps {
            running += step;
            self.event(at, track, Kind::Counter, |event| {
                event.number(field::event::COUNTER_VALUE, running as u64);
            });
        }
    }
}

/// What an attempt's event says of it.
fn about(event: &mut Message, attempt: &AttemptLine) {
    let kind = if attempt.redundant {
        "redundant"
    } else {
        "primary"
    };
    let copy = if attempt.redundant { " (copy)" } else { "" };
    event.text(field::event::NAME, &format!("{}{copy}", attempt.task));
    event.text(field::event::CATEGORY, kind);
    event.text(field::event::CATEGORY, &attempt.state);
    note(event, "attempt", &attempt.attempt);
    note(event, "state", &attempt.state);
    note(event, "worker", &attempt.worker);
}

/// Adds a named text to an event.
fn note(event: &mut Message, name: &str, text: &str) {
    let mut annotation = Message::default();
    annotation.text(field::annotation::NAME, name);
    annotation.text(field::annotation::TEXT, text);
    event.message(field::event::ANNOTATION, &annotation);
}
