//! Tasks that may run only once, tasks that get more memory after they reached their limit, and tasks that only some
//! owners allow.

mod support;

use hedge_core::supervisor::{Action, Config, Effects, Event, Proposal, Supervisor};
use hedge_model::msg::{FromWorker, Outcome, Report, Request, ToWorker, Usage, WorkerInfo};
use hedge_model::record::Record;
use hedge_model::spec::{Group, Network};
use hedge_model::view::{ExplainView, JobState, JobView};
use hedge_model::{AttemptId, Ending, JobId, Resources};
use std::time::Duration;
use support::*;

const MIB: u64 = 1 << 20;

fn once(group: Group) -> Group {
    Group {
        once: true,
        ..group
    }
}

fn view(rig: &Rig) -> JobView {
    rig.core.job_view(JobId(1)).expect("a job")
}

/// What `explain` says of a task.
fn explained(rig: &mut Rig, task: &str) -> ExplainView {
    rig.ask(1, Request::Explain(JobId(1), Some(task.to_owned())));
    let found = rig.actions().into_iter().find_map(|action| match action {
        Action::Answer { answer, .. } => match answer.reply {
            hedge_model::msg::Reply::Explain(view) => Some(*view),
            _ => None,
        },
        _ => None,
    });
    rig.skip("the answer was looked at");
    found.expect("an explanation")
}

#[test]
fn a_task_that_may_not_run_again_ends_as_lost_with_its_worker_and_is_told_apart() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let bad = Group {
        retries: 0,
        ..group("bad", &[])
    };
    let groups = vec![once(group("a", &[])), bad, group("after", &["a"])];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.skip("the first two are assigned");
    rig.fails(1, attempt(1, 1));
    rig.commit();
    rig.skip("one fails");
    rig.attach(2, 4);
    rig.skip("another worker comes");
    rig.gone(1);
    rig.commit();
    rig.expect(&[
        "append lost 1.0/0.1.1",
        "stop watching worker 1",
        "append task 1.0 failed",
        "append job 1 failed: 2 of its 3 tasks failed, the first of them a: it was lost with its worker, and rerun = \
         false keeps it from running again",
    ]);
    let view = view(&rig);
    let counts = (view.done, view.failed, view.lost, view.skipped);
    assert_eq!((view.state, counts), (JobState::Failed, (0, 1, 1, 1)));
    let task = explained(&mut rig, "a").tasks.remove(0);
    assert_eq!(task.state, "lost");
    assert!(task.why.contains("rerun = false"), "{}", task.why);
    rig.ask(1, Request::Retry(JobId(1)));
    rig.commit();
    let said = rig.said();
    let again = said.iter().any(|line| line == "worker 2: assign 1.0/1.1.1");
    assert!(again, "a person may want it again: {said:?}");
    rig.gone(2);
    rig.commit();
    rig.skip("it is lost again, which ends the test");
}

#[test]
fn an_attempt_that_its_worker_returns_or_gives_up_before_it_began_may_run_elsewhere() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![once(group("a", &[]))]));
    rig.commit();
    rig.skip("it is assigned");
    rig.attach(2, 1);
    rig.skip("another worker comes");
    rig.from(1, FromWorker::Draining);
    rig.skip("the first leaves");
    rig.reports(1, attempt(0, 1), Outcome::Returned);
    rig.commit();
    let said = rig.said();
    let moved = said.iter().any(|line| line == "worker 2: assign 1.0/0.1.2");
    assert!(moved, "{said:?}");
    // This one runs when its worker gives it up.
    rig.from(2, FromWorker::Started(attempt(0, 2)));
    rig.attach(3, 1);
    rig.reports(2, attempt(0, 2), Outcome::Ended(Ending::Vacated));
    rig.commit();
    rig.skip("the task ends as lost");
    assert_eq!((view(&rig).state, view(&rig).lost), (JobState::Failed, 1));
}

#[test]
fn a_task_that_may_not_run_again_is_retried_after_its_own_failures() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![once(group("a", &[]))]));
    rig.commit();
    rig.skip("it is assigned");
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: assign 1.0/0.1.2",
    ]);
    rig.done(1, attempt(0, 2));
    rig.commit();
    rig.skip("it is done");
    assert_eq!(view(&rig).state, JobState::Done);
}

#[test]
fn a_worker_that_returns_with_the_attempt_before_its_loss_is_recorded_keeps_it() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![once(group("a", &[]))]));
    rig.commit();
    rig.skip("it is assigned");
    let back = WorkerInfo {
        in_hand: rig.held([attempt(0, 1)]),
        ..info(1, 1)
    };
    rig.attach_with(1, back);
    rig.commit();
    rig.skip("the worker has connected anew");
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.skip("it is done");
    assert_eq!(view(&rig).state, JobState::Done);
}

/// A task that may not run again, and the proposed record of its loss with the first of two workers.
fn losing() -> (Rig, Vec<(u64, Record)>) {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.attach(2, 1);
    rig.submit(1, 1, &plain(vec![once(group("a", &[]))]));
    rig.commit();
    rig.skip("it is assigned to the first");
    rig.gone(1);
    let lost = rig.proposed();
    rig.expect(&["append lost 1.0/0.1.1", "stop watching worker 1"]);
    (rig, lost)
}

#[test]
fn a_worker_that_returns_without_the_attempt_does_not_get_it_again_before_the_loss_is_recorded() {
    let (mut rig, lost) = losing();
    rig.attach(1, 1);
    rig.pass_with_heartbeats(Duration::from_secs(1), &[1, 2]);
    assert_eq!(assigned(&rig.said()), []);
    lost.into_iter().for_each(|record| rig.committed(record));
    rig.commit();
    let said = rig.said();
    assert_eq!(
        (&*said[0], assigned(&said)),
        ("append task 1.0 failed", vec![])
    );
    assert_eq!((view(&rig).state, view(&rig).lost), (JobState::Failed, 1));
}

#[test]
fn an_attempt_that_counts_as_lost_and_is_returned_unstarted_may_run_elsewhere() {
    for recorded_before in [true, false] {
        let (mut rig, lost) = losing();
        let back = WorkerInfo {
            in_hand: rig.held([attempt(0, 1)]),
            ..info(1, 1)
        };
        rig.attach_with(1, back);
        rig.from(1, FromWorker::Draining);
        if recorded_before {
            lost.iter().for_each(|one| rig.committed(one.clone()));
        }
        rig.skip("it is back with the attempt, and leaves");
        rig.from(
            1,
            FromWorker::Ended(Box::new(Report {
                attempt: attempt(0, 1),
                outcome: Outcome::Returned,
                usage: Usage::default(),
                log: None,
            })),
        );
        let returned = rig.proposed();
        if !recorded_before {
            lost.into_iter().for_each(|one| rig.committed(one));
        }
        assert_eq!(assigned(&rig.said()), []);
        returned.into_iter().for_each(|one| rig.committed(one));
        assert_eq!(assigned(&rig.said()), [(2, attempt(0, 2))]);
        rig.done(2, attempt(0, 2));
        rig.commit();
        rig.skip("it is done");
        assert_eq!(view(&rig).state, JobState::Done);
    }
}

#[test]
fn a_leader_ends_what_the_one_before_lost_and_did_not_end() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![once(group("a", &[])), group("b", &[])]));
    rig.commit();
    rig.skip("it is assigned");
    rig.gone(1);
    let lost = rig.proposed();
    rig.skip("the loss is proposed");
    lost.into_iter().for_each(|record| rig.committed(record));
    rig.expect(&["append task 1.0 failed"]);
    let mut next = Supervisor::new(Config::new(addr(worker(9))), rig.core.state().clone());
    let lead = Event::Lead {
        holds: Vec::new(),
        secret: [7; 32],
    };
    let mut effects = Effects::default();
    next.handle(rig.now, lead, &mut effects);
    let mut said = Vec::new();
    while !effects.proposals.is_empty() {
        said.extend(lines(&effects));
        for Proposal { id, record } in std::mem::take(&mut effects).proposals {
            let proposal = Some(id);
            next.handle(rig.now, Event::Committed { proposal, record }, &mut effects);
        }
    }
    assert!(
        said.contains(&"append task 1.0 failed".to_owned()),
        "{said:?}"
    );
    let view = next.job_view(JobId(1)).expect("a job");
    assert_eq!((view.lost, view.ready), (1, 1));
}

#[test]
fn outputs_that_are_lost_end_the_job_if_their_task_may_not_run_again() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(
        1,
        1,
        &plain(vec![once(group("a", &[])), reader("b", &["a"])]),
    );
    rig.commit();
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 10)]));
    rig.commit();
    rig.skip("b has begun");
    rig.attach(2, 1);
    rig.gone(1);
    rig.commit();
    rig.pass_with_heartbeats(Duration::from_secs(60), &[2]);
    rig.commit();
    rig.skip("what a left is gone for good");
    let why = view(&rig).why.unwrap_or_default();
    assert!(why.contains("the outputs of task a were lost"), "{why}");
}

#[test]
fn tasks_that_rule_copies_out_get_none_in_advance_or_when_their_worker_is_suspected() {
    let marked = |id: &str| Group {
        critical: true,
        ..group(id, &[])
    };
    let shared = |copied| Group {
        shares: vec!["data".into()].into(),
        copied,
        ..marked("shared")
    };
    for (group, copies) in [
        (marked("a"), 2),
        (once(marked("a")), 1),
        (shared(None), 1),
        (shared(Some(true)), 2),
    ] {
        let mut rig = Rig::new();
        for number in [1, 2, 3] {
            let info = WorkerInfo {
                shares: vec![("data".into(), true)],
                ..info(number, 1)
            };
            rig.attach_with(number, info);
        }
        rig.submit(1, 1, &redundant(2, 0, vec![group]));
        rig.commit();
        assert_eq!(assigned(&rig.said()).len(), copies);
        rig.pass_with_heartbeats(Duration::from_millis(500), &[2, 3]);
        let more = assigned(&rig.said()).len();
        assert!(copies == 2 || more == 0, "{more} further copies");
    }
}

/// The memory that attempts were assigned with since the last look; none if it is that of their group.
fn memory(rig: &mut Rig) -> Vec<(AttemptId, Option<u64>)> {
    let orders = rig.actions().into_iter().filter_map(|action| match action {
        Action::Send {
            msg: ToWorker::Assign(order),
            ..
        } => Some((order.attempt, order.own.and_then(|own| own.memory))),
        _ => None,
    });
    orders.collect()
}

/// What is proposed becomes durable; what follows from it stays to be looked at.
fn commit_once(rig: &mut Rig) {
    let records = rig.proposed();
    records.into_iter().for_each(|record| rig.committed(record));
}

fn with_memory(number: u8, memory: u64) -> WorkerInfo {
    WorkerInfo {
        resources: Resources {
            memory,
            ..Resources::cpus(4000)
        },
        ..info(number, 4)
    }
}

#[test]
fn a_task_that_reached_its_memory_limit_gets_more_where_that_is() {
    let mut rig = Rig::new();
    rig.attach_with(1, with_memory(1, 150 * MIB));
    let mut hungry = Group {
        retry_memory: vec![1000, 2000, 4000].into(),
        ..array(2, group("a", &[]))
    };
    hungry.resources.memory = 100 * MIB;
    rig.submit(1, 1, &plain(vec![hungry]));
    commit_once(&mut rig);
    assert_eq!(memory(&mut rig), [(attempt(0, 1), None)]);
    let limit = |of: u64| {
        Outcome::Ended(Ending::MemoryLimit {
            limit: of,
            used: of + 1,
        })
    };
    rig.reports(1, attempt(0, 1), limit(100 * MIB));
    commit_once(&mut rig);
    assert_eq!(
        memory(&mut rig),
        [(attempt(1, 1), None)],
        "this worker has too little for the first again, and the second does not wait for it"
    );
    let task = explained(&mut rig, "a.0").tasks.remove(0);
    assert_eq!(task.memory_raised, Some(200 * MIB));
    let has = "task \"a\" asks for memory 200 MiB, and the most that any worker has is 150 MiB";
    assert_eq!(task.why, has);
    rig.attach_with(2, with_memory(2, 500 * MIB));
    assert_eq!(memory(&mut rig), [(attempt(0, 2), Some(200 * MIB))]);
    rig.reports(2, attempt(0, 2), limit(200 * MIB));
    commit_once(&mut rig);
    assert_eq!(memory(&mut rig), [(attempt(0, 3), Some(400 * MIB))]);
    rig.done(2, attempt(0, 3));
    rig.done(1, attempt(1, 1));
    rig.commit();
    rig.skip("both are done");
    let view = view(&rig);
    assert_eq!(
        (view.state, view.attempts.total, view.attempts.failed),
        (JobState::Done, 4, 2)
    );
}

#[test]
fn a_new_leader_counts_the_memory_of_attempts_that_it_adopts() {
    let mut rig = Rig::new();
    rig.attach_with(1, with_memory(1, 500 * MIB));
    let mut hungry = Group {
        retry_memory: vec![1000, 3000].into(),
        ..group("a", &[])
    };
    hungry.resources.memory = 100 * MIB;
    rig.submit(1, 1, &plain(vec![hungry]));
    rig.commit();
    let limit = Outcome::Ended(Ending::MemoryLimit {
        limit: 100 * MIB,
        used: 101 * MIB,
    });
    rig.reports(1, attempt(0, 1), limit);
    rig.commit();
    rig.skip("it runs again with more");
    let in_hand = rig.held([attempt(0, 2)]);
    let mut next = Rig::with(rig.core.state().clone(), &[]);
    let back = WorkerInfo {
        in_hand,
        ..with_memory(1, 500 * MIB)
    };
    next.attach_with(1, back);
    let worker = next.core.worker_views().remove(0);
    assert_eq!(worker.free.memory, 200 * MIB);
    next.done(1, attempt(0, 2));
    next.commit();
    next.skip("it is done");
    assert_eq!(view(&next).state, JobState::Done);
    let worker = next.core.worker_views().remove(0);
    assert_eq!(worker.free.memory, 500 * MIB);
    drop(next);
    rig.gone(1);
    rig.skip("the old leader is not looked at any more");
}

#[test]
fn tasks_go_only_to_workers_whose_owners_allow_what_they_use() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    let reads = Group {
        shares: vec!["data".into()].into(),
        ..group("reads", &[])
    };
    let loads = Group {
        network: Some(Network::Any),
        ..group("loads", &[])
    };
    let alone = Group {
        network: Some(Network::None),
        ..group("alone", &[])
    };
    rig.submit(1, 1, &plain(vec![reads, loads, alone]));
    rig.commit();
    let said = rig.said();
    assert_eq!(assigned(&said), [(1, attempt(2, 1))]);
    let why = |rig: &mut Rig, task| explained(rig, task).tasks.remove(0).why;
    assert_eq!(
        why(&mut rig, "reads"),
        "task \"reads\" needs the shared folder \"data\", and no worker has it"
    );
    assert_eq!(
        why(&mut rig, "loads"),
        "task \"loads\" needs network = \"any\", and no worker allows that: it takes `hedge worker --allow-network`"
    );
    let open = WorkerInfo {
        network: Network::Any,
        shares: vec![("date".into(), true)],
        ..info(2, 4)
    };
    rig.attach_with(2, open);
    assert_eq!(assigned(&rig.said()), [(2, attempt(1, 1))]);
    assert!(why(&mut rig, "reads").ends_with("has it; did you mean \"date\"?"));
    let sharing = WorkerInfo {
        shares: vec![("data".into(), false)],
        ..info(3, 4)
    };
    rig.attach_with(3, sharing);
    assert_eq!(assigned(&rig.said()), [(3, attempt(0, 1))]);
    let shares = rig.core.worker_views().into_iter();
    let shares = shares.map(|view| (view.shares, view.network));
    assert_eq!(
        shares.collect::<Vec<_>>(),
        [
            (vec![], "loopback".to_owned()),
            (vec!["date".to_owned()], "any".to_owned()),
            (vec!["data:ro".to_owned()], "loopback".to_owned()),
        ]
    );
}
