//! Enough is enough: of a task for those that wait for it, and of a job for its results.

mod support;

use hedge_model::msg::Request;
use hedge_model::spec::{Group, Need, Qos, Redundancy};
use hedge_model::{JobId, JobSpec};
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
    rig.said();
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
    rig.said();
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
