//! What a comparison says of each policy, and how sure that is.

use super::compare::Sample;
use super::contender::Contender;
use super::reference::Reference;
use super::run::Outcome;
use crate::Dice;
use hedge_model::spec::Redundancy;
use serde::Serialize;

/// How makespans compare with some measure: ratios.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Ratios {
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
}

/// Standard errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Errors {
    /// Of the mean.
    pub mean: f64,
    /// Of the 99th percentile, by resampling.
    pub p99: f64,
}

/// One policy on one workflow, or on all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub policy: &'static str,
    /// Makespan over that of the clairvoyant schedule.
    pub clairvoyant: Ratios,
    /// Standard errors of that.
    pub clairvoyant_error: Errors,
    /// Makespan over the lower bound.
    pub bound: Ratios,
    /// Standard errors of that.
    pub bound_error: Errors,
    /// Machine time beyond that of the policy without copies, as a share of it.
    pub net: f64,
    /// Standard error of that.
    pub net_error: f64,
    /// Machine time of redundant attempts over that of winners.
    pub second_copies: f64,
    /// Machine time of attempts lost with their machine over that of winners.
    pub lost: f64,
    /// Redundant attempts started, in a run.
    pub copies_per_run: f64,
    /// Machine seconds in a run.
    pub held_s: f64,
    /// Bytes of inputs that machines fetched in a run.
    pub moved_bytes: f64,
    /// What a run cost by the default tariff, in millionths of its currency, mean.
    pub cost_micro: f64,
    /// Seconds from the first submission of a run to the last end, mean.
    pub makespan_s: f64,
    /// All ratios to the clairvoyant schedule, ascending.
    #[serde(skip)]
    pub samples: Vec<f64>,
    /// All ratios to the bound, ascending.
    #[serde(skip)]
    pub bound_samples: Vec<f64>,
}

/// All policies on one workflow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    /// Its name.
    pub workflow: String,
    /// How many tasks it has.
    pub tasks: usize,
    /// How many kinds of tasks it has, of which policies learn.
    pub kinds: usize,
    /// Its longest path at standard speed, seconds.
    pub longest_path_s: f64,
    /// What the trace's time was multiplied by.
    pub time_scale: f64,
    /// One for each policy.
    pub rows: Vec<Row>,
}

/// Where `auto` is furthest behind the best rule of others.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Behind {
    /// The workflow.
    pub workflow: String,
    /// The best rule there.
    pub rival: &'static str,
    /// The mean of `auto` over that rule's, less one.
    pub by: f64,
}

/// One row for each policy.
pub(crate) fn rows(policies: &[Contender], samples: &[Sample], jobs: u32) -> Vec<Row> {
    let sum = |at: usize, of: &dyn Fn(&Outcome) -> f64| -> f64 {
        samples.iter().map(|sample| of(&sample.outcomes[at])).sum()
    };
    let plain = policies
        .iter()
        .position(|policy| *policy == Contender::NONE);
    let plain_s = plain.map_or(1.0, |at| sum(at, &|outcome| outcome.held));
    let row = |(at, policy): (usize, &Contender)| {
        let ratios = |of: &dyn Fn(&Reference) -> f64| {
            let each = samples.iter().flat_map(|sample| {
                let jobs = sample.outcomes[at].jobs.iter().zip(&sample.references);
                jobs.map(|(seconds, reference)| seconds / of(reference))
            });
            let mut each: Vec<f64> = each.collect();
            each.sort_by(f64::total_cmp);
            each
        };
        let clairvoyant = ratios(&|reference| reference.clairvoyant);
        let bound = ratios(&|reference| reference.bound);
        let net = sum(at, &|outcome| outcome.held) / plain_s - 1.0;
        // The error of a ratio of sums, from what each run's time departs from it.
        let rest = samples.iter().map(|sample| {
            let plain = plain.map_or(0.0, |plain| sample.outcomes[plain].held);
            sample.outcomes[at].held - (1.0 + net) * plain
        });
        let rest: Vec<f64> = rest.collect();
        let won = sum(at, &|outcome| outcome.won).max(1e-9);
        let runs = samples.len() as f64;
        Row {
            policy: policy.name(),
            clairvoyant: summary(&clairvoyant),
            clairvoyant_error: errors(&[&clairvoyant], jobs),
            bound: summary(&bound),
            bound_error: errors(&[&bound], jobs),
            net,
            net_error: (variance(&rest) * runs).sqrt() / plain_s,
            second_copies: sum(at, &|outcome| outcome.copies) / won,
            lost: sum(at, &|outcome| outcome.lost) / won,
            copies_per_run: sum(at, &|outcome| f64::from(outcome.copies_started)) / runs,
            held_s: sum(at, &|outcome| outcome.held) / runs,
            moved_bytes: sum(at, &|outcome| outcome.moved_bytes as f64) / runs,
            cost_micro: sum(at, &|outcome| outcome.cost_micro as f64) / runs,
            makespan_s: sum(at, &|outcome| outcome.makespan) / runs,
            samples: clairvoyant,
            bound_samples: bound,
        }
    };
    policies.iter().enumerate().map(row).collect()
}

/// One row for each policy over several tables.
pub(crate) fn overall(tables: &[Table], jobs: u32) -> Vec<Row> {
    let mut rows = pooled(tables);
    let count = tables.len() as f64;
    for (at, row) in rows.iter_mut().enumerate() {
        let own = || tables.iter().map(|table| &table.rows[at]);
        let parts = |of: fn(&Row) -> &Vec<f64>| -> Vec<&[f64]> {
            own().map(|row| of(row).as_slice()).collect()
        };
        row.clairvoyant_error = errors(&parts(|row| &row.samples), jobs);
        row.bound_error = errors(&parts(|row| &row.bound_samples), jobs);
        let net_error = own().map(|row| row.net_error.powi(2)).sum::<f64>();
        row.net_error = net_error.sqrt() / count;
    }
    rows
}

/// The same without errors.
pub(crate) fn pooled(tables: &[Table]) -> Vec<Row> {
    let Some(first) = tables.first() else {
        return Vec::new();
    };
    let count = tables.len() as f64;
    let row = |at: usize| {
        let own = || tables.iter().map(|table| &table.rows[at]);
        let mean = |of: fn(&Row) -> f64| own().map(of).sum::<f64>() / count;
        let pooled = |of: fn(&Row) -> &Vec<f64>| {
            let mut all: Vec<f64> = own().flat_map(|row| of(row).clone()).collect();
            all.sort_by(f64::total_cmp);
            all
        };
        let samples = pooled(|row| &row.samples);
        let bound_samples = pooled(|row| &row.bound_samples);
        Row {
            policy: first.rows[at].policy,
            clairvoyant: summary(&samples),
            clairvoyant_error: Errors::default(),
            bound: summary(&bound_samples),
            bound_error: Errors::default(),
            net: mean(|row| row.net),
            net_error: 0.0,
            second_copies: mean(|row| row.second_copies),
            lost: mean(|row| row.lost),
            copies_per_run: mean(|row| row.copies_per_run),
            held_s: mean(|row| row.held_s),
            moved_bytes: mean(|row| row.moved_bytes),
            cost_micro: mean(|row| row.cost_micro),
            makespan_s: mean(|row| row.makespan_s),
            samples,
            bound_samples,
        }
    };
    (0..first.rows.len()).map(row).collect()
}

/// The workflow on which the mean of `auto` is furthest above the best of those of the rules of others.
pub(crate) fn behind(tables: &[Table]) -> Option<Behind> {
    let auto = Contender::Own(Redundancy::Auto).name();
    let mean = |row: &Row| row.clairvoyant.mean;
    let each = tables.iter().filter_map(|table| {
        let own = table.rows.iter().find(|row| row.policy == auto)?;
        let rivals = table
            .rows
            .iter()
            .filter(|row| Contender::find(row.policy).is_ok_and(|contender| contender.rival()));
        let best = rivals.min_by(|a, b| mean(a).total_cmp(&mean(b)))?;
        Some(Behind {
            workflow: table.workflow.clone(),
            rival: best.policy,
            by: mean(own) / mean(best) - 1.0,
        })
    });
    each.max_by(|a, b| a.by.total_cmp(&b.by))
}

/// The variance of some numbers.
fn variance(numbers: &[f64]) -> f64 {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count.max(1.0);
    let squares = numbers.iter().map(|number| (number - mean).powi(2));
    squares.sum::<f64>() / (count - 1.0).max(1.0)
}

/// Standard errors of what [`summary`] says of several samples together, each of which was drawn by itself. The jobs of
/// one run share its machines, so that they count as one draw.
fn errors(parts: &[&[f64]], jobs: u32) -> Errors {
    const RESAMPLED: u64 = 100;
    let all: usize = parts.iter().map(|part| part.len()).sum();
    let sums = parts.iter().map(|part| variance(part) * part.len() as f64);
    let mut dice = Dice::new(RESAMPLED);
    let p99 = (0..RESAMPLED).map(|_| {
        let drawn = parts
            .iter()
            .filter(|part| !part.is_empty())
            .flat_map(|part| {
                let some: Vec<f64> = part.iter().map(|_| *dice.pick(part)).collect();
                some
            });
        let mut drawn: Vec<f64> = drawn.collect();
        drawn.sort_by(f64::total_cmp);
        summary(&drawn).p99
    });
    let p99: Vec<f64> = p99.collect();
    Errors {
        mean: (sums.sum::<f64>() * f64::from(jobs)).sqrt() / all.max(1) as f64,
        p99: (variance(&p99) * f64::from(jobs)).sqrt(),
    }
}

/// Mean and quantiles of ascending numbers.
pub(crate) fn summary(sorted: &[f64]) -> Ratios {
    let at = |share: f64| {
        let last = sorted.len().saturating_sub(1) as f64;
        let place = share * last;
        let (low, part) = (place.floor() as usize, place.fract());
        let value = |at: usize| sorted.get(at).or(sorted.last()).copied().unwrap_or(0.0);
        value(low) * (1.0 - part) + value(low + 1) * part
    };
    Ratios {
        mean: sorted.iter().sum::<f64>() / sorted.len().max(1) as f64,
        p50: at(0.5),
        p95: at(0.95),
        p99: at(0.99),
    }
}
