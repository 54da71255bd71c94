//! One run of one workflow under one policy.

use super::arena::{Arena, Ended, Span, World, config, seconds};
use super::contender::Contender;
use super::data::Holders;
use super::model::{Luck, Machine};
use super::running::Course;
use super::trace::Trace;
use super::truth::Truth;
use super::workflow::Workflow;
use crate::Error;
use hedge_core::supervisor::State;
use hedge_model::record::{JobEnd, Record};
use hedge_model::spec::Qos;
use hedge_model::{AttemptId, JobId, Resources, TaskId, Time};
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
    /// Seconds from the first job's submission to the end of the last one.
    pub makespan: f64,
    /// For each job the seconds from its submission to its end, in order of submission.
    pub jobs: Vec<f64>,
    /// Seconds that machines were held by attempts.
    pub held: f64,
    /// Of these by attempts that won.
    pub won: f64,
    /// Of these by redundant attempts, whether they won or not.
    pub copies: f64,
    /// Of these by attempts that were lost with their machine.
    pub lost: f64,
    /// What the jobs cost by the default tariff, in millionths of its currency.
    pub cost_micro: u64,
    /// How many redundant attempts were started.
    pub copies_started: u32,
    /// Bytes of inputs that machines fetched, or began to.
    pub moved_bytes: u64,
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
    /// What luck decides about the first job and the machines.
    pub luck: &'a Luck,
    /// Jobs of the same workflow that are submitted later, in order of time.
    pub later: &'a [Later],
    /// Seconds until the loss of a machine is noticed.
    pub detect: f64,
    /// Whether to keep what each attempt did.
    pub chart: bool,
    /// What the job asks for; what is usual under the policy without.
    pub qos: Option<&'a Qos>,
}

/// One more job of the workflow on the same machines.
#[derive(Clone, Debug)]
pub struct Later {
    /// Seconds from the run's start to its submission.
    pub at: f64,
    /// What luck decides about its tasks.
    pub luck: Luck,
}

/// Runs a workflow once under a policy, on a supervisor with this history; gives the history on.
///
/// # Errors
/// A run that does not end, or a job that fails.
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
    let state = history.unwrap_or_default();
    let truth = Truth::default();
    let lucks = || std::iter::once(luck).chain(setting.later.iter().map(|later| &later.luck));
    let world = Grid {
        lucks: lucks().collect(),
        machines: Vec::new(),
        records: BTreeMap::new(),
        spans: BTreeMap::new(),
        truth: truth.clone(),
        workflow,
        start: Time(0),
        first: JobId(state.last_job().0 + 1),
        data: lucks().map(|_| Holders::new(workflow)).collect(),
        moved_bytes: 0,
    };
    let mut arena = Arena::new(config(), state, world, setting.detect);
    contender.install(&mut arena.core, &truth);
    let start = arena.now + seconds(BEFORE);
    arena.world.start = start;
    let mut known = workflow.longest_path() * 8.0;
    enrol(&mut arena, trace, contender, start, 0.0, known);
    arena.run(start, |_| false)?;
    let arrivals = std::iter::once(0.0).chain(setting.later.iter().map(|later| later.at));
    for (at, luck) in arrivals.clone().zip(lucks()) {
        advance(&mut arena, setting, contender, &mut known, Some(at))?;
        let qos = setting.qos.cloned().unwrap_or_else(|| contender.qos());
        let spec = workflow.to_job(qos, |at| luck.saving(at).is_some(), |at| luck.estimates[at])?;
        arena.submit(Arc::new(spec));
    }
    advance(&mut arena, setting, contender, &mut known, None)?;
    let failed = arena.ends.iter().find(|(_, _, end)| *end != JobEnd::Done);
    if let Some((_, _, end)) = failed {
        let (name, policy) = (&workflow.name, contender.name());
        return Err(Error::Run(format!("{name} under {policy} failed: {end:?}")));
    }
    let makespan = arena.now.since(start).as_secs_f64();
    arena.run(arena.now, |_| false)?;
    let mut outcome = arena.world.outcome(makespan, start, setting.chart);
    for (id, at) in (arena.world.first.0..).map(JobId).zip(arrivals) {
        let ended = arena.ends.iter().find(|(job, _, _)| *job == id);
        let ended = ended.map_or(makespan, |(_, end, _)| end.since(start).as_secs_f64());
        outcome.jobs.push(ended - at);
        outcome.cost_micro += arena.core.cost(id).map_or(0, |cost| cost.total());
    }
    Ok((outcome, arena.core.state().clone()))
}

/// Goes on until `until`, seconds from the run's start, or until all jobs have ended. Machines are `known` that come up
/// to then.
fn advance(
    arena: &mut Arena<Grid<'_>>,
    setting: Setting<'_>,
    contender: &Contender,
    known: &mut f64,
    until: Option<f64>,
) -> Result<(), Error> {
    let (workflow, start) = (setting.workflow, arena.world.start);
    loop {
        let next = until.map_or(*known, |until| until.min(*known));
        let over = arena.run(start + seconds(next), |arena| {
            until.is_none() && arena.all_over()
        })?;
        if over || until.is_some_and(|until| next >= until) {
            return Ok(());
        }
        if *known > workflow.longest_path() * PATHS_MAX {
            let (name, policy) = (&workflow.name, contender.name());
            return Err(Error::Run(format!(
                "{name} under {policy} did not end within {known:.0} s"
            )));
        }
        enrol(arena, setting.trace, contender, start, *known, *known * 2.0);
        *known *= 2.0;
    }
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
    let machines = arena.world.lucks[0].machines(trace, to);
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
    /// For each job what luck decides.
    lucks: Vec<&'a Luck>,
    machines: Vec<Machine>,
    /// For each attempt whether it was redundant, and whether it won.
    records: BTreeMap<AttemptId, (bool, bool)>,
    spans: BTreeMap<AttemptId, (usize, Span)>,
    truth: Truth,
    workflow: &'a Workflow,
    /// When the run starts.
    start: Time,
    /// The id of the first job; the others follow.
    first: JobId,
    /// For each job where its data are.
    data: Vec<Holders>,
    moved_bytes: u64,
}

impl World for Grid<'_> {
    fn course(&mut self, machine: usize, attempt: AttemptId, begun_at: f64, now: Time) -> Course {
        let ((job, task), number) = (self.job(attempt), attempt.number);
        let luck = self.lucks[job];
        let usual = luck.work[task] / self.machines[machine].speed;
        let factor = luck.straggle(task, number);
        let saving = luck.saving(task);
        let whole = usual * factor * (1.0 + saving.map_or(0.0, |saving| saving.cost));
        let saves = saving.map(|saving| (whole * saving.share).min(saving.every_s));
        let running = whole * (1.0 - begun_at);
        let from = now.since(self.start).as_secs_f64();
        let data = &self.data[job];
        let (fetch, bytes) = data.fetch(self.workflow, task, machine, &self.machines, from);
        let staging = luck.startup + fetch;
        self.moved_bytes += bytes;
        self.truth
            .began(attempt.task, machine, now, staging + running);
        Course {
            staging,
            running,
            cpus: match luck.starved(task, number) {
                true => 1.0 / factor,
                false => 1.0,
            },
            heartbeats: HEARTBEATS_MIN.max(usual * HEARTBEATS_SHARE),
            tells: luck.reports(task),
            saves: saves.unwrap_or(0.0),
        }
    }

    fn staged(&mut self, machine: usize, attempt: AttemptId) {
        let (job, task) = self.job(attempt);
        self.data[job].keep_inputs(self.workflow, task, machine);
    }

    fn ended(&mut self, attempt: AttemptId, machine: usize, span: Span) {
        if span.how == Ended::Done {
            let (job, task) = self.job(attempt);
            self.data[job].keep_outputs(self.workflow, task, machine);
        }
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
    /// The position of an attempt's job, and of its task.
    fn job(&self, attempt: AttemptId) -> (usize, usize) {
        let TaskId { job, number } = attempt.task;
        ((job.0 - self.first.0) as usize, number as usize)
    }

    fn outcome(&self, makespan: f64, start: Time, chart: bool) -> Outcome {
        let mut outcome = Outcome {
            makespan,
            moved_bytes: self.moved_bytes,
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
