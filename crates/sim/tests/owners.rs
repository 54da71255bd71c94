//! Hours on machines whose owners come and go, at speed: nothing is lost, and nothing waits for ever.

use hedge_model::JobSpec;
use hedge_model::owner::OwnerRules;
use hedge_model::spec::{CriticalRule, Draft, Group, Qos};
use hedge_sim::{Faults, Grid, Options, Output, Program, WorkerKind};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// Owners go on coming and going for so long.
const HOUR: Duration = Duration::from_secs(3600);
/// Some owner does something so often, on average: each once in eight minutes.
const ACTS_EVERY: Duration = Duration::from_secs(60);
const MACHINES: usize = 8;
/// A job is submitted so often, which two such machines could do.
const JOBS_EVERY: Duration = Duration::from_secs(120);
const TASKS: u32 = 6;
/// Long beside the three minutes for which an owner must be quiet: most tasks meet one.
const TASK_MEAN: Duration = Duration::from_secs(60);

fn job() -> JobSpec {
    let draft = Draft {
        name: "hour".into(),
        qos: Qos::default(),
        critical: CriticalRule {
            by: Vec::new(),
            ..CriticalRule::default()
        },
        files: Vec::new(),
        groups: vec![Group {
            array: Some((0, TASKS)),
            command: Program::new(Output::Inline, TASK_MEAN).command(),
            ..Group::program("part", &[])
        }],
        outline: false,
    };
    JobSpec::new(draft).expect("a job")
}

/// An hour with these rules; `free` machines have no owner.
fn hour(seed: u64, rules: &OwnerRules, free: usize) {
    let mut workers = vec![WorkerKind::cpus(2); MACHINES + free];
    for worker in workers.iter_mut().skip(free) {
        worker.owner = Some(rules.clone());
    }
    let faults = Faults {
        owners: true,
        every: Some(ACTS_EVERY),
        ..Faults::default()
    };
    let mut grid = Grid::new(
        seed,
        Options {
            faults,
            check: false,
            ..Options::quiet(workers)
        },
    );
    let start = grid.now();
    let mut submitted = 0;
    let (mut away, mut looks) = (0, 0);
    while grid.now().since(start) < HOUR {
        if grid.now().since(start) >= JOBS_EVERY * submitted {
            grid.submit(0, job());
            submitted += 1;
        }
        let until = grid.now() + SECOND;
        assert_eq!(grid.run_until(HOUR, |grid| grid.now() >= until), Ok(true));
        if let Some(core) = grid.supervisor() {
            let views = core.worker_views();
            looks += views.len();
            away += views.iter().filter(|view| view.usage == "away").count();
        }
    }
    // Owners go on: what is paused and has no copy would never end.
    let jobs = u64::from(submitted);
    let ended = grid.run_until(HOUR * 4, |grid| grid.stats().jobs_done >= jobs);
    let stats = grid.stats();
    assert_eq!(ended, Ok(true), "seed {seed}: {stats:?}");
    assert_eq!(
        (stats.jobs_failed, stats.outputs_lost),
        (0, 0),
        "seed {seed}"
    );
    assert_eq!(stats.tasks_done, jobs * u64::from(TASKS), "seed {seed}");
    let views = grid.supervisor().map(|core| core.worker_views());
    let lost: u64 = views.iter().flatten().map(|view| view.lost).sum();
    assert_eq!(lost, 0, "seed {seed}: attempts were lost");
    // Owners did come back, and attempts were copied for it.
    assert!(away * 10 > looks, "seed {seed}: {away} of {looks}");
    assert!(stats.started > stats.tasks_done, "seed {seed}: {stats:?}");
}

#[test]
fn an_hour_of_owners_loses_no_attempt_and_leaves_none_paused_without_a_copy() {
    for seed in 1..4 {
        hour(seed, &OwnerRules::default(), 1);
    }
}

#[test]
fn where_every_machine_has_an_owner_and_nothing_is_given_up_all_jobs_still_end() {
    let patient = OwnerRules {
        vacate_after: None,
        ..OwnerRules::default()
    };
    for seed in 4..7 {
        hour(seed, &patient, 0);
    }
}
