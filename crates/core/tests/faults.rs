//! Faults of workers and their machines, as the supervisor's core deals with them: the task goes on, the worker waits.

mod support;

use hedge_model::ending::{OutputFault, Shortage};
use hedge_model::msg::{Outcome, Request};
use hedge_model::spec::Group;
use hedge_model::view::{JobState, WorkerView};
use hedge_model::{AttemptId, Data, Ending, FileEntry, JobId};
use std::time::Duration;
use support::*;

fn short() -> Outcome {
    Outcome::Ended(Ending::Short {
        of: Shortage::Processes,
        doing: "start a process".into(),
    })
}

fn file(path: &str) -> FileEntry {
    FileEntry {
        path: path.into(),
        executable: false,
        data: Data::Inline([1].as_slice().into()),
    }
}

/// The only attempt that was assigned since the last look.
#[track_caller]
fn only(rig: &mut Rig) -> (u8, AttemptId) {
    let all = assigned(&rig.said());
    assert_eq!(all.len(), 1, "{all:?}");
    all[0]
}

/// A task that fails with its first failure.
fn tried_once() -> Group {
    Group {
        retries: 0,
        ..group("a", &[])
    }
}

#[test]
fn a_short_machine_loses_its_task_to_another_and_waits() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![array(2, group("a", &[]))]));
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
    rig.attach(2, 2);
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "worker 2: body a v1",
        "worker 2: assign 1.1/0.1.1",
        "watch worker 2: assigned",
    ]);
    rig.reports(1, attempt(0, 1), short());
    rig.commit();
    rig.expect(&["append worker failed 1.0/0.1.1: its worker was short of processes (EAGAIN) and could not start a process", "worker 1: settled 1.0/0.1.1", "worker 2: assign 1.0/0.1.2", "watch worker 1: idle"]);
    assert_eq!(
        rig.core.worker_views()[0].admission,
        "excluded: short of processes (EAGAIN)"
    );
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!((view.attempts.failed, view.running), (0, 2));
    rig.pass_with_heartbeats(Duration::from_millis(100), &[1, 2]);
    assert_eq!(rig.core.worker_views()[0].admission, "admitted");
    rig.expect(&[]);
}

#[test]
fn the_only_worker_gets_the_task_again_later_and_later_and_the_job_never_fails() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![tried_once()]));
    rig.commit();
    let mut waits = Vec::new();
    let (_, mut id) = only(&mut rig);
    for _ in 0..40 {
        rig.reports(1, id, short());
        rig.commit();
        let since = rig.now;
        let failed = format!(
            "append worker failed {id}: its worker was short of processes (EAGAIN) and could not start a process"
        );
        let settled = format!("worker 1: settled {id}");
        rig.expect(&[&failed, &settled, "watch worker 1: idle"]);
        while rig.core.worker_views()[0].admission != "admitted" {
            rig.pass_with_heartbeats(Duration::from_millis(100), &[1]);
        }
        waits.push(rig.now.since(since));
        (_, id) = only(&mut rig);
    }
    assert_eq!(
        waits[..4],
        [1, 2, 4, 8].map(|n| Duration::from_millis(n * 100))
    );
    assert_eq!(waits[39], Duration::from_secs(60));
    rig.ask(1, Request::Explain(JobId(1), Some("a".into())));
    let explained = format!("{:?}", rig.actions());
    assert!(explained.contains("short of processes (EAGAIN)"));
    rig.expect(&["client 1 #99: explains job 1"]);
    // Once it has done a task, all is forgotten.
    rig.done(1, id);
    rig.commit();
    rig.submit(1, 2, &plain(vec![group("b", &[])]));
    rig.commit();
    let said = rig.said();
    let [(_, id)] = assigned(&said)[..] else {
        panic!("{said:?}");
    };
    rig.reports(1, id, short());
    rig.commit();
    rig.expect(&[
        "append worker failed 2.0/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
        "worker 1: settled 2.0/0.1.1",
        "watch worker 1: idle",
    ]);
    rig.pass_with_heartbeats(Duration::from_millis(100), &[1]);
    assert_eq!(only(&mut rig).0, 1);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(view.state, JobState::Done);
}

#[test]
fn many_faults_at_once_are_one_exclusion() {
    let mut rig = Rig::new();
    rig.attach(1, 8);
    rig.submit(1, 1, &plain(vec![array(8, group("a", &[]))]));
    rig.commit();
    let given = assigned(&rig.said());
    assert_eq!(given.len(), 8);
    given
        .iter()
        .for_each(|(_, id)| rig.reports(1, *id, short()));
    rig.commit();
    rig.expect(&[
"append worker failed 1.0/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.1/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.2/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.3/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.4/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.5/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.6/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"append worker failed 1.7/0.1.1: its worker was short of processes (EAGAIN) and could not start a process",
"worker 1: settled 1.0/0.1.1",
"worker 1: settled 1.1/0.1.1",
"worker 1: settled 1.2/0.1.1",
"worker 1: settled 1.3/0.1.1",
"worker 1: settled 1.4/0.1.1",
"worker 1: settled 1.5/0.1.1",
"worker 1: settled 1.6/0.1.1",
"worker 1: settled 1.7/0.1.1",
"watch worker 1: idle",
]);
    rig.pass_with_heartbeats(Duration::from_millis(100), &[1]);
    assert_eq!(assigned(&rig.said()).len(), 8);
}

#[test]
fn a_task_that_fails_every_machine_leaves_them_to_others() {
    let mut rig = Rig::new();
    (1..4).for_each(|worker| rig.attach(worker, 1));
    rig.submit(1, 1, &plain(vec![group("big", &[])]));
    rig.commit();
    let full = || {
        Outcome::Ended(Ending::Short {
            of: Shortage::Disk,
            doing: "keep its files".into(),
        })
    };
    for _ in 0..3 {
        let (worker, id) = only(&mut rig);
        rig.reports(worker, id, full());
        rig.commit();
    }
    rig.expect(&[
"append worker failed 1.0/0.1.3: its worker was short of disk space (ENOSPC) and could not keep its files",
"worker 3: settled 1.0/0.1.3",
"watch worker 3: idle",
]);
    let excluded = |view: &WorkerView| view.admission != "admitted";
    let views = rig.core.worker_views();
    assert_eq!(views.iter().filter(|view| excluded(view)).count(), 1);
    rig.submit(1, 2, &plain(vec![array(2, group("b", &[]))]));
    rig.commit();
    assert_eq!(
        assigned(&rig.said()).len(),
        2,
        "two workers take other work"
    );
}

#[test]
fn inputs_that_one_worker_cannot_fetch_hold_up_nobody_else() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    rig.submit(1, 1, &plain(vec![array(4, group("a", &[]))]));
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
    let unread = || {
        Outcome::Ended(Ending::Input {
            missing: Vec::new(),
            why: "nobody gave it".into(),
        })
    };
    rig.reports(1, attempt(0, 1), unread());
    rig.commit();
    // It is not given what it cannot read, and another one is.
    assert_eq!(assigned(&rig.said()), []);
    rig.attach(2, 1);
    assert_eq!(only(&mut rig).0, 2);
    rig.pass_with_heartbeats(Duration::from_millis(100), &[1, 2]);
    assert_eq!(only(&mut rig).0, 1);
    assert_eq!(rig.core.worker_views()[0].admission, "admitted");
}

#[test]
fn success_without_the_declared_outputs_is_the_workers_fault() {
    let declares = |outputs: &[&str]| Group {
        outputs: outputs.iter().map(|name| (*name).into()).collect(),
        ..array(1, group("a", &[]))
    };
    let cases: [(&[&str], &[&str], Option<&str>); 9] = [
        (&["x"], &[], Some("without the output \"x\"")),
        (&["x"], &["y"], Some("without the output \"x\"")),
        (&["x"], &["x.txt"], Some("without the output \"x\"")),
        (
            &["f/*.png"],
            &["g/a.png"],
            Some("without the output \"f/*.png\""),
        ),
        (
            &["x"],
            &["x", "../x"],
            Some("\"../x\", which leaves the task's folder"),
        ),
        (&["x"], &["x", "x"], Some("\"x\" twice")),
        (&["x-${index}", "f/*"], &["x-0", "f/a"], None),
        (&["x"], &["x/a"], None),
        (&["x/"], &[], None),
    ];
    for (declared, left, wrong) in cases {
        let mut rig = Rig::new();
        rig.attach(1, 1);
        rig.submit(1, 1, &plain(vec![declares(declared)]));
        rig.commit();
        rig.attach(2, 1);
        rig.expect(&[
            "measure worker 1: 131072 bytes",
            "watch worker 1: idle",
            "append accepted",
            "client 1 #1: accepted 1",
            "worker 1: body a v1",
            "worker 1: assign 1.0/0.1.1",
            "watch worker 1: assigned",
            "measure worker 2: 131072 bytes",
            "watch worker 2: idle",
        ]);
        let left = left.iter().map(|path| file(path)).collect();
        rig.reports(1, attempt(0, 1), Outcome::Done(left));
        rig.commit();
        let said = rig.said();
        match wrong {
            None => assert!(said[0].starts_with("append done"), "{said:?}"),
            Some(why) => {
                assert!(said[0].starts_with("append worker failed"), "{said:?}");
                assert!(said[0].contains(why), "{said:?}");
                assert_eq!(assigned(&said)[0].0, 2, "it runs elsewhere");
                assert_ne!(rig.core.worker_views()[0].admission, "admitted");
            }
        }
    }
}

#[test]
fn an_output_that_cannot_be_taken_counts_as_the_tasks_failure() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![tried_once()]));
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
    let fault = OutputFault::Odd {
        what: "a socket".into(),
    };
    let path = "out".into();
    let end = Ending::Output { path, fault };
    rig.reports(1, attempt(0, 1), Outcome::Ended(end));
    rig.commit();
    let said = rig.said().concat();
    assert!(
        said.contains("job 1 failed: task a failed: its output \"out\" is a socket"),
        "{said}"
    );
}

#[test]
fn a_worker_cannot_report_what_only_a_supervisor_records() {
    for end in [
        Ending::Lost,
        Ending::Recorded {
            by_task: true,
            why: "because".into(),
        },
    ] {
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
        rig.reports(1, attempt(0, 1), Outcome::Ended(end));
        rig.commit();
        let said = rig.said();
        assert!(said[0].starts_with("append worker failed"), "{said:?}");
    }
}
