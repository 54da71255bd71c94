//! Tasks that submit a job and wait for it.

mod support;

use hedge_model::msg::{FromWorker, Request};
use hedge_model::spec::Group;
use hedge_model::{AttemptId, JobId, TaskId};
use support::*;

fn first_of(job: u64) -> AttemptId {
    AttemptId {
        task: TaskId {
            job: JobId(job),
            number: 0,
        },
        ..attempt(0, 1)
    }
}

#[test]
fn a_task_that_waits_for_a_job_gives_its_cpus_back_and_is_not_copied() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let outer = Group {
        critical: true,
        ..group("outer", &[])
    };
    rig.submit(1, 1, &redundant(2, 1, vec![outer]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body outer v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: critical",
    ]);
    rig.from(1, FromWorker::Started(first_of(1)));
    rig.submit(1, 2, &plain(vec![group("inner", &[])]));
    rig.commit();
    assert_eq!(assigned(&rig.said()), [], "the one CPU is taken");
    rig.from(1, FromWorker::Waits(first_of(1), Some(JobId(2))));
    assert_eq!(
        assigned(&rig.said()),
        [(1, first_of(2))],
        "it is free for the job"
    );
    rig.attach(2, 4);
    assert_eq!(
        assigned(&rig.said()),
        [],
        "a copy would submit the job once more"
    );
    rig.done(1, first_of(2));
    rig.commit();
    rig.expect(&[
        "append done 2.0/0.1.1 by worker 1",
        "append job 2 done",
        "worker 1: settled 2.0/0.1.1",
        "worker 1: forget 2",
    ]);
    rig.from(1, FromWorker::Waits(first_of(1), None));
    let copies = assigned(&rig.said());
    assert_eq!(copies.len(), 1, "it is a critical task again: {copies:?}");
    // Its CPU is its own again.
    rig.submit(1, 3, &plain(vec![array(5, group("more", &[]))]));
    rig.commit();
    let given = assigned(&rig.said());
    assert!(given.iter().all(|(worker, _)| *worker == 2), "{given:?}");
    rig.done(1, first_of(1));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: cancel 1.0/0.1.2",
        "worker 1: body more v1",
        "worker 1: assign 3.3/0.1.1",
        "watch worker 1: assigned",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
}

#[test]
fn a_task_that_says_that_it_waits_for_nothing_real_keeps_its_cpus() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![array(2, group("outer", &[]))]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body outer v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    rig.from(1, FromWorker::Started(first_of(1)));
    // Its own job, one that does not exist, and an attempt of another worker.
    rig.from(1, FromWorker::Waits(first_of(1), Some(JobId(1))));
    rig.from(1, FromWorker::Waits(first_of(1), Some(JobId(9))));
    rig.attach(2, 1);
    let second = assigned(&rig.said());
    rig.from(1, FromWorker::Waits(second[0].1, Some(JobId(1))));
    rig.submit(1, 2, &plain(vec![group("inner", &[])]));
    rig.commit();
    assert_eq!(assigned(&rig.said()), []);
    rig.ask(1, Request::Cancel(JobId(1)));
    rig.commit();
    rig.expect(&[
        "append job 1 cancelled",
        "worker 1: cancel 1.0/0.1.1",
        "worker 2: cancel 1.1/0.1.1",
        "worker 1: forget 1",
        "worker 2: forget 1",
        "client 1 #99: Ok",
    ]);
}

#[test]
fn a_waiting_task_may_be_cancelled_lost_or_adopted() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("outer", &[])]));
    rig.submit(1, 2, &plain(vec![group("inner", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body outer v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "client 1 #2: accepted 2",
    ]);
    rig.from(1, FromWorker::Started(first_of(1)));
    rig.from(1, FromWorker::Waits(first_of(1), Some(JobId(2))));
    rig.expect(&["worker 1: body inner v1", "worker 1: assign 2.0/0.1.1"]);
    // A worker that comes back says both again.
    rig.from(1, FromWorker::Started(first_of(1)));
    rig.from(1, FromWorker::Waits(first_of(1), Some(JobId(2))));
    rig.expect(&[]);
    rig.gone(1);
    rig.commit();
    rig.expect(&[
        "append lost 1.0/0.1.1",
        "append lost 2.0/0.1.1",
        "stop watching worker 1",
    ]);
    rig.attach(2, 1);
    let given = assigned(&rig.said());
    let (_, again) = given[0];
    rig.from(2, FromWorker::Started(again));
    let other = JobId(3 - again.task.job.0);
    rig.from(2, FromWorker::Waits(again, Some(other)));
    assert_eq!(assigned(&rig.said()).len(), 1);
    rig.ask(1, Request::Cancel(again.task.job));
    rig.commit();
    rig.expect(&[
        "append job 1 cancelled",
        "worker 2: cancel 1.0/0.1.2",
        "worker 2: forget 1",
        "client 1 #99: Ok",
    ]);
}
