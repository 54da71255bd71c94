//! A worker that is to leave gives back what waits, finishes what runs, hands its content over, and goes.

mod support;

use hedge_core::supervisor::Event;
use hedge_model::msg::{FromWorker, Outcome, Request};
use hedge_model::spec::Group;
use hedge_model::{AttemptId, Ending, Resources};
use std::time::Duration;
use support::*;

#[test]
fn draining_copies_what_runs_hands_content_over_and_ends_with_leave() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let groups = vec![
        group("a", &[]),
        group("b", &[]),
        Group {
            resources: Resources::cpus(2000),
            ..reader("c", &["a", "b"])
        },
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 1: body b v1",
        "worker 1: assign 1.1/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 10)]));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
    ]);
    rig.attach(2, 2);
    rig.ask(1, Request::Drain("host-1".into()));
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "worker 1: drain",
        "client 1 #99: Ok",
        "worker 2: body b v1",
        "worker 2: assign 1.1/0.1.2",
        "watch worker 2: assigned",
    ]);
    assert_eq!(rig.core.worker_views()[0].usage, "draining");
    // It finishes what runs; the copy elsewhere was not needed.
    rig.reports(1, attempt(1, 1), Outcome::Done(Vec::new()));
    rig.commit();
    rig.expect(&[
        "append done 1.1/0.1.1 by worker 1",
        "worker 1: settled 1.1/0.1.1",
        "worker 2: cancel 1.1/0.1.2",
        "pull 10 from worker 1", // nobody else has what a left
        "watch worker 1: idle",
    ]);
    let result = Ok(None);
    rig.event(Event::Fetched {
        hash: hash(10),
        result,
    });
    rig.expect(&["worker 1: leave"]);
    rig.gone(1);
    rig.pass_with_heartbeats(Duration::from_secs(4), &[2]);
    rig.expect(&["stop watching worker 1"]);
    rig.reports(2, attempt(1, 2), Outcome::Ended(Ending::Cancelled));
    rig.commit();
    rig.expect(&[
        "append cancelled 1.1/0.1.2",
        "worker 2: settled 1.1/0.1.2",
        "worker 2: body c v1, may read 10",
        "worker 2: assign 1.2/0.1.1",
    ]);
}

#[test]
fn queued_work_goes_back_and_is_given_to_others() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![array(40, group("a", &[]))]));
    rig.commit();
    // A short task: the next ones are sent ahead.
    let first = assigned(&rig.said());
    let report = |rig: &mut Rig, id: AttemptId| {
        let usage = hedge_model::msg::Usage {
            running: Duration::from_micros(500),
            ..Default::default()
        };
        let report = hedge_model::msg::Report {
            attempt: id,
            outcome: Outcome::Done(Vec::new()),
            usage,
            log: None,
        };
        rig.from(1, FromWorker::Ended(Box::new(report)));
        rig.commit();
    };
    report(&mut rig, first[0].1);
    let ahead = assigned(&rig.said());
    assert!(ahead.len() > 5, "{ahead:?}");
    rig.from(1, FromWorker::Draining);
    rig.expect(&["worker 1: drain"]);
    for (_, id) in &ahead[1..] {
        rig.reports(1, *id, Outcome::Returned);
    }
    rig.expect_without(&["settled"], &[]);
    report(&mut rig, ahead[0].1);
    let said = rig.said();
    assert_eq!(
        said[said.len() - 2..],
        ["worker 1: leave", "watch worker 1: idle"]
    );
    rig.attach(2, 1);
    let again = assigned(&rig.said());
    assert_eq!(again[0].1.task, ahead[1].1.task);
    assert_ne!(again[0].1, ahead[1].1, "another attempt");
    let view = rig.core.job_view(hedge_model::JobId(1)).expect("a job");
    assert_eq!((view.done, view.attempts.failed), (2, 0));
}

#[test]
fn a_worker_with_nothing_to_do_leaves_at_once() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.from(1, FromWorker::Draining);
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "worker 1: drain",
        "worker 1: leave",
    ]);
    rig.ask(1, Request::Drain("host-2".into()));
    rig.expect(&["client 1 #99: no, Unknown: no worker is called \"host-2\"; nothing was changed: `hedge workers` lists them"]);
}
