//! How good the estimates of the time remaining and of meeting a deadline are, on simulated grids that several
//! clients share.

use super::arena::{Arena, Span, World, config, seconds};
use super::model::mix;
use super::running::Course;
use crate::dice::Dice;

use crate::error::Error;
use hedge_core::supervisor::State;
use hedge_model::record::Record;
use hedge_model::spec::{CriticalRule, Draft, Group, Qos, Redundancy};
use hedge_model::view::{JobState, JobView};
use hedge_model::{AttemptId, JobId, JobSpec, PeerId, Resources, Time};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Kinds of tasks on the grid, by median time in seconds at standard speed.
pub const MEDIANS: [f64; 6] = [2.0, 5.0, 10.0, 20.0, 40.0, 80.0];
/// The standard deviation of the logarithm of the times of a kind's tasks.
pub const SPREAD: f64 = 0.35;
/// Tasks of each kind that ran before.
pub const HISTORY: u32 = 8;
/// The parts of a job's time after which its estimates are compared with what came.
pub const MOMENTS: [f64; 3] = [0.25, 0.5, 0.75];
/// A job is looked at this many times at least.
const LOOKS: f64 = 400.0;

/// An estimate of the time remaining, and what remained.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Estimated {
    /// The part of the job's time that had passed.
    pub moment: f64,
    /// Seconds, if there was an estimate.
    pub likely_s: Option<f64>,
    /// The interval around it.
    pub low_s: Option<f64>,
    /// Its upper bound.
    pub high_s: Option<f64>,
    /// The seconds that the job took from then.
    pub truth_s: f64,
}

impl Estimated {
    /// Returns whether the estimate is within this factor of the truth.
    pub fn within(&self, factor: f64) -> bool {
        let ratio = self.likely_s.map(|likely| likely / self.truth_s.max(1e-9));
        ratio.is_some_and(|ratio| ratio <= factor && ratio >= 1.0 / factor)
    }

    /// Returns whether the interval holds the truth.
    pub fn holds(&self) -> bool {
        let bounds = self.low_s.zip(self.high_s);
        bounds.is_some_and(|(low, high)| (low..=high).contains(&self.truth_s))
    }
}

/// The estimated chance that a deadline is met, and whether it was.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Promised {
    /// The chance, from 0 to 1.
    pub chance: f64,
    /// Whether the job ended in time.
    pub met: bool,
}

/// What was estimated of one job.
#[derive(Clone, Debug, Serialize)]
pub struct Estimates {
    /// What the run's random numbers follow from.
    pub seed: u64,
    /// Tasks of the job.
    pub tasks: u32,
    /// Seconds from its acceptance to its end.
    pub took_s: f64,
    /// At each of [`MOMENTS`].
    pub remaining: Vec<Estimated>,
    /// At the same moments, of those with an estimate.
    pub deadline: Vec<Promised>,
}

/// Machines of different speeds, and tasks whose times vary.
struct Shared {
    seed: u64,
    speeds: Vec<f64>,
    /// The median of each task of each job, by ranges of numbers.
    jobs: Vec<Vec<(u32, f64)>>,
}

impl World for Shared {
    fn course(&mut self, machine: usize, attempt: AttemptId, _: f64, _: Time) -> Course {
        let (job, number) = (attempt.task.job.0, attempt.task.number);
        let mut dice = Dice::new(mix(self.seed ^ mix(job << 32 | u64::from(number))));
        let groups = &self.jobs[job as usize - 1];
        let median = groups.iter().find(|(until, _)| number < *until);
        let median = median.map_or(1.0, |(_, median)| *median);
        Course {
            staging: 0.05,
            running: median * (SPREAD * dice.normal()).exp() / self.speeds[machine],
            cpus: 1.0,
            ..Course::default()
        }
    }

    fn ended(&mut self, _: AttemptId, _: usize, _: Span) {}

    fn committed(&mut self, _: &Record) {}
}

/// Runs one job of 50 to 500 tasks of mixed lengths on a grid of 4 to 16 machines, with two to four jobs of other
/// clients before and after it, and records its estimates.
///
/// # Errors
/// The job does not end.
pub fn estimates(seed: u64) -> Result<Estimates, Error> {
    let mut dice = Dice::new(mix(seed));
    let mut arena = grid(seed, &mut dice)?;
    for client in 1..=dice.between(1, 2) {
        let (groups, chained) = draw(&mut dice, 20, 200);
        submit(&mut arena, client, &groups, chained, None)?;
        let pause = seconds(dice.unit() * 60.0);
        arena.run(arena.now + pause, |_| false)?;
    }
    let (groups, chained) = draw(&mut dice, 50, 500);
    let work: f64 = groups
        .iter()
        .map(|(kind, count)| MEDIANS[*kind] * f64::from(*count))
        .sum();
    let alone = work
        / arena
            .world
            .speeds
            .iter()
            .map(|speed| speed * 2.0)
            .sum::<f64>();
    let by = seconds(alone * (1.0 + 2.5 * dice.unit()));
    let id = submit(&mut arena, 9, &groups, chained, Some(by))?;
    let accepted = arena.now;
    let mut rivals: Vec<f64> = (0..dice.between(0, 2))
        .map(|_| dice.unit() * alone)
        .collect();
    rivals.sort_by(f64::total_cmp);
    let mut seen: Vec<(f64, JobView)> = Vec::new();
    let ended = loop {
        let view = arena
            .core
            .job_view(id)
            .ok_or(Error::Run("the job is gone".into()))?;
        if view.state == JobState::Done {
            break accepted + Duration::from_secs_f64(view.elapsed_ms / 1e3);
        }
        if arena.now.since(accepted) > Duration::from_secs(10 * 86_400) {
            return Err(Error::Run("the job does not end".into()));
        }
        seen.push((arena.now.since(accepted).as_secs_f64(), view));
        if rivals
            .first()
            .is_some_and(|at| arena.now.since(accepted).as_secs_f64() > *at)
        {
            rivals.remove(0);
            let (groups, chained) = draw(&mut dice, 20, 100);
            submit(&mut arena, 5 + rivals.len() as u64, &groups, chained, None)?;
        }
        arena.run(arena.now + seconds(alone / LOOKS), |_| false)?;
    };
    let took_s = ended.since(accepted).as_secs_f64();
    Ok(Estimates::of_views(
        seed,
        took_s,
        ended <= accepted + by,
        &seen,
    ))
}

/// Starts 4 to 16 machines of two CPUs each, on which some tasks of each kind ran before.
fn grid(seed: u64, dice: &mut Dice) -> Result<Arena<Shared>, Error> {
    let machines = dice.between(4, 16);
    let speeds: Vec<f64> = (0..machines).map(|_| (0.3 * dice.normal()).exp()).collect();
    let world = Shared {
        seed,
        speeds,
        jobs: Vec::new(),
    };
    let mut arena = Arena::new(config(), State::default(), world, 0.0);
    let start = arena.now;
    for at in 0..machines as usize {
        let mut info = arena.info(Resources::cpus(2000));
        info.hardware.clock_mhz = (arena.world.speeds[at] * 3000.0) as u32;
        arena.add(info, None, start, 0.0);
    }
    arena.run(start, |_| false)?;
    let history = MEDIANS.iter().enumerate();
    let history = history.map(|(kind, _)| (kind, HISTORY)).collect::<Vec<_>>();
    submit(&mut arena, 0, &history, false, None)?;
    wait(&mut arena, JobId(1))?;
    Ok(arena)
}

/// Draws one to four groups of tasks, by kind and count, and whether each waits for the one before.
pub fn draw(dice: &mut Dice, low: u64, high: u64) -> (Vec<(usize, u32)>, bool) {
    let (all, groups) = (dice.between(low, high), dice.between(1, 4));
    let kind = |dice: &mut Dice| dice.below(MEDIANS.len() as u64) as usize;
    let each = (all / groups) as u32;
    let groups = (0..groups).map(|_| (kind(dice), each)).collect();
    (groups, dice.permille(500))
}

fn submit(
    arena: &mut Arena<Shared>,
    client: u64,
    groups: &[(usize, u32)],
    chained: bool,
    finish_by: Option<Duration>,
) -> Result<JobId, Error> {
    let mut until = 0;
    let medians = groups.iter().map(|(kind, count)| {
        until += count;
        (until, MEDIANS[*kind])
    });
    let medians = medians.collect();
    arena.world.jobs.push(medians);
    let named = |at: usize| format!("g{at}");
    let groups = groups.iter().enumerate().map(|(at, (kind, count))| Group {
        array: Some((0, *count)),
        deps: (chained && at > 0)
            .then(|| named(at - 1).into())
            .into_iter()
            .collect(),
        kind: Some(format!("kind{kind}").into()),
        ..Group::program(&named(at), &["task"])
    });
    let draft = Draft {
        name: "estimated".into(),
        qos: Qos {
            redundancy: Redundancy::None,
            finish_by,
            ..Qos::default()
        },
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: groups.collect(),
        outline: false,
    };
    let spec = JobSpec::new(draft).map_err(|error| Error::Option(error.to_string()))?;
    arena.submit_as(PeerId([client as u8 + 1; 32]), Arc::new(spec));
    arena.run(arena.now, |_| false)?;
    Ok(JobId(arena.world.jobs.len() as u64))
}

fn wait(arena: &mut Arena<Shared>, id: JobId) -> Result<(), Error> {
    let until = arena.now + Duration::from_secs(86_400);
    let done = |arena: &Arena<Shared>| arena.ends.last().is_some_and(|(job, ..)| *job == id);
    arena
        .run(until, done)?
        .then_some(())
        .ok_or(Error::Run("the history does not end".into()))
}

impl Estimates {
    /// Compares what views of a job said with what came. `seen` are the views, each with the seconds since the job was
    /// accepted, of which it took `took_s`; `met` says whether its deadline was met.
    pub fn of_views(seed: u64, took_s: f64, met: bool, seen: &[(f64, JobView)]) -> Self {
        let moments = MOMENTS.iter().filter_map(|moment| {
            let at = took_s * moment;
            let (passed_s, view) = seen.iter().rev().find(|(passed_s, _)| *passed_s <= at)?;
            Some((*moment, *passed_s, view))
        });
        let seconds = |ms: Option<f64>| ms.map(|ms| ms / 1e3);
        let remaining = moments.clone().map(|(moment, passed_s, view)| Estimated {
            moment,
            likely_s: seconds(view.left_ms),
            low_s: seconds(view.left_low_ms),
            high_s: seconds(view.left_high_ms),
            truth_s: took_s - passed_s,
        });
        let deadline = moments.filter_map(|(_, _, view)| {
            let chance = view.deadline.filter(|deadline| !deadline.missed)?.chance?;
            Some(Promised { chance, met })
        });
        Self {
            seed,
            tasks: seen.first().map_or(0, |(_, view)| view.tasks),
            took_s,
            remaining: remaining.collect(),
            deadline: deadline.collect(),
        }
    }
}
