//! What a job leaves: held before its end, listed in pages, and found by clients at each holder.

mod support;

use hedge_core::monitor::{Finding, Found, Liveness};
use hedge_core::supervisor::{Action, Event, FetchFailure};
use hedge_model::data::Data;
use hedge_model::msg::{FromWorker, GrantedReply, Log, Outcome, Report, Request, Usage};
use hedge_model::view::{LogView, ResultsView};
use hedge_model::{AttemptId, FileEntry, JobId, PeerId};
use std::time::Duration;
use support::*;

fn printed(number: u8) -> Option<Box<Log>> {
    Some(Box::new(Log {
        stdout: Data::Blob {
            hash: hash(number),
            size: 5_000,
        },
        stderr: Data::Inline([].into()),
        stdout_total: 5_000,
        stderr_total: 0,
    }))
}

fn report(rig: &mut Rig, number: u8, attempt: AttemptId, outcome: Outcome) {
    let report = Report {
        attempt,
        outcome,
        usage: Usage::default(),
        log: printed(7),
    };
    rig.from(number, FromWorker::Ended(Box::new(report)));
    rig.commit();
}

fn fetched(rig: &mut Rig, number: u8) {
    rig.event(Event::Fetched {
        hash: hash(number),
        result: Ok(None),
    });
}

fn replied<T>(rig: &mut Rig, request: Request, fits: impl Fn(GrantedReply) -> Option<T>) -> T {
    rig.skip("how the job came here is for other tests");
    rig.ask(1, request);
    let answer = rig.actions().into_iter().find_map(|action| match action {
        Action::AnswerGranted { reply, .. } => fits(reply),
        _ => None,
    });
    assert_eq!(
        rig.said().len(),
        1,
        "it is answered, and nothing else happens"
    );
    answer.expect("an answer")
}

fn results(rig: &mut Rig, from: u64) -> ResultsView {
    let request = Request::Results {
        job: JobId(1),
        from,
    };
    replied(rig, request, |reply| match reply {
        GrantedReply::Results(view) => Some(*view),
        _ => None,
    })
}

fn logs(rig: &mut Rig) -> LogView {
    let request = Request::Logs(JobId(1), "0".into());
    replied(rig, request, |reply| match reply {
        GrantedReply::Log(view) => Some(*view),
        _ => None,
    })
}

fn peers(sources: &[hedge_model::Source]) -> Vec<PeerId> {
    sources.iter().map(|source| source.peer).collect()
}

const ME: PeerId = PeerId([9; 32]);

/// A grid whose only worker has the only task of a job in hand.
fn one_attempt() -> (Rig, AttemptId) {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    let attempt = assigned(&rig.said())[0].1;
    (rig, attempt)
}

#[test]
fn a_job_without_files_ends_once_what_it_printed_is_held() {
    let (mut rig, attempt) = one_attempt();
    report(&mut rig, 1, attempt, Outcome::Done(Vec::new()));
    let said = rig.said();
    assert!(said.contains(&"pull 7 from worker 1".into()), "{said:?}");
    assert!(
        !said.iter().any(|line| line.contains("job 1 done")),
        "{said:?}"
    );
    fetched(&mut rig, 7);
    rig.commit();
    let said = rig.said();
    assert!(said.contains(&"append job 1 done".into()), "{said:?}");
    assert_eq!(peers(&logs(&mut rig).sources), [ME]);
}

#[test]
fn a_task_runs_again_where_all_that_it_left_is_gone_with_its_worker() {
    let (mut rig, attempt) = one_attempt();
    report(&mut rig, 1, attempt, Outcome::Done(Vec::new()));
    rig.gone(1);
    rig.attach(2, 1);
    rig.pass_with_heartbeats(Duration::from_secs(120), &[2]);
    rig.commit();
    let said = rig.said();
    assert!(
        said.contains(&"append outputs lost 1.0/0".into()),
        "{said:?}"
    );
    let again = assigned(&said);
    assert_eq!(again.last().map(|(worker, _)| *worker), Some(2), "{said:?}");
    report(
        &mut rig,
        2,
        again.last().unwrap().1,
        Outcome::Done(Vec::new()),
    );
    fetched(&mut rig, 7);
    rig.commit();
    let said = rig.said();
    assert!(said.contains(&"append job 1 done".into()), "{said:?}");
}

#[test]
fn clients_ask_supervisors_first_and_workers_too_while_a_transfer_is_under_way() {
    let (mut rig, attempt) = one_attempt();
    report(&mut rig, 1, attempt, Outcome::Ended(exited(1)));
    assert_eq!(peers(&logs(&mut rig).sources), [ME, worker(1)]);
    fetched(&mut rig, 7);
    assert_eq!(peers(&logs(&mut rig).sources), [ME]);
}

#[test]
fn what_the_finished_tasks_of_a_failed_job_left_is_fetched_and_kept() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.attach(2, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[]), group("b", &[])]));
    rig.commit();
    let given = assigned(&rig.said());
    rig.reports(given[0].0, given[0].1, Outcome::Done(vec![blob("out", 8)]));
    rig.commit();
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.commit();
    let said = rig.said();
    assert!(!said.iter().any(|line| line.contains("drop 8")), "{said:?}");
    let holder = given[0].0;
    let view = results(&mut rig, 0);
    assert_eq!(view.files.len(), 1);
    assert_eq!(peers(&view.sources), [ME, worker(holder)]);
    fetched(&mut rig, 8);
    rig.commit();
    let said = rig.said();
    assert!(
        said.contains(&format!("worker {holder}: drop 8")),
        "{said:?}"
    );
    assert_eq!(peers(&results(&mut rig, 0).sources), [ME]);
}

#[test]
fn results_of_an_ended_job_are_fetched_when_their_only_holder_is_heard_again() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.attach(2, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[]), group("b", &[])]));
    rig.commit();
    let (holder, attempt) = assigned(&rig.said())[0];
    rig.reports(holder, attempt, Outcome::Done(vec![blob("out", 8)]));
    rig.commit();
    let silent = Duration::from_secs(1);
    found(
        &mut rig,
        worker(holder),
        Found::Silent {
            liveness: Liveness::Dead,
            silent,
        },
    );
    rig.event(Event::Fetched {
        hash: hash(8),
        result: Err(FetchFailure::Sources("no source gave it".into())),
    });
    // When the transfer is due again, nobody can be asked.
    rig.pass_with_heartbeats(Duration::from_secs(1), &[3 - holder]);
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "pull 8 from worker 1",
        "watch worker 1: idle",
        "append job 1 cancelled",
        "worker 2: cancel 1.1/0.1.1",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "client 1 #99: Ok",
    ]);
    found(
        &mut rig,
        worker(holder),
        Found::Back {
            was: Liveness::Dead,
            silent,
        },
    );
    let said = rig.said();
    let pull = format!("pull 8 from worker {holder}");
    assert!(said.contains(&pull), "{said:?}");
}

fn found(rig: &mut Rig, peer: PeerId, what: Found) {
    rig.event(Event::Found(Finding { peer, what }));
}

#[test]
fn many_results_are_listed_in_pages_that_miss_none_and_repeat_none() {
    let (mut rig, attempt) = one_attempt();
    let path = |number: usize| format!("{number:0>1000}");
    let file = |number| FileEntry {
        path: path(number).into(),
        executable: false,
        data: Data::Inline(vec![1; 80].into()),
    };
    let files: Vec<FileEntry> = (0..10_000).map(file).collect();
    rig.reports(1, attempt, Outcome::Done(files));
    rig.commit();
    let (mut listed, mut pages, mut next) = (Vec::new(), 0, Some(0));
    while let Some(from) = next {
        let view = results(&mut rig, from);
        let bytes: usize = view
            .files
            .iter()
            .map(|made| made.file.path.len() + 80)
            .sum();
        assert!(bytes < 5 << 20, "{bytes}");
        listed.extend(
            view.files
                .into_iter()
                .map(|made| made.file.path.to_string()),
        );
        (next, pages) = (view.next, pages + 1);
    }
    assert!(listed == (0..10_000).map(path).collect::<Vec<_>>());
    assert_eq!(pages, 4);
    assert!(results(&mut rig, 10_000).files.is_empty());
}
