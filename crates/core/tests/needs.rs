//! Enough is enough: of a task for those that wait for it, and of a job for its results.

mod support;

use hedge_core::supervisor::Action;
use hedge_model::msg::{GrantedReply, Outcome, Request};
use hedge_model::spec::{Group, Need, Qos, Redundancy};
use hedge_model::{Data, FileEntry, Hash, JobId, JobSpec};
use std::sync::Arc;
use support::*;

fn needing(need: Need, groups: Vec<Group>) -> Arc<JobSpec> {
    let qos = Qos {
        redundancy: Redundancy::None,
        need,
        ..Qos::default()
    };
    job(qos, 0, groups)
}

#[test]
fn a_job_is_done_when_enough_of_it_is_and_the_rest_is_cancelled() {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(
        1,
        1,
        &needing(Need::Share(0.5), vec![array(4, group("a", &[]))]),
    );
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 1: assign 1.1/0.1.1",
        "worker 1: assign 1.2/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.done(1, attempt(0, 1));
    rig.commit();
    let said = rig.said();
    assert!(
        !said.iter().any(|line| line.contains("append job")),
        "one of four is not half: {said:?}"
    );
    rig.done(1, attempt(2, 1));
    rig.commit();
    let said = rig.said();
    assert!(said.contains(&"append job 1 done".to_owned()), "{said:?}");
    for task in [1, 3] {
        let cancel = format!("worker 1: cancel 1.{task}/0.1.1");
        assert!(said.contains(&cancel), "{cancel} is missing: {said:?}");
    }
    rig.ask(1, Request::Job(JobId(1)));
    rig.expect(&["client 1 #99: job 1 Done 2/4"]);
}

#[test]
fn a_task_starts_when_enough_of_what_it_waits_for_is_done_and_the_rest_is_cancelled() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    let sum = Group {
        needs: vec![("part".into(), Need::Count(2))],
        ..group("sum", &["part"])
    };
    rig.submit(
        1,
        1,
        &needing(Need::Share(1.0), vec![array(4, group("part", &[])), sum]),
    );
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body part v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 1: assign 1.1/0.1.1",
        "worker 1: assign 1.2/0.1.1",
        "worker 1: assign 1.3/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.done(1, attempt(1, 1));
    rig.commit();
    assert!(
        !rig.said().iter().any(|line| line.contains("assign")),
        "one part is not enough"
    );
    rig.done(1, attempt(3, 1));
    rig.commit();
    let said = rig.said();
    for wanted in [
        "worker 1: assign 1.4/0.1.1",
        "worker 1: cancel 1.0/0.1.1",
        "worker 1: cancel 1.2/0.1.1",
    ] {
        assert!(
            said.contains(&wanted.to_owned()),
            "{wanted} is missing: {said:?}"
        );
    }
    rig.done(1, attempt(4, 1));
    rig.commit();
    let said = rig.said();
    assert!(said.contains(&"append job 1 done".to_owned()), "{said:?}");
    rig.ask(1, Request::Job(JobId(1)));
    rig.expect(&["client 1 #99: job 1 Done 3/5"]);
}

#[test]
fn the_manifest_says_who_made_each_result_and_what_is_missing() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    let part = Group {
        outputs: vec!["out-${index}".into()],
        ..group("part", &[])
    };
    rig.submit(1, 1, &needing(Need::Share(0.5), vec![array(4, part)]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body part v1",
        "worker 1: assign 1.0/0.1.1",
        "worker 1: assign 1.1/0.1.1",
        "worker 1: assign 1.2/0.1.1",
        "worker 1: assign 1.3/0.1.1",
        "watch worker 1: assigned",
    ]);
    for task in [0, 2] {
        let file = FileEntry {
            path: format!("out-{task}").into(),
            executable: false,
            data: Data::Inline(Arc::from(*b"made")),
        };
        rig.reports(1, attempt(task, 1), Outcome::Done(vec![file]));
    }
    rig.commit();
    rig.actions();
    let (job, from) = (JobId(1), 0);
    rig.ask(1, Request::Results { job, from });
    let results = rig.actions().into_iter().find_map(|action| match action {
        Action::AnswerGranted {
            reply: GrantedReply::Results(results),
            ..
        } => Some(results),
        _ => None,
    });
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append done 1.2/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "append job 1 done",
        "worker 1: settled 1.2/0.1.1",
        "worker 1: cancel 1.1/0.1.1",
        "worker 1: cancel 1.3/0.1.1",
        "worker 1: forget 1",
        "client 1 #99: 2 results",
    ]);
    let results = results.expect("an answer");
    let made: Vec<_> = results
        .files
        .iter()
        .map(|made| (&*made.task, &*made.file.path, made.attempt, made.worker))
        .collect();
    assert_eq!(
        made,
        [
            ("part.0", "out-0", attempt(0, 1), worker(1)),
            ("part.2", "out-2", attempt(2, 1), worker(1)),
        ]
    );
    let hash = Hash(*blake3::hash(b"made").as_bytes());
    assert!(results.files.iter().all(|made| made.hash == hash));
    assert_eq!(results.missing, ["part.1", "part.3"]);
    assert_eq!(results.missing_count, 2);
}
