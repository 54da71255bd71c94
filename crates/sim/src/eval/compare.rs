//! Policies side by side: the same workflows, machines and luck for each.

use super::contender::Contender;
use super::model::{Luck, Model, mix};
use super::reference::Reference;
use super::run::{Outcome, Setting, run};
use super::trace::Trace;
use super::workflow::Workflow;
use crate::Error;
use hedge_core::supervisor::State;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most runs of one workflow.
pub const RUNS_MAX: u32 = 100_000;

/// What to compare, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is random, and by how much.
    pub model: Model,
    /// The policies, in the order of the report. What *net* is counted from, [`Contender::NONE`], always runs.
    pub policies: Vec<Contender>,
    /// Runs of each workflow.
    pub runs: u32,
    /// What all random numbers follow from.
    pub seed: u64,
    /// Median lifetime of a machine, in longest paths of the workflow; the trace's own time without.
    pub lifetime: Option<f64>,
    /// Seconds until the loss of a machine is noticed.
    pub detect: f64,
    /// Earlier runs from which each policy learns before it is measured.
    pub learn: u32,
    /// Threads to use.
    pub threads: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            model: Model::default(),
            policies: Contender::all(),
            runs: 200,
            seed: 1,
            lifetime: None,
            detect: 0.0,
            learn: 0,
            threads: 1,
        }
    }
}

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

/// One policy on one workflow, or on all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Its name.
    pub policy: &'static str,
    /// Makespan over that of the clairvoyant schedule.
    pub clairvoyant: Ratios,
    /// Makespan over the lower bound.
    pub bound: Ratios,
    /// Machine time beyond that of the policy without copies, as a share of it.
    pub net: f64,
    /// Machine time of redundant attempts over that of winners.
    pub second_copies: f64,
    /// Machine time of attempts lost with their machine over that of winners.
    pub lost: f64,
    /// Redundant attempts started, in a run.
    pub copies_per_run: f64,
    /// Machine seconds in a run.
    pub held_s: f64,
    /// What a run cost by the default tariff, in millionths of its currency, mean.
    pub cost_micro: f64,
    /// Seconds from submission to end, mean.
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

/// The whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The model of luck.
    pub model: Model,
    /// Runs of each workflow.
    pub runs: u32,
    /// The seed.
    pub seed: u64,
    /// Median lifetime in longest paths.
    pub lifetime: Option<f64>,
    /// Seconds until a loss is noticed.
    pub detect_s: f64,
    /// Earlier runs learned from.
    pub learn: u32,
    /// For each workflow.
    pub tables: Vec<Table>,
    /// For each policy over all workflows: ratios pooled over all runs; *net* and the other shares as the mean
    /// of the workflows' own.
    pub overall: Vec<Row>,
}

/// One run under all policies.
struct Sample {
    reference: Reference,
    outcomes: Vec<Outcome>,
}

/// Compares policies. `progress` hears of each run that is over: how many are, of how many.
pub fn compare(
    workflows: &[Workflow],
    trace: &Trace,
    options: &Options,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Comparison, Error> {
    options.model.check()?;
    if options.runs == 0 || options.runs > RUNS_MAX {
        return Err(Error::Option(format!("runs lie between 1 and {RUNS_MAX}")));
    }
    let mut policies = options.policies.clone();
    if !policies.contains(&Contender::NONE) {
        policies.insert(0, Contender::NONE);
    }
    let total = workflows.len() * options.runs as usize;
    let over = AtomicUsize::new(0);
    let mut tables = Vec::new();
    for workflow in workflows {
        let scale = time_scale(workflow, trace, options.lifetime)?;
        let scaled = trace.scaled(scale);
        let histories = learn(workflow, &scaled, options, &policies)?;
        let one = |nth: u32| {
            let sample = sample(workflow, &scaled, options, &policies, &histories, nth);
            progress(over.fetch_add(1, Ordering::Relaxed) + 1, total);
            sample
        };
        let samples = spread(options.threads, options.runs, &one)?;
        tables.push(Table {
            workflow: workflow.name.clone(),
            tasks: workflow.tasks.len(),
            kinds: workflow.kinds(),
            longest_path_s: workflow.longest_path(),
            time_scale: scale,
            rows: rows(&policies, &samples),
        });
    }
    Ok(Comparison {
        model: options.model.clone(),
        runs: options.runs,
        seed: options.seed,
        lifetime: options.lifetime,
        detect_s: options.detect,
        learn: options.learn,
        overall: overall(&tables),
        tables,
    })
}

/// What to multiply a trace's time by, so that a machine's median lifetime is `lifetime` longest paths.
pub fn time_scale(workflow: &Workflow, trace: &Trace, lifetime: Option<f64>) -> Result<f64, Error> {
    let Some(lifetime) = lifetime else {
        return Ok(1.0);
    };
    if !(1e-3..=1e6).contains(&lifetime) {
        return Err(Error::Option(
            "a lifetime lies between 0.001 and 1,000,000 longest paths".into(),
        ));
    }
    let Some(median) = trace.median_lifetime() else {
        return Ok(1.0);
    };
    Ok(lifetime * workflow.longest_path() / median)
}

/// The luck of the `nth` run of a workflow; runs to learn from have numbers of their own.
pub fn luck_of(workflow: &Workflow, trace: &Trace, options: &Options, nth: u64) -> Luck {
    let tasks = workflow.tasks.iter();
    let content = tasks.fold(0, |sum, task| mix(sum ^ task.work.to_bits()));
    let seed = mix(mix(options.seed) ^ content ^ mix(nth));
    Luck::new(&options.model, workflow, trace, seed)
}

fn learn(
    workflow: &Workflow,
    trace: &Trace,
    options: &Options,
    policies: &[Contender],
) -> Result<Vec<Option<State>>, Error> {
    let one = |at: u32| {
        let mut history = None;
        for nth in 0..u64::from(options.learn) {
            let luck = luck_of(workflow, trace, options, (1 << 40) + nth);
            let setting = setting(workflow, trace, options, &luck);
            history = Some(run(setting, &policies[at as usize], history)?.1);
        }
        Ok(history)
    };
    spread(options.threads, policies.len() as u32, &one)
}

fn setting<'a>(
    workflow: &'a Workflow,
    trace: &'a Trace,
    options: &Options,
    luck: &'a Luck,
) -> Setting<'a> {
    Setting {
        workflow,
        trace,
        luck,
        detect: options.detect,
        chart: false,
        qos: None,
    }
}

fn sample(
    workflow: &Workflow,
    trace: &Trace,
    options: &Options,
    policies: &[Contender],
    histories: &[Option<State>],
    nth: u32,
) -> Result<Sample, Error> {
    let luck = luck_of(workflow, trace, options, nth.into());
    let setting = setting(workflow, trace, options, &luck);
    let outcomes = policies.iter().zip(histories).map(|(policy, history)| {
        let (outcome, _) = run(setting, policy, history.clone())?;
        Ok(outcome)
    });
    Ok(Sample {
        reference: Reference::new(workflow, trace, &luck),
        outcomes: outcomes.collect::<Result<_, Error>>()?,
    })
}

/// Does `count` things on some threads; the results are in their order.
pub(crate) fn spread<T: Send>(
    threads: usize,
    count: u32,
    one: &(dyn Fn(u32) -> Result<T, Error> + Sync),
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut mine = Vec::new();
        loop {
            let nth = next.fetch_add(1, Ordering::Relaxed);
            if nth >= count as usize {
                return Ok(mine);
            }
            mine.push((nth, one(nth as u32)?));
        }
    };
    let threads = threads.clamp(1, 256);
    let parts: Vec<Result<Vec<(usize, T)>, Error>> = std::thread::scope(|scope| {
        let started: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let broken = || Err(Error::Run("a thread of the comparison broke".into()));
        let others = started
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| broken()));
        std::iter::once(own).chain(others).collect()
    });
    let mut all = Vec::new();
    for part in parts {
        all.extend(part?);
    }
    all.sort_by_key(|(nth, _)| *nth);
    Ok(all.into_iter().map(|(_, result)| result).collect())
}

fn rows(policies: &[Contender], samples: &[Sample]) -> Vec<Row> {
    let sum = |at: usize, of: &dyn Fn(&Outcome) -> f64| -> f64 {
        samples.iter().map(|sample| of(&sample.outcomes[at])).sum()
    };
    let plain = policies
        .iter()
        .position(|policy| *policy == Contender::NONE);
    let plain = plain.map_or(1.0, |at| sum(at, &|outcome| outcome.held));
    let row = |(at, policy): (usize, &Contender)| {
        let ratios = |of: &dyn Fn(&Reference) -> f64| {
            let each = samples
                .iter()
                .map(|sample| sample.outcomes[at].makespan / of(&sample.reference));
            let mut each: Vec<f64> = each.collect();
            each.sort_by(f64::total_cmp);
            each
        };
        let clairvoyant = ratios(&|reference| reference.clairvoyant);
        let bound = ratios(&|reference| reference.bound);
        let won = sum(at, &|outcome| outcome.won).max(1e-9);
        let runs = samples.len() as f64;
        Row {
            policy: policy.name(),
            clairvoyant: summary(&clairvoyant),
            bound: summary(&bound),
            net: sum(at, &|outcome| outcome.held) / plain - 1.0,
            second_copies: sum(at, &|outcome| outcome.copies) / won,
            lost: sum(at, &|outcome| outcome.lost) / won,
            copies_per_run: sum(at, &|outcome| f64::from(outcome.copies_started)) / runs,
            held_s: sum(at, &|outcome| outcome.held) / runs,
            cost_micro: sum(at, &|outcome| outcome.cost_micro as f64) / runs,
            makespan_s: sum(at, &|outcome| outcome.makespan) / runs,
            samples: clairvoyant,
            bound_samples: bound,
        }
    };
    policies.iter().enumerate().map(row).collect()
}

fn overall(tables: &[Table]) -> Vec<Row> {
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
            bound: summary(&bound_samples),
            net: mean(|row| row.net),
            second_copies: mean(|row| row.second_copies),
            lost: mean(|row| row.lost),
            copies_per_run: mean(|row| row.copies_per_run),
            held_s: mean(|row| row.held_s),
            cost_micro: mean(|row| row.cost_micro),
            makespan_s: mean(|row| row.makespan_s),
            samples,
            bound_samples,
        }
    };
    (0..first.rows.len()).map(row).collect()
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
