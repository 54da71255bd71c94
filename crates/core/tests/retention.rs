//! What ended jobs cost, how long they are kept, and what a supervisor without a disk does.

mod support;

use hedge_core::supervisor::{Event, FetchFailure, State};
use hedge_model::capacity::Class;
use hedge_model::group::{FromLeader, LeaderSays};
use hedge_model::msg::{JOBS_MAX, Outcome, Reply, Request, Usage};
use hedge_model::record::{JobEnd, Record};
use hedge_model::spec::Group;
use hedge_model::{AttemptId, Epoch, JobId, JobSpec, SubmitKey, TaskId, Time};
use std::sync::Arc;
use std::time::Duration;
use support::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const START: Time = Time(1_000_000_000_000);

/// A grid that has had one leader.
fn led_once() -> State {
    let mut state = State::default();
    let (epoch, secret) = (Epoch(1), [7; 32]);
    let at = START;
    state.apply(&Record::Epoch { epoch, at, secret });
    state
}

/// Records that a job of this specification is accepted and done at `at`, with a result of 1 MiB.
fn done_at(state: &mut State, number: u64, spec: &Arc<JobSpec>, at: Time) {
    let mut key = SubmitKey([0; 16]);
    key.0[..8].copy_from_slice(&number.to_le_bytes());
    let records = [
        Record::JobAccepted {
            key,
            client: client(1),
            spec: spec.clone(),
            at,
        },
        Record::TaskDone {
            attempt: AttemptId {
                task: TaskId {
                    job: JobId(number),
                    number: 0,
                },
                generation: 0,
                epoch: Epoch(1),
                number: 1,
            },
            redundant: false,
            worker: worker(1),
            outputs: [blob("out", number as u8)].into(),
            usage: Usage::default(),
            class: Class::Normal,
            stopped: Vec::new(),
            log: None,
            at,
        },
        Record::JobEnded {
            job: JobId(number),
            end: JobEnd::Done,
            stopped: Vec::new(),
            at,
        },
    ];
    for record in &records {
        state.apply(record);
    }
}

fn forgotten(rig: &mut Rig) -> Vec<String> {
    rig.commit();
    let mut said = rig.said();
    said.retain(|line| line.contains("forgotten"));
    said
}

#[test]
fn ended_jobs_are_removed_by_age_as_a_leader_sees_it_pass_and_not_by_a_jump_of_the_clock() {
    let mut state = led_once();
    done_at(&mut state, 1, &plain(vec![group("a", &[])]), START);
    // The next leader's clock is 40 days ahead.
    let (epoch, secret) = (Epoch(2), [7; 32]);
    let at = START + 40 * DAY;
    state.apply(&Record::Epoch { epoch, at, secret });
    let mut rig = Rig::with(state, &[]);
    rig.pass(29 * DAY);
    assert_eq!(forgotten(&mut rig), Vec::<String>::new());
    // Another restart, by a clock that is right again, and far behind what is recorded.
    let mut bytes = Vec::new();
    rig.core.state().write(&mut bytes).unwrap();
    let mut rig = Rig::with(State::restore(&bytes).unwrap(), &[]);
    rig.pass(29 * DAY);
    assert_eq!(forgotten(&mut rig), Vec::<String>::new());
    rig.pass(2 * DAY);
    assert_eq!(forgotten(&mut rig), ["append job 1 forgotten"]);
    rig.pass(DAY);
    rig.expect(&[]);
}

#[test]
fn ended_jobs_beyond_the_size_that_is_kept_are_removed_the_oldest_first_and_never_the_last() {
    let mut state = led_once();
    for number in 1..=4 {
        done_at(&mut state, number, &plain(vec![group("a", &[])]), START);
    }
    for (name, value) in [
        ("keep_jobs_bytes", "2200 KiB"),
        ("keep_jobs_for", "100 days"),
    ] {
        state.apply(&Record::Set {
            name: name.into(),
            value: value.into(),
            at: START,
        });
    }
    let mut rig = Rig::with(state, &[]);
    rig.pass(Duration::from_secs(590));
    assert_eq!(
        forgotten(&mut rig),
        Vec::<String>::new(),
        "clients may still fetch"
    );
    rig.pass(Duration::from_secs(20));
    assert_eq!(
        forgotten(&mut rig),
        ["append job 1 forgotten", "append job 2 forgotten"]
    );
    let set = |name: &str| Request::Set {
        name: name.into(),
        value: "1 B".into(),
    };
    rig.ask(1, set("keep_jobs_memory"));
    rig.commit();
    rig.pass(Duration::from_secs(20));
    assert_eq!(forgotten(&mut rig), ["append job 3 forgotten"]);
    rig.pass(20 * DAY);
    assert_eq!(forgotten(&mut rig), Vec::<String>::new());
}

#[test]
fn of_an_ended_job_only_the_outline_is_kept() {
    let text = "x".repeat(100_000);
    let env = (0..75).map(|at| (format!("TEXT_{at}").into(), text.as_str().into()));
    let long = Group {
        env: env.collect(),
        ..group("long", &[])
    };
    let (job, at) = (plain(vec![long, reader("next", &["long"])]), START);
    let mut state = State::default();
    let snapshot = |state: &State| {
        let mut bytes = Vec::new();
        state.write(&mut bytes).unwrap();
        bytes
    };
    for number in 1..=20u64 {
        state.apply(&Record::JobAccepted {
            key: SubmitKey([number as u8; 16]),
            client: client(1),
            spec: job.clone(),
            at,
        });
    }
    assert!(snapshot(&state).len() > 20 * 7_500_000);
    for number in 1..=20 {
        state.apply(&Record::JobEnded {
            job: JobId(number),
            end: JobEnd::Cancelled,
            stopped: Vec::new(),
            at,
        });
    }
    let bytes = snapshot(&state);
    assert!(bytes.len() < 20 * 1000, "{}", bytes.len());
    let mut rig = Rig::with(State::restore(&bytes).unwrap(), &[]);
    rig.ask(1, Request::Explain(JobId(7), Some("next".into())));
    let explained = format!("{:?}", rig.actions());
    assert!(explained.contains("task: \"next\""), "{explained}");
    rig.expect(&["client 1 #99: explains job 7"]);
}

#[test]
fn a_job_too_large_for_messages_and_one_beyond_a_clients_share_of_memory_are_refused() {
    let mut rig = Rig::new();
    let mut long = group("long", &[]);
    long.command.push("x".repeat(20 << 20).into());
    rig.submit(1, 1, &plain(vec![long]));
    let said = rig.said();
    assert!(
        said[0].starts_with("client 1 #1: no, Bad: this argument is 20971520 bytes long"),
        "{said:?}"
    );
    let set = Request::Set {
        name: "client_spec_bytes".into(),
        value: "1 KiB".into(),
    };
    rig.ask(1, set);
    rig.commit();
    rig.expect(&["append set client_spec_bytes = 1 KiB", "client 1 #99: Ok"]);
    let words = |count: usize| {
        let mut group = group("words", &[]);
        group.command.push("x".repeat(count).into());
        plain(vec![group])
    };
    rig.submit(1, 2, &words(600));
    rig.commit();
    rig.expect(&["append accepted", "client 1 #2: accepted 1"]);
    rig.submit(1, 3, &words(600));
    let said = rig.said();
    assert!(
        said[0].contains("bytes of job descriptions at once"),
        "{said:?}"
    );
}

#[test]
fn all_jobs_are_listed_in_parts_that_fit_into_messages() {
    let mut state = led_once();
    let spec = plain(vec![group("a", &[])]);
    let count = JOBS_MAX as u64 + 5;
    for number in 1..=count {
        done_at(&mut state, number, &spec, START);
    }
    let mut rig = Rig::with(state, &[]);
    let mut list = |after: Option<u64>| {
        rig.ask(1, Request::Jobs(after.map(JobId)));
        let actions = rig.actions();
        let jobs = actions.into_iter().find_map(|action| match action {
            hedge_core::supervisor::Action::Answer { answer, .. } => match answer.reply {
                Reply::Jobs(jobs) => Some(jobs),
                _ => None,
            },
            _ => None,
        });
        let jobs = jobs.expect("a list");
        rig.expect(&[&format!("client 1 #99: {} jobs", jobs.len())]);
        jobs.iter().map(|job| job.id.0).collect::<Vec<_>>()
    };
    assert_eq!(list(None), (1..=JOBS_MAX as u64).collect::<Vec<_>>());
    let rest: Vec<u64> = (JOBS_MAX as u64 + 1..=count).collect();
    assert_eq!(list(Some(JOBS_MAX as u64)), rest);
    assert_eq!(list(Some(count)), Vec::<u64>::new());
}

#[test]
fn a_leader_without_a_disk_refuses_jobs_and_says_what_those_that_run_wait_for() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let out = Group {
        outputs: vec!["out".into()],
        ..group("a", &[])
    };
    rig.submit(1, 1, &plain(vec![out]));
    rig.commit();
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 50)]));
    rig.commit();
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
        "pull 50 from worker 1",
        "watch worker 1: idle",
    ]);
    rig.event(Event::Disk(Some("the disk has 1 MiB free".into())));
    rig.submit(2, 2, &plain(vec![group("b", &[])]));
    let said = rig.said();
    assert!(
        said[0].starts_with(
            "client 2 #2: no, Busy: the supervisor that leads cannot keep a job: the disk has 1 MiB"
        ),
        "{said:?}"
    );
    let shown = |rig: &mut Rig| {
        rig.ask(1, Request::Job(JobId(1)));
        let waits = rig.told_views().pop().unwrap().waits;
        rig.expect(&["client 1 #99: job 1 Waiting 1/1"]);
        waits.concat()
    };
    assert!(shown(&mut rig).contains("1 of its results cannot be stored yet"));
    rig.event(Event::Disk(None));
    assert_eq!(shown(&mut rig), "supervisors fetch its results");
    // A disk that refuses the content itself is told of, too.
    for _ in 0..5 {
        let why = FetchFailure::Here("no space left on the disk".into());
        rig.event(Event::Fetched {
            hash: hash(50),
            result: Err(why),
        });
        rig.pass_with_heartbeats(Duration::from_secs(4), &[1]);
    }
    rig.expect(&[
        "pull 50 from worker 1",
        "pull 50 from worker 1",
        "pull 50 from worker 1",
        "worker 1: benchmark",
        "pull 50 from worker 1",
        "pull 50 from worker 1",
        "worker 1: benchmark",
    ]);
    assert!(shown(&mut rig).contains("no space left on the disk"));
}

#[test]
fn a_follower_without_a_disk_tells_the_leader() {
    let mut rig = Rig::new();
    rig.event(Event::Deposed);
    rig.expect(&[]);
    rig.event(Event::Disk(Some("full".into())));
    rig.expect(&[]);
    let lead = FromLeader {
        epoch: Epoch(9),
        what: LeaderSays::Lead,
    };
    rig.event(Event::FromLeader {
        peer: worker(2),
        msg: lead,
    });
    rig.expect(&["worker 2: holdings", "worker 2: Disk(Some(\"full\"))"]);
    rig.event(Event::Disk(None));
    rig.expect(&["worker 2: Disk(None)"]);
}
