//! Grids in which nothing breaks but what the test breaks: what is promised there is exact.

use hedge_model::spec::{CriticalRule, Draft, Group, Input, Qos, Redundancy, Unplaceable};
use hedge_model::{JobSpec, Resources};
use hedge_sim::{Dice, Grid, JobShape, Options, Output, Program, WorkerKind, random_job};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(3600);

fn workers(count: usize, cpus: u64) -> Vec<WorkerKind> {
    vec![WorkerKind::cpus(cpus); count]
}

fn group(id: &str, output: Output, mean_ms: u64) -> Group {
    Group {
        command: Program::new(output, Duration::from_millis(mean_ms)).command(),
        ..Group::program(id, &[])
    }
}

fn job(copies: u32, groups: Vec<Group>) -> JobSpec {
    let redundancy = if copies > 1 {
        Redundancy::Critical
    } else {
        Redundancy::None
    };
    let draft = Draft {
        name: "quiet".into(),
        qos: Qos {
            redundancy,
            copies,
            ..Qos::default()
        },
        critical: CriticalRule {
            by: Vec::new(),
            ..CriticalRule::default()
        },
        files: Vec::new(),
        groups,
        outline: false,
    };
    JobSpec::new(draft).expect("a job")
}

/// An array whose outputs all go into one last task.
fn gather(count: u32, output: Output, mean_ms: u64) -> Vec<Group> {
    vec![
        Group {
            array: Some((0, count)),
            ..group("part", output, mean_ms)
        },
        Group {
            inputs: vec![Input::Task("part".into())],
            ..group("all", Output::Blob, 10)
        },
    ]
}

fn finish(grid: &mut Grid) {
    let ended = grid.run_until(LONG, |grid| grid.stats().jobs_done > 0 && grid.all_ended());
    assert_eq!(ended, Ok(true), "{:?}", grid.stats());
}

#[test]
fn where_nothing_breaks_nothing_runs_twice() {
    for seed in 1..20 {
        let mut dice = Dice::new(seed);
        let shape = JobShape {
            groups_max: 6,
            array_max: 20,
            cpus_max: 2,
            doomed: false,
        };
        let mut kinds = workers(4, 4);
        kinds[0].labels.push(("site".into(), "a".into()));
        let mut grid = Grid::new(seed, Options::quiet(kinds));
        let mut never_fails = random_job(&mut dice, shape, seed).expect("a job");
        while !careful(&never_fails) {
            never_fails = random_job(&mut dice, shape, seed).expect("a job");
        }
        let tasks = u64::from(never_fails.task_count());
        grid.submit(0, never_fails);
        finish(&mut grid);
        let stats = grid.stats();
        assert_eq!(
            (stats.tasks_done, stats.outputs_lost),
            (tasks, 0),
            "seed {seed}"
        );
    }
}

/// Whether none of a job's tasks fails, and all wait for a worker that has not come yet.
fn careful(spec: &JobSpec) -> bool {
    let waits = spec.qos().unplaceable == Unplaceable::Wait;
    let mut groups = spec.groups().iter();
    waits && groups.all(|group| Program::of(&group.command).fail_permille == 0)
}

#[test]
fn each_critical_task_runs_on_as_many_workers_as_asked_while_enough_are_idle() {
    let mut grid = Grid::new(1, Options::quiet(workers(8, 2)));
    let groups = vec![
        Group {
            critical: true,
            array: Some((0, 3)),
            ..group("mark", Output::None, 500)
        },
        Group {
            array: Some((0, 4)),
            ..group("plain", Output::None, 500)
        },
    ];
    let all = |grid: &Grid| {
        grid.supervisor()
            .is_some_and(|core| core.worker_views().len() == 8)
    };
    assert_eq!(grid.run_until(LONG, all), Ok(true));
    grid.submit(0, job(3, groups));
    let running = grid.run_until(LONG, |grid| grid.stats().started > 0);
    assert_eq!(running, Ok(true));
    let mut places = BTreeMap::<u32, BTreeSet<usize>>::new();
    let mut attempts = BTreeMap::<u32, usize>::new();
    for (id, worker) in grid.assigned() {
        places.entry(id.task.number).or_default().insert(worker);
        *attempts.entry(id.task.number).or_default() += 1;
    }
    for task in 0..7 {
        let copies = if task < 3 { 3 } else { 1 };
        assert_eq!(
            (attempts[&task], places[&task].len()),
            (copies, copies),
            "task {task}"
        );
    }
    finish(&mut grid);
}

#[test]
fn draining_workers_lose_nothing() {
    let mut grid = Grid::new(2, Options::quiet(workers(4, 2)));
    grid.submit(0, job(1, gather(60, Output::Vary, 200)));
    for worker in 0..3 {
        let done = |grid: &Grid| grid.stats().tasks_done >= 10 * (worker + 1);
        assert_eq!(grid.run_until(LONG, done), Ok(true));
        grid.drain(0, worker as usize);
    }
    finish(&mut grid);
    let stats = grid.stats();
    assert_eq!(
        (stats.left, stats.outputs_lost, stats.tasks_done),
        (3, 0, 61)
    );
}

#[test]
fn a_crash_repeats_only_what_was_lost_with_it() {
    let mut grid = Grid::new(3, Options::quiet(workers(4, 2)));
    // What small tasks leave travels in their reports: nothing of it can be lost.
    grid.submit(0, job(1, gather(60, Output::Inline, 200)));
    assert_eq!(
        grid.run_until(LONG, |grid| grid.stats().tasks_done >= 20),
        Ok(true)
    );
    grid.crash(1);
    finish(&mut grid);
    let stats = grid.stats();
    assert_eq!((stats.tasks_done, stats.outputs_lost), (61, 0));
    assert!(
        (61..=63).contains(&stats.started),
        "two attempts were lost: {stats:?}"
    );
}

#[test]
fn a_full_grid_keeps_every_cpu_busy() {
    let mut grid = Grid::new(4, Options::quiet(workers(10, 4)));
    let half = Group {
        array: Some((0, 400)),
        resources: Resources::cpus(500),
        ..group("half", Output::None, 100)
    };
    let whole = Group {
        array: Some((0, 400)),
        ..group("whole", Output::None, 100)
    };
    grid.submit(0, job(1, vec![half, whole]));
    assert_eq!(
        grid.run_until(LONG, |grid| grid.stats().started > 0),
        Ok(true)
    );
    let began = grid.now();
    finish(&mut grid);
    let took = grid.now().since(began).as_secs_f64();
    // 400 of half a CPU and 400 of a whole one, 0.1 s each (some 2 % take four times as long), on 40 CPUs.
    let least = 600.0 * 0.1 / 40.0;
    assert!(took < least * 1.5, "{took} s, at least {least} s");
}
