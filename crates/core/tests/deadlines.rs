//! Deadlines and budgets: what they change in what is repeated, and what is said of them.

mod support;

use hedge_model::JobId;
use hedge_model::spec::{Group, Qos, Redundancy};
use hedge_model::view::DeadlineView;
use std::time::Duration;
use support::*;

fn by(seconds: u64) -> Qos {
    Qos {
        redundancy: Redundancy::Auto,
        finish_by: Some(Duration::from_secs(seconds)),
        ..Qos::default()
    }
}

/// Has tasks of these kinds done before, each in about as long as it says.
fn seen(rig: &mut Rig, kinds: &[&str]) {
    for (key, kind) in (50..).zip(kinds) {
        rig.submit(9, key, &plain(vec![array(5, timed(kind, 100, &[]))]));
        rig.commit();
        loop {
            let given = assigned(&rig.said());
            if given.is_empty() {
                break;
            }
            for (worker, attempt) in given {
                rig.done_after(worker, attempt, Duration::from_secs(100));
                rig.commit();
            }
        }
    }
}

fn last(rig: &Rig, number: u64) -> DeadlineView {
    let view = rig.core.job_view(JobId(number)).expect("a job");
    view.deadline.expect("a deadline")
}

#[test]
fn whether_a_deadline_will_be_met_is_known_early() {
    let chain = || vec![timed("a", 100, &[]), timed("b", 100, &["a"])];
    for (seconds, low, high) in [(2_000, 0.95, 1.0), (150, 0.0, 0.05)] {
        let mut rig = Rig::new();
        (1..=2).for_each(|number| rig.attach(number, 1));
        seen(&mut rig, &["a", "b"]);
        rig.submit(1, 1, &job(by(seconds), 0, chain()));
        rig.commit();
        rig.expect(&[
            "append accepted",
            "client 1 #1: accepted 3",
            "worker 1: body a v1",
            "worker 1: assign 3.0/0.1.1",
            "watch worker 1: assigned",
        ]);
        let view = last(&rig, 3);
        let chance = view.chance.expect("a chance");
        assert!((low..=high).contains(&chance), "{view:?}");
        assert_eq!(view.at_risk, high < 0.5, "said when the job has just begun");
    }
}

#[test]
fn the_chance_falls_as_a_task_runs_late() {
    let mut rig = Rig::new();
    (1..=2).for_each(|number| rig.attach(number, 1));
    seen(&mut rig, &["a"]);
    let mut qos = by(250);
    qos.redundancy = Redundancy::None;
    rig.submit(1, 1, &job(qos, 0, vec![timed("a", 100, &[])]));
    rig.commit();
    rig.expect(&[
        "append accepted",
        "client 1 #1: accepted 2",
        "worker 1: body a v1",
        "worker 1: assign 2.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    let first = last(&rig, 2).chance;
    rig.pass_with_heartbeats(Duration::from_secs(200), &[1, 2]);
    rig.expect(&[
        "worker 2: benchmark",
        "worker 2: benchmark",
        "worker 2: benchmark",
        "worker 2: benchmark",
        "worker 2: benchmark",
    ]);
    let late = last(&rig, 2).chance;
    assert!(
        first > Some(0.9) && late.is_some_and(|late| late < 0.5),
        "{first:?} at first, {late:?} when it should long be done"
    );
    rig.pass_with_heartbeats(Duration::from_secs(60), &[1, 2]);
    rig.expect(&[]);
    let view = last(&rig, 2);
    assert_eq!((view.chance, view.missed), (None, true), "{view:?}");
}

#[test]
fn no_estimate_is_given_without_evidence() {
    let known = |rig: &Rig, number: u64| {
        let view = rig.core.job_view(JobId(number)).expect("a job");
        let chance = view.deadline.expect("a deadline").chance;
        assert_eq!(
            view.left_ms.is_some(),
            chance.is_some(),
            "one rule for both"
        );
        chance.is_some()
    };
    let one = |id: &str| job(by(1000), 0, vec![timed(id, 100, &[])]);
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &one("a"));
    rig.commit();
    let given = assigned(&rig.said());
    assert!(!known(&rig, 1), "what the client says is no evidence");
    rig.done_after(1, given[0].1, Duration::from_secs(100));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    rig.submit(1, 2, &one("a"));
    rig.commit();
    let given = assigned(&rig.said());
    assert!(!known(&rig, 2), "one task of its kind was done");
    rig.done_after(1, given[0].1, Duration::from_secs(100));
    rig.commit();
    rig.expect(&[
        "append done 2.0/0.1.1 by worker 1",
        "append job 2 done",
        "worker 1: settled 2.0/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 2",
    ]);
    seen(&mut rig, &["a"]);
    rig.submit(1, 3, &one("a"));
    rig.commit();
    rig.expect(&[
        "append accepted",
        "client 1 #3: accepted 4",
        "worker 1: body a v1",
        "worker 1: assign 4.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    assert!(known(&rig, 4), "enough tasks of its kind were done");
    rig.submit(2, 4, &one("a"));
    rig.commit();
    rig.expect(&["append accepted", "client 2 #4: accepted 5"]);
    assert!(
        known(&rig, 4) && known(&rig, 5),
        "jobs of this kind end soon"
    );
    rig.submit(2, 5, &one("b"));
    rig.commit();
    rig.expect(&["append accepted", "client 2 #5: accepted 6"]);
    assert!(
        !known(&rig, 4),
        "how long a job that may come first takes is not known"
    );
}

#[test]
fn the_time_that_remains_counts_the_work_of_others() {
    let left = |rig: &Rig, number: u64| {
        let view = rig.core.job_view(JobId(number)).expect("a job");
        let bounds = view.left_low_ms.zip(view.left_high_ms).expect("bounds");
        let likely = view.left_ms.expect("an estimate");
        assert!(
            bounds.0 < likely && likely < bounds.1,
            "{bounds:?} {likely}"
        );
        likely / 1e3
    };
    let tasks = |count| plain(vec![array(count, timed("a", 100, &[]))]);
    let mut rig = Rig::new();
    rig.attach(1, 2);
    seen(&mut rig, &["a"]);
    rig.submit(1, 1, &tasks(6));
    rig.commit();
    rig.skip("the first tasks start");
    let alone = left(&rig, 2);
    assert!(
        (200.0..450.0).contains(&alone),
        "{alone} s for 6 tasks of 100 s on 2 CPUs"
    );
    rig.submit(2, 2, &tasks(6));
    rig.commit();
    rig.skip("another client's job waits");
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1]);
    rig.skip("the forecast is old");
    let (shared, other) = (left(&rig, 2), left(&rig, 3));
    assert!(
        shared > alone * 1.4,
        "{shared} s beside another client, {alone} s alone"
    );
    assert!(
        (450.0..850.0).contains(&other),
        "{other} s for the last of 12 tasks of 100 s"
    );
}

#[test]
fn a_budget_ends_redundancy_and_never_first_attempts() {
    let groups = || {
        let vital = |id: &str| Group {
            critical: true,
            ..timed(id, 100, &[])
        };
        vec![vital("a"), vital("b")]
    };
    // Two first attempts cost 2,000 micro-units by the default tariff.
    for (budget, attempts) in [(None, 4), (Some(1_000_000), 4), (Some(1_500), 2)] {
        let mut rig = Rig::new();
        (1..=4).for_each(|number| rig.attach(number, 1));
        let qos = Qos {
            redundancy: Redundancy::Critical,
            budget,
            ..Qos::default()
        };
        rig.submit(1, 1, &job(qos, 0, groups()));
        rig.commit();
        assert_eq!(
            assigned(&rig.said()).len(),
            attempts,
            "with a budget of {budget:?}"
        );
    }
}

#[test]
fn what_a_running_task_has_cost_is_not_expected_once_more() {
    let vital = |id: &str| Group {
        critical: true,
        ..timed(id, 100, &[])
    };
    let mut rig = Rig::new();
    rig.attach(1, 1);
    // Two first attempts cost 2,000 micro-units, so that one copy of 80 s more would not be too much.
    let qos = Qos {
        redundancy: Redundancy::Critical,
        budget: Some(2_300),
        ..Qos::default()
    };
    rig.submit(1, 1, &job(qos, 0, vec![vital("a"), vital("b")]));
    rig.commit();
    rig.skip("the first task starts");
    rig.pass_with_heartbeats(Duration::from_secs(80), &[1]);
    (2..=4).for_each(|number| rig.attach(number, 1));
    let given = assigned(&rig.said());
    let second = given.iter().filter(|(_, attempt)| attempt.task.number == 1);
    assert_eq!(second.count(), 2, "b has a redundant attempt: {given:?}");
}
