//! What a run is measured against: a clairvoyant schedule, and a bound that no schedule can improve on.

use super::data::Holders;
use super::model::{Luck, Machine};
use super::trace::Trace;
use super::workflow::Workflow;
use crate::Dice;
use std::collections::BinaryHeap;

/// Orders that are tried beside that of the bottom levels.
const PERTURBED: u64 = 30;
/// How far they depart from it: standard deviation of the logarithm of a factor on each bottom level.
const PERTURBATION: f64 = 0.2;

/// The measures of one run, seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reference {
    /// Makespan of the best schedule found by someone who knows each task's time without straggling, each
    /// machine's speed and link, and when each comes and goes: list scheduling by earliest finish in the order of
    /// bottom levels, and in 30 random perturbations of it.
    pub clairvoyant: f64,
    /// The larger of the longest path at the speed of the fastest machine, and of the time at which the speed
    /// available by then adds up to the total work.
    pub bound: f64,
}

impl Reference {
    /// Measures one run.
    pub fn new(workflow: &Workflow, trace: &Trace, luck: &Luck) -> Self {
        let levels = workflow.bottom_levels(|at| luck.work[at]);
        let path = levels.iter().copied().fold(0.0, f64::max);
        let total: f64 = luck.work.iter().sum();
        let mut horizon = (4.0 * path + total).min(16.0 * path + total / 4.0);
        let (clairvoyant, machines) = loop {
            let machines = luck.machines(trace, horizon);
            let best = best_of(workflow, luck, &machines, &levels);
            match best {
                Some(best) if best < horizon => break (best, machines),
                _ => horizon *= 2.0,
            }
        };
        Self {
            clairvoyant,
            bound: bound(&machines, path, total, clairvoyant).min(clairvoyant),
        }
    }
}

/// The shortest of the schedules tried; none where a task finds no machine for long enough.
fn best_of(workflow: &Workflow, luck: &Luck, machines: &[Machine], levels: &[f64]) -> Option<f64> {
    let mut best = schedule(workflow, luck, machines, levels);
    for nth in 0..PERTURBED {
        let mut dice = Dice::new(super::model::mix(nth) ^ levels.len() as u64);
        let perturbed: Vec<f64> = levels
            .iter()
            .map(|level| level * (PERTURBATION * dice.normal()).exp())
            .collect();
        if let Some(makespan) = schedule(workflow, luck, machines, &perturbed) {
            best = Some(best.map_or(makespan, |best| best.min(makespan)));
        }
    }
    best
}

/// A task that could be next, by its rank; ties by position.
#[derive(PartialEq)]
struct Next(f64, usize);

impl Eq for Next {}

impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(other.1.cmp(&self.1))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// List scheduling: each task in turn, of those whose parents are placed the one with the highest rank, goes
/// where it finishes earliest behind what was placed there before.
fn schedule(workflow: &Workflow, luck: &Luck, machines: &[Machine], ranks: &[f64]) -> Option<f64> {
    let tasks = &workflow.tasks;
    let mut open: Vec<usize> = tasks.iter().map(|task| task.parents.len()).collect();
    let mut ready_at = vec![0.0f64; tasks.len()];
    let mut free: Vec<f64> = machines.iter().map(|m| m.presence.from).collect();
    let mut next: BinaryHeap<Next> = (0..tasks.len())
        .filter(|at| open[*at] == 0)
        .map(|at| Next(ranks[at], at))
        .collect();
    let data_cost = machines.iter().any(|machine| machine.link.is_finite());
    let mut data = data_cost.then(|| Holders::new(workflow));
    let mut makespan = 0.0f64;
    while let Some(Next(_, at)) = next.pop() {
        let work = luck.work[at];
        let mut best: Option<(f64, usize)> = None;
        for (ix, machine) in machines.iter().enumerate() {
            let from = free[ix].max(ready_at[at]);
            if best.is_some_and(|(end, _)| from >= end) {
                continue;
            }
            let mut end = from + luck.startup + work / machine.speed;
            if let Some(data) = &data {
                end += data.fetch(workflow, at, ix, machines, from).0;
            }
            if end <= machine.presence.to && best.is_none_or(|(best, _)| end < best) {
                best = Some((end, ix));
            }
        }
        let (end, ix) = best?;
        free[ix] = end;
        if let Some(data) = &mut data {
            data.keep_inputs(workflow, at, ix);
            data.keep_outputs(workflow, at, ix);
        }
        makespan = makespan.max(end);
        for child in &tasks[at].children {
            let child = *child as usize;
            ready_at[child] = ready_at[child].max(end);
            open[child] -= 1;
            if open[child] == 0 {
                next.push(Next(ranks[child], child));
            }
        }
    }
    Some(makespan)
}

/// See [`Reference::bound`]; machines that come after `until`, when a schedule has ended, are of no use.
fn bound(machines: &[Machine], path: f64, total: f64, until: f64) -> f64 {
    let there = || machines.iter().filter(|m| m.presence.from < until);
    let fastest = there().map(|m| m.speed).fold(0.0, f64::max);
    let mut changes: Vec<(f64, f64)> = there()
        .flat_map(|m| [(m.presence.from, m.speed), (m.presence.to, -m.speed)])
        .collect();
    changes.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut at, mut speed, mut done) = (0.0, 0.0, 0.0);
    for (time, change) in changes {
        if speed > 0.0 && done + (time - at) * speed >= total {
            break;
        }
        done += (time - at) * speed;
        (at, speed) = (time, speed + change);
    }
    let by_work = if speed > 1e-9 {
        at + (total - done).max(0.0) / speed
    } else {
        until
    };
    by_work.max(path / fastest.max(1e-9))
}
