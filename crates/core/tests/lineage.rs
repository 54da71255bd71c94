//! Outputs that are lost with their workers are made again, only as far back as needed.

mod support;

use hedge_core::supervisor::Event;
use hedge_model::msg::{Outcome, WorkerInfo};
use hedge_model::{AttemptId, Ending, JobId};
use std::time::Duration;
use support::*;

const GRACE: Duration = Duration::from_millis(3100);

fn next_generation(task: u32) -> AttemptId {
    AttemptId {
        generation: 1,
        ..attempt(task, 1)
    }
}

fn leaves(rig: &mut Rig, number: u8, id: AttemptId, content: u8) {
    rig.reports(number, id, Outcome::Done(vec![blob("out", content)]));
    rig.commit();
}

/// Job 1 is a → b → c, with a done on worker 1, b on worker 2, and c about to run on worker 3.
fn chain() -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let groups = vec![group("a", &[]), reader("b", &["a"]), reader("c", &["b"])];
    rig.submit(1, 1, &plain(groups));
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
    rig.attach(2, 4);
    leaves(&mut rig, 1, attempt(0, 1), 10);
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: body b v1, may read 10",
        "worker 2: assign 1.1/0.1.1",
        "watch worker 1: idle",
        "watch worker 2: assigned",
    ]);
    rig.attach(3, 16);
    leaves(&mut rig, 2, attempt(1, 1), 11);
    rig.expect(&[
        "measure worker 3: 131072 bytes",
        "watch worker 3: idle",
        "append done 1.1/0.1.1 by worker 2",
        "worker 2: settled 1.1/0.1.1",
        "worker 3: body c v1, may read 11",
        "worker 3: assign 1.2/0.1.1",
        "watch worker 2: idle",
        "watch worker 3: assigned",
    ]);
    rig
}

#[test]
fn only_the_needed_producers_run_again_with_a_new_generation() {
    let mut rig = chain();
    // Worker 2, which alone holds what b left, is gone for good, and c could not fetch it.
    rig.gone(2);
    rig.pass_with_heartbeats(GRACE, &[1, 3]);
    rig.commit();
    rig.expect(&[
        "stop watching worker 2",
        "append outputs lost 1.1/0",
        "worker 3: body b v1, may read 10",
        "worker 3: assign 1.1/1.1.1",
    ]);
    let missing = Outcome::Ended(Ending::Input {
        missing: vec![hash(11)],
        why: "nobody gave it".into(),
    });
    rig.reports(3, attempt(2, 1), missing);
    rig.commit();
    rig.expect(&[
        "append no input 1.2/0.1.1: its inputs could not be fetched: nobody gave it",
        "worker 3: settled 1.2/0.1.1",
    ]);
    leaves(&mut rig, 3, next_generation(1), 12);
    rig.expect(&[
        "append done 1.1/1.1.1 by worker 3",
        "worker 3: settled 1.1/1.1.1",
        "worker 1: body c v2, may read 12", // what b left differs now
        "worker 1: assign 1.2/0.1.2",
        "watch worker 1: assigned",
        "watch worker 3: idle",
    ]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(
        (view.done, view.attempts.outputs_lost),
        (2, 1),
        "a did not run again"
    );
}

#[test]
fn loss_goes_back_as_far_as_needed() {
    let mut rig = chain();
    rig.gone(1);
    rig.pass_with_heartbeats(GRACE, &[2, 3]);
    rig.expect(&["stop watching worker 1"]); // nobody needs what a left: b is done
    rig.gone(2);
    rig.pass_with_heartbeats(GRACE, &[3]);
    rig.commit();
    rig.expect(&[
        "stop watching worker 2",
        "append outputs lost 1.1/0",
        "append outputs lost 1.0/0",
        "worker 3: body a v1",
        "worker 3: assign 1.0/1.1.1",
    ]);
}

#[test]
fn a_holder_that_returns_in_time_loses_nothing() {
    let mut rig = chain();
    rig.gone(2);
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1, 3]);
    let back = WorkerInfo {
        holds: vec![hash(11)],
        ..info(2, 4)
    };
    rig.attach_with(2, back);
    rig.pass_with_heartbeats(GRACE, &[1, 2, 3]);
    rig.expect(&[
        "stop watching worker 2",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
    ]);
    leaves(&mut rig, 3, attempt(2, 1), 12);
    rig.expect(&[
        "append done 1.2/0.1.1 by worker 3",
        "worker 3: settled 1.2/0.1.1",
        "pull 12 from worker 3",
        "watch worker 3: idle",
    ]);
    let result = Ok(None);
    rig.event(Event::Fetched {
        hash: hash(12),
        result,
    });
    rig.commit();
    rig.expect(&[
        "append job 1 done",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "worker 3: forget 1",
        "worker 1: drop 10",
        "worker 2: drop 11",
        "worker 3: drop 12",
    ]);
}

#[test]
fn a_worker_that_returns_without_its_content_is_noticed_at_once() {
    let mut rig = chain();
    rig.pass_with_heartbeats(GRACE, &[1, 2, 3]);
    rig.gone(2);
    rig.attach(2, 4);
    rig.commit();
    rig.expect(&[
        "stop watching worker 2",
        "append outputs lost 1.1/0",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "worker 3: body b v1, may read 10",
        "worker 3: assign 1.1/1.1.1",
    ]);
}

#[test]
fn a_suspected_holder_is_tried_before_anything_is_made_again() {
    let mut rig = chain();
    let missing = Outcome::Ended(Ending::Input {
        missing: vec![hash(11)],
        why: "nobody gave it".into(),
    });
    rig.reports(3, attempt(2, 1), missing);
    rig.commit();
    rig.expect(&[
        "append no input 1.2/0.1.1: its inputs could not be fetched: nobody gave it",
        "pull 11 from worker 2",
        "worker 3: settled 1.2/0.1.1",
        "watch worker 3: idle",
    ]);
    let result = Ok(None);
    rig.event(Event::Fetched {
        hash: hash(11),
        result,
    });
    rig.expect(&[
        "worker 2: body c v2, may read 11",
        "worker 2: assign 1.2/0.1.2",
        "watch worker 2: assigned",
    ]);
}

#[test]
fn a_new_leader_gives_holders_time_to_come() {
    let mut rig = chain();
    let state = rig.core.state().clone();
    let mut next = Rig::with(state, &[]);
    next.attach(3, 16);
    next.pass_with_heartbeats(Duration::from_secs(2), &[3]);
    next.expect(&["measure worker 3: 131072 bytes", "watch worker 3: idle"]);
    let back = WorkerInfo {
        holds: vec![hash(11)],
        ..info(2, 4)
    };
    next.attach_with(2, back);
    next.expect(&[
        "measure worker 2: 131072 bytes",
        "worker 3: body c v1, may read 11",
        "worker 3: assign 1.2/0.2.1",
        "watch worker 3: assigned",
        "watch worker 2: idle",
    ]);
    rig.expect(&[]);
}
