//! A leader comes, goes and returns; peers are let in with tickets.

mod support;

use hedge_core::supervisor::{Event, State};
use hedge_model::msg::{Request, Role, WorkerInfo};
use hedge_model::record::{Record, Ticket};
use hedge_model::{AttemptId, Epoch, JobId, TaskId, Time};
use std::time::Duration;
use support::*;

#[test]
fn a_deposed_leader_says_nothing_and_a_new_epoch_takes_up_what_is_durable() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    rig.submit(1, 1, &plain(vec![array(2, group("a", &[]))]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 1: assign 1.1/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.done(1, attempt(0, 1));
    let open = rig.proposed();
    rig.expect(&["append done 1.0/0.1.1 by worker 1"]);
    rig.event(Event::Deposed);
    assert!(!rig.core.is_live());
    rig.submit(1, 2, &plain(vec![group("b", &[])]));
    rig.done(1, attempt(0, 1));
    rig.attach(2, 1);
    rig.pass(Duration::from_secs(5));
    rig.expect(&["stop watching worker 1", "client 1 #2: no, NotLeading: this supervisor does not lead; ask the one that does, or again in a moment"]);
    // Its record became durable all the same; another leader appended the next epoch.
    rig.committed(open[0].clone());
    let (epoch, at) = (Epoch(2), rig.now);
    rig.event(Event::Committed {
        proposal: None,
        record: Record::Epoch {
            epoch,
            at,
            secret: [8; 32],
        },
    });
    rig.expect(&[]);
    assert!(!rig.core.is_live(), "that epoch is another's");
    rig.event(Event::Lead {
        holds: Vec::new(),
        secret: [7; 32],
    });
    rig.commit();
    rig.expect(&["append epoch 3", "watch settings"]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(view.done, 1);
    // What the worker still has in hand is adopted; what was never told of is dropped by it.
    let running = attempt(1, 1);
    let back = WorkerInfo {
        in_hand: rig.held([attempt(0, 1), running]),
        ..info(1, 1)
    };
    rig.attach_with(1, back);
    rig.expect(&[
        "worker 1: cancel 1.0/0.1.1",
        "measure worker 1: 131072 bytes",
        "watch worker 1: assigned",
    ]);
    rig.done(1, attempt(0, 1));
    rig.expect(&["worker 1: settled 1.0/0.1.1"]);
    rig.done(1, running);
    rig.commit();
    rig.expect(&[
        "append done 1.1/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.1/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
}

#[test]
fn a_task_without_a_known_attempt_is_assigned_at_once_and_the_old_one_becomes_a_copy() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
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
    let mut next = Rig::with(rig.core.state().clone(), &[]);
    next.attach(2, 1);
    next.expect(&[
        "measure worker 2: 131072 bytes",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.2.1",
        "watch worker 2: assigned",
    ]);
    let back = WorkerInfo {
        in_hand: rig.held([attempt(0, 1)]),
        ..info(1, 1)
    };
    next.attach_with(1, back);
    next.expect(&["measure worker 1: 131072 bytes", "watch worker 1: assigned"]);
    next.done(1, attempt(0, 1));
    next.commit();
    next.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: cancel 1.0/0.2.1",
        "watch worker 1: idle",
        "worker 2: forget 1",
        "worker 1: forget 1",
    ]);
}

#[test]
fn a_failure_that_is_reported_to_two_leaders_counts_once() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: assign 1.0/0.1.2",
    ]);
    let mut next = Rig::with(rig.core.state().clone(), &[]);
    let back = WorkerInfo {
        in_hand: rig.held([attempt(0, 1)]),
        ..info(1, 1)
    };
    next.attach_with(1, back);
    next.fails(1, attempt(0, 1));
    next.commit();
    let again = AttemptId {
        epoch: Epoch(2),
        ..attempt(0, 1)
    };
    next.expect(&[
        "worker 1: cancel 1.0/0.1.1",
        "measure worker 1: 131072 bytes",
        "worker 1: body a v1",
        &format!("worker 1: assign {again}"),
        "watch worker 1: assigned",
        "worker 1: settled 1.0/0.1.1",
    ]);
    let view = next.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.attempts.failed, view.attempts.total), (1, 2));
}

#[test]
fn tickets_let_in_so_many_peers_of_their_role_until_they_expire() {
    let mut rig = Rig::new();
    let join = |rig: &mut Rig, number: u8, role: Role, ticket: Option<u8>| {
        rig.event(Event::Joining {
            peer: worker(number),
            role,
            ticket: ticket.map(hash),
        });
        rig.commit();
    };
    rig.event(Event::Request {
        requester: client(1).into(),
        request_id: 1,
        request: Request::Ticket {
            role: Role::Worker,
            valid_for: Some(Duration::from_secs(60)),
            uses: Some(2),
        },
        secret: Some((hash(50), "secret".into())),
    });
    rig.commit();
    rig.expect(&["append ticket", "client 1 #1: Ticket(\"secret\")"]);
    join(&mut rig, 1, Role::Worker, None);
    join(&mut rig, 1, Role::Worker, Some(51));
    join(&mut rig, 1, Role::Client, Some(50));
    rig.expect(&[
        "admit worker 1: Some(Stranger)",
        "admit worker 1: Some(Stranger)",
        "admit worker 1: Some(WrongRole)",
    ]);
    join(&mut rig, 1, Role::Worker, Some(50));
    join(&mut rig, 1, Role::Worker, None); // a member needs no ticket
    join(&mut rig, 1, Role::Client, Some(50));
    rig.expect(&[
        "append joined worker 1",
        "admit worker 1: None",
        "admit worker 1: None",
        "admit worker 1: Some(WrongRole)",
    ]);
    join(&mut rig, 2, Role::Worker, Some(50));
    join(&mut rig, 3, Role::Worker, Some(50));
    rig.expect(&[
        "append joined worker 2",
        "admit worker 2: None",
        "admit worker 3: Some(Expired)",
    ]);
    rig.pass(Duration::from_secs(61));
    join(&mut rig, 4, Role::Worker, Some(50));
    rig.expect(&["admit worker 4: Some(Expired)"]);
}

#[test]
fn a_submission_whose_inputs_nobody_offers_is_refused_at_once() {
    let mut rig = Rig::new();
    let reader = hedge_model::spec::Group {
        stdin: Some(hedge_model::Data::Blob {
            hash: hash(3),
            size: 70_000,
        }),
        ..group("a", &[])
    };
    rig.event(hedge_core::supervisor::Event::Submit {
        requester: client(1).into(),
        request_id: 1,
        key: hedge_model::SubmitKey([1; 16]),
        offer: hedge_core::supervisor::Offer::Job(plain(vec![reader])),
        from: addr(hedge_model::PeerId([9; 32])),
        held: Vec::new(),
    });
    let said = rig.said();
    assert!(
        matches!(&said[..], [line] if line.contains("nobody who holds them is named")),
        "{said:?}"
    );
}

/// A supervisor that is alone and starts again, with the only task of a job at worker 1, and another worker.
fn restarted() -> (Rig, Rig) {
    let mut state = State::default();
    let (role, expires, uses, at) = (Role::Worker, None, None, Time(0));
    let ticket = hash(251);
    state.apply(&Record::TicketMade(Ticket {
        hash: ticket,
        role,
        expires,
        uses,
    }));
    for peer in [worker(1), worker(2)] {
        let joined = Record::MemberJoined {
            peer,
            role,
            ticket,
            at,
        };
        state.apply(&joined);
    }
    let mut rig = Rig::with(state, &[]);
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
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
    let next = Rig::with(rig.core.state().clone(), &[]);
    (rig, next)
}

#[test]
fn a_supervisor_that_starts_again_alone_hears_all_workers_before_it_starts_what_may_run() {
    let (mut old, mut next) = restarted();
    next.attach(2, 1);
    next.expect(&["measure worker 2: 131072 bytes", "watch worker 2: idle"]);
    let back = WorkerInfo {
        in_hand: old.held([attempt(0, 1)]),
        ..info(1, 1)
    };
    next.attach_with(1, back);
    next.expect(&["measure worker 1: 131072 bytes", "watch worker 1: assigned"]);
    let view = next.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.running, view.attempts.total), (1, 1));
    next.done(1, attempt(0, 1));
    next.commit();
    next.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
}

#[test]
fn what_no_worker_that_came_back_has_in_hand_starts_at_once() {
    let (_old, mut next) = restarted();
    next.attach(1, 1);
    next.expect(&["measure worker 1: 131072 bytes", "watch worker 1: idle"]);
    next.attach(2, 1);
    let said = next.said();
    assert!(
        said.iter().any(|line| line.contains(": assign 1.0/0.2.1")),
        "{said:?}"
    );
}

#[test]
fn workers_that_do_not_come_back_are_waited_for_no_longer_than_their_content() {
    let (_old, mut next) = restarted();
    next.attach(2, 1);
    next.pass(Duration::from_millis(1));
    next.submit(1, 2, &plain(vec![group("new", &[])]));
    next.commit();
    let said = next.said();
    assert!(
        said.iter().any(|line| line.contains(": assign 2.0/0.2.1")),
        "{said:?}"
    );
    let job = JobId(2);
    let newer = AttemptId {
        task: TaskId { job, number: 0 },
        epoch: Epoch(2),
        ..attempt(0, 1)
    };
    next.done(2, newer);
    next.commit();
    next.expect(&[
        "append done 2.0/0.2.1 by worker 2",
        "append job 2 done",
        "worker 2: settled 2.0/0.2.1",
        "watch worker 2: idle",
        "worker 2: forget 2",
    ]);
    next.pass_with_heartbeats(Duration::from_secs(4), &[2]);
    let said = next.said();
    assert!(
        said.iter().any(|line| line.contains(": assign 1.0/0.2.1")),
        "{said:?}"
    );
}
