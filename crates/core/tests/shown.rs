//! What is shown of a job in each of its states, and why it waits.

mod support;

use hedge_core::supervisor::{Action, Effects, Event, State};
use hedge_model::msg::{FromWorker, Outcome, Reply, Report, Request, Usage};
use hedge_model::owner::{Activity, Cause, OwnerResponse, OwnerState};
use hedge_model::spec::{Group, MaxFailures, Need, Qos, Redundancy};
use hedge_model::view::{AttemptLine, ExplainView, JobState, JobView};
use hedge_model::{AttemptId, JobId, Resources};
use std::time::Duration;
use support::*;

fn view(rig: &Rig, job: u64) -> JobView {
    let view = rig.core.job_view(JobId(job)).expect("a job");
    let all = view.done + view.running + view.ready + view.waiting + view.failed + view.skipped;
    assert_eq!(all, view.tasks, "every task is in one state: {view:?}");
    view
}

fn answer(rig: &mut Rig, request: Request) -> Reply {
    let mut out = Effects::default();
    let event = Event::Request {
        requester: client(1).into(),
        request_id: 1,
        request,
        secret: None,
    };
    rig.core.handle(rig.now, event, &mut out);
    let answers = out.actions.into_iter().filter_map(|action| match action {
        Action::Answer { answer, .. } => Some(answer.reply),
        _ => None,
    });
    answers.last().expect("an answer")
}

fn explain(rig: &mut Rig, job: u64) -> ExplainView {
    match answer(rig, Request::Explain(JobId(job), None)) {
        Reply::Explain(view) => *view,
        other => panic!("{other:?}"),
    }
}

fn attempts(rig: &mut Rig, job: u64) -> Vec<AttemptLine> {
    let request = Request::Attempts {
        job: JobId(job),
        from: 0,
        since: Duration::ZERO,
    };
    match answer(rig, request) {
        Reply::Attempts(view) => view.attempts,
        other => panic!("{other:?}"),
    }
}

fn owner(change: u32, response: OwnerResponse) -> FromWorker {
    FromWorker::Owner(OwnerState {
        change,
        response,
        why: vec![Cause::Activity(Activity::Input)],
        away: Duration::ZERO,
    })
}

fn fails_after(rig: &mut Rig, number: u8, attempt: AttemptId, cpu: Duration) {
    let report = Report {
        attempt,
        outcome: Outcome::Ended(exited(1)),
        usage: Usage {
            running: cpu,
            cpu,
            ..Usage::default()
        },
        log: None,
    };
    rig.from(number, FromWorker::Ended(Box::new(report)));
    rig.commit();
}

/// A task for workers in room 12.
fn in_room() -> Group {
    Group {
        labels: vec![("room".into(), "12".into())],
        ..group("there", &[])
    }
}

/// A worker of one CPU in a room.
fn attach_in(rig: &mut Rig, number: u8, room: &str) {
    let mut able = info(number, 1);
    able.labels.push(("room".into(), room.into()));
    rig.attach_with(number, able);
}

#[test]
fn why_a_job_waits_is_told_at_every_step() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![in_room()]));
    rig.commit();
    rig.expect(&["append accepted", "client 1 #1: accepted 1"]);
    let waits = |rig: &Rig| {
        let view = view(rig, 1);
        assert_eq!(view.state, JobState::Waiting, "{view:?}");
        view.waits.join("; ")
    };
    let first = waits(&rig);
    assert!(first.starts_with("no worker is connected"), "{first}");
    rig.attach(1, 4);
    rig.expect(&["measure worker 1: 131072 bytes", "watch worker 1: idle"]);
    assert_eq!(
        waits(&rig),
        "task \"there\" needs a worker labelled room = \"12\", and none is; no worker has a label \"room\""
    );
    attach_in(&mut rig, 3, "13");
    rig.expect(&["measure worker 3: 131072 bytes", "watch worker 3: idle"]);
    let near = waits(&rig);
    assert!(near.ends_with("; did you mean \"13\"?"), "{near}");
    attach_in(&mut rig, 2, "12");
    let given = assigned(&rig.said());
    assert_eq!(given.len(), 1);
    assert_eq!(view(&rig, 1).state, JobState::Running);
}

#[test]
fn a_worker_in_use_by_its_owner_and_one_that_is_busy_are_told_apart() {
    let mut rig = Rig::new();
    attach_in(&mut rig, 2, "12");
    rig.from(2, owner(1, OwnerResponse::Pause));
    for key in [1, 2] {
        rig.submit(1, key, &plain(vec![in_room()]));
    }
    rig.commit();
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "append accepted",
        "append accepted",
        "client 1 #1: accepted 1",
        "client 1 #2: accepted 2",
    ]);
    assert_eq!(
        view(&rig, 1).waits,
        [
            "task there: the one worker that could run it takes no tasks now: 1 is in use by its owner"
        ]
    );
    rig.from(2, owner(2, OwnerResponse::Work));
    rig.expect(&[
        "worker 2: body there v1",
        "worker 2: assign 1.0/0.1.1",
        "watch worker 2: assigned",
    ]);
    assert_eq!(view(&rig, 1).waits, [""; 0]);
    let busy = view(&rig, 2).waits.join("; ");
    assert!(
        busy.contains("the one worker that could run it is busy"),
        "{busy}"
    );
}

#[test]
fn a_resource_that_no_worker_offers_is_named_with_the_nearest_that_one_does() {
    let mut rig = Rig::new();
    let mut offers = info(1, 4);
    offers.resources.memory = 8 << 30;
    offers.resources.named = vec![("gpus".into(), 1)];
    rig.attach_with(1, offers);
    rig.expect(&["measure worker 1: 131072 bytes", "watch worker 1: idle"]);
    let wants = |name: &str, amount| Group {
        resources: Resources {
            named: vec![(name.into(), amount)],
            ..Resources::cpus(1000)
        },
        ..group("t", &[])
    };
    for (key, group, why) in [
        (
            1,
            wants("gpu", 1),
            "asks for gpu 1, and no worker offers \"gpu\"; did you mean \"gpus\"?",
        ),
        (
            2,
            wants("gpus", 2),
            "asks for gpus 2, and the most that any worker has is 1",
        ),
        (
            3,
            wants("licence", 1),
            "asks for licence 1, and no worker offers \"licence\"",
        ),
    ] {
        rig.submit(1, key, &plain(vec![group]));
        rig.commit();
        let accepted = format!("client 1 #{key}: accepted {key}");
        rig.expect(&["append accepted", &accepted]);
        let waits = view(&rig, u64::from(key)).waits;
        assert_eq!(waits, [format!("task \"t\" {why}")]);
    }
    // Each of two workers has a part of what is asked for.
    let mut other = info(2, 64);
    other.resources.memory = 1 << 30;
    rig.attach_with(2, other);
    let both = Group {
        resources: Resources {
            memory: 8 << 30,
            ..Resources::cpus(64_000)
        },
        ..group("t", &[])
    };
    rig.submit(1, 4, &plain(vec![both]));
    rig.commit();
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "append accepted",
        "client 1 #4: accepted 4",
    ]);
    assert_eq!(
        view(&rig, 4).waits,
        ["no worker alone has all that task \"t\" asks for: cpus 64, memory 8 GiB"]
    );
}

#[test]
fn a_job_that_failed_says_which_tasks_failed_and_counts_their_cpu_time() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let bad = Group {
        retries: 0,
        ..group("bad", &[])
    };
    let strict = Qos {
        max_failures: Some(MaxFailures::Count(0)),
        ..plain(vec![group("a", &[])]).qos().clone()
    };
    rig.submit(
        1,
        1,
        &job(
            strict,
            0,
            vec![group("good", &[]), bad, group("after", &["bad"])],
        ),
    );
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body bad v1",
        "worker 1: assign 1.1/0.1.1",
        "worker 1: body good v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    fails_after(&mut rig, 1, attempt(1, 1), Duration::from_millis(300));
    rig.commit();
    rig.expect(&[
        "append failed 1.1/0.1.1: it ended with exit code 1",
        "append task 1.1 failed",
        "worker 1: settled 1.1/0.1.1",
        "append job 1 failed: task bad failed: it ended with exit code 1",
        "worker 1: cancel 1.0/0.1.1",
        "worker 1: forget 1",
    ]);
    let shown = view(&rig, 1);
    assert_eq!(shown.state, JobState::Failed, "{shown:?}");
    assert_eq!(
        (shown.done, shown.failed, shown.skipped),
        (0, 1, 2),
        "{shown:?}"
    );
    assert_eq!(shown.cpu_ms, 300.0);
    let explained = explain(&mut rig, 1);
    let states: Vec<_> = explained
        .tasks
        .iter()
        .map(|task| (&*task.task, &*task.state))
        .collect();
    assert_eq!(
        states,
        [("bad", "failed"), ("good", "skipped"), ("after", "skipped")]
    );
    assert_eq!(explained.tasks[0].why, "it ended with exit code 1");
}

#[test]
fn a_completion_threshold_a_missed_deadline_and_an_exceeded_budget_are_shown() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let qos = Qos {
        redundancy: Redundancy::None,
        need: Need::Count(1),
        finish_by: Some(Duration::from_secs(5)),
        budget: Some(1),
        ..Qos::default()
    };
    rig.submit(1, 1, &job(qos, 0, vec![array(3, group("a", &[]))]));
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
    let shown = view(&rig, 1);
    assert_eq!((shown.needed, shown.running, shown.ready), (1, 2, 1));
    assert!(!shown.deadline.expect("a deadline").missed);
    rig.pass_with_heartbeats(Duration::from_secs(9), &[1]);
    rig.expect(&[]);
    let explained = explain(&mut rig, 1);
    let shown = view(&rig, 1);
    assert!(shown.deadline.expect("a deadline").missed, "{shown:?}");
    assert!(shown.budget.expect("a budget").exceeded, "{shown:?}");
    let running = explained.tasks[0].attempts[0].clone();
    rig.from(1, FromWorker::Started(attempt(0, 1)));
    rig.expect(&[]);
    assert_eq!((&*running.state, running.running_ms), ("assigned", None));
    let running = explain(&mut rig, 1).tasks[0].attempts[0].clone();
    assert!(
        running.running_ms.is_some_and(|ms| ms >= 9000.0),
        "{running:?}"
    );
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: cancel 1.1/0.1.1",
        "worker 1: forget 1",
    ]);
    let shown = view(&rig, 1);
    assert_eq!(
        (shown.state, shown.done, shown.skipped),
        (JobState::Done, 1, 2),
        "{shown:?}"
    );
    assert!(shown.deadline.expect("a deadline").missed, "{shown:?}");
    assert!(shown.budget.expect("a budget").exceeded, "{shown:?}");
}

#[test]
fn a_job_that_was_cancelled_waits_for_nothing() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(
        1,
        1,
        &plain(vec![array(3, group("a", &[])), group("b", &["a"])]),
    );
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
    let shown = view(&rig, 1);
    assert_eq!(
        (shown.state, shown.running, shown.ready, shown.waiting),
        (JobState::Running, 1, 2, 1)
    );
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.commit();
    rig.expect(&[
        "append job 1 cancelled",
        "worker 1: cancel 1.0/0.1.1",
        "worker 1: forget 1",
        "client 1 #99: Ok",
    ]);
    let shown = view(&rig, 1);
    assert_eq!(
        (shown.state, shown.running, shown.skipped),
        (JobState::Cancelled, 0, 4),
        "{shown:?}"
    );
    let explained = explain(&mut rig, 1);
    let why = &explained.tasks[0].why;
    assert_eq!(why, "the job was cancelled before it was done");
}

#[test]
fn a_new_leader_knows_from_a_snapshot_when_attempts_ran() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let once = Group {
        retries: 0,
        ..group("bad", &[])
    };
    rig.submit(1, 1, &plain(vec![group("good", &[]), once]));
    rig.commit();
    rig.skip("both are assigned");
    let mut spans = Vec::new();
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1]);
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.pass_with_heartbeats(Duration::from_secs(1), &[1]);
    rig.fails(1, attempt(1, 1));
    rig.commit();
    rig.skip("both have ended");
    let mut bytes = Vec::new();
    rig.core.state().write(&mut bytes).unwrap();
    let mut next = Rig::with(State::restore(&bytes).unwrap(), &[]);
    for rig in [&mut rig, &mut next] {
        let attempts = attempts(rig, 1).into_iter();
        let attempts = attempts.map(|one| (one.task, one.state, one.start_ms, one.end_ms));
        spans.push(attempts.collect::<Vec<_>>());
    }
    let line = |task: &str, state: &str, start, end| {
        let known = (task.to_owned(), state.to_owned());
        (known.0, known.1, Some(start), Some(end))
    };
    let expected = [
        line("good", "won", 1000.0, 2000.0),
        line("bad", "failed", 2000.0, 3000.0),
    ];
    assert_eq!(spans[0], expected);
    assert_eq!(spans[1], expected, "after the snapshot");
}
