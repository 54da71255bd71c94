//! Open jobs: groups are added while they run, outputs are kept until they are released, and they end once they are
//! closed.

mod support;

use hedge_core::supervisor::{Event, Offer, State};
use hedge_model::msg::{Outcome, Request};
use hedge_model::record::{ClosedBy, JobEnd, Record};
use hedge_model::spec::{Draft, Extension, Group, Input, MaxFailures, Mount, Qos};
use hedge_model::view::{JobState, JobView, OpenView};
use hedge_model::{Data, FileEntry, JobId, JobSpec, SubmitKey, Time};
use std::sync::Arc;
use std::time::Duration;
use support::*;

const TIMEOUT: Duration = Duration::from_secs(100);

fn open(groups: Vec<Group>) -> Arc<JobSpec> {
    open_with(Qos::default(), groups)
}

fn open_with(qos: Qos, groups: Vec<Group>) -> Arc<JobSpec> {
    let qos = Qos {
        open_timeout: Some(TIMEOUT),
        ..qos
    };
    let plain = Draft::from(JobSpec::clone(&plain(vec![group("a", &[])])));
    let qos = Qos {
        redundancy: plain.qos.redundancy,
        ..qos
    };
    let draft = Draft {
        qos,
        groups,
        ..plain
    };
    Arc::new(JobSpec::new(draft).expect("an open job"))
}

fn extend(rig: &mut Rig, key: u8, groups: Vec<Group>) {
    extend_with(rig, key, Vec::new(), groups);
}

fn extend_with(rig: &mut Rig, key: u8, files: Vec<FileEntry>, groups: Vec<Group>) {
    let peer = client(1);
    rig.event(Event::Submit {
        requester: peer.into(),
        request_id: u64::from(key),
        key: SubmitKey([key; 16]),
        offer: Offer::Groups(JobId(1), Arc::new(Extension { files, groups })),
        from: addr(peer),
        held: Vec::new(),
    });
}

fn view(rig: &Rig) -> JobView {
    rig.core.job_view(JobId(1)).expect("a job")
}

fn once(group: Group) -> Group {
    Group {
        retries: 0,
        ..group
    }
}

/// An open job of one task that is done and left a blob, on worker 1 of three CPUs.
fn begun() -> Rig {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &open(vec![group("a", &[])]));
    rig.commit();
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 11)]));
    rig.commit();
    rig.skip("the task is done");
    rig
}

fn answers(said: &[String]) -> Vec<&str> {
    let said = said.iter().map(String::as_str);
    said.filter(|line| line.starts_with("client")).collect()
}

#[test]
fn groups_are_added_while_the_job_runs_and_it_ends_once_it_is_closed() {
    let mut rig = begun();
    assert_eq!(view(&rig).state, JobState::Waiting);
    extend(&mut rig, 2, vec![reader("b", &["a"]), group("c", &["b"])]);
    rig.commit();
    rig.expect_without(
        &["body"],
        &[
            "append groups added to 1",
            "client 1 #2: Extended(Extended { job: JobId(1), first: 1, tasks: 2 })",
            "worker 1: assign 1.1/0.1.1",
            "watch worker 1: assigned",
        ],
    );
    rig.done(1, attempt(1, 1));
    rig.commit();
    assert_eq!(assigned(&rig.said()), [(1, attempt(2, 1))]);
    rig.ask(1, Request::Close(JobId(1)));
    rig.commit();
    assert_eq!(answers(&rig.said()), ["client 1 #99: Ok"]);
    assert_eq!(view(&rig).open, Some(OpenView::Closed));
    rig.done(1, attempt(2, 1));
    rig.commit();
    assert!(rig.said().contains(&"append job 1 done".to_owned()));
    extend(&mut rig, 3, vec![group("d", &[])]);
    rig.expect(&["client 1 #3: no, Bad: job 1 has ended; nothing was added: open another job"]);
}

#[test]
fn a_repeated_extension_has_no_effect_and_a_key_is_that_of_one_extension() {
    let mut rig = begun();
    let extended = "client 1 #2: Extended(Extended { job: JobId(1), first: 1, tasks: 1 })";
    extend(&mut rig, 2, vec![group("b", &[])]);
    // Once more before the first is committed.
    extend(&mut rig, 2, vec![group("b", &[])]);
    rig.commit();
    assert_eq!(answers(&rig.said()), [extended, extended]);
    extend(&mut rig, 2, vec![group("b", &[])]);
    rig.expect(&[extended]);
    extend(&mut rig, 2, vec![group("c", &[])]);
    rig.expect(&[
        "client 1 #2: no, Bad: the key of this extension belongs to another extension of job 1; nothing was added: extend \
         without --key, or with a new one",
    ]);
    assert_eq!(view(&rig).tasks, 2);
}

#[test]
fn an_extension_that_does_not_fit_is_refused_before_or_after_it_is_recorded() {
    let mut rig = begun();
    let refused = |rig: &mut Rig, group: Group, what: &str| {
        extend(rig, 9, vec![group]);
        let said = rig.said();
        assert!(said.len() == 1 && said[0].contains(what), "{said:?}");
    };
    refused(
        &mut rig,
        group("a", &[]),
        "the job has a task with the id \"a\"",
    );
    refused(&mut rig, group("b", &["x"]), "which is no task of this job");
    // Two at once that cannot both be added.
    extend(&mut rig, 2, vec![group("b", &[])]);
    extend(&mut rig, 3, vec![group("b", &["a"])]);
    rig.commit();
    let said = rig.said();
    let answers = answers(&said);
    assert_eq!(answers.len(), 2);
    assert!(answers[0].starts_with("client 1 #2: Extended"));
    assert!(
        answers[1].starts_with("client 1 #3: no, Bad: the job has a task with the id \"b\""),
        "{answers:?}"
    );
    rig.submit(1, 4, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.skip("a job that is not open");
    let (job, peer) = (JobId(2), client(1));
    rig.event(Event::Submit {
        requester: peer.into(),
        request_id: 5,
        key: SubmitKey([5; 16]),
        offer: Offer::Groups(job, Arc::new(Extension::default())),
        from: addr(peer),
        held: Vec::new(),
    });
    assert!(rig.said()[0].contains("has all its tasks from the start"));
    rig.ask(1, Request::Close(job));
    assert!(rig.said()[0].contains("ends by itself"));
}

#[test]
fn inputs_of_an_extension_are_held_before_it_is_added() {
    let mut rig = begun();
    let file = blob("in", 21);
    let reads = Group {
        inputs: vec![Input::File(0)],
        ..group("b", &[])
    };
    extend_with(&mut rig, 2, vec![file], vec![reads]);
    let said = rig.said();
    assert!(said.iter().any(|line| line.contains("pull 21")), "{said:?}");
    assert!(rig.proposed().is_empty());
    rig.event(Event::Fetched {
        hash: hash(21),
        result: Ok(Some(client(1))),
    });
    rig.commit();
    let said = rig.said();
    assert!(said.contains(&"append groups added to 1".to_owned()));
    assert_eq!(assigned(&said), [(1, attempt(1, 1))]);
    assert!(
        said.iter().any(|line| line.contains("may read 21")),
        "{said:?}"
    );
}

#[test]
fn a_tree_that_extensions_repeat_counts_once_towards_the_limits_of_its_client() {
    let mut rig = Rig::new();
    for (name, value) in [("client_bytes", "60 MiB"), ("client_spec_bytes", "8 KiB")] {
        let (name, value) = (name.into(), value.into());
        rig.ask(1, Request::Set { name, value });
    }
    rig.submit(1, 1, &open(vec![group("a", &[])]));
    rig.commit();
    rig.skip("the job is open");
    // 50 MiB, which take 2 KiB in each extension.
    let tree: Vec<FileEntry> = (100..150).map(|number| blob("pack", number)).collect();
    for key in 2..12 {
        let mount = Mount {
            at: "/env".into(),
            first: 0,
            packs: 49,
        };
        let sees = Group {
            mounts: [mount].into_iter().collect(),
            ..group(&format!("b{key}"), &[])
        };
        extend_with(&mut rig, key, tree.clone(), vec![sees]);
        for number in 100..150 {
            rig.event(Event::Fetched {
                hash: hash(number),
                result: Ok(Some(client(1))),
            });
        }
        rig.commit();
        let said = rig.said();
        let added = format!("client 1 #{key}: Extended");
        assert!(said.iter().any(|line| line.starts_with(&added)), "{said:?}");
    }
}

#[test]
fn outputs_are_kept_until_they_are_released_and_read() {
    let mut rig = begun();
    extend(&mut rig, 2, vec![reader("b", &["a"])]);
    rig.commit();
    rig.skip("b runs");
    let release = |tasks: &[&str]| Request::Release {
        job: JobId(1),
        tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
    };
    assert_eq!(
        view(&rig).result_bytes,
        match blob("out", 11).data {
            Data::Blob { size, .. } => size,
            Data::Inline(_) => 0,
        }
    );
    rig.ask(1, release(&["a"]));
    rig.commit();
    rig.expect(&["append released in 1: [(0, 1)]", "client 1 #99: Ok"]);
    assert_eq!(view(&rig).result_bytes, 0);
    extend(&mut rig, 3, vec![reader("c", &["a"])]);
    rig.expect(&[
        "client 1 #3: no, Bad: task \"c\" reads the outputs of \"a\", which were released; nothing was added",
    ]);
    // It may still wait for the task itself.
    extend(&mut rig, 4, vec![group("d", &["a"])]);
    rig.commit();
    rig.skip("d runs");
    rig.reports(1, attempt(1, 1), Outcome::Done(vec![blob("out", 12)]));
    rig.commit();
    let said = rig.said();
    let drops = |number: u8| {
        let line = format!("drop {number}");
        said.iter().any(|said| said.contains(&line))
    };
    assert!(drops(11) && !drops(12), "{said:?}");
    rig.ask(1, release(&["1", "nobody"]));
    assert!(rig.said()[0].contains("no task \"nobody\""));
    rig.ask(1, release(&["b"]));
    rig.commit();
    let said = rig.said();
    assert!(said.iter().any(|line| line.contains("drop 12")), "{said:?}");
}

#[test]
fn an_open_job_that_tolerates_failures_is_done_once_it_is_closed() {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    let tolerates = Qos {
        tolerate_failures: true,
        ..Qos::default()
    };
    rig.submit(1, 1, &open_with(tolerates, vec![once(group("a", &[]))]));
    rig.commit();
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.skip("a has failed");
    assert_eq!(view(&rig).state, JobState::Waiting);
    rig.ask(1, Request::Close(JobId(1)));
    rig.commit();
    rig.skip("it is closed, and ends");
    assert_eq!((view(&rig).state, view(&rig).failed), (JobState::Done, 1));
}

#[test]
fn a_task_that_is_released_before_it_is_done_leaves_nothing() {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &open(vec![group("a", &[])]));
    rig.commit();
    let (job, tasks) = (JobId(1), vec!["a".to_owned()]);
    rig.ask(1, Request::Release { job, tasks });
    rig.commit();
    rig.skip("released");
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![blob("out", 11)]));
    rig.commit();
    let said = rig.said();
    assert!(said.iter().any(|line| line.contains("drop 11")), "{said:?}");
    assert_eq!(view(&rig).result_bytes, 0);
}

#[test]
fn what_failed_costs_what_waits_for_it_and_nothing_new_may_wait_for_it() {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    let tolerant = Qos {
        max_failures: Some(MaxFailures::Count(1)),
        ..Qos::default()
    };
    rig.submit(
        1,
        1,
        &open_with(tolerant, vec![once(group("a", &[])), group("b", &["a"])]),
    );
    rig.commit();
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.skip("a has failed");
    let seen = view(&rig);
    assert_eq!(
        (seen.state, seen.failed, seen.skipped),
        (JobState::Waiting, 1, 1)
    );
    for other in ["a", "b"] {
        extend(&mut rig, 2, vec![group("c", &[other])]);
        let said = rig.said();
        assert!(said[0].contains("which failed"), "{said:?}");
    }
    extend(&mut rig, 3, vec![once(group("c", &[]))]);
    rig.commit();
    rig.skip("c runs");
    rig.fails(1, attempt(2, 1));
    rig.commit();
    let said = rig.said();
    let ended = "append job 1 failed: 2 of its 3 tasks failed, more than the 1 that it allows";
    assert!(said.iter().any(|line| line.starts_with(ended)), "{said:?}");
    assert_eq!(view(&rig).open, Some(OpenView::Closed));
    rig.ask(1, Request::Retry(JobId(1)));
    rig.commit();
    let again = |task| hedge_model::AttemptId {
        generation: 1,
        ..attempt(task, 1)
    };
    assert_eq!(assigned(&rig.said()), [(1, again(0)), (1, again(2))]);
    for task in [0, 2] {
        rig.done(1, again(task));
        rig.commit();
    }
    rig.done(1, again(1));
    rig.commit();
    assert!(rig.said().contains(&"append job 1 done".to_owned()));
}

#[test]
fn places_of_an_array_that_failed_are_lost_to_what_is_added_too() {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &open(vec![once(array(3, group("a", &[])))]));
    rig.commit();
    rig.fails(1, attempt(1, 1));
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.skip("one of three has failed");
    let each = Group {
        inputs: vec![Input::TaskEach("a".into())],
        ..array(3, group("b", &[]))
    };
    extend(&mut rig, 2, vec![each]);
    rig.commit();
    assert_eq!(assigned(&rig.said()), [(1, attempt(3, 1))]);
    assert_eq!(view(&rig).skipped, 1);
    rig.ask(1, Request::Close(JobId(1)));
    rig.commit();
    for done in [attempt(2, 1), attempt(3, 1), attempt(5, 1)] {
        rig.done(1, done);
        rig.commit();
    }
    assert_eq!(view(&rig).state, JobState::Failed);
    rig.skip("the rest of the job");
}

#[test]
fn an_open_job_closes_itself_when_its_client_is_gone_also_after_a_failover() {
    let mut rig = begun();
    rig.pass(TIMEOUT * 9 / 10);
    rig.commit();
    assert!(matches!(view(&rig).open, Some(OpenView::Open { .. })));
    rig.ask(1, Request::Job(JobId(1)));
    rig.pass(TIMEOUT / 2);
    rig.commit();
    let said = rig.said();
    assert!(
        said.contains(&"append client of 1 seen".to_owned()),
        "{said:?}"
    );
    // The next leader knows when that was.
    let seen = rig.core.state().clone();
    let mut bytes = Vec::new();
    seen.write(&mut bytes).expect("a snapshot");
    let mut rig = Rig::with(State::restore(&bytes).expect("a state"), &[]);
    assert!(matches!(view(&rig).open, Some(OpenView::Open { .. })));
    rig.skip("the next leader leads");
    rig.pass(TIMEOUT * 3 / 4);
    rig.commit();
    assert!(
        matches!(view(&rig).open, Some(OpenView::Open { .. })),
        "its client has some time to come"
    );
    rig.pass(TIMEOUT / 2);
    rig.commit();
    assert!(
        rig.said()
            .iter()
            .any(|line| line.starts_with("append job 1 closed"))
    );
    assert_eq!(view(&rig).open, Some(OpenView::TimedOut));
}

#[test]
fn a_client_that_watches_its_open_job_is_there() {
    let mut rig = begun();
    rig.ask(1, Request::Watch(JobId(1)));
    rig.pass(TIMEOUT * 3);
    rig.commit();
    assert!(matches!(view(&rig).open, Some(OpenView::Open { .. })));
    rig.gone_client(1);
    rig.pass(TIMEOUT * 6 / 5);
    rig.commit();
    assert_eq!(view(&rig).open, Some(OpenView::TimedOut));
    rig.skip("what was recorded meanwhile");
}

#[test]
fn a_snapshot_and_a_replay_of_the_records_give_the_same_open_job() {
    let (key, client, at) = (SubmitKey([1; 16]), client(1), Time(5));
    let extension = |id: &str, deps: &[&str]| {
        Arc::new(Extension {
            files: vec![blob(id, 3)],
            groups: vec![group(id, deps)],
        })
    };
    let added = |number: u8, extension: Arc<Extension>| Record::GroupsAdded {
        job: JobId(1),
        key: SubmitKey([number; 16]),
        extension,
        at,
    };
    let records = [
        Record::Format { level: 3, at },
        Record::accepted(key, client, open(Vec::new()), at),
        added(1, extension("a", &[])),
        added(2, extension("b", &["a"])),
        added(2, extension("b", &["a"])),
        added(3, extension("b", &[])),
        Record::OutputsReleased {
            job: JobId(1),
            tasks: vec![(0, 1)],
            at,
        },
    ];
    let mut state = State::default();
    for record in &records {
        state.apply(record);
    }
    let bytes = |state: &State| {
        let mut bytes = Vec::new();
        state.write(&mut bytes).expect("a snapshot");
        bytes
    };
    let stored = bytes(&state);
    let mut again = State::restore(&stored).expect("a state");
    assert_eq!(bytes(&again), stored);
    let last = Record::JobClosed {
        job: JobId(1),
        by: ClosedBy::Request,
        at,
    };
    let ended = Record::JobEnded {
        job: JobId(1),
        end: JobEnd::Cancelled,
        stopped: Vec::new(),
        at,
    };
    for record in [&last, &ended] {
        state.apply(record);
        again.apply(record);
        assert_eq!(bytes(&again), bytes(&state));
    }
    let rig = Rig::with(again, &[]);
    rig.core.check().expect("sound");
    let seen = view(&rig);
    assert_eq!((seen.state, seen.tasks), (JobState::Cancelled, 2));
}

#[test]
fn the_critical_tasks_and_the_deadline_of_a_job_follow_what_is_added() {
    let mut rig = Rig::new();
    let qos = Qos {
        finish_by: Some(Duration::from_secs(1000)),
        ..Qos::default()
    };
    let mut draft = Draft::from(JobSpec::clone(&open_with(qos, vec![group("a", &[])])));
    draft.critical.top = hedge_model::spec::Top::Count(2);
    rig.submit(1, 1, &Arc::new(JobSpec::new(draft).expect("a job")));
    rig.commit();
    assert_eq!(view(&rig).critical, 0);
    let marked = Group {
        critical: true,
        ..group("b", &[])
    };
    extend(&mut rig, 2, vec![marked, group("c", &["a", "b"])]);
    rig.commit();
    assert_eq!(view(&rig).critical, 1, "what is marked is at once");
    rig.pass(Duration::from_millis(1));
    assert_eq!(view(&rig).critical, 2, "c waits for a");
    let seen = view(&rig);
    assert_eq!((seen.needed, seen.tasks), (3, 3));
    assert!(seen.deadline.is_some());
    rig.attach(1, 1);
    rig.commit();
    assert_eq!(assigned(&rig.said())[0].1.task.number, 0, "a or b, not c");
    extend(
        &mut rig,
        3,
        vec![timed("long", 500, &[]), timed("short", 1, &[])],
    );
    rig.commit();
    rig.pass(Duration::from_millis(1));
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.done(1, attempt(1, 1));
    rig.commit();
    let last = assigned(&rig.said()).pop().expect("one is next");
    assert_eq!(last.1.task.number, 3, "the longest comes first");
}

#[test]
fn an_open_job_without_tasks_is_done_when_it_is_closed() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &open(Vec::new()));
    rig.commit();
    rig.expect(&["append accepted", "client 1 #1: accepted 1"]);
    let asked = Request::Logs(JobId(1), "0".to_owned());
    for request in [asked, Request::Explain(JobId(1), Some("a".to_owned()))] {
        rig.ask(1, request);
        assert!(rig.said()[0].contains("none was added to it yet"));
    }
    rig.ask(1, Request::Explain(JobId(1), None));
    rig.ask(1, Request::Watch(JobId(1)));
    rig.ask(1, Request::Close(JobId(1)));
    rig.commit();
    assert_eq!(view(&rig).state, JobState::Done);
    rig.ask(1, Request::Close(JobId(1)));
    assert!(answers(&rig.said()).contains(&"client 1 #99: Ok"));
}

#[test]
fn a_group_of_an_older_format_takes_no_open_job() {
    let mut state = State::default();
    state.apply(&Record::Epoch {
        epoch: hedge_model::Epoch(1),
        at: Time(1),
        secret: [0; 32],
    });
    let mut rig = Rig::with(state, &[]);
    rig.submit(1, 1, &open(vec![group("a", &[])]));
    let said = rig.said();
    assert!(said[0].contains("the group writes format 1"), "{said:?}");
}
