//! What each level of redundancy is expected to buy a job and to cost, before anything runs.

use super::compare::{Options, spread};
use super::contender::Contender;
use super::model::{Luck, Model, mix};
use super::rows::{Ratios, summary};
use super::run::{Outcome, Setting, run};
use super::trace::Trace;
use super::workflow::Workflow;
use crate::Error;
use hedge_core::supervisor::State;
use hedge_model::record::Record;
use hedge_model::spec::{Qos, Redundancy};
use hedge_model::view::{SettingView, WorkerView};
use hedge_model::{JobSpec, Time};
use serde::Serialize;
use std::sync::Arc;

/// Most runs of a plan.
const RUNS_MAX: u32 = 100_000;

/// Machines that are simulated at most.
pub const MACHINES_MAX: usize = 100_000;

/// Speeds of the machines that a grid's workers are to a job: each worker that is ready counts as many times as it can run
/// of the job's largest tasks at once.
pub fn machines(spec: &JobSpec, workers: &[WorkerView]) -> Vec<f64> {
    let cpus = spec.groups().iter().map(|group| group.resources.cpus_milli);
    let cpus_milli = cpus.max().unwrap_or(0).max(1);
    let ready = |worker: &&WorkerView| worker.usage == "ready" && worker.liveness != "dead";
    let places = workers.iter().filter(ready).flat_map(|worker| {
        let places = worker.total.cpus_milli / cpus_milli;
        std::iter::repeat_n(worker.score.clamp(0.01, 100.0), places as usize)
    });
    places.take(MACHINES_MAX).collect()
}

/// The settings of a grid that say what execution costs, by name and value.
pub fn prices(settings: Vec<SettingView>) -> Vec<(Arc<str>, Arc<str>)> {
    let prices = settings.into_iter().filter(|setting| {
        let name = &setting.name;
        name == "currency" || name.starts_with("price_") || name.starts_with("bill_")
    });
    let pair = |setting: SettingView| (setting.name.into(), setting.value.into());
    prices.map(pair).collect()
}

/// What one level of redundancy is expected to do for a job.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Level {
    /// Its word in job files.
    pub redundancy: &'static str,
    /// Seconds from submission to the job's end.
    pub makespan_s: Ratios,
    /// Machine seconds held, mean.
    pub machine_s: f64,
    /// The same beyond that of `none`, as a share of it.
    pub extra: f64,
    /// Redundant attempts started, mean.
    pub copies: f64,
    /// What it costs by the tariff, in millionths of its currency, mean.
    pub cost_micro: f64,
    /// Share of the runs that ended by `finish_by`, where the job has one.
    pub in_time: Option<f64>,
    /// The same runs without the job's checkpoints, where it has some.
    pub without_checkpoints: Option<Unsaved>,
}

/// What one level of redundancy does for a job whose tasks save no checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Unsaved {
    /// Seconds from submission to the job's end.
    pub makespan_s: Ratios,
    /// Machine seconds held, mean.
    pub machine_s: f64,
}

/// What is expected of a job on a pool.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The job's name.
    pub job: String,
    /// How many tasks it has.
    pub tasks: usize,
    /// Tasks that say nothing of their time and count as one second each.
    pub unknown: u32,
    /// Machines of one task each that were assumed.
    pub machines: usize,
    /// Seconds of the longest path at standard speed.
    pub longest_path_s: f64,
    /// Simulated runs.
    pub runs: u32,
    /// Seconds by which the job is to end.
    pub finish_by_s: Option<f64>,
    /// With this chance, where there is a deadline.
    pub confidence: Option<f64>,
    /// One for each level of redundancy.
    pub levels: Vec<Level>,
}

/// Simulates a job on machines of these speeds under each level of redundancy. Of `options` the policies, the
/// lifetime and what was learned do not count; machines come and go as `trace` says, its nodes in the order
/// of `speeds`. `settings` are the grid's that say what execution costs, by name and value; what they do not say is as
/// by default.
///
/// # Errors
/// A job that is too large to simulate, or options that make no sense.
pub fn plan(
    spec: &JobSpec,
    speeds: &[f64],
    trace: &Trace,
    options: &Options,
    settings: &[(Arc<str>, Arc<str>)],
) -> Result<Plan, Error> {
    let model = Model {
        pool: speeds.to_vec(),
        ..options.model.clone()
    };
    model.check()?;
    if options.runs == 0 || options.runs > RUNS_MAX {
        return Err(Error::Option(format!("runs lie between 1 and {RUNS_MAX}")));
    }
    let workflow = Workflow::from_spec(spec)?;
    let mut grid = State::default();
    for (name, value) in settings {
        let (name, value, at) = (name.clone(), value.clone(), Time(0));
        grid.apply(&Record::Set { name, value, at });
    }
    let simulate = |workflow: &Workflow, nth: u32| {
        let luck = Luck::new(&model, workflow, trace, mix(options.seed ^ mix(nth.into())));
        let outcomes = Redundancy::WORDS.iter().map(|(_, redundancy, _)| {
            let qos = Qos {
                redundancy: *redundancy,
                ..spec.qos().clone()
            };
            let setting = Setting {
                workflow,
                trace,
                luck: &luck,
                later: &[],
                detect: options.detect,
                chart: false,
                qos: Some(&qos),
            };
            let level = Contender::Own(*redundancy);
            Ok(run(setting, &level, Some(grid.clone()))?.0)
        });
        outcomes.collect::<Result<Vec<Outcome>, Error>>()
    };
    let runs = |workflow: &Workflow| {
        spread(options.threads, options.runs, &|nth| {
            simulate(workflow, nth)
        })
    };
    let samples = runs(&workflow)?;
    let saves = workflow.tasks.iter().any(|task| task.saves_s.is_some());
    let unsaved = saves.then(|| runs(&workflow.without_checkpoints()));
    let unsaved = unsaved.transpose()?;
    let by = spec.qos().finish_by.map(|by| by.as_secs_f64());
    let unknown = spec.groups().iter();
    let unknown = unknown.filter(|group| group.estimate.cpu_time.is_none());
    Ok(Plan {
        job: spec.name().to_owned(),
        tasks: workflow.tasks.len(),
        unknown: unknown.map(|group| group.count()).sum(),
        machines: speeds.len(),
        longest_path_s: workflow.longest_path(),
        runs: options.runs,
        finish_by_s: by,
        confidence: by.map(|_| spec.qos().confidence),
        levels: levels(&samples, unsaved.as_deref(), by),
    })
}

fn levels(
    samples: &[Vec<Outcome>],
    unsaved: Option<&[Vec<Outcome>]>,
    by: Option<f64>,
) -> Vec<Level> {
    let mean = |at: usize, of: fn(&Outcome) -> f64| mean_of(samples, at, of);
    let none = |(_, redundancy, _): &(&str, Redundancy, &str)| *redundancy == Redundancy::None;
    let none = Redundancy::WORDS.iter().position(none).unwrap_or(0);
    let plain = mean(none, |outcome| outcome.held).max(1e-9);
    let level = |(at, (word, ..)): (usize, (&'static str, Redundancy, &str))| {
        let makespans = sorted_makespans(samples, at);
        let unsaved = unsaved.map(|unsaved| Unsaved {
            makespan_s: summary(&sorted_makespans(unsaved, at)),
            machine_s: mean_of(unsaved, at, |outcome| outcome.held),
        });
        let within = |by| makespans.iter().filter(|makespan| **makespan <= by).count() as f64;
        Level {
            redundancy: word,
            makespan_s: summary(&makespans),
            machine_s: mean(at, |outcome| outcome.held),
            extra: mean(at, |outcome| outcome.held) / plain - 1.0,
            copies: mean(at, |outcome| f64::from(outcome.copies_started)),
            cost_micro: mean(at, |outcome| outcome.cost_micro as f64),
            in_time: by.map(|by| within(by) / samples.len() as f64),
            without_checkpoints: unsaved,
        }
    };
    let words = Redundancy::WORDS.into_iter();
    words.enumerate().map(level).collect()
}

fn mean_of(samples: &[Vec<Outcome>], at: usize, of: fn(&Outcome) -> f64) -> f64 {
    let all = samples.iter().map(|outcomes| of(&outcomes[at]));
    all.sum::<f64>() / samples.len() as f64
}

fn sorted_makespans(samples: &[Vec<Outcome>], at: usize) -> Vec<f64> {
    let all = samples.iter().map(|outcomes| outcomes[at].makespan);
    let mut makespans: Vec<f64> = all.collect();
    makespans.sort_by(f64::total_cmp);
    makespans
}
