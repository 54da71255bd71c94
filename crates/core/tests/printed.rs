//! Reading what attempts print while they run.

mod support;

use hedge_core::supervisor::Event;
use hedge_model::msg::{
    FromWorker, Log, Offsets, Outcome, Piece, Pieces, PrintedPart, PrintedRequest, ReadPrinted,
    Report, Request, Usage,
};
use hedge_model::{AttemptId, Data, JobId, PeerId, TaskId};
use std::time::Duration;
use support::*;

fn at(stdout: u64, stderr: u64) -> Offsets {
    Offsets { stdout, stderr }
}

fn request(attempt: Option<AttemptId>, from: Offsets) -> Request {
    Request::Printed(PrintedRequest {
        job: JobId(1),
        task: "a".into(),
        attempt,
        from,
    })
}

fn piece(from: u64, text: &str) -> Piece {
    Piece {
        from,
        bytes: text.as_bytes().into(),
        total: from + text.len() as u64,
    }
}

fn part(reading: u64, attempt: AttemptId, from: Offsets, pieces: Option<Pieces>) -> FromWorker {
    let read = ReadPrinted {
        reading,
        attempt,
        from,
    };
    let pieces = pieces.map(Box::new);
    FromWorker::Printed(Box::new(PrintedPart { read, pieces }))
}

/// A job of one task, whose first attempt runs at worker 1.
fn running() -> Rig {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.attach(1, 1);
    rig.from(1, FromWorker::Started(attempt(0, 1)));
    rig.skip("how the attempt came to run");
    rig
}

fn ends(rig: &mut Rig, number: u8, attempt: AttemptId, outcome: Outcome, printed: &str) {
    let report = Report {
        attempt,
        outcome,
        usage: Usage::default(),
        log: Some(Box::new(Log {
            stdout: Data::Inline(printed.as_bytes().into()),
            stderr: Data::Inline([][..].into()),
            stdout_total: printed.len() as u64,
            stderr_total: 0,
        })),
    };
    rig.from(number, FromWorker::Ended(Box::new(report)));
}

#[test]
fn a_client_reads_what_a_running_attempt_has_printed_and_then_how_it_ended() {
    let mut rig = running();
    let id = attempt(0, 1);
    rig.ask(1, request(None, at(0, 0)));
    rig.expect(&["worker 1: read 1.0/0.1.1 from 0/0 #1"]);
    let pieces = Pieces {
        stdout: piece(0, "one"),
        stderr: piece(0, ""),
    };
    rig.from(1, part(1, id, at(0, 0), Some(pieces)));
    rig.expect(&["client 1 #99: printed by 1.0/0.1.1: \"one\" from 0 of 3, \"\" from 0 of 0"]);
    rig.ask(1, request(Some(id), at(3, 0)));
    rig.expect(&["worker 1: read 1.0/0.1.1 from 3/0 #2"]);
    rig.from(1, part(2, id, at(3, 0), None));
    rig.expect(&[
        "client 1 #99: nothing: its program does not run at worker 0101010101 on host-1 now",
    ]);
    ends(&mut rig, 1, id, Outcome::Done(Vec::new()), "one two");
    let records = rig.proposed();
    rig.skip("the end is proposed");
    rig.ask(1, request(Some(id), at(3, 0)));
    rig.expect(&["client 1 #99: nothing: its end is being recorded"]);
    records.into_iter().for_each(|record| rig.committed(record));
    rig.commit();
    rig.skip("how the job ends");
    for asked in [Some(id), None] {
        rig.ask(1, request(asked, at(3, 0)));
        rig.expect(&["client 1 #99: over 1.0/0.1.1: done, a log, the last"]);
    }
}

#[test]
fn an_answer_that_does_not_belong_to_the_question_is_none() {
    let mut rig = running();
    let (id, from) = (attempt(0, 1), at(5, 0));
    rig.attach(2, 1);
    rig.skip("a second worker came");
    rig.ask(1, request(Some(id), from));
    rig.expect(&["worker 1: read 1.0/0.1.1 from 5/0 #1"]);
    let pieces = |from, text: &str| {
        let stdout = piece(from, text);
        let stderr = Piece::default();
        Some(Pieces { stdout, stderr })
    };
    let other = AttemptId { number: 2, ..id };
    rig.from(2, part(1, id, from, pieces(5, "of another worker")));
    rig.from(1, part(2, id, from, pieces(5, "to another question")));
    rig.from(1, part(1, other, from, pieces(5, "of another attempt")));
    rig.from(1, part(1, id, at(7, 0), pieces(7, "to an earlier leader")));
    rig.from(1, part(1, id, from, pieces(4, "read before")));
    let none: [&str; 0] = [];
    rig.expect(&none);
    // Some of it is not kept any more.
    rig.from(1, part(1, id, from, pieces(7, "x")));
    rig.expect(&["client 1 #99: printed by 1.0/0.1.1: \"x\" from 7 of 8, \"\" from 0 of 0"]);
    rig.from(1, part(1, id, from, pieces(7, "again")));
    rig.expect(&none);
}

#[test]
fn a_worker_that_does_not_answer_is_told_of() {
    let mut rig = running();
    rig.ask(1, request(None, at(0, 0)));
    rig.expect(&["worker 1: read 1.0/0.1.1 from 0/0 #1"]);
    rig.pass_with_heartbeats(Duration::from_millis(2900), &[1]);
    rig.expect_without(&["watch", "measure"], &[]);
    rig.pass_with_heartbeats(Duration::from_millis(200), &[1]);
    rig.expect(&["client 1 #99: nothing: worker 0101010101 on host-1 does not answer"]);
    rig.ask(1, request(None, at(0, 0)));
    rig.gone(1);
    rig.expect_without(
        &["append", "watch"],
        &[
            "worker 1: read 1.0/0.1.1 from 0/0 #2",
            "client 1 #99: nothing: worker 0101010101 on host-1 does not answer",
        ],
    );
}

#[test]
fn who_waits_no_more_is_not_answered_and_the_next_leader_is_asked() {
    let mut rig = running();
    rig.ask(1, request(None, at(0, 0)));
    rig.gone_client(1);
    rig.ask(2, request(None, at(0, 0)));
    rig.event(Event::RequestsAbandoned(vec![99]));
    rig.ask(3, request(None, at(0, 0)));
    rig.event(Event::Deposed);
    let said = rig.said();
    let answers: Vec<&String> = said.iter().filter(|line| line.contains("#99:")).collect();
    assert_eq!(answers.len(), 1, "{said:?}");
    assert!(
        answers[0].starts_with("client 3 #99: no, NotLeading"),
        "{said:?}"
    );
}

#[test]
fn another_attempt_is_another_output() {
    let mut rig = running();
    let first = attempt(0, 1);
    ends(&mut rig, 1, first, Outcome::Ended(exited(1)), "one");
    rig.commit();
    rig.skip("the second attempt is assigned");
    rig.ask(1, request(Some(first), at(1, 0)));
    let over = "client 1 #99: over 1.0/0.1.1: it ended with exit code 1, a log";
    rig.expect(&[over]);
    // It is assigned, but not known to run.
    let second = attempt(0, 2);
    rig.ask(1, request(Some(second), at(0, 0)));
    rig.expect(&[
        "client 1 #99: nothing: its program has not started at worker 0101010101 on host-1",
    ]);
    rig.ask(1, request(None, at(0, 0)));
    let said = rig.said();
    assert!(said[0].starts_with("client 1 #99: nothing: "), "{said:?}");
    rig.from(1, FromWorker::Started(second));
    rig.ask(1, request(None, at(0, 0)));
    rig.expect(&["worker 1: read 1.0/0.1.2 from 0/0 #1"]);
    rig.gone(1);
    rig.commit();
    rig.skip("the attempt is lost with its worker");
    rig.ask(1, request(Some(second), at(0, 0)));
    rig.expect(&["client 1 #99: over 1.0/0.1.2: its worker was declared dead or left, no log"]);
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.commit();
    rig.skip("the job is cancelled");
    // What was printed last is the task's output.
    for asked in [None, Some(first)] {
        rig.ask(1, request(asked, at(0, 0)));
        rig.expect(&[&format!("{over}, the last")]);
    }
}

#[test]
fn a_leader_that_does_not_know_an_attempt_yet_does_not_call_it_over() {
    let mut rig = running();
    let id = attempt(0, 1);
    let held = rig.held([id]);
    let mut next = Rig::with(rig.core.state().clone(), &[]);
    next.ask(1, request(Some(id), at(3, 0)));
    next.expect(&[
        "client 1 #99: nothing: another supervisor leads now, and the task's worker has not reported to it yet",
    ]);
    let info = hedge_model::msg::WorkerInfo {
        in_hand: held,
        ..info(1, 1)
    };
    next.attach_with(1, info);
    next.from(1, FromWorker::Started(id));
    next.skip("the worker comes back with it");
    next.ask(1, request(Some(id), at(3, 0)));
    next.expect(&["worker 1: read 1.0/0.1.1 from 3/0 #1"]);
    // One that nobody comes with is over when workers have had their time.
    let never = AttemptId { number: 7, ..id };
    next.pass_with_heartbeats(Duration::from_secs(4), &[1]);
    next.skip("the reading is late");
    next.ask(1, request(Some(never), at(3, 0)));
    next.expect(&["client 1 #99: over 1.0/0.1.7: its worker was declared dead or left, no log"]);
}

#[test]
fn what_is_asked_for_must_be_there_and_not_too_much() {
    let mut rig = running();
    let other = AttemptId {
        task: TaskId {
            job: JobId(1),
            number: 1,
        },
        ..attempt(0, 1)
    };
    rig.ask(1, request(Some(other), at(0, 0)));
    rig.expect(&["client 1 #99: no, Bad: attempt 1.1/0.1.1 is none of task a; nothing was read"]);
    let refused = |rig: &mut Rig, client: PeerId, count: u64| -> usize {
        for request_id in 0..count {
            rig.event(Event::Request {
                requester: client.into(),
                request_id: 1000 + request_id,
                request: request(None, at(0, 0)),
                secret: None,
            });
        }
        let said = rig.said();
        said.iter().filter(|line| line.contains("no, Busy")).count()
    };
    assert_eq!(refused(&mut rig, client(1), 130), 2);
    let others: usize = (0..5)
        .filter(|n| *n != 1)
        .map(|n| refused(&mut rig, client(n), 128))
        .sum();
    assert_eq!(others, 0, "there is room for others");
    rig.pass_with_heartbeats(Duration::from_secs(4), &[1]);
    rig.skip("all are told that the worker does not answer");
    assert_eq!(refused(&mut rig, client(1), 128), 0);
}
