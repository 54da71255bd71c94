//! Which workers are the faster ones, by what that is known, and what is given to them.

mod support;

use hedge_model::capacity::{BenchScores, STANDARD};
use hedge_model::msg::FromWorker;
use hedge_model::spec::{CriticalPlacement, CriticalRule, Draft, Group, Qos, Redundancy};
use hedge_model::{AttemptId, JobId, JobSpec, TaskId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn attach_with_clock(rig: &mut Rig, number: u8, clock_mhz: u32) {
    let mut info = info(number, 1);
    info.hardware.clock_mhz = clock_mhz;
    rig.from(number, FromWorker::Attach(Box::new(info)));
    rig.commit();
}

fn one_critical(placement: CriticalPlacement, others: u32) -> Arc<JobSpec> {
    let draft = Draft {
        name: "capacity".into(),
        qos: Qos {
            redundancy: Redundancy::None,
            critical_placement: placement,
            ..Qos::default()
        },
        critical: CriticalRule {
            by: Vec::new(),
            ..CriticalRule::default()
        },
        files: Vec::new(),
        groups: vec![
            array(others, group("other", &[])),
            Group {
                critical: true,
                ..group("vital", &[])
            },
        ],
        outline: false,
    };
    Arc::new(JobSpec::new(draft).expect("a job"))
}

/// The worker of each task of a job.
fn workers_of(said: &[String], job: u64) -> BTreeMap<u32, u8> {
    let assigned = assigned(said).into_iter();
    let of_job = assigned.filter(|(_, attempt)| attempt.task.job.0 == job);
    of_job
        .map(|(worker, attempt)| (attempt.task.number, worker))
        .collect()
}

fn higher(rig: &Rig) -> Vec<usize> {
    let views = rig.core.worker_views().into_iter().enumerate();
    views
        .filter(|(_, view)| view.class == "higher")
        .map(|(at, _)| at + 1)
        .collect()
}

#[test]
fn a_critical_task_goes_to_the_faster_worker_and_the_others_to_the_rest() {
    let mut rig = Rig::new();
    for (number, clock) in [(1, 2_000), (2, 2_000), (3, 4_000), (4, 2_000)] {
        attach_with_clock(&mut rig, number, clock);
    }
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "measure worker 3: 131072 bytes",
        "watch worker 3: idle",
        "measure worker 4: 131072 bytes",
        "watch worker 4: idle",
    ]);
    rig.submit(1, 1, &one_critical(CriticalPlacement::Prefer, 3));
    rig.commit();
    let places = workers_of(&rig.said(), 1);
    assert_eq!(higher(&rig), [3], "by its hardware");
    assert_eq!(places.len(), 4, "each task is with a worker");
    assert_eq!(places[&3], 3, "the critical task is with the faster one");
    assert!((0..3).all(|task| places[&task] != 3), "the others are not");
    let views = rig.core.worker_views();
    assert_eq!(views[2].score_from, "hardware 100 %");
}

#[test]
fn benchmark_tasks_find_the_faster_worker() {
    let mut rig = Rig::new();
    (1..=4).for_each(|number| rig.attach(number, 1));
    rig.pass_with_heartbeats(Duration::from_secs(11), &[1, 2, 3, 4]);
    let said = rig.said();
    for number in 1..=4 {
        let asked = format!("worker {number}: benchmark");
        assert!(
            said.contains(&asked),
            "an idle worker of unknown speed is asked: {said:?}"
        );
    }
    for number in 1..=4 {
        let scores = BenchScores {
            integer: STANDARD.integer * if number == 2 { 3 } else { 1 },
            ..STANDARD
        };
        rig.from(number, FromWorker::Benchmarked(scores));
    }
    rig.commit();
    rig.expect(&[
        "append benchmarked 0101010101",
        "append benchmarked 0202020202",
        "append benchmarked 0303030303",
        "append benchmarked 0404040404",
    ]);
    rig.from(1, FromWorker::Benchmarked(STANDARD));
    assert!(rig.proposed().is_empty(), "nobody asked for this");
    rig.submit(1, 1, &one_critical(CriticalPlacement::Prefer, 3));
    rig.commit();
    let places = workers_of(&rig.said(), 1);
    assert_eq!((higher(&rig), places[&3]), (vec![2], 2));
    assert_eq!(rig.core.worker_views()[1].score_from, "benchmarks 100 %");
}

/// Lets so much time pass, in which a worker sends heartbeats; says whether it was asked for benchmark tasks.
fn asked_within(rig: &mut Rig, seconds: u64) -> bool {
    rig.skip("only whether it is asked from here on matters");
    rig.pass_with_heartbeats(Duration::from_secs(seconds), &[1]);
    rig.said().contains(&"worker 1: benchmark".to_owned())
}

#[test]
fn benchmark_tasks_are_repeated_when_they_are_stale_and_wait_for_an_idle_worker() {
    const HOUR: Duration = Duration::from_secs(3_600);
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("long", &[])]));
    rig.commit();
    assert!(!asked_within(&mut rig, 20), "it is busy");
    rig.done(1, attempt(0, 1));
    rig.commit();
    assert!(asked_within(&mut rig, 11), "soon after it was done");
    // Work came, and it gave them up.
    let of_second = TaskId {
        job: JobId(2),
        number: 0,
    };
    let second = AttemptId {
        task: of_second,
        ..attempt(0, 1)
    };
    rig.submit(1, 2, &plain(vec![group("long", &[])]));
    rig.commit();
    assert!(!asked_within(&mut rig, 400), "it is busy again");
    rig.done(1, second);
    rig.commit();
    assert!(!asked_within(&mut rig, 15), "not as soon as before");
    assert!(asked_within(&mut rig, 6), "but soon");
    rig.from(1, FromWorker::Benchmarked(STANDARD));
    rig.commit();
    for (away, stale) in [(HOUR, false), (8 * 24 * HOUR, true)] {
        rig.gone(1);
        rig.pass(away);
        rig.attach(1, 1);
        rig.commit();
        assert_eq!(asked_within(&mut rig, 310), stale, "after {away:?}");
    }
}

#[test]
fn earlier_tasks_show_which_worker_is_faster() {
    let mut rig = Rig::new();
    (1..=4).for_each(|number| rig.attach(number, 1));
    rig.submit(1, 1, &plain(vec![array(40, group("part", &[]))]));
    rig.commit();
    // Three workers take 2 s for what the fourth does in half a second.
    let mut open = assigned(&rig.said());
    while !open.is_empty() {
        let (worker, attempt) = open.remove(0);
        let took = if worker == 4 { 500 } else { 2_000 };
        rig.done_after(worker, attempt, Duration::from_millis(took));
        rig.commit();
        open.extend(assigned(&rig.said()));
    }
    rig.submit(1, 2, &one_critical(CriticalPlacement::Prefer, 3));
    rig.commit();
    let places = workers_of(&rig.said(), 2);
    assert_eq!((higher(&rig), places[&3]), (vec![4], 4));
    let from = rig.core.worker_views()[3].score_from.clone();
    assert!(from.starts_with("history"), "{from}");
}

#[test]
fn where_it_is_required_critical_tasks_wait_for_a_faster_worker() {
    let mut rig = Rig::new();
    for (number, clock) in [(1, 2_000), (2, 2_000), (3, 4_000), (4, 2_000)] {
        attach_with_clock(&mut rig, number, clock);
    }
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "measure worker 3: 131072 bytes",
        "watch worker 3: idle",
        "measure worker 4: 131072 bytes",
        "watch worker 4: idle",
    ]);
    rig.submit(1, 1, &one_critical(CriticalPlacement::Require, 1));
    rig.commit();
    assert_eq!(workers_of(&rig.said(), 1)[&1], 3);
    rig.submit(1, 2, &one_critical(CriticalPlacement::Require, 1));
    rig.commit();
    let places = workers_of(&rig.said(), 2);
    assert_eq!(
        places.keys().copied().collect::<Vec<_>>(),
        [0],
        "the critical one waits"
    );
    rig.done(3, attempt(1, 1));
    rig.commit();
    assert_eq!(workers_of(&rig.said(), 2), BTreeMap::from([(1, 3)]));
}

/// A pool of a slow worker, 1, and one more than three times as fast, 2, that runs a task of 100 s.
fn slow_and_busy(redundancy: Redundancy) -> Rig {
    let mut rig = Rig::new();
    attach_with_clock(&mut rig, 1, 500);
    attach_with_clock(&mut rig, 2, 4_000);
    submit_timed(&mut rig, 1, redundancy, 1);
    assert_eq!(first_attempts(&mut rig, 1), [2]);
    rig
}

fn submit_timed(rig: &mut Rig, key: u8, redundancy: Redundancy, tasks: u32) {
    let qos = Qos {
        redundancy,
        ..Qos::default()
    };
    rig.submit(
        1,
        key,
        &job(qos, 0, vec![array(tasks, timed("t", 100, &[]))]),
    );
    rig.commit();
}

/// The workers that are given first attempts of a job now.
fn first_attempts(rig: &mut Rig, job: u64) -> Vec<u8> {
    let all = assigned(&rig.said()).into_iter();
    let first = all.filter(|(_, attempt)| attempt.task.job.0 == job && attempt.number == 1);
    first.map(|(worker, _)| worker).collect()
}

const POLICIES: [Redundancy; 5] = [
    Redundancy::None,
    Redundancy::Critical,
    Redundancy::Speculate,
    Redundancy::Auto,
    Redundancy::Fill,
];

#[test]
fn a_slow_worker_is_given_nothing_that_ends_sooner_on_a_faster_one_that_is_soon_free() {
    for redundancy in POLICIES {
        let mut rig = slow_and_busy(redundancy);
        submit_timed(&mut rig, 2, redundancy, 1);
        rig.pass_with_heartbeats(Duration::from_secs(20), &[1, 2]);
        assert!(first_attempts(&mut rig, 2).is_empty(), "{redundancy:?}");
        rig.done_after(2, attempt(0, 1), Duration::from_secs(20));
        rig.commit();
        assert_eq!(first_attempts(&mut rig, 2), [2], "{redundancy:?}");
    }
}

#[test]
fn where_the_faster_worker_is_not_free_when_expected_the_slow_one_is_given_the_task() {
    // The others have a copy of the late task there by then.
    for redundancy in &POLICIES[..3] {
        let redundancy = *redundancy;
        let mut rig = slow_and_busy(redundancy);
        submit_timed(&mut rig, 2, redundancy, 1);
        rig.expect(&["append accepted", "client 1 #2: accepted 2"]);
        rig.pass_with_heartbeats(Duration::from_secs(140), &[1, 2]);
        assert_eq!(first_attempts(&mut rig, 2), [1], "{redundancy:?}");
    }
}

#[test]
fn slow_workers_are_given_tasks_while_there_are_more_than_faster_ones_could_do() {
    let mut rig = slow_and_busy(Redundancy::None);
    submit_timed(&mut rig, 2, Redundancy::None, 6);
    assert_eq!(first_attempts(&mut rig, 2), [1]);
}
