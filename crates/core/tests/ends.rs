//! The ends of an open job's tasks: in which order clients learn of them, and tasks that clients cancel.

mod support;

use hedge_core::supervisor::{Event, Offer, State};
use hedge_model::msg::Request;
use hedge_model::spec::{Draft, Extension, Group};
use hedge_model::{JobId, JobSpec, SubmitKey};
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn extend(rig: &mut Rig, key: u8, groups: Vec<Group>) {
    let peer = client(1);
    rig.event(Event::Submit {
        requester: peer.into(),
        request_id: u64::from(key),
        key: SubmitKey([key; 16]),
        offer: Offer::Groups(
            JobId(1),
            Arc::new(Extension {
                files: Vec::new(),
                groups,
            }),
        ),
        from: addr(peer),
        held: Vec::new(),
    });
}

/// An open job of one task, `a`, which is done, on worker 1 of three CPUs.
fn begun() -> Rig {
    let mut draft = Draft::from(JobSpec::clone(&plain(vec![group("a", &[])])));
    draft.qos.open_timeout = Some(Duration::from_secs(100));
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &Arc::new(JobSpec::new(draft).expect("an open job")));
    rig.commit();
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.skip("the task is done");
    rig
}

fn answers(said: &[String]) -> Vec<&str> {
    let said = said.iter().map(String::as_str);
    said.filter(|line| line.starts_with("client")).collect()
}

fn ends(after: u64) -> Request {
    let job = JobId(1);
    Request::Ends { job, after }
}

#[test]
fn ends_are_told_in_their_order_and_a_client_that_knows_all_waits() {
    let mut rig = begun();
    rig.ask(1, ends(0));
    let said = rig.said();
    let told = answers(&said)[0];
    assert!(
        told.contains("task: \"a\"") && told.contains("next: 1, over: false"),
        "{told}"
    );
    extend(&mut rig, 2, vec![group("b", &[]), group("c", &[])]);
    rig.commit();
    rig.skip("b and c begin");
    rig.ask(1, ends(1));
    assert!(answers(&rig.said()).is_empty(), "nothing ended since");
    rig.done(1, attempt(2, 1));
    rig.commit();
    rig.event(Event::Tick);
    let said = rig.said();
    let told = answers(&said)[0];
    assert!(
        told.contains("task: \"c\"") && told.contains("next: 2"),
        "{told}"
    );
    rig.done(1, attempt(1, 1));
    rig.commit();
    rig.skip("b is done");
    // The end of the job answers too.
    rig.ask(1, ends(3));
    assert!(answers(&rig.said()).is_empty(), "nothing ended since");
    rig.event(Event::Request {
        requester: client(1).into(),
        request_id: 100,
        request: Request::Cancel(JobId(1)),
        secret: None,
    });
    rig.commit();
    let said = rig.said();
    let told = answers(&said);
    let over = |line: &&str| line.contains("tasks: [], next: 3, over: true");
    assert!(told.iter().any(over), "{told:?}");
}

#[test]
fn the_order_of_ends_is_in_snapshots() {
    let mut rig = begun();
    extend(&mut rig, 2, vec![group("b", &[]), group("c", &[])]);
    rig.commit();
    rig.done(1, attempt(2, 1));
    rig.done(1, attempt(1, 1));
    rig.commit();
    rig.ask(1, ends(0));
    let before = rig.said();
    let mut snapshot = Vec::new();
    rig.core.state().write(&mut snapshot).unwrap();
    let state = State::restore(&snapshot).unwrap();
    let mut again = Vec::new();
    state.write(&mut again).unwrap();
    assert_eq!(snapshot, again);
    let told = answers(&before).last().copied().unwrap_or_default();
    let places = ["\"a\"", "\"c\"", "\"b\""].map(|name| told.find(name));
    assert!(places.is_sorted() && places[0].is_some(), "{told}");
}

#[test]
fn a_cancelled_task_ends_at_once_and_what_is_done_stays() {
    let mut rig = begun();
    extend(&mut rig, 2, vec![group("b", &[])]);
    rig.commit();
    rig.skip("b begins");
    let (job, tasks) = (JobId(1), vec!["a".to_owned(), "b".to_owned()]);
    rig.ask(1, Request::CancelTasks { job, tasks });
    rig.commit();
    let said = rig.said();
    assert!(
        said.iter().any(|line| line.contains("cancel 1.1")),
        "{said:?}"
    );
    assert_eq!(answers(&said), ["client 1 #99: Ok"]);
    rig.ask(1, ends(1));
    let said = rig.said();
    let told = answers(&said)[0];
    assert!(
        told.contains("end: Cancelled") && told.contains("it was cancelled"),
        "{told}"
    );
}
