//! Whole random runs: a random grid, random jobs and faults; then everything heals, and every job whose tasks
//! can succeed must end done within a bounded time, leaving nothing behind.

use crate::dice::Dice;
use crate::grid::{Faults, Grid, Options, Stats, Violation, WorkerKind};
use crate::jobs::{JobShape, random_job, random_open_job};
use hedge_core::monitor::Settings as Watch;
use hedge_model::owner::OwnerRules;
use hedge_model::record::JobEnd;
use hedge_model::spec::Unplaceable;
use std::time::Duration;

/// Virtual time within which a healed grid must finish what can be finished.
const CONVERGED_WITHIN: Duration = Duration::from_secs(1200);
/// Virtual time after the last job in which everybody must have heard of its end.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);

/// How a random run went.
#[derive(Clone, Debug)]
pub struct RandomRun {
    /// What was counted.
    pub stats: Stats,
    /// What went wrong, if anything.
    pub violation: Option<Violation>,
    /// The last lines of the event log, where it is traced.
    pub log_tail: Vec<String>,
}

/// One random run. The same seed gives the same run; tracing changes nothing but that it is logged.
pub fn random_run(seed: u64, trace: bool) -> RandomRun {
    run(seed, trace, random_options)
}

/// The same with three or five supervisors, any of which may break.
pub fn random_group_run(seed: u64, trace: bool) -> RandomRun {
    run(seed, trace, |dice, trace| {
        let options = random_options(dice, trace);
        let faults = Faults {
            supervisor: options.faults.every.is_some(),
            revoke: dice.permille(300),
            ..options.faults
        };
        let supervisors = if dice.permille(800) { 3 } else { 5 };
        Options {
            supervisors,
            faults,
            ..options
        }
    })
}

fn run(seed: u64, trace: bool, options: impl FnOnce(&mut Dice, bool) -> Options) -> RandomRun {
    let mut dice = Dice::new(seed ^ 0x5eed);
    let options = options(&mut dice, trace);
    let big = options.workers[0].resources.cpus_milli / 1000;
    let mut grid = Grid::new(seed, options);
    let result = play(&mut grid, &mut dice, big);
    RandomRun {
        stats: grid.stats(),
        violation: result.err(),
        log_tail: grid.log_tail().map(str::to_owned).collect(),
    }
}

fn random_options(dice: &mut Dice, trace: bool) -> Options {
    let count = dice.between(2, 8) as usize;
    let mut workers: Vec<WorkerKind> = (0..count)
        .map(|_| WorkerKind::cpus(dice.between(1, 4)))
        .collect();
    workers[0] = WorkerKind::cpus(4);
    workers[0].labels.push(("site".into(), "a".into()));
    if count > 3 && dice.permille(300) {
        workers[count - 1].bad = true;
    }
    let calm = dice.permille(100);
    let faults = Faults {
        network: dice.permille(700),
        workers: dice.permille(700),
        drains: dice.permille(400),
        owners: dice.permille(500),
        supervisor: dice.permille(500),
        revoke: false,
        every: (!calm).then(|| dice.millis(100, 2000)),
    };
    if faults.owners && !calm {
        for worker in workers.iter_mut().skip(1) {
            worker.owner = dice.permille(700).then(|| OwnerRules {
                resume_after: dice.millis(50, 3000),
                vacate_after: dice.permille(700).then(|| dice.millis(100, 5000)),
                checkpoint_grace: dice.millis(0, 300),
                ..OwnerRules::default()
            });
        }
    }
    Options {
        supervisors: 1,
        clients: dice.between(1, 3) as usize,
        watch: Watch::default(),
        delay_ms: (0, dice.between(1, 40)),
        commit_ms: (0, dice.between(0, 30)),
        faults: if calm { Faults::default() } else { faults },
        check: true,
        trace,
        workers,
    }
}

fn play(grid: &mut Grid, dice: &mut Dice, cpus_max: u64) -> Result<(), Violation> {
    let jobs = dice.between(1, 6);
    let mut doomed = Vec::new();
    for number in 0..jobs {
        let client = dice.below(grid.clients.len() as u64) as usize;
        let shape = JobShape {
            groups_max: 7,
            array_max: 10,
            cpus_max,
            doomed: dice.permille(80),
        };
        let thief = grid.clients.len() > 1 && dice.permille(100);
        let owner = (client + usize::from(thief)) % grid.clients.len();
        let salt = owner as u64 * 10 + dice.below(2);
        let no_job = |_| format!("random job {number} is no job");
        let open = dice.permille(250) && !thief;
        let at = if open {
            match random_open_job(dice, shape, salt).map_err(no_job) {
                Ok((spec, extensions)) => grid.submit_open(client, spec, extensions),
                Err(what) => return grid.violated(what),
            }
        } else {
            match random_job(dice, shape, salt).map_err(no_job) {
                Ok(spec) if thief => grid.submit_as_is(client, spec),
                Ok(spec) => grid.submit(client, spec),
                Err(what) => return grid.violated(what),
            }
        };
        if shape.doomed && !open {
            doomed.push((client, at));
        }
        let pause = dice.millis(0, 4000);
        grid.run_until(pause, |_| false)?;
        if dice.permille(100) {
            grid.cancel(client, at);
        }
    }
    let chaos = dice.millis(0, 20_000);
    grid.run_until(chaos, |grid| grid.all_ended())?;
    grid.heal();
    converge(grid, &doomed)
}

fn converge(grid: &mut Grid, doomed: &[(usize, usize)]) -> Result<(), Violation> {
    let over = |grid: &Grid| grid.all_ended() && grid.nobody_waits();
    if !grid.run_until(CONVERGED_WITHIN, over)? {
        let open: Vec<_> = grid
            .truth()
            .jobs
            .iter()
            .filter(|(_, job)| job.ended.is_none())
            .map(|(id, job)| format!("{id} ({} of {})", job.done, job.spec.task_count()))
            .collect();
        return grid.violated(format!("jobs {open:?} do not end, or a client waits"));
    }
    check_ends(grid, doomed)?;
    grid.run_until(SETTLED_WITHIN, |_| false)?;
    grid.check_nothing_left()
}

impl Grid {
    /// Whether every client that is there knows how its submissions ended.
    fn nobody_waits(&self) -> bool {
        self.clients.iter().all(|client| {
            !client.present
                || (client.conn.is_some() && client.submissions.iter().all(|one| one.over()))
        })
    }
}

/// Jobs end as they should: done, unless they were cancelled or had a reason to fail.
fn check_ends(grid: &Grid, doomed: &[(usize, usize)]) -> Result<(), Violation> {
    for (ix, client) in grid.clients.iter().enumerate() {
        for (at, submission) in client.submissions.iter().enumerate() {
            let Some(id) = submission.accepted else {
                continue;
            };
            let Some(job) = grid.truth().jobs.get(&id) else {
                return grid.violated(format!("accepted job {id} was never written down"));
            };
            let exhausted = job.tasks.iter().any(|task| task.failed);
            let once = job.spec.groups().iter().any(|group| group.once);
            let picky = job.spec.qos().unplaceable == Unplaceable::Fail;
            let fine = match &job.ended {
                Some(JobEnd::Done) => !doomed.contains(&(ix, at)),
                Some(JobEnd::Failed { why, .. }) => {
                    exhausted
                        || (picky && !why.contains("could not be fetched"))
                        || (once && why.contains("keeps it from running again"))
                }
                Some(JobEnd::Cancelled) => submission.cancel,
                None => false,
            };
            if !fine {
                return grid.violated(format!("job {id} ended {:?}", job.ended));
            }
        }
    }
    Ok(())
}
