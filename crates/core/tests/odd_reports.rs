//! What workers say that cannot be, or is old news, found by feeding the supervisor whatever peers can send.

mod support;

use hedge_core::supervisor::State;
use hedge_model::msg::{FromWorker, Outcome, Report, Usage, WorkerInfo};
use std::time::Duration;
use support::*;

#[test]
fn a_worker_that_names_an_attempt_twice_holds_its_resources_once() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.attach(1, 1);
    let [held] = rig.held([attempt(0, 1)])[..] else {
        panic!("one was asked for")
    };
    rig.expect(&[
        "append accepted",
        "client 1 #1: accepted 1",
        "measure worker 1: 131072 bytes",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.gone(1);
    rig.expect(&["append lost 1.0/0.1.1", "stop watching worker 1"]);
    let twice = WorkerInfo {
        in_hand: vec![held, held],
        ..info(1, 1)
    };
    // The invariants are checked after each event.
    rig.attach_with(1, twice);
    rig.done(1, attempt(0, 1));
    rig.commit();
    let said = rig.said();
    let ended = said.iter().any(|line| line == "append job 1 done");
    assert!(ended, "{said:?}");
}

#[test]
fn an_attempt_whose_end_was_not_settled_does_not_come_back_beside_the_next() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.attach(1, 1);
    rig.fails(1, attempt(0, 1));
    rig.commit();
    let held = rig.held([attempt(0, 1), attempt(0, 2)]);
    rig.expect(&[
        "append accepted",
        "client 1 #1: accepted 1",
        "measure worker 1: 131072 bytes",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: assign 1.0/0.1.2",
    ]);
    // Another leads, to whom the worker says what it has in hand.
    let state = rig.core.state().clone();
    let mut next = Rig::with(state, &[]);
    let info = WorkerInfo {
        in_hand: held,
        ..info(1, 1)
    };
    next.attach_with(1, info);
    let said = next.said();
    assert!(
        said.contains(&"worker 1: cancel 1.0/0.1.1".into()),
        "{said:?}"
    );
    assert!(
        !said.contains(&"worker 1: cancel 1.0/0.1.2".into()),
        "{said:?}"
    );
}

#[test]
fn a_worker_cannot_charge_for_longer_than_the_job_is_there() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![array(2, group("a", &[]))]));
    rig.commit();
    rig.attach(1, 2);
    for task in 0..2 {
        let usage = Usage {
            running: Duration::MAX,
            cpu: Duration::MAX,
            moved: u64::MAX,
            ..Usage::default()
        };
        let report = Report {
            attempt: attempt(task, 1),
            outcome: Outcome::Done(Vec::new()),
            usage,
            log: None,
        };
        rig.from(1, FromWorker::Ended(Box::new(report)));
    }
    // That the job's cost is the sum of its attempts' is checked after each event.
    rig.commit();
    let said = rig.said();
    assert!(
        said.iter().any(|line| line == "append job 1 done"),
        "{said:?}"
    );
}

#[test]
fn a_damaged_snapshot_that_claims_to_be_huge_does_not_end_the_process() {
    let mut bytes = Vec::new();
    State::default()
        .write(&mut bytes)
        .expect("memory takes all");
    assert!(State::restore(&bytes).is_ok());
    for at in 0..bytes.len() {
        let mut huge = bytes[..at].to_vec();
        huge.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]);
        // Where a plain number stands it is lawful; nowhere may room be made for it.
        drop(State::restore(&huge));
    }
}
