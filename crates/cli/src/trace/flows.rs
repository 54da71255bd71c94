//! Arrows from what was waited for to what waited.

use super::wire::Message;
use super::{field, span};
use crate::commands::history::History;
use hedge_model::view::{AttemptLine, GroupLine};
use std::collections::HashMap;

/// Arrows between tasks for one dependency, at most. One that has more, as between two arrays of which each task of the
/// second waits for the whole first, is drawn between the groups alone.
const ARROWS_MAX: u64 = 4096;

/// The ends of arrows at one slice.
#[derive(Debug, Default)]
pub struct Ends {
    begin: Vec<u64>,
    end: Vec<u64>,
}

impl Ends {
    /// Adds them to the event that begins the slice.
    pub fn mark(&self, event: &mut Message) {
        for arrow in &self.begin {
            event.fixed(field::event::FLOW, *arrow);
        }
        for arrow in &self.end {
            event.fixed(field::event::FLOW_END, *arrow);
        }
    }
}

/// All arrows of a job.
#[derive(Debug, Default)]
pub struct Arrows {
    last: u64,
    attempts: HashMap<usize, Ends>,
    groups: HashMap<usize, Ends>,
    spans: Vec<Option<(f64, f64)>>,
    none: Ends,
}

impl Arrows {
    /// Those at an attempt, by its place in the history.
    pub fn of_attempt(&self, at: usize) -> &Ends {
        self.attempts.get(&at).unwrap_or(&self.none)
    }

    /// Those at a group, by its place in the history.
    pub fn of_group(&self, at: usize) -> &Ends {
        self.groups.get(&at).unwrap_or(&self.none)
    }

    /// From when until when attempts of a group ran, by its place in the history.
    pub fn span_of_group(&self, at: usize) -> Option<(f64, f64)> {
        self.spans.get(at).copied().flatten()
    }

    fn between_groups(&mut self, from: usize, to: usize) {
        self.last += 1;
        self.groups.entry(from).or_default().begin.push(self.last);
        self.groups.entry(to).or_default().end.push(self.last);
    }

    fn between_attempts(&mut self, from: usize, to: usize) {
        self.last += 1;
        self.attempts.entry(from).or_default().begin.push(self.last);
        self.attempts.entry(to).or_default().end.push(self.last);
    }
}

/// The arrows of a job: between groups for each dependency, and between the attempt that won a task and those that waited
/// for it.
pub fn arrows(history: &History) -> Arrows {
    let tasks = Tasks::of(history);
    let mut arrows = Arrows::default();
    for group in &history.groups {
        arrows.spans.push(tasks.span(group, history));
    }
    let place: HashMap<u32, usize> = history
        .groups
        .iter()
        .enumerate()
        .map(|(at, group)| (group.group, at))
        .collect();
    for (to, group) in history.groups.iter().enumerate() {
        for before in &group.waits_for {
            let Some(&from) = place.get(before) else {
                continue;
            };
            arrows.between_groups(from, to);
            let each = group.each.contains(before);
            tasks.join(&history.groups[from], group, each, &mut arrows);
        }
    }
    arrows
}

/// The attempts of each task, by their places in the history.
struct Tasks {
    all: HashMap<u32, Vec<usize>>,
    won: HashMap<u32, usize>,
}

impl Tasks {
    fn of(history: &History) -> Self {
        let mut tasks = Self {
            all: HashMap::new(),
            won: HashMap::new(),
        };
        for (at, attempt) in history.attempts.iter().enumerate() {
            let Some(number) = task_number(attempt).filter(|_| attempt.start_ms.is_some()) else {
                continue;
            };
            tasks.all.entry(number).or_default().push(at);
            if attempt.state == "won" {
                tasks.won.insert(number, at);
            }
        }
        tasks
    }

    fn span(&self, group: &GroupLine, history: &History) -> Option<(f64, f64)> {
        let attempts =
            (group.first..group.first + group.tasks).filter_map(|task| self.all.get(&task));
        let spans = attempts
            .flatten()
            .filter_map(|at| span(&history.attempts[*at], history));
        spans.reduce(|(start, end), (from, until)| (start.min(from), end.max(until)))
    }

    fn join(&self, before: &GroupLine, group: &GroupLine, each: bool, arrows: &mut Arrows) {
        let pairs = u64::from(before.tasks) * u64::from(group.tasks);
        if !each && pairs > ARROWS_MAX {
            return;
        }
        for task in 0..group.tasks {
            let Some(attempts) = self.all.get(&(group.first + task)) else {
                continue;
            };
            let sources = if each {
                task..task + 1
            } else {
                0..before.tasks
            };
            let won = sources.filter_map(|source| self.won.get(&(before.first + source)));
            for from in won {
                for to in attempts {
                    arrows.between_attempts(*from, *to);
                }
            }
        }
    }
}

/// The number of an attempt's task, which its name begins with: `JOB.TASK/…`.
fn task_number(attempt: &AttemptLine) -> Option<u32> {
    let (task, _) = attempt.attempt.split_once('/')?;
    task.rsplit_once('.')?.1.parse().ok()
}
