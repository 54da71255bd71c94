//! Who may do what: every request in every role, reports of workers on what is not theirs, tickets, limits.

mod support;

use hedge_core::supervisor::{Config, Effects, Event, Offer, Requester, Supervisor};
use hedge_model::msg::{FromWorker, HeldAttempt, Outcome, Request, Role, Seal, WorkerInfo};
use hedge_model::spec::Extension;
use hedge_model::view::JobState;
use hedge_model::{AttemptId, Data, InputServer, JobId, PeerId, SubmitKey};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use support::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Owner,
    OtherClient,
    Admin,
    Worker,
    Supervisor,
    Relay,
    Stranger,
    OwnProcess,
    OwnProcessAsClient,
}

const REQUESTERS: [Origin; 9] = [
    Origin::Owner,
    Origin::OtherClient,
    Origin::Admin,
    Origin::Worker,
    Origin::Supervisor,
    Origin::Relay,
    Origin::Stranger,
    Origin::OwnProcess,
    Origin::OwnProcessAsClient,
];

impl Origin {
    fn peer(self) -> PeerId {
        match self {
            Origin::Owner => client(5),
            Origin::OtherClient => client(6),
            Origin::Admin => client(1),
            Origin::Worker => worker(1),
            Origin::Supervisor => worker(8),
            Origin::Relay => worker(7),
            Origin::Stranger => client(50),
            Origin::OwnProcess | Origin::OwnProcessAsClient => worker(9),
        }
    }

    fn requester(self) -> Requester {
        let peer = self.peer();
        let here = |role| Requester::Here { peer, role };
        match self {
            Origin::OwnProcess => here(Role::Admin),
            Origin::OwnProcessAsClient => here(Role::Client),
            _ => Requester::Peer(peer),
        }
    }
}

/// Everything that can be asked for, about job 1, which is the owner's.
fn requests() -> Vec<Request> {
    let job = JobId(1);
    let mut all = vec![
        Request::Submit {
            key: SubmitKey([7; 16]),
            spec: Data::Inline([][..].into()),
            from: InputServer {
                addr: addr(client(5)),
                consent: Vec::new(),
            },
        },
        Request::Jobs(None),
        Request::Job(job),
        Request::Watch(job),
        Request::Cancel(job),
        Request::Results { job, from: 0 },
        Request::Logs(job, "0".into()),
        Request::Explain(job, None),
        Request::Tasks {
            job,
            filter: hedge_model::view::TaskFilter::All,
            from: 0,
        },
        Request::Groups { job, from: 0 },
        Request::Attempts {
            job,
            from: 0,
            since: std::time::Duration::ZERO,
        },
        printed_request(job),
        Request::Outputs {
            job,
            tasks: vec!["0".into()],
            from: 0,
        },
        Request::Workers,
        Request::Drain("host-1".into()),
        Request::Ticket {
            role: Role::Client,
            valid_for: None,
            uses: None,
        },
        Request::Members,
        Request::Revoke("host-1".into()),
        Request::Settings,
        Request::Set {
            name: "keep".into(),
            value: "3".into(),
        },
        Request::Forget(job),
        Request::Retry(job),
        Request::Upgrade,
        Request::MayRelay {
            peer: worker(1),
            ticket: None,
        },
        Request::Tickets,
        Request::RevokeTicket(hash(61).to_string()),
    ];
    all.extend(requests_on_open_jobs(job));
    all
}

fn requests_on_open_jobs(job: JobId) -> Vec<Request> {
    vec![
        Request::Extend {
            job,
            key: SubmitKey([9; 16]),
            extension: Data::Inline([].into()),
            from: InputServer {
                addr: addr(client(5)),
                consent: Vec::new(),
            },
        },
        Request::Close(job),
        Request::Release {
            job,
            tasks: Vec::new(),
        },
        Request::Ends { job, after: 0 },
        Request::CancelTasks {
            job,
            tasks: Vec::new(),
        },
    ]
}

/// Who may ask for it beside administrators: nobody, the job's own client, all clients, or relays. A new request must be
/// added here, and to [`requests`].
fn those_who_may(request: &Request) -> &'static [Origin] {
    match request {
        Request::Submit { .. } | Request::Jobs(_) | Request::Workers | Request::Settings => &[
            Origin::Owner,
            Origin::OtherClient,
            Origin::OwnProcessAsClient,
        ],
        Request::Job(_)
        | Request::Watch(_)
        | Request::Cancel(_)
        | Request::Results { .. }
        | Request::Logs(..)
        | Request::Explain(..)
        | Request::Tasks { .. }
        | Request::Groups { .. }
        | Request::Attempts { .. }
        | Request::Printed(_)
        | Request::Retry(_)
        | Request::Outputs { .. }
        | Request::Extend { .. }
        | Request::Close(_)
        | Request::Release { .. }
        | Request::Ends { .. }
        | Request::CancelTasks { .. }
        | Request::Forget(_) => &[Origin::Owner],
        Request::Drain(_)
        | Request::Ticket { .. }
        | Request::Members
        | Request::Revoke(_)
        | Request::Set { .. }
        | Request::Upgrade
        | Request::Tickets
        | Request::RevokeTicket(_) => &[],
        Request::MayRelay { .. } => &[Origin::Relay],
    }
}

/// A grid with a worker and another supervisor that are members, and a job of the owner that runs.
fn grid() -> Rig {
    let mut rig = Rig::new();
    let workers = [(1, Role::Worker), (2, Role::Worker)];
    for (number, role) in workers
        .into_iter()
        .chain([(7, Role::Relay), (8, Role::Supervisor)])
    {
        join(&mut rig, number, role);
    }
    rig.attach(1, 1);
    rig.submit(5, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 5 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig
}

fn asks(rig: &mut Rig, requester: Origin, request: Request) -> Vec<String> {
    let requester = requester.requester();
    rig.event(match request {
        Request::Submit { key, from, .. } => Event::Submit {
            requester,
            request_id: 3,
            key,
            offer: Offer::Job(plain(vec![group("b", &[])])),
            from: from.addr,
            held: Vec::new(),
        },
        Request::Extend { job, key, from, .. } => Event::Submit {
            requester,
            request_id: 3,
            key,
            offer: Offer::Groups(job, Arc::new(Extension::default())),
            from: from.addr,
            held: Vec::new(),
        },
        request => Event::Request {
            requester,
            request_id: 3,
            request,
            secret: Some((hash(77), "secret".into())),
        },
    });
    rig.said()
}

#[test]
fn every_request_is_allowed_or_refused_by_role() {
    let variants: BTreeSet<u8> = requests()
        .iter()
        .map(|request| postcard::to_stdvec(request).expect("bytes")[0])
        .collect();
    let count = requests().len() as u8;
    assert_eq!(variants, (0..count).collect(), "each once");
    let unknown = postcard::from_bytes::<Request>(&[count]);
    let known = postcard::from_bytes::<Request>(&[count - 1]);
    assert_ne!(
        unknown.expect_err("no such request").to_string(),
        known.expect_err("cut off").to_string(),
        "a request is missing in the table"
    );
    for request in requests() {
        for requester in REQUESTERS {
            let mut rig = grid();
            let said = asks(&mut rig, requester, request.clone());
            let may = matches!(requester, Origin::Admin | Origin::OwnProcess)
                || those_who_may(&request).contains(&requester);
            let refused = said.iter().any(|line| line.contains("no, NotAllowed"));
            assert_eq!(refused, !may, "{requester:?} asks {request:?}: {said:?}");
            if refused {
                assert_eq!(said.len(), 1, "{requester:?} changes something: {said:?}");
            } else {
                assert!(
                    !said.is_empty(),
                    "{requester:?} hears nothing of {request:?}"
                );
            }
            rig.commit();
            rig.expect(&[]);
        }
    }
}

#[test]
fn a_relay_serves_members_supervisors_and_holders_of_tickets() {
    let mut rig = grid();
    ticket(
        &mut rig,
        70,
        Role::Client,
        Some(Duration::from_secs(60)),
        Some(0),
    );
    let may = |rig: &mut Rig, peer: PeerId, ticket: Option<u8>| {
        let ticket = ticket.map(hash);
        let said = asks(rig, Origin::Relay, Request::MayRelay { peer, ticket });
        let lines = |end: &str| said.iter().filter(|line| line.ends_with(end)).count();
        let refused = said.iter().filter(|line| line.contains("no, NotAllowed"));
        assert_eq!(lines("Ok") + refused.clone().count(), 1, "{said:?}");
        refused.count() == 0
    };
    assert!(may(&mut rig, worker(1), None), "a member");
    assert!(may(&mut rig, worker(9), None), "the supervisor");
    assert!(may(&mut rig, client(50), Some(70)), "a holder of a ticket");
    assert!(!may(&mut rig, client(50), None), "a stranger");
    assert!(
        !may(&mut rig, client(50), Some(71)),
        "with a ticket that nobody made"
    );
    rig.pass(Duration::from_secs(61));
    assert!(
        !may(&mut rig, client(50), Some(70)),
        "the ticket has expired"
    );
    rig.event(Event::Request {
        requester: Origin::Admin.peer().into(),
        request_id: 3,
        request: Request::Revoke(worker(1).to_string()),
        secret: None,
    });
    rig.commit();
    rig.expect(&[
        "append ticket",
        "append revoked worker 1",
        "expel worker 1",
        "stop watching worker 1",
        "client 1 #3: Ok",
    ]);
    assert!(!may(&mut rig, worker(1), Some(60)), "one that was revoked");
}

#[test]
fn clients_see_only_their_own_jobs_in_the_list() {
    let mut rig = grid();
    for (requester, sees) in [
        (Origin::Owner, true),
        (Origin::OtherClient, false),
        (Origin::Admin, true),
    ] {
        let said = asks(&mut rig, requester, Request::Jobs(None));
        let jobs = format!(": {} jobs", u8::from(sees));
        assert!(said[0].ends_with(&jobs), "{requester:?}: {said:?}");
    }
}

#[test]
fn a_report_on_an_attempt_of_another_changes_nothing() {
    let mut rig = grid();
    rig.attach(2, 1);
    let id = attempt(0, 1);
    rig.from(2, FromWorker::Started(id));
    rig.done(2, id);
    rig.fails(2, id);
    rig.reports(2, id, Outcome::Returned);
    let never = AttemptId { number: 9, ..id };
    rig.done(2, never);
    rig.done(3, id); // never attached
    let settled = format!("worker 2: settled {id}");
    let unknown = format!("worker 2: settled {never}");
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        &settled,
        &settled,
        &settled,
        &unknown,
    ]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.done, view.attempts.failed, view.running), (0, 0, 1));
}

#[test]
fn an_attempt_of_an_earlier_leader_is_taken_over_with_its_own_seal_alone() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(5, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 5 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    let [given] = rig.held([attempt(0, 1)])[..] else {
        panic!("one attempt")
    };
    let unsealed = HeldAttempt {
        seal: Seal::default(),
        ..given
    };
    let as_copy = HeldAttempt {
        redundant: true,
        ..given
    };
    let other = HeldAttempt {
        attempt: AttemptId {
            number: 2,
            ..given.attempt
        },
        ..given
    };
    for (number, held, taken) in [
        (1, given, true),
        (1, unsealed, false),
        (1, as_copy, false),
        (1, other, false),
        (2, given, false), // another worker's
    ] {
        let mut next = Rig::with(rig.core.state().clone(), &[]);
        let info = WorkerInfo {
            in_hand: vec![held],
            ..info(number, 1)
        };
        next.attach_with(number, info);
        let said = next.said();
        let cancel = format!("worker {number}: cancel {}", held.attempt);
        assert_eq!(!said.contains(&cancel), taken, "{held:?}: {said:?}");
        next.done(number, held.attempt);
        next.commit();
        let done = next.core.job_view(JobId(1)).expect("a job").done;
        assert_eq!(done == 1, taken, "{held:?}");
        let said = next.said();
        let recorded = said.iter().any(|line| line.starts_with("append done"));
        assert_eq!(recorded, taken, "{held:?}: {said:?}");
    }
}

#[test]
fn a_worker_that_was_shut_out_is_not_heard_any_more() {
    let mut rig = grid();
    rig.ask(1, Request::Revoke("host-1".into()));
    let records = rig.proposed();
    rig.expect(&["append ticket", "append revoked worker 1"]);
    for record in records {
        rig.committed(record);
    }
    let lost = format!("append lost {}", attempt(0, 1));
    let said = rig.said();
    assert!(said.contains(&"expel worker 1".to_owned()), "{said:?}");
    assert!(said.contains(&lost), "{said:?}");
    rig.commit();
    rig.expect(&[]);
    // What it had said before may still arrive; nobody takes it from the worker itself.
    rig.done(1, attempt(0, 1));
    rig.attach(1, 1);
    rig.done(1, attempt(0, 1));
    rig.event(Event::Joining {
        peer: worker(1),
        role: Role::Worker,
        ticket: Some(hash(61)),
    });
    rig.commit();
    rig.expect(&["admit worker 1: Some(Revoked)"]);
    assert_eq!(rig.core.job_view(JobId(1)).expect("a job").done, 0);
}

#[test]
fn a_worker_that_comes_later_hears_who_was_shut_out() {
    let mut rig = grid();
    rig.ask(1, Request::Revoke("host-1".into()));
    rig.commit();
    rig.expect(&[
        "append ticket",
        "append revoked worker 1",
        "append lost 1.0/0.1.1",
        "expel worker 1",
        "stop watching worker 1",
        "client 1 #99: Ok",
    ]);
    rig.attach(2, 1);
    let said = rig.said();
    let told = said.iter().filter(|line| line.contains("1 revoked"));
    assert_eq!(told.count(), 1, "{said:?}");
}

#[test]
fn a_result_that_was_on_its_way_when_its_worker_was_shut_out_is_not_taken() {
    let mut rig = grid();
    rig.attach(2, 1);
    rig.expect(&["measure worker 2: 131072 bytes", "watch worker 2: idle"]);
    rig.ask(1, Request::Revoke("host-1".into()));
    rig.done(1, attempt(0, 1));
    rig.commit();
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.done, view.state), (0, JobState::Running));
    // Its task runs elsewhere.
    let again = assigned(&rig.said());
    assert!(again.iter().any(|(worker, _)| *worker == 2), "{again:?}");
    let (_, next) = again[0];
    rig.done(2, next);
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.2 by worker 2",
        "append job 1 done",
        "worker 2: settled 1.0/0.1.2",
        "watch worker 2: idle",
        "worker 2: forget 1",
    ]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.done, view.state), (1, JobState::Done));
}

#[test]
fn who_is_shut_out_does_not_come_back_by_the_same_ticket() {
    let mut rig = grid();
    ticket(&mut rig, 90, Role::Worker, None, None);
    let joins = |rig: &mut Rig, number: u8| {
        rig.event(Event::Joining {
            peer: worker(number),
            role: Role::Worker,
            ticket: Some(hash(90)),
        });
        rig.commit();
        let said = rig.said();
        said.last().cloned().unwrap_or_default()
    };
    assert_eq!(joins(&mut rig, 3), "admit worker 3: None");
    assert_eq!(joins(&mut rig, 4), "admit worker 4: None");
    rig.ask(1, Request::Revoke(worker(3).to_string()));
    rig.commit();
    rig.expect(&[
        "append ticket",
        "append revoked worker 3",
        "expel worker 3",
        "client 1 #99: Ok",
    ]);
    assert_eq!(joins(&mut rig, 3), "admit worker 3: Some(Revoked)");
    assert_eq!(joins(&mut rig, 5), "admit worker 5: Some(Expired)");
    // Members stay members.
    assert_eq!(joins(&mut rig, 4), "admit worker 4: None");
}

#[test]
fn a_snapshot_keeps_by_which_ticket_members_joined() {
    let rig = grid();
    let mut bytes = Vec::new();
    rig.core.state().write(&mut bytes).expect("bytes");
    let state = hedge_core::supervisor::State::restore(&bytes).expect("a state");
    let mut next = Rig::with(state, &[]);
    next.ask(1, Request::Revoke(worker(2).to_string()));
    let said = next.said();
    assert!(said.contains(&"append ticket".to_owned()), "{said:?}");
}

#[test]
fn a_follower_lets_members_in_and_sends_others_to_the_leader() {
    let mut rig = grid();
    ticket(
        &mut rig,
        50,
        Role::Worker,
        Some(Duration::from_secs(60)),
        Some(1),
    );
    rig.ask(1, Request::Revoke(worker(2).to_string()));
    rig.commit();
    rig.expect(&[
        "append ticket",
        "append revoked worker 2",
        "expel worker 2",
        "client 1 #99: Ok",
    ]);
    let mut follower = Supervisor::new(Config::new(addr(worker(7))), rig.core.state().clone());
    let now = rig.now;
    let mut says = |number: u8, role: Role, secret: Option<u8>, after: u64| {
        let mut out = Effects::default();
        let event = Event::Joining {
            peer: worker(number),
            role,
            ticket: secret.map(hash),
        };
        follower.handle(now + Duration::from_secs(after), event, &mut out);
        lines(&out).join("; ")
    };
    let table = [
        (1, Role::Worker, None, 0, "None"),
        (8, Role::Supervisor, None, 0, "None"),
        (1, Role::Client, None, 0, "Some(WrongRole)"),
        (2, Role::Worker, Some(50), 0, "Some(Revoked)"),
        (4, Role::Worker, Some(50), 0, "Some(Redirected)"),
        (4, Role::Client, Some(50), 0, "Some(WrongRole)"),
        (4, Role::Worker, None, 0, "Some(NotLeading)"),
        (4, Role::Worker, Some(51), 0, "Some(NotLeading)"),
        (4, Role::Worker, Some(50), 61, "Some(Expired)"),
    ];
    for (number, role, secret, after, expected) in table {
        let said = says(number, role, secret, after);
        assert_eq!(said, format!("admit worker {number}: {expected}"));
    }
}
