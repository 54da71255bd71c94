//! Tasks that fail for good, what that does to their job, and jobs that failed and are retried.

mod support;

use hedge_core::supervisor::State;
use hedge_model::msg::{Outcome, Request};
use hedge_model::record::Record;
use hedge_model::spec::{Group, Input, MaxFailures, Need, Qos};
use hedge_model::view::{JobState, JobView, TaskFilter};
use hedge_model::{AttemptId, Epoch, FileEntry, JobId, JobSpec, Time};
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn once(group: Group) -> Group {
    Group {
        retries: 0,
        ..group
    }
}

fn with(qos: Qos, groups: Vec<Group>) -> Arc<JobSpec> {
    job(qos, 0, groups)
}

fn tolerant(max_failures: MaxFailures) -> Qos {
    Qos {
        max_failures: Some(max_failures),
        ..plain(vec![group("a", &[])]).qos().clone()
    }
}

fn view(rig: &Rig) -> JobView {
    rig.core.job_view(JobId(1)).expect("a job")
}

fn counted(rig: &Rig) -> (JobState, u32, u32, u32) {
    let view = view(rig);
    (view.state, view.done, view.failed, view.skipped)
}

/// The same attempt in another generation.
fn again(generation: u32, id: AttemptId) -> AttemptId {
    AttemptId { generation, ..id }
}

/// A task that succeeds, one that fails, and two that wait for the one that fails.
fn good_and_bad() -> Vec<Group> {
    vec![
        group("good", &[]),
        once(group("bad", &[])),
        group("after", &["bad"]),
        group("last", &["after", "good"]),
    ]
}

#[test]
fn one_failing_task_of_three_costs_what_waits_for_it_and_not_the_job() {
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &plain(good_and_bad()));
    rig.commit();
    rig.skip("both of those that can start are assigned");
    rig.fails(1, attempt(1, 1));
    rig.commit();
    rig.expect(&[
        "append failed 1.1/0.1.1: it ended with exit code 1",
        "append task 1.1 failed",
        "worker 1: settled 1.1/0.1.1",
    ]);
    assert_eq!(counted(&rig), (JobState::Running, 0, 1, 2));
    assert_eq!((view(&rig).running, view(&rig).waiting), (1, 0));
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 failed: task bad failed: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    assert_eq!(counted(&rig), (JobState::Failed, 1, 1, 2));
}

#[test]
fn a_job_that_reaches_its_need_is_done_in_spite_of_failures() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    let qos = Qos {
        need: Need::Count(2),
        ..tolerant(MaxFailures::Count(9))
    };
    rig.submit(1, 1, &with(qos, vec![array(4, once(group("a", &[])))]));
    rig.commit();
    rig.skip("all four are assigned");
    for task in [0, 1] {
        rig.fails(1, attempt(task, 1));
        rig.commit();
        rig.skip("the failure of a task is recorded");
    }
    rig.done(1, attempt(2, 1));
    rig.commit();
    rig.skip("one of two is done");
    assert_eq!(counted(&rig), (JobState::Running, 1, 2, 0));
    rig.done(1, attempt(3, 1));
    rig.commit();
    rig.expect(&[
        "append done 1.3/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.3/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    assert_eq!(counted(&rig), (JobState::Done, 2, 2, 0));
    rig.ask(1, Request::Retry(JobId(1)));
    rig.expect(&["client 1 #99: no, Bad: job 1 is done; submit it again to run it again"]);
}

#[test]
fn a_job_that_tolerates_failures_is_done_once_all_tasks_are_that_can_be() {
    let tolerates = Qos {
        tolerate_failures: true,
        ..Qos::default()
    };
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &with(tolerates.clone(), good_and_bad()));
    rig.commit();
    rig.skip("both of those that can start are assigned");
    rig.fails(1, attempt(1, 1));
    rig.commit();
    rig.skip("the failure of a task is recorded");
    assert_eq!(counted(&rig), (JobState::Running, 0, 1, 2));
    assert_eq!(view(&rig).needed, 1);
    rig.done(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    assert_eq!(counted(&rig), (JobState::Done, 1, 1, 2));
    // None can be done.
    let mut rig = Rig::new();
    rig.attach(1, 3);
    rig.submit(1, 1, &with(tolerates, vec![once(group("bad", &[]))]));
    rig.commit();
    rig.skip("it is assigned");
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.skip("its failure is recorded, and the end");
    assert_eq!(counted(&rig), (JobState::Done, 0, 1, 0));
}

#[test]
fn more_failures_than_the_job_allows_stop_it() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    let spec = with(
        tolerant(MaxFailures::Share(0.25)),
        vec![array(4, once(group("a", &[])))],
    );
    rig.submit(1, 1, &spec);
    rig.commit();
    rig.skip("all four are assigned");
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.skip("one of four may fail");
    assert_eq!(counted(&rig), (JobState::Running, 0, 1, 0));
    rig.fails(1, attempt(3, 1));
    rig.commit();
    rig.expect(&[
        "append failed 1.3/0.1.1: it ended with exit code 1",
        "append task 1.3 failed",
        "worker 1: settled 1.3/0.1.1",
        "append job 1 failed: 2 of its 4 tasks failed, more than the 1 that it allows, the first of them a.0: it \
         ended with exit code 1",
        "worker 1: cancel 1.1/0.1.1",
        "worker 1: cancel 1.2/0.1.1",
        "worker 1: forget 1",
    ]);
    assert_eq!(counted(&rig), (JobState::Failed, 0, 2, 2));
}

#[test]
fn a_task_that_failed_is_tried_again_after_its_delay() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let patient = Group {
        retry_delay: Some(Duration::from_secs(30)),
        ..group("a", &[])
    };
    rig.submit(1, 1, &plain(vec![patient]));
    rig.commit();
    rig.skip("it is assigned");
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
    ]);
    assert_eq!(
        view(&rig).waits,
        ["task a: it failed, and is tried again in 30.0 s"]
    );
    rig.pass_with_heartbeats(Duration::from_secs(29), &[1]);
    rig.expect_without(&["benchmark"], &[]);
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1]);
    rig.expect_without(
        &["benchmark"],
        &["worker 1: assign 1.0/0.1.2", "watch worker 1: assigned"],
    );
}

#[test]
fn a_copy_is_stopped_when_its_task_is_given_up() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.attach(2, 1);
    let marked = Group {
        critical: true,
        ..once(group("a", &[]))
    };
    rig.submit(1, 1, &redundant(2, 1, vec![marked]));
    rig.commit();
    rig.skip("the task and its copy are assigned");
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.expect(&[
        "append failed 1.0/0.1.1: it ended with exit code 1",
        "append task 1.0 failed",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "append job 1 failed: task a failed: it ended with exit code 1",
        "worker 2: cancel 1.0/0.1.2",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
}

/// A leader whose job of two stages has failed: the first made a blob, the second could not use it.
fn failed_stages() -> (Rig, FileEntry) {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let second = Group {
        inputs: vec![Input::Task("first".into())],
        ..once(group("second", &[]))
    };
    rig.submit(1, 1, &plain(vec![group("first", &[]), second]));
    rig.commit();
    rig.skip("the first is assigned");
    let made = blob("made", 5);
    rig.reports(1, attempt(0, 1), Outcome::Done(vec![made.clone()]));
    rig.commit();
    rig.skip("the second is assigned");
    rig.fails(1, attempt(1, 1));
    rig.commit();
    (rig, made)
}

#[test]
fn a_job_that_failed_keeps_what_it_needs_and_goes_on_when_it_is_retried() {
    let (mut rig, made) = failed_stages();
    let hash = made.data.hash().expect("a blob");
    let fetched = format!("pull {hash:?}");
    let said = rig.said();
    assert!(
        said.iter()
            .any(|line| line.starts_with("append job 1 failed")),
        "{said:?}"
    );
    assert!(
        said.iter().any(|line| line.to_lowercase().contains("pull")),
        "{fetched} is not among {said:?}"
    );
    rig.event(hedge_core::supervisor::Event::Fetched {
        hash,
        result: Ok(None),
    });
    rig.skip("the worker drops what the supervisor has now");
    rig.ask(1, Request::Retry(JobId(1)));
    rig.commit();
    rig.expect(&[
        "append job 1 retried",
        "client 1 #99: Ok",
        "worker 1: body second v1, may read 5",
        "worker 1: assign 1.1/1.1.1",
        "watch worker 1: assigned",
    ]);
    assert_eq!(counted(&rig), (JobState::Running, 1, 0, 0));
    rig.done(1, again(1, attempt(1, 1)));
    rig.commit();
    let said = rig.said();
    assert!(
        said.contains(&"drop 5".to_owned()),
        "what was kept for the retry stays: {said:?}"
    );
    assert_eq!(counted(&rig), (JobState::Done, 2, 0, 0));
}

#[test]
fn a_late_success_of_before_the_retry_changes_nothing() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let qos = tolerant(MaxFailures::Count(0));
    rig.submit(1, 1, &with(qos, vec![array(2, once(group("a", &[])))]));
    rig.commit();
    rig.skip("both are assigned");
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.skip("the job failed, and the other attempt is cancelled");
    rig.ask(1, Request::Retry(JobId(1)));
    rig.commit();
    rig.skip("one of two is assigned: the other place is still taken");
    rig.done(1, attempt(1, 1));
    rig.commit();
    assert_eq!(counted(&rig), (JobState::Running, 0, 0, 0));
    rig.skip("the second is assigned");
    for first in [attempt(0, 1), attempt(1, 2)] {
        rig.done(1, again(1, first));
        rig.commit();
        rig.skip("it is done");
    }
    let total = view(&rig);
    assert_eq!(total.state, JobState::Done, "{total:?}");
}

#[test]
fn a_snapshot_tells_what_failed() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let groups = vec![
        group("good", &[]),
        once(group("bad", &[])),
        group("after", &["bad"]),
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.skip("two are assigned");
    rig.fails(1, attempt(1, 1));
    rig.commit();
    rig.skip("one has failed");
    let mut bytes = Vec::new();
    rig.core.state().write(&mut bytes).unwrap();
    let state = State::restore(&bytes).unwrap();
    let mut next = Rig::with(state, &[]);
    assert_eq!(counted(&next), (JobState::Waiting, 0, 1, 1));
    next.ask(
        1,
        Request::Tasks {
            job: JobId(1),
            filter: TaskFilter::Failed,
            from: 0,
        },
    );
    let said = next.said().concat();
    assert!(
        said.contains("\"bad\"") && !said.contains("\"good\""),
        "{said}"
    );
}

#[test]
fn the_first_failure_ends_a_job_where_supervisors_are_older() {
    let mut state = State::default();
    let (epoch, secret, at) = (Epoch(1), [7; 32], Time(1));
    state.apply(&Record::Epoch { epoch, at, secret });
    let mut rig = Rig::with(state, &[]);
    rig.attach(1, 2);
    rig.submit(1, 1, &plain(vec![array(2, once(group("a", &[])))]));
    rig.commit();
    rig.skip("both are assigned");
    let id = AttemptId {
        epoch: Epoch(2),
        ..attempt(0, 1)
    };
    rig.fails(1, id);
    rig.commit();
    rig.expect(&[
        "append failed 1.0/0.2.1: it ended with exit code 1",
        "append job 1 failed: task a.0 failed: it ended with exit code 1",
        "worker 1: settled 1.0/0.2.1",
        "worker 1: cancel 1.1/0.2.1",
        "worker 1: forget 1",
    ]);
    rig.ask(1, Request::Retry(JobId(1)));
    rig.expect(&[
        "client 1 #99: no, Bad: job 1 failed when this grid kept no failed jobs whole; submit it again",
    ]);
}

#[test]
fn a_task_that_failed_blocks_those_that_wait_for_it_at_their_own_place() {
    let mut rig = Rig::new();
    rig.attach(1, 9);
    let each = |id: &str, deps: &[&str]| Group {
        deps_each: deps.iter().map(|dep| (*dep).into()).collect(),
        ..array(3, once(group(id, &[])))
    };
    let groups = vec![
        each("a", &[]),
        each("b", &[]),
        each("both", &["a", "b"]),
        each("then", &["both"]),
        group("all", &["then"]),
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.skip("all of the first two groups are assigned");
    // Another place in each.
    rig.fails(1, attempt(0, 1));
    rig.commit();
    rig.fails(1, attempt(4, 1));
    rig.commit();
    rig.skip("two tasks are given up");
    assert_eq!(counted(&rig), (JobState::Running, 0, 2, 5));
    for task in [1, 2, 3, 5] {
        rig.done(1, attempt(task, 1));
        rig.commit();
        rig.skip("it is done");
    }
    assert_eq!((view(&rig).running, view(&rig).waiting), (1, 1));
    for task in [8, 11] {
        rig.done(1, attempt(task, 1));
        rig.commit();
    }
    let said = rig.said();
    let end = "append job 1 failed: 2 of its 13 tasks failed, the first of them a.0: it ended with exit code 1";
    assert!(said.contains(&end.to_owned()), "{said:?}");
    assert_eq!(counted(&rig), (JobState::Failed, 6, 2, 5));
}
