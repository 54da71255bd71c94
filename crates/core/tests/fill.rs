//! Idle workers are filled with copies, and give way to real work at once.

mod support;

use hedge_model::Ending;
use hedge_model::JobSpec;
use hedge_model::msg::Outcome;
use hedge_model::spec::{CriticalRule, Draft, Group, Qos, Redundancy};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn filled(groups: Vec<Group>) -> Arc<JobSpec> {
    let draft = Draft {
        name: "fill".into(),
        qos: Qos {
            redundancy: Redundancy::Fill,
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
    Arc::new(JobSpec::new(draft).expect("a job"))
}

fn vital(id: &str) -> Group {
    Group {
        critical: true,
        ..group(id, &[])
    }
}

#[test]
fn all_workers_of_a_pool_larger_than_the_job_have_a_task() {
    let mut rig = Rig::new();
    (1..=8).for_each(|number| rig.attach(number, 1));
    rig.submit(1, 1, &filled(vec![array(3, group("a", &[]))]));
    rig.commit();
    let places = assigned(&rig.said());
    let workers: BTreeSet<u8> = places.iter().map(|(worker, _)| *worker).collect();
    assert_eq!(
        (places.len(), workers.len()),
        (8, 8),
        "each worker has one: {places:?}"
    );
    let mut attempts = BTreeMap::<u32, u32>::new();
    for (_, attempt) in &places {
        *attempts.entry(attempt.task.number).or_default() += 1;
    }
    let mut counts: Vec<u32> = attempts.into_values().collect();
    counts.sort_unstable();
    assert_eq!(counts, [2, 3, 3], "shared evenly");
}

#[test]
fn critical_tasks_are_copied_first() {
    let mut rig = Rig::new();
    (1..=6).for_each(|number| rig.attach(number, 1));
    let groups = vec![group("a", &[]), vital("v1"), group("b", &[]), vital("v2")];
    rig.submit(1, 1, &filled(groups));
    rig.commit();
    let places = assigned(&rig.said());
    let copies: BTreeSet<u32> = places
        .iter()
        .filter(|(_, attempt)| attempt.number > 1)
        .map(|(_, attempt)| attempt.task.number)
        .collect();
    assert_eq!(
        copies,
        BTreeSet::from([1, 3]),
        "two workers are left, for two critical tasks"
    );
}

#[test]
fn copies_give_way_to_real_work_at_once() {
    let mut rig = Rig::new();
    (1..=4).for_each(|number| rig.attach(number, 1));
    rig.submit(1, 1, &filled(vec![group("a", &[])]));
    rig.commit();
    let places = assigned(&rig.said());
    assert_eq!(places.len(), 4);
    rig.submit(2, 2, &plain(vec![array(2, group("real", &[]))]));
    rig.commit();
    let said = rig.said();
    let stopped: Vec<_> = places
        .iter()
        .filter(|(worker, attempt)| {
            let line = format!("worker {worker}: cancel {attempt}");
            said.contains(&line)
        })
        .copied()
        .collect();
    assert_eq!(
        stopped.len(),
        2,
        "as many as are wanted, in the same moment: {said:?}"
    );
    assert!(
        stopped.iter().all(|(_, attempt)| attempt.number > 1),
        "copies only"
    );
    for (worker, attempt) in stopped {
        rig.reports(worker, attempt, Outcome::Ended(Ending::Cancelled));
        rig.commit();
    }
    let said = assigned(&rig.said());
    let real = said.iter().filter(|(_, attempt)| attempt.task.job.0 == 2);
    assert_eq!(real.count(), 2, "{said:?}");
    assert_eq!(said.len(), 2, "and nothing else takes their place");
}

#[test]
fn a_task_that_waits_for_a_faster_worker_leaves_copies_on_slow_ones_alone() {
    let mut rig = Rig::new();
    for (number, clock_mhz) in [(1, 6_000), (2, 1_500), (3, 1_500)] {
        let mut info = info(number, 1);
        info.hardware.clock_mhz = clock_mhz;
        rig.attach_with(number, info);
    }
    rig.submit(1, 1, &filled(vec![timed("a", 20, &[])]));
    rig.commit();
    let places = assigned(&rig.said());
    assert_eq!(places[0].0, 1, "the first attempt is on the fast worker");
    assert_eq!(places.len(), 3, "copies are on the slow ones: {places:?}");
    rig.submit(2, 2, &plain(vec![timed("real", 60, &[])]));
    rig.commit();
    for _ in 0..20 {
        rig.pass_with_heartbeats(Duration::from_millis(100), &[1, 2, 3]);
    }
    let said = rig.said();
    let cancelled = said.iter().filter(|line| line.contains(": cancel "));
    assert_eq!(cancelled.count(), 0, "{said:?}");
    assert_eq!(assigned(&said), [], "the real task waits");
    rig.done(1, places[0].1);
    rig.commit();
    let next = assigned(&rig.said());
    assert_eq!((next.len(), next[0].0), (1, 1), "and gets the fast worker");
}

#[test]
fn a_large_pool_is_filled_with_copies_of_one_task_over_seconds() {
    let mut rig = Rig::new();
    let workers: Vec<u8> = (1..=12).collect();
    workers.iter().for_each(|number| rig.attach(*number, 1));
    rig.submit(1, 1, &filled(vec![group("a", &[])]));
    rig.commit();
    let mut started = vec![assigned(&rig.said()).len()];
    for _ in 0..3 {
        rig.pass_with_heartbeats(Duration::from_millis(1_100), &workers);
        rig.commit();
        started.push(assigned(&rig.said()).len());
    }
    assert_eq!(started, [5, 4, 3, 0], "four copies within a second");
}
