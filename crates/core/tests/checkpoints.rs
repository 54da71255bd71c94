//! Checkpoints: recorded once supervisors hold them, given to the next attempt, and dropped when nobody needs them.

mod support;

use hedge_core::supervisor::{Action, Event, FetchFailure, State};
use hedge_model::msg::{CheckpointReport, FromWorker, Outcome, Request, ToWorker};
use hedge_model::owner::{Activity, Cause, OwnerResponse, OwnerState};
use hedge_model::spec::{CheckpointRule, Group};
use hedge_model::view::TaskView;
use hedge_model::{
    AttemptId, Checkpoint, CheckpointId, Data, Ending, Epoch, FileEntry, Hash, JobId, JobSpec,
};
use std::sync::Arc;
use std::time::Duration;
use support::*;

/// A job of one task with a checkpoint.
fn saving(retries: u32) -> Arc<JobSpec> {
    plain(vec![Group {
        checkpoint: Some(Arc::new(CheckpointRule::of(&["state"]))),
        retries,
        ..group("a", &[])
    }])
}

fn saved(attempt: AttemptId, number: u32, data: Data) -> CheckpointReport {
    let id = CheckpointId { attempt, number };
    let checkpoint = Checkpoint {
        id,
        files: vec![FileEntry {
            path: "state".into(),
            executable: false,
            data,
        }],
        permille: Some(250),
    };
    CheckpointReport {
        id,
        saved: Ok(Arc::new(checkpoint)),
        age: Duration::from_secs(2),
    }
}

fn content(number: u8) -> Data {
    blob("state", number).data
}

/// A worker saved this blob.
fn saves(rig: &mut Rig, worker: u8, attempt: AttemptId, number: u32, content_of: u8) {
    let report = saved(attempt, number, content(content_of));
    rig.from(worker, FromWorker::Checkpoint(Box::new(report)));
}

fn arrives(rig: &mut Rig, number: u8) {
    let (hash, result) = (hash(number), Ok(None));
    rig.event(Event::Fetched { hash, result });
}

/// Attempts that were given to workers since the last look, with the blobs of the checkpoint that each goes on from.
fn given(rig: &mut Rig) -> Vec<(AttemptId, Vec<Hash>)> {
    let orders = rig.actions().into_iter().filter_map(|action| match action {
        Action::SendAssignment { order, .. } => Some(order.order),
        Action::Send {
            msg: ToWorker::Assign(order),
            ..
        } => Some(order),
        _ => None,
    });
    let blobs = |files: &[FileEntry]| files.iter().filter_map(|file| file.data.hash()).collect();
    orders
        .map(|order| (order.attempt, blobs(order.checkpoint())))
        .collect()
}

/// Worker 1 runs the only task of job 1, and worker 2 is free.
fn running(retries: u32) -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &saving(retries));
    rig.commit();
    rig.from(1, FromWorker::Started(attempt(0, 1)));
    rig.attach(2, 1);
    rig.skip("how a job begins");
    rig
}

fn task(rig: &mut Rig) -> TaskView {
    rig.ask(1, Request::Explain(JobId(1), Some("a".into())));
    let answers = rig.actions().into_iter().filter_map(|action| match action {
        Action::Answer { answer, .. } => match answer.reply {
            hedge_model::msg::Reply::Explain(view) => Some(view.tasks[0].clone()),
            _ => None,
        },
        _ => None,
    });
    let view = answers.last().expect("an explanation");
    rig.skip("the explanation");
    view
}

#[test]
fn a_checkpoint_is_recorded_once_it_is_held_and_the_next_attempt_goes_on_from_it() {
    let mut rig = running(2);
    rig.pass_with_heartbeats(Duration::from_secs(3), &[1, 2]);
    rig.skip("three seconds");
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    rig.commit();
    rig.expect(&["pull 50 from worker 1"]);
    arrives(&mut rig, 50);
    rig.commit();
    rig.expect(&["append checkpoint 1 of 1.0/0.1.1"]);
    rig.pass_with_heartbeats(Duration::from_secs(1), &[1, 2]);
    rig.skip("a second");
    let seen = task(&mut rig).checkpoint.expect("a checkpoint");
    assert_eq!((seen.age_ms, seen.bytes), (3000.0, 1 << 20));
    assert_eq!(seen.share, Some(0.25));
    rig.gone(1);
    assert_eq!(given(&mut rig), [(attempt(0, 2), vec![hash(50)])]);
    rig.skip("the loss of a worker");
}

#[test]
fn a_newer_checkpoint_replaces_the_one_before_and_the_end_of_the_task_drops_it() {
    let mut rig = running(2);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    arrives(&mut rig, 50);
    rig.commit();
    rig.skip("the first");
    saves(&mut rig, 1, attempt(0, 1), 2, 51);
    rig.commit();
    rig.expect(&["pull 51 from worker 1"]);
    // Of those that come meanwhile the newest waits.
    saves(&mut rig, 1, attempt(0, 1), 3, 52);
    saves(&mut rig, 1, attempt(0, 1), 4, 53);
    rig.expect(&["worker 1: drop 52"]);
    arrives(&mut rig, 51);
    rig.commit();
    rig.expect(&[
        "append checkpoint 2 of 1.0/0.1.1",
        "worker 1: drop 50",
        "drop 50",
        "pull 53 from worker 1",
    ]);
    rig.done(1, attempt(0, 1));
    rig.commit();
    let said = rig.said();
    for dropped in ["worker 1: drop 51", "drop 51", "worker 1: drop 53"] {
        assert!(said.contains(&dropped.to_owned()), "{dropped}: {said:?}");
    }
    // What was on its way is not kept when it comes.
    arrives(&mut rig, 53);
    rig.expect(&["drop 53"]);
}

#[test]
fn the_end_of_an_attempt_waits_for_its_last_checkpoint() {
    let mut rig = running(2);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    let vacated = Outcome::Ended(Ending::Vacated);
    rig.reports(1, attempt(0, 1), vacated);
    rig.commit();
    rig.expect(&["pull 50 from worker 1"]);
    arrives(&mut rig, 50);
    rig.proposed()
        .into_iter()
        .for_each(|one| rig.committed(one));
    rig.proposed()
        .into_iter()
        .for_each(|one| rig.committed(one));
    assert_eq!(given(&mut rig), [(attempt(0, 2), vec![hash(50)])]);
    let said = rig.said();
    let records: Vec<&String> = said
        .iter()
        .filter(|line| line.starts_with("append"))
        .collect();
    assert_eq!(
        records,
        [
            "append checkpoint 1 of 1.0/0.1.1",
            "append vacated 1.0/0.1.1"
        ]
    );
}

#[test]
fn an_end_does_not_wait_for_a_checkpoint_that_nobody_gives() {
    let mut rig = running(2);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    rig.reports(1, attempt(0, 1), Outcome::Ended(Ending::Vacated));
    rig.expect(&["pull 50 from worker 1"]);
    for _ in 0..5 {
        let result = Err(FetchFailure::Sources("nobody gave it".into()));
        let hash = hash(50);
        rig.event(Event::Fetched { hash, result });
        rig.pass_with_heartbeats(Duration::from_secs(4), &[1, 2]);
    }
    rig.commit();
    let said = rig.said();
    assert!(
        said.contains(&"append vacated 1.0/0.1.1".to_owned()),
        "{said:?}"
    );
    assert!(
        !said.iter().any(|line| line.contains("append checkpoint")),
        "{said:?}"
    );
    let again = |line: &String| line.ends_with(": assign 1.0/0.1.2");
    assert!(said.iter().any(again), "{said:?}");
}

#[test]
fn an_end_waits_a_minute_at_most() {
    let mut rig = running(2);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    rig.reports(1, attempt(0, 1), Outcome::Ended(Ending::Vacated));
    rig.pass_with_heartbeats(Duration::from_secs(59), &[1, 2]);
    rig.expect_without(&["benchmark"], &["pull 50 from worker 1"]);
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1, 2]);
    let said = rig.said();
    assert!(
        said.contains(&"append vacated 1.0/0.1.1".to_owned()),
        "{said:?}"
    );
    // It still counts when it comes.
    arrives(&mut rig, 50);
    let said = rig.said();
    assert!(
        said.contains(&"append checkpoint 1 of 1.0/0.1.1".to_owned()),
        "{said:?}"
    );
    rig.commit();
    rig.skip("what follows");
}

#[test]
fn an_attempt_that_fails_without_getting_on_is_the_last_to_use_its_checkpoint() {
    let mut rig = running(5);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    arrives(&mut rig, 50);
    rig.commit();
    // The attempt that made it failed behind it.
    rig.fails(1, attempt(0, 1));
    rig.proposed()
        .into_iter()
        .for_each(|one| rig.committed(one));
    assert_eq!(given(&mut rig), [(attempt(0, 2), vec![hash(50)])]);
    rig.skip("the second attempt");
    rig.fails(2, attempt(0, 2));
    rig.proposed()
        .into_iter()
        .for_each(|one| rig.committed(one));
    assert_eq!(given(&mut rig), [(attempt(0, 3), vec![])]);
    let said = rig.said();
    assert!(said.contains(&"drop 50".to_owned()), "{said:?}");
    assert_eq!(task(&mut rig).checkpoint, None);
}

#[test]
fn what_its_owner_stops_is_copied_and_what_it_gives_up_goes_on_from_its_last_checkpoint() {
    for (response, copied) in [(OwnerResponse::Pause, true), (OwnerResponse::Vacate, false)] {
        let mut rig = running(2);
        let state = OwnerState {
            change: 1,
            response,
            why: vec![Cause::Activity(Activity::Keyboard)],
            away: Duration::ZERO,
        };
        rig.from(1, FromWorker::Owner(state));
        assert_eq!(given(&mut rig).len(), usize::from(copied), "{response:?}");
        rig.skip("what was looked at");
    }
    let mut rig = running(2);
    rig.from(1, FromWorker::Draining);
    assert_eq!(given(&mut rig), [], "a drain moves it too");
    rig.skip("the drain");
}

/// Worker 1 and worker 2 run the only task of job 1.
fn running_twice(retries: u32) -> Rig {
    let mut rig = running(retries);
    let state = OwnerState {
        change: 1,
        response: OwnerResponse::Pause,
        why: vec![Cause::Activity(Activity::Keyboard)],
        away: Duration::ZERO,
    };
    rig.from(1, FromWorker::Owner(state));
    rig.from(2, FromWorker::Started(attempt(0, 2)));
    rig.skip("a copy");
    rig
}

/// A worker saved this blob at a progress of `permille` thousandths.
fn saves_at(rig: &mut Rig, (worker, attempt_number, of, permille): (u8, u32, u8, u16), nth: u32) {
    let mut report = saved(attempt(0, attempt_number), nth, content(of));
    if let Ok(saved) = &mut report.saved {
        Arc::make_mut(saved).permille = Some(permille);
    }
    rig.from(worker, FromWorker::Checkpoint(Box::new(report)));
}

#[test]
fn the_ends_of_two_attempts_wait_for_the_last_checkpoint_of_each() {
    let mut rig = running_twice(5);
    let crash = || {
        Outcome::Ended(Ending::Exited {
            status: 1,
            said: "".into(),
        })
    };
    saves_at(&mut rig, (1, 1, 50, 250), 1);
    rig.reports(1, attempt(0, 1), crash());
    saves_at(&mut rig, (2, 2, 51, 500), 1);
    rig.reports(2, attempt(0, 2), crash());
    // A worker repeats what is not settled.
    rig.reports(1, attempt(0, 1), crash());
    rig.expect(&["pull 50 from worker 1"]);
    arrives(&mut rig, 50);
    let records = |rig: &mut Rig| -> Vec<String> {
        for _ in 0..2 {
            let proposed = rig.proposed();
            proposed.into_iter().for_each(|one| rig.committed(one));
        }
        let said = rig.said().into_iter();
        said.filter(|line| line.starts_with("append")).collect()
    };
    assert_eq!(
        records(&mut rig),
        [
            "append checkpoint 1 of 1.0/0.1.1",
            "append failed 1.0/0.1.1: it ended with exit code 1"
        ]
    );
    arrives(&mut rig, 51);
    assert_eq!(
        records(&mut rig),
        [
            "append checkpoint 1 of 1.0/0.1.2",
            "append failed 1.0/0.1.2: it ended with exit code 1"
        ]
    );
}

#[test]
fn of_two_attempts_the_one_that_is_further_supplies_the_checkpoint() {
    let mut rig = running_twice(2);
    let both = [(1, 1, 50, 250), (2, 2, 51, 500), (1, 1, 52, 300)];
    for (nth, (worker, attempt_number, of, permille)) in (1..).zip(both) {
        saves_at(&mut rig, (worker, attempt_number, of, permille), nth);
        rig.commit();
        arrives(&mut rig, of);
        rig.commit();
        rig.skip("a checkpoint");
    }
    let seen = task(&mut rig).checkpoint.expect("a checkpoint");
    assert_eq!(seen.share, Some(0.5), "less is no use");
}

#[test]
fn a_new_leader_goes_on_from_what_is_recorded() {
    let mut rig = running(2);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    arrives(&mut rig, 50);
    rig.commit();
    rig.skip("the checkpoint");
    let mut bytes = Vec::new();
    rig.core.state().write(&mut bytes).unwrap();
    let state = State::restore(&bytes).unwrap();
    // Its own store has it; those who had the task do not come back.
    let mut next = Rig::with(state, &[hash(50)]);
    next.attach(2, 1);
    next.pass_with_heartbeats(Duration::from_secs(5), &[2]);
    next.commit();
    let said = next.said();
    let assigned = "worker 2: assign 1.0/0.2.1, may read 50".to_owned();
    assert!(said.contains(&assigned), "{said:?}");
    // It is told again of an older one, and of one of another leader's attempt that is over.
    let id = AttemptId {
        epoch: Epoch(2),
        ..attempt(0, 1)
    };
    next.from(2, FromWorker::Started(id));
    saves(&mut next, 2, attempt(0, 1), 2, 60);
    next.expect(&["worker 2: drop 60"]);
}

#[test]
fn a_job_that_failed_keeps_its_checkpoint_for_the_retry() {
    let mut rig = running(0);
    saves(&mut rig, 1, attempt(0, 1), 1, 50);
    arrives(&mut rig, 50);
    rig.commit();
    rig.fails(1, attempt(0, 1));
    rig.commit();
    let said = rig.said();
    assert!(
        said.iter()
            .any(|line| line.starts_with("append job 1 failed")),
        "{said:?}"
    );
    assert!(!said.contains(&"drop 50".to_owned()), "{said:?}");
    let job = JobId(1);
    rig.ask(1, Request::Retry(job));
    rig.proposed()
        .into_iter()
        .for_each(|one| rig.committed(one));
    let next = AttemptId {
        generation: 1,
        ..attempt(0, 2)
    };
    let given = given(&mut rig);
    assert_eq!(given.len(), 1);
    assert_eq!(
        (given[0].0.generation, &given[0].1),
        (next.generation, &vec![hash(50)])
    );
    rig.skip("the retry");
    rig.ask(1, Request::Cancel(job));
    rig.commit();
    let said = rig.said();
    assert!(said.contains(&"drop 50".to_owned()), "{said:?}");
}

#[test]
fn what_is_too_large_or_odd_is_refused_and_told() {
    let mut rig = running(2);
    let large = Data::Blob {
        hash: hash(50),
        size: (1 << 30) + 1,
    };
    let report = saved(attempt(0, 1), 1, large);
    rig.from(1, FromWorker::Checkpoint(Box::new(report)));
    rig.expect(&["worker 1: drop 50"]);
    let why = task(&mut rig).checkpoint_fault.expect("a reason");
    assert!(why.contains("at most 1 GiB are saved"), "{why}");
    let mut report = saved(attempt(0, 1), 2, content(51));
    let odd = |checkpoint: &Checkpoint| Checkpoint {
        files: vec![blob("other", 51)],
        ..checkpoint.clone()
    };
    report.saved = report.saved.map(|checkpoint| Arc::new(odd(&checkpoint)));
    rig.from(1, FromWorker::Checkpoint(Box::new(report)));
    rig.expect(&["worker 1: drop 51"]);
    let told = CheckpointReport {
        saved: Err("x".repeat(5000)),
        ..saved(attempt(0, 1), 3, content(52))
    };
    rig.from(1, FromWorker::Checkpoint(Box::new(told)));
    let why = task(&mut rig).checkpoint_fault.expect("a reason");
    assert_eq!(why.len(), 1000, "a worker's text is cut");
    // One that fits makes good for it.
    let small = Data::Inline(Arc::from(&b"7"[..]));
    let report = saved(attempt(0, 1), 4, small);
    rig.from(1, FromWorker::Checkpoint(Box::new(report)));
    rig.commit();
    rig.expect(&["append checkpoint 4 of 1.0/0.1.1"]);
    assert_eq!(task(&mut rig).checkpoint_fault, None);
}
