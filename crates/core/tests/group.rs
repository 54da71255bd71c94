//! Several supervisors: assignments that a new leader waits for, content that more than one of them holds,
//! and leaders that hear late that another leads.

mod support;

use hedge_core::supervisor::{Action, Config, Effects, Event, FetchFailure, State, Supervisor};
use hedge_model::group::{FromLeader, LeaderSays, PeerSupervisor, ToLeader};
use hedge_model::msg::{HeldAttempt, Request, Role, WorkerInfo};
use hedge_model::record::{FORMAT_MAX, Record};
use hedge_model::spec::{Group, Qos, Redundancy, Unplaceable};
use hedge_model::{Data, Epoch, Hash, JobId, PeerId, Resources, Time};
use std::time::Duration;
use support::*;

/// The rig's own supervisor is 9.
fn group_of(numbers: &[u8]) -> Event {
    let peer_supervisor = |number: &u8| PeerSupervisor {
        addr: addr(worker(*number)),
        votes: true,
        format_max: FORMAT_MAX,
    };
    Event::Group(numbers.iter().map(peer_supervisor).collect())
}

fn linked(number: u8) -> Event {
    Event::Linked {
        peer: worker(number),
        role: Role::Supervisor,
    }
}

fn hears(number: u8, msg: ToLeader) -> Event {
    let peer = worker(number);
    Event::ToLeader { peer, msg }
}

/// A leader with two others that hold `held`.
fn leader(state: State, held: &[u8]) -> Rig {
    let mut rig = Rig::with(state, &[]);
    rig.event(group_of(&[9, 8, 7]));
    for number in [7, 8] {
        rig.event(linked(number));
        let holds = held.iter().map(|number| hash(*number)).collect();
        rig.event(hears(number, ToLeader::Holds(holds)));
    }
    rig
}

/// Another supervisor of the group with all that this rig's has committed, which follows.
struct Follower {
    core: Supervisor,
    now: Time,
}

impl Follower {
    fn of(rig: &Rig) -> Self {
        Self {
            core: Supervisor::new(Config::new(addr(worker(8))), rig.core.state().clone()),
            now: rig.now,
        }
    }

    fn handle(&mut self, event: Event) -> Vec<String> {
        let mut out = Effects::default();
        self.core.handle(self.now, event, &mut out);
        self.core.check().expect("an invariant is broken");
        lines(&out)
    }

    fn hears(&mut self, epoch: u64, what: LeaderSays) -> Vec<String> {
        let msg = FromLeader {
            epoch: Epoch(epoch),
            what,
        };
        let peer = worker(9);
        self.handle(Event::FromLeader { peer, msg })
    }

    fn applies(&mut self, record: Record) -> Vec<String> {
        let proposal = None;
        self.handle(Event::Committed { proposal, record })
    }

    /// It is elected, and the records of that are committed.
    fn leads(&mut self) -> Vec<String> {
        let mut out = Effects::default();
        let (holds, secret) = (Vec::new(), [3; 32]);
        self.core
            .handle(self.now, Event::Lead { holds, secret }, &mut out);
        let epoch = out.proposals.pop_back().expect("an epoch");
        self.handle(Event::Committed {
            proposal: Some(epoch.id),
            record: epoch.record,
        })
    }
}

/// What a leader said to supervisor `to`, as far as it was hints.
fn hints_to(rig: &mut Rig, to: u8) -> Vec<LeaderSays> {
    let actions = rig.actions();
    let hints = actions.into_iter().filter_map(|action| match action {
        Action::ToSupervisor { to: peer, msg } if peer == worker(to) => Some(msg.what),
        _ => None,
    });
    hints
        .filter(|what| matches!(what, LeaderSays::Hints(_)))
        .collect()
}

/// A leader that gave worker 1 the only task of a job, and what a follower heard of it.
fn hinted() -> (Rig, Follower, HeldAttempt) {
    hinted_with(group("a", &[]))
}

fn hinted_with(task: Group) -> (Rig, Follower, HeldAttempt) {
    let mut rig = leader(State::default(), &[]);
    let mut follower = Follower::of(&rig);
    rig.expect(&["worker 7: Lead", "worker 8: Lead"]);
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![task]));
    let [accepted] = &rig.proposed()[..] else {
        panic!("one record")
    };
    let accepted = accepted.clone();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
    ]);
    rig.committed(accepted.clone());
    let hints = hints_to(&mut rig, 8);
    assert_eq!(hints.len(), 1);
    // Hints come faster than records.
    for hint in hints {
        assert!(follower.hears(1, hint).is_empty());
    }
    follower.applies(accepted.1);
    let held = rig.held([attempt(0, 1)])[0];
    rig.expect(&[
"client 1 #1: accepted 1",
"worker 1: body a v1",
"worker 1: assign 1.0/0.1.1",
"worker 8: Hints([Hint { attempt: AttemptId { task: TaskId { job: JobId(1), number: 0 }, generation: 0, epoch: Epoch(1), number: 1 }, worker: 0101010101, redundant: false, class: Normal, since: Time(0), over: false }])",
"worker 7: Hints([Hint { attempt: AttemptId { task: TaskId { job: JobId(1), number: 0 }, generation: 0, epoch: Epoch(1), number: 1 }, worker: 0101010101, redundant: false, class: Normal, since: Time(0), over: false }])",
"watch worker 1: assigned",
]);
    (rig, follower, held)
}

#[test]
fn a_new_leader_waits_for_an_attempt_that_it_was_told_of() {
    let (_old, mut next, held) = hinted();
    assert_eq!(next.leads(), ["watch settings"]);
    let attach = |number, in_hand: &[HeldAttempt]| {
        let info = WorkerInfo {
            in_hand: in_hand.to_vec(),
            ..info(number, 1)
        };
        Event::FromWorker {
            peer: worker(number),
            msg: hedge_model::msg::FromWorker::Attach(Box::new(info)),
        }
    };
    let idle = ["measure worker 2: 131072 bytes", "watch worker 2: idle"];
    assert_eq!(next.handle(attach(2, &[])), idle, "not started again");
    let goes_on = ["measure worker 1: 131072 bytes", "watch worker 1: assigned"];
    assert_eq!(next.handle(attach(1, &[held])), goes_on);
    let view = next.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.running, view.attempts.total), (1, 1));
}

#[test]
fn what_never_reached_its_worker_starts_elsewhere_at_once() {
    let (_old, mut next, _) = hinted();
    next.leads();
    let said = next.handle(Event::FromWorker {
        peer: worker(1),
        msg: hedge_model::msg::FromWorker::Attach(Box::new(info(1, 1))),
    });
    let assigned = said.iter().filter(|line| line.contains(": assign "));
    assert_eq!(assigned.collect::<Vec<_>>(), ["worker 1: assign 1.0/0.2.1"]);
}

#[test]
fn what_a_worker_may_have_had_before_it_was_restarted_is_lost_if_it_may_run_once() {
    let (_old, mut next, _) = hinted_with(Group {
        once: true,
        ..group("a", &[])
    });
    next.leads();
    let said = next.handle(Event::FromWorker {
        peer: worker(1),
        msg: hedge_model::msg::FromWorker::Attach(Box::new(info(1, 1))),
    });
    assert_eq!(
        said,
        [
            "append lost 1.0/0.1.1",
            "measure worker 1: 131072 bytes",
            "watch worker 1: idle"
        ]
    );
}

#[test]
fn a_worker_that_does_not_come_is_given_up_after_its_time() {
    let (_old, mut next, _) = hinted();
    next.leads();
    next.handle(Event::FromWorker {
        peer: worker(2),
        msg: hedge_model::msg::FromWorker::Attach(Box::new(info(2, 1))),
    });
    let began = next.now;
    let patience = Config::new(addr(worker(8))).watch.dead_after();
    let mut said = Vec::new();
    while !said.iter().any(|line: &String| line.contains(": assign ")) {
        let at = next.core.next_deadline().expect("a deadline");
        assert!(at.since(began) <= patience, "it waits longer than it says");
        next.now = at;
        said.extend(next.handle(Event::Tick));
    }
    assert_eq!(next.now.since(began), patience);
    assert_eq!(said[0], format!("append lost {}", attempt(0, 1)));
    assert_eq!(
        said[said.len() - 2..],
        ["worker 2: assign 1.0/0.2.1", "watch worker 2: assigned"]
    );
}

#[test]
fn hints_of_an_older_leader_and_hints_that_are_over_count_for_nothing() {
    let (mut rig, mut next, _) = hinted();
    rig.reports(1, attempt(0, 1), hedge_model::msg::Outcome::Returned);
    let over = hints_to(&mut rig, 8);
    assert!(matches!(&over[..], [LeaderSays::Hints(hints), ..] if hints[0].over));
    rig.expect(&[
"worker 1: settled 1.0/0.1.1",
"worker 8: Hints([Hint { attempt: AttemptId { task: TaskId { job: JobId(1), number: 0 }, generation: 0, epoch: Epoch(1), number: 1 }, worker: 0101010101, redundant: false, class: Normal, since: Time(0), over: true }])",
"worker 7: Hints([Hint { attempt: AttemptId { task: TaskId { job: JobId(1), number: 0 }, generation: 0, epoch: Epoch(1), number: 1 }, worker: 0101010101, redundant: false, class: Normal, since: Time(0), over: true }])",
"worker 1: assign 1.0/0.1.2",
"worker 8: Hints([Hint { attempt: AttemptId { task: TaskId { job: JobId(1), number: 0 }, generation: 0, epoch: Epoch(1), number: 2 }, worker: 0101010101, redundant: false, class: Normal, since: Time(0), over: false }])",
"worker 7: Hints([Hint { attempt: AttemptId { task: TaskId { job: JobId(1), number: 0 }, generation: 0, epoch: Epoch(1), number: 2 }, worker: 0101010101, redundant: false, class: Normal, since: Time(0), over: false }])",
]);
    next.hears(1, over[0].clone());
    let epoch = Epoch(2);
    let (at, secret) = (next.now, [1; 32]);
    next.applies(Record::Epoch { epoch, at, secret });
    // This one is of the first epoch, and comes late.
    next.hears(1, over[1].clone());
    next.leads();
    let said = next.handle(Event::FromWorker {
        peer: worker(2),
        msg: hedge_model::msg::FromWorker::Attach(Box::new(info(2, 1))),
    });
    assert!(
        said.contains(&"worker 2: assign 1.0/0.3.1".to_owned()),
        "{said:?}"
    );
}

#[test]
fn a_new_leader_gives_workers_time_to_come_before_it_calls_a_job_impossible() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    let qos = Qos {
        redundancy: Redundancy::None,
        unplaceable: Unplaceable::Fail,
        ..Qos::default()
    };
    let big = Group {
        resources: Resources::cpus(4000),
        ..group("a", &[])
    };
    rig.submit(1, 1, &job(qos, 0, vec![big]));
    rig.commit();
    rig.pass(Duration::from_secs(1));
    rig.ask(
        1,
        Request::Set {
            name: "keep".into(),
            value: "2".into(),
        },
    );
    rig.commit(); // a second has passed by the journal too
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "append set keep = 2",
        "client 1 #99: Ok",
    ]);
    let mut next = Rig::with(rig.core.state().clone(), &[]);
    next.attach(2, 1);
    next.expect(&["measure worker 2: 131072 bytes", "watch worker 2: idle"]);
    next.pass_with_heartbeats(Duration::from_secs(4), &[2]);
    let said = next.said();
    assert!(
        said.iter().any(|line| line.contains("job 1 failed")),
        "nobody else came: {said:?}"
    );
}

fn reads(number: u8) -> Group {
    Group {
        stdin: Some(Data::Blob {
            hash: hash(number),
            size: 70_000,
        }),
        ..group("a", &[])
    }
}

/// An input has come from client 1.
fn fetched(rig: &mut Rig, number: u8) {
    let hash = hash(number);
    rig.event(Event::Fetched {
        hash,
        result: Ok(Some(client(1))),
    });
}

#[test]
fn a_job_is_accepted_once_two_supervisors_hold_its_inputs() {
    let mut rig = leader(State::default(), &[]);
    rig.expect(&["worker 7: Lead", "worker 8: Lead"]);
    rig.submit(1, 1, &plain(vec![reads(3)]));
    rig.expect(&["pull 3 from client 1"]);
    fetched(&mut rig, 3);
    let said = rig.said();
    assert!(
        matches!(&said[..], [line] if line.contains("Hold {")),
        "one other is to hold it: {said:?}"
    );
    let (first, second) = if said[0].starts_with("worker 7") {
        (7, 8)
    } else {
        (8, 7)
    };
    rig.event(hears(first, ToLeader::NotHeld(hash(3), "disk full".into())));
    let said = rig.said();
    assert!(
        said[0].starts_with(&format!("worker {second}: Hold")),
        "{said:?}"
    );
    rig.event(hears(second, ToLeader::Held(hash(3))));
    rig.expect(&["append accepted"]);
}

#[test]
fn an_input_that_went_with_a_supervisors_disk_meanwhile_is_held_again_before_its_job_is_accepted() {
    let mut rig = leader(State::default(), &[]);
    let other = Group {
        stdin: reads(4).stdin,
        ..group("b", &[])
    };
    rig.submit(1, 1, &plain(vec![reads(3), other]));
    rig.expect(&[
        "worker 7: Lead",
        "worker 8: Lead",
        "pull 3 from client 1",
        "pull 4 from client 1",
    ]);
    fetched(&mut rig, 3);
    let keeper = if rig.said()[0].starts_with("worker 7") {
        7
    } else {
        8
    };
    rig.event(hears(keeper, ToLeader::Held(hash(3))));
    rig.expect(&[]);
    // It comes back with an empty disk.
    rig.event(linked(keeper));
    rig.event(hears(keeper, ToLeader::Holds(Vec::new())));
    rig.expect(&[
"worker 7: Lead",
"worker 7: Hold { hash: 0303030303, size: 70000, sources: [PeerAddr { peer: 0909090909, addrs: [] }] }",
]);
    fetched(&mut rig, 4);
    for keeper in [7, 8] {
        rig.event(hears(keeper, ToLeader::Held(hash(4))));
    }
    let said = rig.said();
    let accepted = |said: &[String]| said.iter().any(|line| line.contains("append accepted"));
    assert!(!accepted(&said), "{said:?}");
    rig.event(hears(keeper, ToLeader::Held(hash(3))));
    assert!(accepted(&rig.said()));
}

#[test]
fn a_supervisor_that_is_dropping_an_input_is_asked_again_once_it_has() {
    let mut rig = leader(State::default(), &[]);
    rig.event(group_of(&[9, 7]));
    rig.submit(1, 1, &plain(vec![reads(3)]));
    rig.expect(&["worker 7: Lead", "worker 8: Lead", "pull 3 from client 1"]);
    fetched(&mut rig, 3);
    let hold = "worker 7: Hold { hash: 0303030303, size: 70000, sources: [PeerAddr { peer: 0909090909, addrs: [] }] }";
    rig.expect(&[hold]);
    rig.event(Event::Gone {
        peer: client(1),
        silent: false,
    });
    rig.expect(&["worker 7: Drop([0303030303])", "drop 3"]);
    rig.submit(1, 1, &plain(vec![reads(3)]));
    rig.expect(&["pull 3 from client 1"]);
    fetched(&mut rig, 3);
    rig.expect(&[]);
    // Its answer to the first request is late; it drops the input afterwards.
    rig.event(hears(7, ToLeader::Held(hash(3))));
    rig.event(hears(7, ToLeader::NotHeld(hash(3), "disk full".into())));
    rig.expect(&[]);
    rig.event(hears(7, ToLeader::Dropped(vec![hash(3)])));
    rig.expect(&[hold]);
    rig.event(hears(7, ToLeader::Held(hash(3))));
    rig.expect(&["append accepted"]);
}

#[test]
fn a_supervisor_that_joins_after_many_others_left_holds_content_too() {
    let mut rig = Rig::new();
    for number in 20..40 {
        rig.event(linked(number));
        // Said before it belonged to the group, this counts for nothing.
        rig.event(hears(number, ToLeader::Holds(Vec::new())));
        rig.expect(&[&format!("worker {number}: Lead")]);
        rig.event(group_of(&[9, number]));
        let said = rig.said();
        assert!(said.iter().any(|line| line.contains("Lead")), "{said:?}");
        rig.event(hears(number, ToLeader::Holds(Vec::new())));
    }
    rig.submit(1, 1, &plain(vec![reads(3)]));
    rig.expect(&["pull 3 from client 1"]);
    fetched(&mut rig, 3);
    let said = rig.said();
    assert!(
        matches!(&said[..], [line] if line.starts_with("worker 39: Hold {")),
        "{said:?}"
    );
    rig.event(hears(39, ToLeader::Held(hash(3))));
    rig.expect(&["append accepted"]);
}

#[test]
fn a_supervisor_alone_accepts_with_what_it_holds_itself() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![reads(3)]));
    rig.expect(&["pull 3 from client 1"]);
    fetched(&mut rig, 3);
    rig.expect(&["append accepted"]);
}

#[test]
fn a_new_leader_keeps_results_that_only_others_hold() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    let outputs = vec![blob("out", 5)];
    rig.reports(1, attempt(0, 1), hedge_model::msg::Outcome::Done(outputs));
    rig.commit();
    fetched(&mut rig, 5);
    rig.commit();
    let state = rig.core.state().clone();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "pull 5 from worker 1",
        "watch worker 1: idle",
        "append job 1 done",
        "worker 1: forget 1",
        "worker 1: drop 5",
    ]);
    let mut next = leader(state, &[5, 6]);
    let said = next.said();
    let drops = |number: u8| said.iter().any(|line| dropped(line, hash(number)));
    assert!(!drops(5), "the result is kept: {said:?}");
    assert!(drops(6), "what nobody needs is not: {said:?}");
    assert!(
        said.contains(&"pull 5 from worker 7".to_owned()),
        "{said:?}"
    );
}

fn dropped(line: &str, hash: Hash) -> bool {
    line.contains("Drop(") && line.contains(&format!("{hash:?}"))
}

#[test]
fn a_leader_that_hears_of_another_says_nothing_more_in_its_epoch() {
    let mut rig = leader(State::default(), &[]);
    rig.expect(&["worker 7: Lead", "worker 8: Lead"]);
    rig.event(Event::Committed {
        proposal: None,
        record: Record::Epoch {
            epoch: Epoch(2),
            at: rig.now,
            secret: [1; 32],
        },
    });
    assert!(!rig.core.is_live(), "the journal says that another leads");
    let mut rig = leader(State::default(), &[]);
    rig.expect(&["worker 7: Lead", "worker 8: Lead"]);
    rig.event(Event::FromLeader {
        peer: worker(7),
        msg: FromLeader {
            epoch: Epoch(2),
            what: LeaderSays::Lead,
        },
    });
    assert!(!rig.core.is_live(), "the other says so itself");
    rig.expect(&["worker 7: holdings"]);
}

#[test]
fn content_that_arrives_after_another_took_over_is_told_to_that_one() {
    let mut rig = leader(State::default(), &[]);
    rig.submit(1, 1, &plain(vec![reads(3)]));
    rig.expect(&["worker 7: Lead", "worker 8: Lead", "pull 3 from client 1"]);
    let peer: PeerId = worker(7);
    let says = |what| Event::FromLeader {
        peer,
        msg: FromLeader {
            epoch: Epoch(2),
            what,
        },
    };
    rig.event(says(LeaderSays::Lead));
    rig.expect(&[
"client 1 #1: no, NotLeading: this supervisor does not lead; ask the one that does, or again in a moment",
"worker 7: holdings",
]);
    fetched(&mut rig, 3);
    rig.expect(&[&format!("worker 7: {:?}", ToLeader::Held(hash(3)))]);
    rig.event(says(LeaderSays::Hold {
        hash: hash(4),
        size: 1,
        sources: vec![addr(peer)],
    }));
    rig.expect(&["pull 4 from worker 7"]);
    let why = "disk full".to_owned();
    rig.event(Event::Fetched {
        hash: hash(4),
        result: Err(FetchFailure::Here(why.clone())),
    });
    rig.expect(&[&format!("worker 7: {:?}", ToLeader::NotHeld(hash(4), why))]);
    rig.event(says(LeaderSays::Drop(vec![hash(3)])));
    rig.expect(&["drop 3", "worker 7: Dropped([0303030303])"]);
    rig.pass(Duration::from_secs(1));
}
