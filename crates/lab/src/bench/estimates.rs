//! `hedge-lab bench estimates`: how good the estimates of the time remaining are on real workers that several jobs share.

use super::block_on;
use super::grid::{Grid, Plan};
use super::recovery::tasks::{ARGS, failed};
use crate::failure::Failure;
use crate::output::Output;
use crate::sim::estimates::print;
use hedge_model::spec::{Axis, Column, CriticalRule, Draft, Group, Qos, Redundancy};
use hedge_model::view::JobState;
use hedge_model::{JobId, JobSpec};
use hedge_node::client::new_key;
use hedge_sim::Dice;
use hedge_sim::eval::{Estimates, HISTORY, MEDIANS, SPREAD, draw};
use std::time::{Duration, Instant};

/// Workers, and CPUs of each.
const WORKERS: u16 = 4;
const CPUS: u32 = 2;
/// A task takes this part of what it takes in `sim estimates`.
const PART: f64 = 0.01;
/// Longest pause between the other job and the one that is looked at, in seconds.
const PAUSE_MAX_S: f64 = 1.0;
/// How much later than the one that is looked at a third job may come, in seconds.
const RIVAL_MAX_S: f64 = 8.0;

/// Records and prints.
///
/// # Errors
/// The grid cannot be started, or a job fails.
pub fn run(output: Output, runs: u32, seed: u64) -> Result<(), Failure> {
    let recorded = block_on(async {
        let plan = Plan {
            args: ARGS,
            ..Plan::new(WORKERS, CPUS)
        };
        let grid = Grid::start(plan).await?;
        let mut dice = Dice::new(seed);
        let history = MEDIANS.iter().enumerate();
        let history: Vec<(usize, u32)> = history.map(|(kind, _)| (kind, HISTORY)).collect();
        grid.run(&job(&mut dice, &history, false)?).await?;
        let mut recorded = Vec::new();
        for number in 0..u64::from(runs) {
            recorded.push(record(&grid, seed.wrapping_add(number)).await?);
        }
        Ok(recorded)
    })?;
    print(output, recorded)
}

/// Runs a job of 50 to 500 tasks beside one that was there before and one that comes later, and records its estimates.
async fn record(grid: &Grid, seed: u64) -> Result<Estimates, Failure> {
    let mut dice = Dice::new(seed);
    let (groups, chained) = draw(&mut dice, 20, 200);
    let before = submit(grid, &job(&mut dice, &groups, chained)?).await?;
    let pause = Duration::from_secs_f64(dice.unit() * PAUSE_MAX_S);
    tokio::time::sleep(pause).await;
    let (groups, chained) = draw(&mut dice, 50, 500);
    let spec = job(&mut dice, &groups, chained)?;
    let (groups, chained) = draw(&mut dice, 20, 100);
    let rival = job(&mut dice, &groups, chained)?;
    let rival_after = Duration::from_secs_f64(dice.unit() * RIVAL_MAX_S);
    let id = submit(grid, &spec).await?;
    let accepted = Instant::now();
    let mut views = grid.client.watch(id).await?;
    let (mut seen, mut later) = (Vec::new(), None);
    let took_s = loop {
        let rival_due = tokio::time::sleep(rival_after.saturating_sub(accepted.elapsed()));
        tokio::select! {
            view = views.recv() => {
                let view = view.ok_or_else(|| failed("the grid ended while it was measured"))?;
                match view.state {
                    JobState::Done => break view.elapsed_ms / 1e3,
                    JobState::Failed | JobState::Cancelled => {
                        return Err(failed("a measured job did not end done"));
                    }
                    JobState::Waiting | JobState::Running => seen.push((view.elapsed_ms / 1e3, view)),
                }
            }
            () = rival_due, if later.is_none() => later = Some(submit(grid, &rival).await?),
        }
    };
    for other in [Some(before), later].into_iter().flatten() {
        let mut views = grid.client.watch(other).await?;
        while views.recv().await.is_some() {}
    }
    Ok(Estimates::of_views(seed, took_s, false, &seen))
}

async fn submit(grid: &Grid, spec: &JobSpec) -> Result<JobId, Failure> {
    Ok(grid.client.submit(new_key()?, spec).await?)
}

/// A job of tasks that sleep, by kind and number; in a chain each group waits for the one before.
fn job(dice: &mut Dice, groups: &[(usize, u32)], chained: bool) -> Result<JobSpec, Failure> {
    let named = |at: usize| format!("g{at}");
    let groups = groups.iter().enumerate().map(|(at, (kind, count))| {
        let mut time = || MEDIANS[*kind] * PART * (SPREAD * dice.normal()).exp();
        let values = (0..*count).map(|_| format!("{:.3}", time()));
        let column = Column {
            name: "seconds".into(),
            values: values.collect(),
        };
        Group {
            array: Some((0, *count)),
            axes: vec![Axis::Table(vec![column])].into(),
            deps: (chained && at > 0)
                .then(|| named(at - 1).into())
                .into_iter()
                .collect(),
            kind: Some(format!("kind{kind}").into()),
            ..Group::program(&named(at), &["sleep", "${seconds}"])
        }
    });
    let draft = Draft {
        name: "estimated".into(),
        qos: Qos {
            redundancy: Redundancy::None,
            ..Qos::default()
        },
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: groups.collect(),
        outline: false,
    };
    JobSpec::new(draft).map_err(|error| failed(&error.to_string()))
}
