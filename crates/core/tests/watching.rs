//! What follows from gap and from lack of progress: redundancy hears of it and decides.

mod support;

use hedge_core::monitor::{Finding, Found, Liveness};
use hedge_core::supervisor::{Action, Event};
use hedge_model::msg::{Outcome, Reply, Request, WorkerInfo};
use hedge_model::spec::{CriticalRule, Draft, Qos, Redundancy};
use hedge_model::view::TaskView;
use hedge_model::{Ending, JobId, JobSpec, PeerId};
use std::time::Duration;
use support::*;

/// Job 1 has one task, which runs on worker 1 while worker 2 is idle.
fn running(redundancy: Redundancy) -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let spec = JobSpec::new(Draft {
        name: "job".into(),
        qos: Qos {
            redundancy,
            copies: 1,
            ..Qos::default()
        },
        critical: CriticalRule::default(),
        files: Vec::new(),
        groups: vec![group("a", &[])],
        outline: false,
    });
    rig.submit(1, 1, &std::sync::Arc::new(spec.unwrap()));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.attach(2, 1);
    rig.commit();
    rig.expect(&["measure worker 2: 131072 bytes", "watch worker 2: idle"]);
    rig
}

fn found(rig: &mut Rig, peer: PeerId, what: Found) {
    rig.event(Event::Found(Finding { peer, what }));
    rig.commit();
}

fn silent(liveness: Liveness) -> Found {
    Found::Silent {
        liveness,
        silent: Duration::from_millis(300),
    }
}

/// What `explain` says of the one task.
fn explained(rig: &mut Rig) -> TaskView {
    rig.ask(1, Request::Explain(JobId(1), None));
    let explained = rig.actions().into_iter().find_map(|action| match action {
        Action::Answer { answer, .. } => match answer.reply {
            Reply::Explain(view) => Some(view),
            _ => None,
        },
        _ => None,
    });
    rig.expect(&["client 1 #99: explains job 1"]);
    explained.unwrap().tasks.remove(0)
}

#[test]
fn a_suspect_workers_task_gets_a_copy_elsewhere_and_nothing_is_stopped() {
    let mut rig = running(Redundancy::Critical);
    found(&mut rig, worker(1), silent(Liveness::Late));
    rig.expect(&[]);
    found(&mut rig, worker(1), silent(Liveness::Suspect));
    rig.expect(&[
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
    rig.pass(Duration::from_millis(60));
    found(&mut rig, worker(1), back(360));
    rig.expect(&[]);
    rig.done(1, attempt(0, 1));
    rig.commit();
    let said = rig.said();
    assert!(
        said.contains(&"append done 1.0/0.1.1 by worker 1".to_owned()),
        "{said:?}"
    );
}

fn back(silent_ms: u64) -> Found {
    Found::Back {
        was: Liveness::Suspect,
        silent: Duration::from_millis(silent_ms),
    }
}

#[test]
fn of_two_workers_that_were_only_late_the_first_goes_on_however_young_its_attempt_was() {
    let mut rig = running(Redundancy::Critical);
    rig.pass(Duration::from_millis(10));
    found(&mut rig, worker(1), silent(Liveness::Suspect));
    rig.expect(&[
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
    found(&mut rig, worker(2), silent(Liveness::Suspect));
    rig.pass(Duration::from_millis(20));
    found(&mut rig, worker(1), back(25));
    rig.expect(&[]);
    found(&mut rig, worker(2), back(20));
    rig.expect(&["worker 2: cancel 1.0/0.1.2"]);
}

#[test]
fn a_worker_that_was_only_late_goes_on_and_the_copy_that_is_behind_it_ends() {
    let mut rig = running(Redundancy::Critical);
    rig.pass_with_heartbeats(Duration::from_millis(500), &[1, 2]);
    found(&mut rig, worker(1), silent(Liveness::Suspect));
    rig.expect(&[
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
    rig.pass(Duration::from_millis(50));
    found(&mut rig, worker(1), back(350));
    rig.expect(&["worker 2: cancel 1.0/0.1.2"]);
    rig.reports(2, attempt(0, 2), Outcome::Ended(Ending::Cancelled));
    rig.commit();
    rig.expect(&[
        "append cancelled 1.0/0.1.2",
        "worker 2: settled 1.0/0.1.2",
        "watch worker 2: idle",
    ]);
    // The next gap brings another copy; by the end of a long one it is ahead.
    found(&mut rig, worker(1), silent(Liveness::Suspect));
    rig.expect(&["worker 2: assign 1.0/0.1.3", "watch worker 2: assigned"]);
    rig.pass_with_heartbeats(Duration::from_millis(700), &[1, 2]);
    found(&mut rig, worker(1), back(1_400));
    rig.expect(&[]);
    rig.done(2, attempt(0, 3));
    rig.commit();
    let said = rig.said();
    let won = "append done 1.0/0.1.3 by worker 2".to_owned();
    assert!(said.contains(&won), "{said:?}");
}

#[test]
fn without_redundancy_nothing_is_copied_before_the_worker_is_given_up() {
    let mut rig = running(Redundancy::None);
    found(&mut rig, worker(1), silent(Liveness::Suspect));
    rig.expect(&[]);
    found(&mut rig, worker(1), silent(Liveness::Dead));
    let said = rig.said();
    assert!(
        said.contains(&"worker 2: assign 1.0/0.1.2".to_owned()),
        "{said:?}"
    );
}

#[test]
fn a_stalled_attempt_gets_a_copy_elsewhere() {
    let mut rig = running(Redundancy::Critical);
    rig.pass_with_heartbeats(Duration::from_secs(1), &[1, 2]);
    let stalled = Found::Stalled {
        attempt: attempt(0, 1),
        idle: Duration::from_secs(1),
    };
    found(&mut rig, worker(1), stalled);
    rig.expect(&[
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
    let told = explained(&mut rig);
    assert!(told.why.contains("no progress for 1.0 s"), "{}", told.why);
    assert_eq!(told.attempts[0].state, "stalled");
    found(&mut rig, worker(1), Found::Moving(attempt(0, 1)));
    assert_eq!(explained(&mut rig).attempts[0].state, "assigned");
}

fn lost_connection(rig: &mut Rig) {
    let (peer, silent) = (worker(1), true);
    rig.event(Event::Gone { peer, silent });
    rig.commit();
}

#[test]
fn a_lost_connection_is_no_end_and_a_worker_that_comes_back_goes_on() {
    let mut rig = running(Redundancy::Critical);
    lost_connection(&mut rig);
    rig.expect(&["stop watching worker 1"]);
    rig.pass_with_heartbeats(Duration::from_secs(4), &[2]);
    rig.commit();
    rig.expect(&[]);
    let info = WorkerInfo {
        in_hand: rig.held([attempt(0, 1)]),
        ..info(1, 1)
    };
    rig.attach_with(1, info);
    rig.commit();
    rig.expect(&["measure worker 1: 131072 bytes", "watch worker 1: assigned"]);
    rig.pass_with_heartbeats(Duration::from_secs(10), &[1, 2]);
    rig.commit();
    rig.expect(&["worker 2: benchmark"]);
    let seen = explained(&mut rig);
    assert_eq!(seen.attempts.len(), 1, "{seen:?}");
    assert_eq!(seen.attempts[0].state, "assigned", "{seen:?}");
    rig.done(1, attempt(0, 1));
    rig.commit();
    let done = "append done 1.0/0.1.1 by worker 1".to_owned();
    assert!(rig.said().contains(&done));
}

#[test]
fn a_worker_whose_connection_is_lost_has_ten_seconds_to_come_back() {
    let mut rig = running(Redundancy::None);
    lost_connection(&mut rig);
    rig.pass_with_heartbeats(Duration::from_millis(9_900), &[2]);
    rig.commit();
    rig.expect(&["stop watching worker 1"]);
    rig.pass_with_heartbeats(Duration::from_millis(200), &[2]);
    rig.commit();
    let said = rig.said();
    assert!(
        said.iter().any(|line| line.contains("worker 2: assign")),
        "{said:?}"
    );
    // One that was ended is given up at once.
    let mut rig = running(Redundancy::None);
    rig.gone(1);
    rig.commit();
    let said = rig.said();
    assert!(
        said.iter().any(|line| line.contains("worker 2: assign")),
        "{said:?}"
    );
}
