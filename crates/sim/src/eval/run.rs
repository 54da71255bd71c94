//! One run of one workflow under one policy.

use super::arena::{Arena, Ended, Span, World, config, seconds};
use super::contender::Contender;
use super::model::{Luck, Machine};
use super::running::Course;
use super::trace::Trace;
use super::truth::Truth;
use super::workflow::Workflow;
use crate::Error;
use hedge_core::supervisor::State;
use hedge_model::record::{JobEnd, Record};
use hedge_model::spec::Qos;
use hedge_model::{AttemptId, Resources, TaskId, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A run that takes so many times the longest path is given up: something is wrong.
const PATHS_MAX: f64 = 100_000.0;
/// How long the machines that are there at the start of a run have been there, seconds: longer than the supervisor
/// waits before it asks idle workers for benchmark tasks. Machines that come later are asked as on any grid.
const BEFORE: f64 = 30.0;

/// Seconds between reports of an attempt's progress, as on a grid with default settings.
const HEARTBEATS_MIN: f64 = 0.5;
/// The same as a share of the attempt's usual time: more reports say little more and take long to simulate.
const HEARTBEATS_SHARE: f64 = 0.02;

/// What one run took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Seconds from the job's arrival to its end.
    pub makespan: f64,
    /// Seconds that machines were held by attempts.
    pub held: f64,
    /// Of these by attempts that won.
    pub won: f64,
    /// Of these by redundant attempts, whether they won or not.
    pub copies: f64,
    /// Of these by attempts that were lost with their machine.
    pub lost: f64,
    /// What the job cost by the default tariff, in millionths of its currency.
    pub cost_micro: u64,
    /// How many redundant attempts were started.
    pub copies_started: u32,
    /// What each attempt did, where asked for.
    pub bars: Vec<Bar>,
}

/// An attempt in a run's chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The machine's number, by when it came.
    pub machine: usize,
    /// The task's position in the workflow.
    pub task: usize,
    /// Whether it was redundant.
    pub redundant: bool,
    /// Whether it decided its task.
    pub won: bool,
    /// How it ended.
    pub how: Ended,
    /// Seconds from the run's start.
    pub from: f64,
    /// Seconds from the run's start.
    pub to: f64,
}

/// What a run needs beside a policy: the same for all policies.
#[derive(Clone, Copy, Debug)]
pub struct Setting<'a> {
    /// The tasks.
    pub workflow: &'a Workflow,
    /// When machines are there.
    pub trace: &'a Trace,
    /// What luck decides.
    pub luck: &'a Luck,
    /// Seconds until the loss of a machine is noticed.
    pub detect: f64,
    /// Whether to keep what each attempt did.
    pub chart: bool,
    /// What the job asks for; what is usual under the policy without.
    pub qos: Option<&'a Qos>,
}

/// Runs a workflow once under a policy, on a supervisor with this history; gives the history on.
pub fn run(
    setting: Setting<'_>,
    contender: &Contender,
    history: Option<State>,
) -> Result<(Outcome, State), Error> {
    let Setting {
        workflow,
        trace,
        luck,
        ..
    } = setting;
    let path = workflow.longest_path();
    let mut horizon = path * 8.0;
    let truth = Truth::default();
    let world = Grid {
        luck,
        machines: Vec::new(),
        records: BTreeMap::new(),
        spans: BTreeMap::new(),
        truth: truth.clone(),
    };
    let state = history.unwrap_or_default();
    let mut arena = Arena::new(config(), state, world, setting.detect);
    contender.install(&mut arena.core, &truth);
    let start = arena.now + seconds(BEFORE);
    enrol(&mut arena, trace, contender, start, 0.0, horizon);
    arena.run(start, |_| false)?;
    let spec = workflow.to_job(
        setting.qos.cloned().unwrap_or_else(|| contender.qos()),
        |at| luck.saving(at).is_some(),
        |at| luck.estimates[at],
    )?;
    arena.submit(Arc::new(spec));
    while !arena.run(start + seconds(horizon), Arena::over)? {
        if horizon > path * PATHS_MAX {
            return Err(Error::Run(format!(
                "{} under {} did not end within {horizon:.0} s",
                workflow.name,
                contender.name()
            )));
        }
        enrol(&mut arena, trace, contender, start, horizon, horizon * 2.0);
        horizon *= 2.0;
    }
    if arena.end != Some(JobEnd::Done) {
        return Err(Error::Run(format!(
            "{} under {} failed: {:?}",
            workflow.name,
            contender.name(),
            arena.end
        )));
    }
    let makespan = arena.now.since(start).as_secs_f64();
    arena.run(arena.now, |_| false)?;
    let mut outcome = arena.world.outcome(makespan, start, setting.chart);
    let cost = arena.job.and_then(|job| arena.core.cost(job));
    outcome.cost_micro = cost.map_or(0, |cost| cost.total());
    Ok((outcome, arena.core.state().clone()))
}

/// Makes the machines known that come in a part of the run, and when they and earlier ones go in it.
fn enrol(
    arena: &mut Arena<Grid<'_>>,
    trace: &Trace,
    contender: &Contender,
    start: Time,
    from: f64,
    to: f64,
) {
    let machines = arena.world.luck.machines(trace, to);
    let known = arena.machines();
    for (number, machine) in machines.iter().enumerate() {
        let presence = machine.presence;
        if number >= known {
            let mut info = arena.info(Resources::cpus(1000));
            let scores = contender.describe(machine, &mut info);
            match presence.from > 0.0 {
                true => arena.add(info, scores, start, presence.from),
                false => arena.add(info, scores, arena.now, 0.0),
            }
        }
        if (from..to).contains(&presence.to) || (number >= known && presence.to < from) {
            arena.goes(number, start, presence.to);
        }
    }
    arena.world.machines = machines;
}

/// The machines of a run and what happened there.
struct Grid<'a> {
    luck: &'a Luck,
    machines: Vec<Machine>,
    /// For each attempt whether it was redundant, and whether it won.
    records: BTreeMap<AttemptId, (bool, bool)>,
    spans: BTreeMap<AttemptId, (usize, Span)>,
    truth: Truth,
}

impl World for Grid<'_> {
    fn course(&mut self, machine: usize, attempt: AttemptId, begun_at: f64, now: Time) -> Course {
        let (task, number) = (attempt.task.number as usize, attempt.number);
        let usual = self.luck.work[task] / self.machines[machine].speed;
        let factor = self.luck.straggle(task, number);
        let saving = self.luck.saving(task);
        let whole = usual * factor * (1.0 + saving.map_or(0.0, |saving| saving.cost));
        let saves = saving.map(|saving| (whole * saving.share).min(saving.every_s));
        let (staging, running) = (self.luck.staging[task], whole * (1.0 - begun_at));
        self.truth
            .began(attempt.task, machine, now, staging + running);
        Course {
            staging,
            running,
            cpus: match self.luck.starved(task, number) {
                true => 1.0 / factor,
                false => 1.0,
            },
            heartbeats: HEARTBEATS_MIN.max(usual * HEARTBEATS_SHARE),
            tells: self.luck.reports(task),
            saves: saves.unwrap_or(0.0),
        }
    }

    fn ended(&mut self, attempt: AttemptId, machine: usize, span: Span) {
        self.truth.ended(attempt.task, machine);
        self.spans.insert(attempt, (machine, span));
    }

    fn committed(&mut self, record: &Record) {
        let (attempt, entry) = match record {
            Record::TaskDone {
                attempt, redundant, ..
            } => (*attempt, (*redundant, true)),
            Record::AttemptEnded {
                attempt, redundant, ..
            } => (*attempt, (*redundant, false)),
            _ => return,
        };
        self.records.entry(attempt).or_insert(entry);
    }
}

impl Grid<'_> {
    fn outcome(&self, makespan: f64, start: Time, chart: bool) -> Outcome {
        let mut outcome = Outcome {
            makespan,
            ..Outcome::default()
        };
        for (attempt, (machine, span)) in &self.spans {
            let (redundant, won) = self.records.get(attempt).copied().unwrap_or_default();
            let held = span.to.since(span.from).as_secs_f64();
            outcome.held += held;
            outcome.won += if won { held } else { 0.0 };
            outcome.copies += if redundant { held } else { 0.0 };
            outcome.copies_started += u32::from(redundant);
            if span.how == Ended::Lost {
                outcome.lost += held;
            }
            if chart {
                let TaskId { number, .. } = attempt.task;
                outcome.bars.push(Bar {
                    machine: *machine,
                    task: number as usize,
                    redundant,
                    won,
                    how: span.how,
                    from: span.from.since(start).as_secs_f64(),
                    to: span.to.since(start).as_secs_f64(),
                });
            }
        }
        outcome
    }
}
