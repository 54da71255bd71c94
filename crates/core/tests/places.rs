//! Tasks that wait for the task at their own place in another group.

mod support;

use hedge_core::supervisor::{
    Action, Config, Effects, Event, FetchFailure, Offer, Requester, State, Supervisor,
};
use hedge_model::msg::{Assignment, Outcome, Reply, Request, Role, WorkerInfo};
use hedge_model::spec::{Group, Input};
use hedge_model::{AttemptId, JobId, PeerId, Source, SubmitKey, Time};
use std::sync::Arc;
use std::time::Duration;
use support::*;

const GRACE: Duration = Duration::from_millis(3100);

/// An array that reads another by place.
fn reader_of(id: &str, count: u32, others: &[&str]) -> Group {
    let input = |id: &&str| Input::TaskEach(Arc::from(*id));
    Group {
        inputs: others.iter().map(input).collect(),
        ..array(count, group(id, &[]))
    }
}

/// An array that waits for others by place.
fn waits_for(id: &str, count: u32, others: &[&str]) -> Group {
    Group {
        deps_each: others.iter().map(|id| Arc::from(*id)).collect(),
        ..array(count, group(id, &[]))
    }
}

fn leaves(rig: &mut Rig, number: u8, id: AttemptId, content: u8) {
    rig.reports(number, id, Outcome::Done(vec![blob("out", content)]));
    rig.commit();
}

/// Job 1 is an array a of three, read by place by an array b, on workers of three CPUs each; a runs on the first.
fn pipeline(workers: u8) -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    let groups = vec![array(3, group("a", &[])), reader_of("b", 3, &["a"])];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    (2..=workers).for_each(|number| rig.attach(number, 3));
    let said = rig.said();
    let a = (0..3).map(|task| (1, attempt(task, 1)));
    assert_eq!(assigned(&said), a.collect::<Vec<_>>());
    rig
}

/// What the only assignment of the last events gives, and from whom its own blobs come.
fn given(rig: &mut Rig) -> (Assignment, Vec<Source>) {
    let orders = rig.actions().into_iter().filter_map(|action| match action {
        Action::SendAssignment { order, .. } => Some((order.order, order.sources)),
        _ => None,
    });
    let mut orders: Vec<_> = orders.collect();
    assert_eq!(orders.len(), 1, "{orders:?}");
    orders.remove(0)
}

#[test]
fn each_task_starts_when_the_one_at_its_place_is_done_and_gets_its_outputs_alone() {
    let mut rig = pipeline(1);
    rig.reports(1, attempt(1, 1), Outcome::Done(vec![blob("out", 11)]));
    let record = rig.proposed().remove(0);
    rig.committed(record);
    let (order, sources) = given(&mut rig);
    assert_eq!(order.own_inputs(), [blob("out", 11)]);
    assert_eq!(sources, [addr(worker(1))]);
    rig.expect(&[
        "append done 1.1/0.1.1 by worker 1",
        "worker 1: settled 1.1/0.1.1",
        "worker 1: body b v1",
        "worker 1: assign 1.4/0.1.1, may read 11",
    ]);
    leaves(&mut rig, 1, attempt(2, 1), 12);
    rig.expect(&[
        "append done 1.2/0.1.1 by worker 1",
        "worker 1: settled 1.2/0.1.1",
        "worker 1: assign 1.5/0.1.1, may read 12",
    ]);
    // What was read is dropped, and the result is fetched.
    leaves(&mut rig, 1, attempt(4, 1), 21);
    rig.expect(&[
        "append done 1.4/0.1.1 by worker 1",
        "worker 1: settled 1.4/0.1.1",
        "pull 21 from worker 1",
        "worker 1: drop 11",
    ]);
    leaves(&mut rig, 1, attempt(0, 1), 10);
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: assign 1.3/0.1.1, may read 10",
    ]);
}

#[test]
fn a_lost_output_is_made_again_by_its_task_alone() {
    let mut rig = pipeline(2);
    leaves(&mut rig, 1, attempt(0, 1), 10);
    leaves(&mut rig, 1, attempt(1, 1), 11);
    rig.skip("two of b run on the workers");
    rig.gone(1);
    rig.pass_with_heartbeats(GRACE, &[2]);
    rig.commit();
    let said = rig.said();
    let lost: Vec<&String> = said
        .iter()
        .filter(|line| line.contains("outputs lost"))
        .collect();
    assert!(!lost.is_empty(), "{said:?}");
    let again: Vec<u32> = assigned(&said)
        .iter()
        .map(|(_, id)| id.task.number)
        .collect();
    assert!(
        again.iter().all(|task| *task < 3),
        "none of b may start: {said:?}"
    );
}

#[test]
fn a_result_that_is_lost_is_made_again_from_the_beginning() {
    let mut rig = pipeline(2);
    leaves(&mut rig, 1, attempt(0, 1), 10);
    let said = rig.said();
    let [(reader, id)] = assigned(&said)[..] else {
        panic!("{said:?}");
    };
    leaves(&mut rig, reader, id, 20);
    let said = rig.said();
    assert!(
        said.contains(&format!("pull 20 from worker {reader}")),
        "{said:?}"
    );
    assert!(said.contains(&"worker 1: drop 10".to_owned()), "{said:?}");
    // Before it is fetched its only holder is gone for good.
    let other = if reader == 1 { 2 } else { 1 };
    rig.gone(reader);
    rig.pass_with_heartbeats(GRACE, &[other]);
    let failure = FetchFailure::Sources("it is gone".into());
    for _ in 0..10 {
        let result = Err(failure.clone());
        rig.event(Event::Fetched {
            hash: hash(20),
            result,
        });
        rig.pass_with_heartbeats(GRACE, &[other]);
    }
    rig.commit();
    let said = rig.said();
    let lost: Vec<&str> = said
        .iter()
        .filter_map(|line| line.strip_prefix("append outputs lost "))
        .collect();
    assert!(lost.starts_with(&["1.3/0", "1.0/0"]), "{said:?}");
    let again = assigned(&said);
    assert!(
        again
            .iter()
            .any(|(_, id)| (id.task.number, id.generation) == (0, 1)),
        "{said:?}"
    );
    assert!(again.iter().all(|(_, id)| id.task.number < 3), "{said:?}");
}

#[test]
fn a_dependency_by_place_without_files_is_followed_through_three_stages() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let groups = vec![
        array(2, group("a", &[])),
        waits_for("b", 2, &["a"]),
        waits_for("c", 2, &["b", "a"]),
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    let mut order = Vec::new();
    for _ in 0..6 {
        let said = rig.said();
        let [(1, id)] = assigned(&said)[..] else {
            panic!("{said:?}");
        };
        order.push(id.task.number);
        rig.done(1, id);
        rig.commit();
    }
    assert_eq!(
        order,
        [0, 1, 2, 3, 4, 5],
        "what the critical path needs comes first"
    );
    assert!(rig.said().contains(&"append job 1 done".to_owned()));
}

#[test]
fn a_new_leader_offers_what_is_ready_and_no_more() {
    let mut rig = pipeline(1);
    leaves(&mut rig, 1, attempt(1, 1), 11);
    leaves(&mut rig, 1, attempt(2, 1), 12);
    leaves(&mut rig, 1, attempt(4, 1), 21);
    rig.skip("b.1 is done, b.2 could run, b.0 waits");
    let state = rig.core.state().clone();
    let mut next = Rig::with(state, &[]);
    let back = WorkerInfo {
        holds: vec![hash(11), hash(12), hash(21)],
        ..info(2, 3)
    };
    next.attach_with(2, back);
    next.pass_with_heartbeats(GRACE, &[2]);
    let said = next.said();
    let tasks: Vec<u32> = assigned(&said)
        .iter()
        .map(|(_, id)| id.task.number)
        .collect();
    assert_eq!(tasks, [0, 5], "{said:?}");
    assert!(said.contains(&"worker 2: drop 11".to_owned()), "{said:?}");
}

#[test]
fn a_new_grid_takes_such_a_job_as_soon_as_its_records_can_hold_it() {
    let config = Config::new(addr(PeerId([9; 32])));
    let mut core = Supervisor::new(config, State::default());
    let lead = Event::Lead {
        holds: Vec::new(),
        secret: [7; 32],
    };
    let commit = |core: &mut Supervisor, event: Event| {
        let mut out = Effects::default();
        core.handle(Time(1), event, &mut out);
        let said = lines(&out);
        let records = out.proposals.into_iter().map(|one| Event::Committed {
            proposal: Some(one.id),
            record: one.record,
        });
        (said, records.collect::<Vec<Event>>())
    };
    let (_, mut records) = commit(&mut core, lead);
    let (said, mut format) = commit(&mut core, records.remove(0));
    assert_eq!(said, ["append format 3", "watch settings"]);
    let spec = plain(vec![array(2, group("a", &[])), waits_for("b", 2, &["a"])]);
    let submit = Event::Submit {
        requester: Requester::Here {
            peer: client(1),
            role: Role::Client,
        },
        request_id: 1,
        key: SubmitKey([1; 16]),
        offer: Offer::Job(spec),
        from: addr(client(1)),
        held: Vec::new(),
    };
    let (said, none) = commit(&mut core, submit);
    assert_eq!((said, none.len()), (Vec::new(), 0));
    let (said, mut accepted) = commit(&mut core, format.remove(0));
    assert_eq!(said, ["append accepted"]);
    let (said, _) = commit(&mut core, accepted.remove(0));
    assert_eq!(said, ["client 1 #1: accepted 1"]);
}

#[test]
fn a_task_that_waits_says_for_which() {
    let mut rig = pipeline(1);
    rig.ask(1, Request::Explain(JobId(1), Some("b.1".into())));
    let actions = rig.actions();
    let why = actions.iter().find_map(|action| match action {
        Action::Answer { answer, .. } => match &answer.reply {
            Reply::Explain(view) => Some(view.tasks[0].why.clone()),
            _ => None,
        },
        _ => None,
    });
    assert_eq!(why.as_deref(), Some("waits for a.1"));
    rig.skip("the answer was looked at");
}

#[test]
fn files_of_one_name_in_one_task_fail_the_job_with_the_reason() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let leaves_any = |id: &str| Group {
        outputs: vec!["*".into()],
        ..array(1, group(id, &[]))
    };
    let groups = vec![
        leaves_any("a"),
        leaves_any("b"),
        reader_of("c", 1, &["a", "b"]),
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    leaves(&mut rig, 1, attempt(0, 1), 10);
    leaves(&mut rig, 1, attempt(1, 1), 11);
    let said = rig.said();
    let failed = said.iter().find(|line| line.contains("job 1 failed"));
    let failed = failed.unwrap_or_else(|| panic!("{said:?}"));
    assert!(
        failed.contains("task c.0 would read two files at \"out\""),
        "{failed}"
    );
}
