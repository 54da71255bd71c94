//! What `auto` and `speculate` copy, when, and what they learn.

mod support;

use hedge_core::monitor::{Finding, Found, Progress};
use hedge_core::supervisor::{Event, State};
use hedge_model::msg::{FromWorker, Outcome, Report, Usage};
use hedge_model::spec::{Group, Qos, Redundancy};
use hedge_model::{AttemptId, JobId, JobSpec};
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn with(redundancy: Redundancy, groups: Vec<Group>) -> Arc<JobSpec> {
    let qos = Qos {
        redundancy,
        ..Qos::default()
    };
    job(qos, 0, groups)
}

/// After how many seconds the only task of a job, expected to take 100 s, gets a copy; none within 400 s.
fn copied_at(state: State, redundancy: Redundancy) -> Option<u64> {
    let mut rig = Rig::with(state, &[]);
    (1..=3).for_each(|number| rig.attach(number, 1));
    rig.submit(1, 1, &with(redundancy, vec![timed("alone", 100, &[])]));
    rig.commit();
    for second in 0..400 {
        let copies = assigned(&rig.said());
        if copies.iter().any(|(_, attempt)| attempt.number == 2) {
            return Some(second);
        }
        rig.pass_with_heartbeats(Duration::from_secs(1), &[1, 2, 3]);
    }
    rig.expect(&[]);
    None
}

#[test]
fn auto_copies_a_straggler_that_has_no_siblings() {
    let at = copied_at(State::default(), Redundancy::Auto).expect("a copy");
    assert!(at < 300, "after {at} s of 100 expected");
    assert_eq!(copied_at(State::default(), Redundancy::Speculate), None);
    assert_eq!(copied_at(State::default(), Redundancy::None), None);
}

/// After how many seconds the only task of a job, expected to take 100 s, gets a copy if it reports this progress in
/// each second; none within 90 s.
fn copied_with(state: State, progress: impl Fn(u64) -> Progress) -> Option<u64> {
    let mut rig = Rig::with(state, &[]);
    (1..=3).for_each(|number| rig.attach(number, 1));
    let alone = Group {
        kind: Some("even".into()),
        ..timed("alone", 100, &[])
    };
    rig.submit(1, 1, &with(Redundancy::Auto, vec![alone]));
    rig.commit();
    let (at, first) = assigned(&rig.said())[0];
    for second in 1..90 {
        rig.pass_with_heartbeats(Duration::from_secs(1), &[1, 2, 3]);
        let what = Found::Progress(first, progress(second));
        let peer = worker(at);
        rig.event(Event::Found(Finding { peer, what }));
        let copies = assigned(&rig.said());
        if copies.iter().any(|(_, attempt)| attempt.number == 2) {
            return Some(second);
        }
    }
    rig.expect(&[]);
    None
}

#[test]
fn a_task_that_reports_slow_progress_is_copied_long_before_it_is_overdue() {
    let tells = |per_second: u64| {
        move |second: u64| Progress {
            permille: Some((second * per_second) as u16),
            ..Progress::default()
        }
    };
    assert_eq!(copied_with(State::default(), tells(10)), None, "on time");
    let at = copied_with(State::default(), tells(2)).expect("a copy");
    assert!(at < 40, "after {at} s, five times as slow as expected");
}

#[test]
fn a_task_that_gets_little_cpu_time_is_copied_before_it_is_overdue() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 1));
    let even = Group {
        kind: Some("even".into()),
        ..timed("before", 100, &[])
    };
    rig.submit(2, 1, &with(Redundancy::None, vec![array(6, even)]));
    rig.commit();
    let mut open = assigned(&rig.said());
    while !open.is_empty() {
        let (worker, attempt) = open.remove(0);
        rig.done_after(worker, attempt, Duration::from_secs(100));
        rig.commit();
        open.extend(assigned(&rig.said()));
    }
    let state = rig.core.state().clone();
    let uses = |percent: u64| {
        move |second: u64| Progress {
            cpu: Duration::from_millis(second * percent * 10),
            ..Progress::default()
        }
    };
    let usual = copied_with(state.clone(), uses(100));
    assert!(
        usual.is_none_or(|at| at >= 60),
        "{usual:?} with the usual CPU time"
    );
    let at = copied_with(state, uses(20)).expect("a copy");
    assert!(at < 40, "after {at} s with a fifth of the usual CPU time");
    assert_eq!(
        copied_with(State::default(), uses(20)),
        None,
        "how much CPU time is usual is not known"
    );
}

#[test]
fn a_task_that_says_that_it_waits_is_not_copied_until_it_goes_on() {
    for redundancy in [Redundancy::Auto, Redundancy::Fill] {
        let mut rig = Rig::new();
        rig.attach(1, 1);
        rig.submit(1, 1, &with(redundancy, vec![timed("alone", 100, &[])]));
        rig.commit();
        let says = |rig: &mut Rig, waits: bool| {
            let progress = Progress {
                waits,
                ..Progress::default()
            };
            let what = Found::Progress(attempt(0, 1), progress);
            let peer = worker(1);
            rig.event(Event::Found(Finding { peer, what }));
        };
        says(&mut rig, true);
        (2..=3).for_each(|number| rig.attach(number, 1));
        rig.expect(&[
            "measure worker 1: 131072 bytes",
            "watch worker 1: idle",
            "append accepted",
            "client 1 #1: accepted 1",
            "worker 1: body alone v1",
            "worker 1: assign 1.0/0.1.1",
            "watch worker 1: assigned",
            "measure worker 2: 131072 bytes",
            "watch worker 2: idle",
            "measure worker 3: 131072 bytes",
            "watch worker 3: idle",
        ]);
        rig.pass_with_heartbeats(Duration::from_secs(300), &[1, 2, 3]);
        assert_eq!(assigned(&rig.said()), [], "{redundancy:?}");
        says(&mut rig, false);
        rig.pass_with_heartbeats(Duration::from_secs(20), &[1, 2, 3]);
        assert!(!assigned(&rig.said()).is_empty(), "{redundancy:?}");
    }
}

#[test]
fn where_nothing_straggles_auto_learns_to_copy_less() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 1));
    let before = rig.core.state().beliefs().straggling;
    let many = vec![array(600, timed("even", 10, &[]))];
    rig.submit(2, 1, &with(Redundancy::None, many));
    rig.commit();
    let mut open = assigned(&rig.said());
    while !open.is_empty() {
        let (worker, attempt) = open.remove(0);
        rig.done_after(worker, attempt, Duration::from_secs(10));
        rig.commit();
        open.extend(assigned(&rig.said()));
    }
    let after = rig.core.state().beliefs().straggling;
    assert!(
        after < before / 5.0,
        "{before} before, {after} after 600 tasks on time"
    );
    let shipped = copied_at(State::default(), Redundancy::Auto);
    let learned = copied_at(rig.core.state().clone(), Redundancy::Auto);
    assert!(
        learned.unwrap_or(u64::MAX) >= shipped.unwrap_or(0),
        "{learned:?} s, {shipped:?} s before anything was learned"
    );
}

#[test]
fn a_task_that_hides_behind_a_longer_one_is_not_copied() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 1));
    let groups = vec![timed("long", 1_000, &[]), timed("short", 50, &[])];
    rig.submit(1, 1, &with(Redundancy::Auto, groups));
    rig.commit();
    rig.pass_with_heartbeats(Duration::from_secs(200), &[1, 2, 3]);
    let assigned = assigned(&rig.said());
    assert!(
        assigned
            .iter()
            .all(|(_, attempt)| attempt.task.number != 1 || attempt.number == 1),
        "the job ends with the long task, whenever the short one does: {assigned:?}"
    );
}

#[test]
fn speculate_copies_what_takes_three_times_what_its_siblings_took() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 10));
    rig.submit(
        1,
        1,
        &with(Redundancy::Speculate, vec![array(20, group("part", &[]))]),
    );
    rig.commit();
    let mut parts = assigned(&rig.said());
    rig.pass_with_heartbeats(Duration::from_secs(10), &[1, 2, 3]);
    let (slow_worker, slow) = parts.pop().expect("a part");
    for (worker, attempt) in parts {
        rig.done_after(worker, attempt, Duration::from_secs(10));
        rig.commit();
    }
    rig.pass_with_heartbeats(Duration::from_secs(19), &[1, 2, 3]);
    assert_eq!(
        assigned(&rig.said()),
        [],
        "29 s are less than three times 10"
    );
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1, 2, 3]);
    let copies = assigned(&rig.said());
    assert_eq!(copies.len(), 1);
    assert_eq!(copies[0].1.task, slow.task);
    assert_ne!(copies[0].0, slow_worker);
    assert_eq!(copies[0].1.task.job, JobId(1));
}

/// Reports the success of an attempt that took this long.
fn done_with(rig: &mut Rig, number: u8, attempt: AttemptId, usage: Usage) {
    let report = Report {
        attempt,
        outcome: Outcome::Done(Vec::new()),
        usage,
        log: None,
    };
    rig.from(number, FromWorker::Ended(Box::new(report)));
    rig.commit();
}

#[test]
fn speculate_compares_staging_and_running_with_staging_and_running() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 10));
    let parts = vec![array(20, group("part", &[]))];
    rig.submit(1, 1, &with(Redundancy::Speculate, parts));
    rig.commit();
    let mut parts = assigned(&rig.said());
    rig.pass_with_heartbeats(Duration::from_secs(31), &[1, 2, 3]);
    let slow = parts.pop().expect("a part").1;
    for (worker, attempt) in parts {
        let usage = Usage {
            staging: Duration::from_secs(30),
            running: Duration::from_secs(1),
            ..Usage::default()
        };
        done_with(&mut rig, worker, attempt, usage);
    }
    rig.pass_with_heartbeats(Duration::from_secs(61), &[1, 2, 3]);
    let copies = assigned(&rig.said());
    assert_eq!(copies, [], "92 s are less than three times 31");
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1, 2, 3]);
    let copies: Vec<_> = assigned(&rig.said())
        .iter()
        .map(|(_, copy)| copy.task)
        .collect();
    assert_eq!(copies, [slow.task]);
}

#[test]
fn speculate_copies_no_task_that_is_queued_at_its_worker() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let parts = vec![array(20, group("part", &[]))];
    rig.submit(1, 1, &with(Redundancy::Speculate, parts));
    rig.commit();
    let mut parts = assigned(&rig.said());
    for at in 0..18 {
        let usage = Usage {
            running: Duration::from_micros(500),
            ..Usage::default()
        };
        let attempt = parts[at].1;
        done_with(&mut rig, 1, attempt, usage);
        parts.extend(assigned(&rig.said()));
    }
    // The first of these runs, and the second waits behind it.
    let [(1, slow), (1, queued)] = parts[18..] else {
        panic!("{parts:?}");
    };
    rig.pass_with_heartbeats(Duration::from_secs(1), &[1]);
    rig.attach(2, 2);
    let copies: Vec<_> = assigned(&rig.said())
        .iter()
        .map(|(_, copy)| copy.task)
        .collect();
    assert_eq!(copies, [slow.task]);
    rig.reports(1, queued, Outcome::Returned);
    let again: Vec<_> = assigned(&rig.said())
        .iter()
        .map(|(_, copy)| copy.task)
        .collect();
    assert_eq!(again, [queued.task]);
}
