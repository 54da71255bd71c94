//! Who wins, who is told to stop and when, and what happens to attempts that fail or come too late.

mod support;

use hedge_model::Ending;
use hedge_model::JobId;
use hedge_model::msg::{FromWorker, Outcome, Request};
use hedge_model::spec::Group;
use std::time::Duration;
use support::*;

/// Job 1 has one critical task with attempts on workers 1 and 2.
fn doubled() -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.attach(2, 1);
    let marked = Group {
        critical: true,
        ..group("a", &[])
    };
    rig.submit(1, 1, &redundant(2, 0, vec![marked]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 1: critical",
        "watch worker 2: critical",
    ]);
    rig
}

#[test]
fn the_first_success_wins_and_its_siblings_are_cancelled_once_it_is_committed() {
    let mut rig = doubled();
    rig.done(2, attempt(0, 2));
    let records = rig.proposed();
    rig.expect(&["append done 1.0/0.1.2 by worker 2", "append job 1 done"]);
    records.into_iter().for_each(|record| rig.committed(record));
    rig.expect(&[
        "worker 2: settled 1.0/0.1.2",
        "worker 1: cancel 1.0/0.1.1",
        "watch worker 2: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
}

#[test]
fn a_late_success_of_a_loser_changes_nothing() {
    let mut rig = doubled();
    rig.done(2, attempt(0, 2));
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 7)]));
    let records = rig.proposed();
    rig.expect(&[
        "append done 1.0/0.1.2 by worker 2",
        "append job 1 done",
        "append cancelled 1.0/0.1.1",
    ]);
    records.into_iter().for_each(|record| rig.committed(record));
    rig.commit();
    rig.expect(&[
        "worker 2: settled 1.0/0.1.2",
        "worker 1: cancel 1.0/0.1.1",
        "watch worker 2: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: drop 7",
        "watch worker 1: idle",
    ]);
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 7)]));
    rig.expect(&["worker 1: settled 1.0/0.1.1", "worker 1: drop 7"]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(
        (view.done, view.attempts.total, view.attempts.cancelled),
        (1, 2, 1)
    );
}

#[test]
fn a_winner_that_repeats_its_report_before_it_is_committed_stays_the_winner() {
    let mut rig = doubled();
    let outputs = || Outcome::Done(vec![blob("out", 7)]);
    rig.reports(2, attempt(0, 2), outputs());
    let records = rig.proposed();
    rig.expect(&["append done 1.0/0.1.2 by worker 2"]);
    let again = hedge_model::msg::WorkerInfo {
        in_hand: rig.held([attempt(0, 2)]),
        holds: vec![hash(7)],
        ..info(2, 1)
    };
    rig.attach_with(2, again);
    rig.reports(2, attempt(0, 2), outputs());
    rig.expect(&[
        "stop watching worker 2",
        "worker 2: drop 7",
        "measure worker 2: 131072 bytes",
        "watch worker 2: critical",
    ]); // the worker knows better until its report is settled
    rig.committed(records[0].clone());
    rig.expect(&[
        "worker 2: settled 1.0/0.1.2",
        "worker 1: cancel 1.0/0.1.1",
        "pull 7 from worker 2",
        "watch worker 2: idle",
    ]);
}

#[test]
fn a_failed_task_runs_again_on_another_worker() {
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
    rig.attach(2, 1);
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 1: idle",
        "watch worker 2: assigned",
    ]);
    rig.done(2, attempt(0, 2));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.2 by worker 2",
        "append job 1 done",
        "worker 2: settled 1.0/0.1.2",
        "watch worker 2: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
}

#[test]
fn a_task_that_keeps_failing_is_given_up_when_its_retries_are_used_up() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let twice = Group {
        retries: 1,
        ..group("a", &[])
    };
    rig.submit(1, 1, &plain(vec![twice]));
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
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: assign 1.0/0.1.2", // there is no other worker
    ]);
    rig.fails(1, attempt(0, 2));
    rig.commit();
    rig.expect(&[
        "append failed 1.0/0.1.2: it ended with exit code 1",
        "append task 1.0 failed",
        "worker 1: settled 1.0/0.1.2",
        "watch worker 1: idle",
        "append job 1 failed: task a failed 2 times, at last: it ended with exit code 1",
        "worker 1: forget 1",
    ]);
}

#[test]
fn a_worker_that_fails_what_others_can_do_is_set_aside_and_says_why() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    rig.attach(2, 1);
    rig.submit(1, 1, &plain(vec![array(4, group("a", &[]))]));
    rig.commit();
    // Worker 1 fails whatever it gets; worker 2 does it all, one after another.
    while rig.core.job_view(JobId(1)).expect("a job").done < 4 {
        for (number, id) in assigned(&rig.said()) {
            match number {
                1 => rig.fails(1, id),
                _ => rig.done(2, id),
            }
        }
        rig.commit();
    }
    rig.expect(&[
        "append done 1.3/0.1.2 by worker 2",
        "append job 1 done",
        "worker 2: settled 1.3/0.1.2",
        "watch worker 2: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
    let views = rig.core.worker_views();
    assert_eq!(
        views[0].admission,
        "excluded: failed 3 tasks that other workers could do"
    );
    assert_eq!((views[0].failed, views[1].failed, views[1].done), (4, 0, 4));
    rig.submit(1, 2, &plain(vec![array(2, group("b", &[]))]));
    rig.commit();
    rig.expect(&[
        "append accepted",
        "client 1 #2: accepted 2",
        "worker 2: body b v1",
        "worker 2: assign 2.0/0.1.1",
        "watch worker 2: assigned",
    ]);
    rig.pass_with_heartbeats(Duration::from_secs(60), &[1, 2]);
    rig.expect(&[
        "worker 1: body b v1",
        "worker 1: assign 2.1/0.1.1",
        "watch worker 1: assigned",
    ]);
    assert_eq!(rig.core.worker_views()[0].admission, "admitted");
}

#[test]
fn gap_gives_a_worker_up_and_a_heartbeat_brings_its_attempt_back() {
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
    rig.from(1, FromWorker::Started(attempt(0, 1)));
    rig.attach(2, 1);
    rig.pass_with_heartbeats(Duration::from_secs(2), &[2]);
    rig.commit();
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "append lost 1.0/0.1.1",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 1: idle",
        "watch worker 2: assigned",
    ]);
    rig.pass_with_heartbeats(Duration::from_millis(200), &[1, 2]);
    rig.expect(&["watch worker 1: assigned"]);
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: cancel 1.0/0.1.2",
        "watch worker 1: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(
        (view.attempts.lost, view.attempts.total, view.done),
        (1, 2, 1)
    );
}

#[test]
fn a_loser_that_was_given_up_as_silent_is_settled_too() {
    let mut rig = doubled();
    rig.pass_with_heartbeats(Duration::from_secs(2), &[2]);
    rig.commit();
    rig.expect(&["append lost 1.0/0.1.1", "watch worker 1: idle"]);
    rig.done(2, attempt(0, 2));
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.2 by worker 2",
        "append job 1 done",
        "append cancelled 1.0/0.1.1",
        "watch worker 1: critical",
        "worker 2: settled 1.0/0.1.2",
        "worker 1: cancel 1.0/0.1.1",
        "watch worker 2: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
    ]);
}

#[test]
fn a_cancelled_job_ends_its_attempts() {
    let mut rig = doubled();
    rig.ask(1, Request::Watch(JobId(1)));
    rig.expect(&["client 1 #99: job 1 Running 0/1"]);
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.commit();
    rig.expect(&[
        "append job 1 cancelled",
        "worker 1: cancel 1.0/0.1.1",
        "worker 2: cancel 1.0/0.1.2",
        "client 1 #99: job 1 Cancelled 0/1",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "client 1 #99: Ok",
    ]);
    rig.reports(1, attempt(0, 1), Outcome::Ended(Ending::Cancelled));
    rig.gone(2);
    rig.commit();
    rig.expect(&[
        "append cancelled 1.0/0.1.1",
        "stop watching worker 2",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
    ]);
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.expect(&["client 1 #99: Ok"]);
}

#[test]
fn absurd_figures_of_a_worker_do_no_harm() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![array(2, group("a", &[]))]));
    rig.commit();
    let longest = std::time::Duration::MAX;
    for number in 0..2 {
        let attempt = assigned(&rig.said())[0].1;
        assert_eq!(attempt.task.number, number);
        let usage = hedge_model::msg::Usage {
            queued: longest,
            staging: longest,
            running: longest,
            cpu: longest,
            memory_peak: u64::MAX,
            ..hedge_model::msg::Usage::default()
        };
        let report = hedge_model::msg::Report {
            attempt,
            outcome: hedge_model::msg::Outcome::Done(Vec::new()),
            usage,
            log: None,
        };
        rig.from(1, hedge_model::msg::FromWorker::Ended(Box::new(report)));
        rig.commit();
    }
    rig.expect(&[
        "append done 1.1/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.1/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    let view = rig.core.job_view(JobId(1)).expect("the job");
    assert_eq!((view.done, view.why), (2, None));
}

#[test]
fn what_an_attempt_printed_outlives_its_worker() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    let attempt = assigned(&rig.said())[0].1;
    let printed = |bytes: u64| hedge_model::Data::Blob {
        hash: hash(7),
        size: bytes,
    };
    let log = hedge_model::msg::Log {
        stdout: printed(5_000),
        stderr: hedge_model::Data::Inline([].into()),
        stdout_total: 5_000,
        stderr_total: 0,
    };
    let report = hedge_model::msg::Report {
        attempt,
        outcome: hedge_model::msg::Outcome::Ended(exited(1)),
        usage: hedge_model::msg::Usage::default(),
        log: Some(Box::new(log)),
    };
    rig.from(1, hedge_model::msg::FromWorker::Ended(Box::new(report)));
    rig.commit();
    let said = rig.said();
    assert!(said.iter().any(|line| line.contains("pull")), "{said:?}");
    // A worker that comes back meanwhile keeps it until it is here.
    let mut back = info(1, 1);
    back.holds = vec![hash(7)];
    rig.attach_with(1, back);
    let said = rig.said();
    assert!(!said.iter().any(|line| line.contains("drop")), "{said:?}");
    rig.event(hedge_core::supervisor::Event::Fetched {
        hash: hash(7),
        result: Ok(None),
    });
    let said = rig.said();
    assert!(said.iter().any(|line| line.contains("drop")), "{said:?}");
}

#[test]
fn what_a_silent_worker_reports_before_it_heartbeats_again_is_there() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.pass_with_heartbeats(Duration::from_secs(9), &[]);
    rig.commit();
    assert!(rig.said().contains(&"append lost 1.0/0.1.1".to_owned()));
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 7)]));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "watch worker 1: assigned",
        "worker 1: settled 1.0/0.1.1",
        "pull 7 from worker 1",
        "watch worker 1: idle",
    ]);
}
