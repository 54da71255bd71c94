//! How much the core can carry: one big job on many machines, with the core's own time measured.

use super::arena::{Arena, Span, World, config};
use super::model::mix;
use super::running::Course;
use crate::{Dice, Error};
use hedge_core::supervisor::State;
use hedge_model::record::{JobEnd, Record};
use hedge_model::spec::{CriticalRule, Draft, Estimate, Group, Qos};
use hedge_model::{AttemptId, JobSpec, Resources, Time};
use serde::Serialize;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Seconds that a task takes at the median; they scatter by 0.3, and one in twenty takes three times as long.
const TASK: f64 = 10.0;

/// What a big job took.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Scale {
    /// Tasks of the job.
    pub tasks: u32,
    /// Machines, of one CPU each.
    pub workers: u32,
    /// Real time that the supervisor's core took for each task, microseconds.
    pub core_us_per_task: f64,
    /// Of this before the first task, when machines come and the job is taken in; seconds in all.
    pub start_s: f64,
    /// Real time of the whole simulation, seconds.
    pub wall_s: f64,
    /// Virtual time from submission to the job's end, seconds.
    pub virtual_s: f64,
    /// Events that the supervisor's core handled.
    pub events: u64,
}

struct Farm {
    speeds: Vec<f64>,
}

impl World for Farm {
    fn course(&mut self, machine: usize, attempt: AttemptId, _: f64, _: Time) -> Course {
        let number = u64::from(attempt.task.number) << 8 | u64::from(attempt.number);
        let mut dice = Dice::new(mix(number));
        let straggles = if dice.permille(50) { 3.0 } else { 1.0 };
        let work = TASK * (0.3 * dice.normal()).exp() * straggles;
        Course {
            running: work / self.speeds[machine],
            cpus: 1.0,
            ..Course::default()
        }
    }

    fn ended(&mut self, _: AttemptId, _: usize, _: Span) {}

    fn committed(&mut self, _: &Record) {}
}

/// Runs an array of `tasks` on `workers` machines that stay.
pub fn scale(tasks: u32, workers: u32, qos: Qos) -> Result<Scale, Error> {
    let group = Group {
        array: Some((0, tasks)),
        estimate: Estimate {
            cpu_time: Some(Duration::from_secs_f64(TASK)),
            ..Estimate::default()
        }
        .into(),
        ..Group::program("task", &["task"])
    };
    let draft = Draft {
        name: "scale".into(),
        qos,
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: vec![group],
        outline: false,
    };
    let spec = JobSpec::new(draft).map_err(|error| Error::Option(error.to_string()))?;
    let began = Instant::now();
    let speeds = (0..u64::from(workers)).map(|at| (0.3 * Dice::new(at).normal()).exp());
    let farm = Farm {
        speeds: speeds.collect(),
    };
    let mut arena = Arena::new(config(), State::default(), farm, 0.0);
    arena.core_time = Some(Duration::ZERO);
    let start = arena.now;
    for at in 0..workers as usize {
        let mut info = arena.info(Resources::cpus(1000));
        info.hardware.clock_mhz = (arena.world.speeds[at] * 3_000.0) as u32;
        arena.add(info, None, start, 0.0);
    }
    arena.run(start, |_| false)?;
    let started = arena.core_time.unwrap_or_default();
    arena.submit(Arc::new(spec));
    let until = start + Duration::from_secs(100 * 365 * 86_400);
    arena.run(until, Arena::all_over)?;
    let end = arena.ends.last().map(|(.., end)| end);
    if end != Some(&JobEnd::Done) {
        return Err(Error::Run(format!("the job ended {end:?}")));
    }
    let core = arena.core_time.unwrap_or_default().saturating_sub(started);
    Ok(Scale {
        tasks,
        workers,
        core_us_per_task: core.as_secs_f64() * 1e6 / f64::from(tasks),
        start_s: started.as_secs_f64(),
        wall_s: began.elapsed().as_secs_f64(),
        virtual_s: arena.now.since(start).as_secs_f64(),
        events: arena.events,
    })
}
