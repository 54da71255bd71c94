//! When machines are there: recorded traces, and made-up ones.
//!
//! Three forms are read, told apart by the first line that is no comment (`#`):
//! - events: `MILLISECONDS,add|remove,NODE`, in order of time, with or without a heading;
//! - spans: under the heading `node,up_ms,down_ms`, one line for each time that a node was there;
//! - series: under the heading `node,step_ms=N`, a line `NODE,0110…` for each node, one digit a step.

use crate::{Dice, Error};
use std::collections::{BTreeMap, BTreeSet};

/// How a node's presence begins and ends in a trace of a finite length.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Span {
    node: u32,
    from: f64,
    to: f64,
}

/// A recorded coming and going of machines. It is repeated end to end: a machine that is there when the trace ends
/// goes on as one that is there when it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace {
    /// Seconds.
    length: f64,
    /// By beginning, then node.
    spans: Vec<Span>,
}

/// One presence of a machine in a run, seconds from the run's start. A machine that comes again is another one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Presence {
    /// When it comes; 0 where it is there from the start.
    pub from: f64,
    /// When it goes.
    pub to: f64,
    /// What its random draws are tied to.
    pub key: u64,
}

impl Trace {
    /// Reads any of the three forms.
    pub fn read(text: &str) -> Result<Self, Error> {
        let mut lines = (1..)
            .zip(text.lines().map(str::trim))
            .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let first = lines.clone().next().map_or("", |(_, line)| line);
        if first == "node,up_ms,down_ms" {
            return read_spans(lines.skip(1));
        }
        if let Some(step) = first.strip_prefix("node,step_ms=") {
            let step: f64 = step.parse().map_err(|_| Error::Trace {
                line: 1,
                why: format!("{step:?} is no number of milliseconds"),
            })?;
            return read_series(step / 1e3, lines.skip(1));
        }
        read_events(&mut lines)
    }

    /// `count` machines that never go.
    pub fn steady(count: usize) -> Self {
        let span = |node| Span {
            node,
            from: 0.0,
            to: 1.0,
        };
        Self {
            length: 1.0,
            spans: (0..count as u32).map(span).collect(),
        }
    }

    /// `count` desktops over a week, free when their owners are away: owners come at 9:00 and go at 17:30,
    /// each give or take an hour (σ), five days a week, and leave for four spells of about 20 minutes a day.
    pub fn office(count: usize, seed: u64) -> Self {
        const DAY: f64 = 86_400.0;
        let mut spans = Vec::new();
        for node in 0..count as u32 {
            let mut dice = Dice::new(seed ^ (u64::from(node) << 32) ^ 0x0ff1ce);
            let mut free = 0.0;
            for day in 0..5 {
                let noon = f64::from(day) * DAY;
                let come = noon + 9.0 * 3600.0 + 3600.0 * dice.normal().clamp(-3.0, 3.0);
                let go = noon + 17.5 * 3600.0 + 3600.0 * dice.normal().clamp(-3.0, 3.0);
                spans.push(Span {
                    node,
                    from: free,
                    to: come,
                });
                let mut breaks: Vec<f64> = (0..4)
                    .map(|_| come + dice.unit() * (go - come - 3600.0).max(0.0))
                    .collect();
                breaks.sort_by(f64::total_cmp);
                let mut busy_from = come;
                for from in breaks.into_iter().filter(|from| *from > come) {
                    let to = from - 1200.0 * dice.unit().max(1e-9).ln();
                    if from > busy_from && to < go {
                        spans.push(Span { node, from, to });
                        busy_from = to;
                    }
                }
                free = go;
            }
            spans.push(Span {
                node,
                from: free,
                to: 7.0 * DAY,
            });
        }
        Self::sorted(7.0 * DAY, spans)
    }

    /// Seconds.
    pub fn length(&self) -> f64 {
        self.length
    }

    /// Median of how long a machine stays that is seen to go, seconds; `None` where none goes.
    pub fn median_lifetime(&self) -> Option<f64> {
        let ended = self.spans.iter().filter(|span| span.to < self.length);
        let mut lives: Vec<f64> = ended.map(|span| span.to - span.from).collect();
        lives.sort_by(f64::total_cmp);
        lives.get(lives.len() / 2).copied()
    }

    /// The same with all times multiplied.
    pub fn scaled(&self, factor: f64) -> Self {
        let spans = self.spans.iter().map(|span| Span {
            from: span.from * factor,
            to: span.to * factor,
            ..*span
        });
        Self {
            length: self.length * factor,
            spans: spans.collect(),
        }
    }

    /// The same presences, each moved by a random time, so that machines come and go independently of each other.
    pub fn scattered(&self, seed: u64) -> Self {
        let mut spans = Vec::new();
        for (node, span) in (0..).zip(&self.spans) {
            let mut dice = Dice::new(seed ^ (u64::from(node) << 32) ^ 0x05ca_77e4);
            let from = dice.unit() * self.length;
            let to = from + span.to - span.from;
            spans.push(Span { node, from, to });
            if to > self.length {
                // It goes on at the beginning.
                let (from, to) = (0.0, to - self.length);
                spans.push(Span { node, from, to });
            }
        }
        spans
            .iter_mut()
            .for_each(|span| span.to = span.to.min(self.length));
        Self::sorted(self.length, spans)
    }

    /// Who is there in a run that starts `start` seconds into the trace and lasts no longer than `horizon` seconds:
    /// by when they come. Ends beyond the horizon are told truly up to another length of the trace.
    pub fn presences(&self, start: f64, horizon: f64) -> Vec<Presence> {
        let cycles = ((start + horizon) / self.length).ceil() as u64 + 1;
        let mut going_on: Vec<(f64, u64)> = Vec::new();
        let mut found = Vec::new();
        for cycle in 0..=cycles {
            let base = cycle as f64 * self.length;
            let mut before = std::mem::take(&mut going_on).into_iter();
            for span in &self.spans {
                let key = (cycle << 32) | u64::from(span.node);
                let own = (base + span.from, key);
                let (from, key) = if span.from <= 0.0 {
                    before.next().unwrap_or(own)
                } else {
                    own
                };
                if span.to >= self.length {
                    going_on.push((from, key));
                } else {
                    found.push((from, base + span.to, key));
                }
            }
            found.extend(before.map(|(from, key)| (from, base, key)));
        }
        found.extend(
            going_on
                .into_iter()
                .map(|(from, key)| (from, f64::MAX, key)),
        );
        let mut presences: Vec<Presence> = found
            .into_iter()
            .filter(|(from, to, _)| *to > start && *from < start + horizon)
            .map(|(from, to, key)| Presence {
                from: (from - start).max(0.0),
                to: if to == f64::MAX { to } else { to - start },
                key,
            })
            .collect();
        presences.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.key.cmp(&b.key)));
        presences
    }

    fn sorted(length: f64, mut spans: Vec<Span>) -> Self {
        spans.retain(|span| span.to > span.from);
        spans.sort_by(|a, b| a.from.total_cmp(&b.from).then(a.node.cmp(&b.node)));
        Self { length, spans }
    }
}

type Line<'a> = (usize, &'a str);

fn wrong(line: usize, why: impl Into<String>) -> Error {
    Error::Trace {
        line,
        why: why.into(),
    }
}

/// Numbers names as they first occur.
#[derive(Default)]
struct Nodes<'a>(BTreeMap<&'a str, u32>);

impl<'a> Nodes<'a> {
    fn number(&mut self, name: &'a str) -> u32 {
        let next = self.0.len() as u32;
        *self.0.entry(name).or_insert(next)
    }
}

fn finish(length: f64, spans: Vec<Span>) -> Result<Trace, Error> {
    let trace = Trace::sorted(length, spans);
    if trace.spans.is_empty() || trace.length <= 0.0 {
        return Err(wrong(
            1,
            "no machine is ever there; expected lines like `0,add,node1`",
        ));
    }
    Ok(trace)
}

/// Traces of others start in the middle of things and count from where they like: a node that goes before it
/// came was there from the first line on, one that comes while it is there stays, and time begins with the
/// first line.
fn read_events<'a>(lines: &mut dyn Iterator<Item = Line<'a>>) -> Result<Trace, Error> {
    let mut nodes = Nodes::default();
    let mut up: BTreeMap<u32, f64> = BTreeMap::new();
    let mut known: BTreeSet<u32> = BTreeSet::new();
    let (mut spans, mut began, mut last) = (Vec::new(), None, 0.0f64);
    for (nth, (at, line)) in lines.enumerate() {
        let parts: Vec<&str> = line.split(',').map(str::trim).collect();
        let &[time, what, name] = parts.as_slice() else {
            return Err(wrong(
                at,
                "expected `milliseconds,add|remove,node`, or a heading",
            ));
        };
        let number = time.parse::<f64>().ok();
        let Some(time) = number.filter(|time| (0.0..1e15).contains(time)) else {
            if nth == 0 && time.starts_with(|first: char| first.is_alphabetic()) {
                continue;
            }
            let why = format!("{time:?} is no number of milliseconds");
            return Err(wrong(at, why));
        };
        let time = time / 1e3 - *began.get_or_insert(time / 1e3);
        if time < last {
            return Err(wrong(at, "it lies before the line above it"));
        }
        last = time;
        let node = nodes.number(name);
        let first = known.insert(node);
        match what {
            "add" => {
                up.entry(node).or_insert(time);
            }
            "remove" => {
                let (to, since) = (time, up.remove(&node));
                if let Some(from) = since.or(first.then_some(0.0)) {
                    spans.push(Span { node, from, to });
                }
            }
            other => {
                return Err(wrong(at, format!("{other:?} is neither add nor remove")));
            }
        }
    }
    let to = last;
    spans.extend(up.into_iter().map(|(node, from)| Span { node, from, to }));
    finish(last, spans)
}

fn read_spans<'a>(lines: impl Iterator<Item = Line<'a>>) -> Result<Trace, Error> {
    let mut nodes = Nodes::default();
    let (mut spans, mut last) = (Vec::new(), 0.0f64);
    for (at, line) in lines {
        let mut parts = line.split(',').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let mut time = || {
            let number = parts.next().and_then(|part| part.parse::<u64>().ok());
            number.map(|ms| ms as f64 / 1e3)
        };
        let (Some(from), Some(to)) = (time(), time()) else {
            return Err(wrong(at, "expected `node,up_ms,down_ms`"));
        };
        last = last.max(to);
        let node = nodes.number(name);
        spans.push(Span { node, from, to });
    }
    finish(last, spans)
}

fn read_series<'a>(step: f64, lines: impl Iterator<Item = Line<'a>>) -> Result<Trace, Error> {
    let mut nodes = Nodes::default();
    let (mut spans, mut length) = (Vec::new(), 0.0f64);
    for (at, line) in lines {
        let Some((name, digits)) = line.split_once(',') else {
            return Err(wrong(at, "expected `node,0110…`"));
        };
        let node = nodes.number(name);
        let mut since = None;
        for (step_at, digit) in digits.trim().bytes().chain([b'0']).enumerate() {
            let time = step_at as f64 * step;
            match (digit, since) {
                (b'1', None) => since = Some(time),
                (b'0', Some(from)) => {
                    let to = time;
                    spans.push(Span { node, from, to });
                    since = None;
                }
                (b'0' | b'1', _) => {}
                _ => return Err(wrong(at, "a series has the digits 0 and 1 alone")),
            }
        }
        length = length.max(digits.trim().len() as f64 * step);
    }
    finish(length, spans)
}
