//! Policies side by side: the same workflows, machines and luck for each.

use super::contender::Contender;
use super::model::{Luck, Model, mix};
use super::reference::Reference;
use super::rows::{Behind, Row, Table, behind, overall, rows};
use super::run::{Later, Outcome, Setting, run};
use super::trace::Trace;
use super::workflow::Workflow;
use crate::Error;
use hedge_core::supervisor::State;
use serde::Serialize;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Most runs of one workflow.
pub const RUNS_MAX: u32 = 100_000;
/// Most jobs of one run.
pub const JOBS_MAX: u32 = 64;
/// Mean time between the submissions of several jobs of a run, in longest paths of the workflow: they overlap.
pub const JOBS_APART: f64 = 0.25;

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
    /// Jobs of the same workflow that share the machines in each run; see [`JOBS_APART`].
    pub jobs: u32,
    /// Whether machines come and go independently of each other instead of as in the trace; see [`Trace::scattered`].
    pub scatter: bool,
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
            jobs: 1,
            scatter: false,
            threads: 1,
        }
    }
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
    /// Jobs of each run.
    pub jobs: u32,
    /// Whether machines come and go independently of each other.
    pub scatter: bool,
    /// For each workflow.
    pub tables: Vec<Table>,
    /// For each policy over all workflows: ratios pooled over all runs; *net* and the other shares as the mean
    /// of the workflows' own.
    pub overall: Vec<Row>,
    /// Where `auto` is furthest behind the best rule of others, where both are compared.
    pub behind: Option<Behind>,
}

/// One run under all policies.
pub(crate) struct Sample {
    /// For each job, as if it had the machines for itself.
    pub references: Vec<Reference>,
    pub outcomes: Vec<Outcome>,
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
    if options.jobs == 0 || options.jobs > JOBS_MAX {
        return Err(Error::Option(format!("jobs lie between 1 and {JOBS_MAX}")));
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
        let mut scaled = trace.scaled(scale);
        if options.scatter {
            scaled = scaled.scattered(options.seed);
        }
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
            rows: rows(&policies, &samples, options.jobs),
        });
    }
    Ok(Comparison {
        model: options.model.clone(),
        runs: options.runs,
        seed: options.seed,
        lifetime: options.lifetime,
        detect_s: options.detect,
        learn: options.learn,
        jobs: options.jobs,
        scatter: options.scatter,
        overall: overall(&tables, options.jobs),
        behind: behind(&tables),
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
        later: &[],
        detect: options.detect,
        chart: false,
        qos: None,
    }
}

/// The further jobs of a run.
pub fn later_of(workflow: &Workflow, trace: &Trace, options: &Options, luck: &Luck) -> Vec<Later> {
    let apart = workflow.longest_path() * JOBS_APART;
    let later = |nth: u64| {
        let at = luck.arrival(nth, apart);
        let luck = luck.job(workflow, trace, nth, at);
        Later { at, luck }
    };
    (1..u64::from(options.jobs)).map(later).collect()
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
    let later = later_of(workflow, trace, options, &luck);
    let setting = Setting {
        later: &later,
        ..setting(workflow, trace, options, &luck)
    };
    let outcomes = policies.iter().zip(histories).map(|(policy, history)| {
        let (outcome, _) = run(setting, policy, history.clone())?;
        Ok(outcome)
    });
    Ok(Sample {
        references: std::iter::once(&luck)
            .chain(later.iter().map(|later| &later.luck))
            .map(|luck| Reference::new(workflow, trace, luck))
            .collect(),
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
