//! Which tasks are critical, and that each of all runs on one worker and the critical ones on another too.

mod support;

use hedge_core::supervisor::CriticalSet;
use hedge_model::msg::{Request, WorkerInfo};
use hedge_model::spec::{
    CriticalRule, Draft, Estimate, Group, Input, Measure, Qos, Redundancy, Top,
};
use hedge_model::view::JobView;
use hedge_model::{AttemptId, JobId, JobSpec, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use support::*;

fn critical(spec: &hedge_model::JobSpec) -> Vec<String> {
    let set = CriticalSet::find(spec);
    (0..spec.task_count())
        .filter(|number| set.contains(spec, *number))
        .map(|number| spec.label(number))
        .collect()
}

/// Where each task of job 1 was assigned, as the lines of a rig say.
fn places(said: &[String]) -> BTreeMap<u32, Vec<String>> {
    let mut places = BTreeMap::<u32, Vec<String>>::new();
    for line in said {
        if let Some((worker, attempt)) = line.split_once(": assign 1.") {
            let task = attempt.split('/').next().and_then(|n| n.parse().ok());
            places
                .entry(task.expect("a task"))
                .or_default()
                .push(worker.to_owned());
        }
    }
    places
}

fn view(rig: &Rig) -> JobView {
    rig.core.job_view(hedge_model::JobId(1)).expect("a job")
}

#[test]
fn a_task_that_one_other_reads_supplies_less_than_one_that_all_read() {
    let reads = |id: &str, count, input: Input| Group {
        inputs: vec![input],
        ..array(count, group(id, &[]))
    };
    let spec = JobSpec::new(Draft {
        name: "test".into(),
        qos: Qos::default(),
        critical: CriticalRule {
            by: vec![(Measure::Data, 1.0)],
            top: Top::Count(1),
        },
        outline: false,
        files: Vec::new(),
        groups: vec![
            array(50, group("by-place", &[])),
            array(50, group("whole", &[])),
            reads("next", 50, Input::TaskEach("by-place".into())),
            reads("last", 2, Input::Task("whole".into())),
        ],
    });
    assert_eq!(critical(&spec.unwrap()), ["whole.0"]);
}

#[test]
fn k_and_n_are_found_when_a_job_arrives() {
    let mut rig = Rig::new();
    for number in 1..=5 {
        rig.attach(number, 4);
    }
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "measure worker 3: 131072 bytes",
        "watch worker 3: idle",
        "measure worker 4: 131072 bytes",
        "watch worker 4: idle",
        "measure worker 5: 131072 bytes",
        "watch worker 5: idle",
    ]);
    // split must be done before any part, and the parts before join: 1 + 6 + 1 tasks.
    let groups = vec![
        group("split", &[]),
        array(6, group("part", &["split"])),
        group("join", &["part"]),
    ];
    rig.submit(1, 1, &redundant(2, 3, groups));
    rig.commit();
    let said = rig.said();
    assert_eq!(said[..2], ["append accepted", "client 1 #1: accepted 1"]);
    let found = view(&rig);
    assert_eq!((found.tasks, found.critical), (8, 3), "K and N");
    let first = places(&said);
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), [0]);
    assert_eq!(
        first[&0].len(),
        2,
        "the task that all others wait for runs twice"
    );
    assert_ne!(first[&0][0], first[&0][1], "on two workers");

    let winner = (1..=5).find(|n| first[&0][0] == format!("worker {n}"));
    rig.done(winner.expect("a worker"), attempt(0, 1));
    rig.commit();
    let second = places(&rig.said());
    assert_eq!(
        second.keys().copied().collect::<Vec<_>>(),
        [1, 2, 3, 4, 5, 6]
    );
    for (task, workers) in second {
        let distinct: BTreeSet<_> = workers.iter().collect();
        let copies = if task <= 2 { 2 } else { 1 };
        assert_eq!(
            (workers.len(), distinct.len()),
            (copies, copies),
            "task {task}"
        );
    }
}

#[test]
fn tasks_that_others_wait_for_are_critical() {
    // Nobody waits for alone and end; mark is marked by hand; the chain a-b-c decides the end.
    let groups = vec![
        group("alone", &[]),
        group("a", &[]),
        group("b", &["a"]),
        group("c", &["b"]),
        group("end", &["c"]),
        Group {
            critical: true,
            ..group("mark", &[])
        },
    ];
    let spec = redundant(2, 3, groups.clone());
    assert_eq!(
        critical(&spec),
        ["a", "b", "mark"],
        "the mark counts towards the 3"
    );
    let all = redundant(2, 100, groups.clone());
    assert_eq!(
        critical(&all),
        ["a", "b", "c", "mark"],
        "never those that nobody waits for"
    );
    let none = redundant(2, 0, groups);
    assert_eq!(critical(&none), ["mark"]);
}

#[test]
fn the_longest_way_to_the_end_comes_first() {
    let timed = |id: &str, seconds: u64, deps: &[&str]| Group {
        estimate: Estimate {
            cpu_time: Some(Duration::from_secs(seconds)),
            ..Estimate::default()
        }
        .into(),
        ..group(id, deps)
    };
    let groups = vec![
        timed("short", 1, &[]),
        timed("long", 1, &[]),
        timed("after-short", 2, &["short"]),
        timed("after-long", 50, &["long"]),
    ];
    assert_eq!(critical(&redundant(2, 1, groups)), ["long"]);
}

#[test]
fn without_redundancy_nothing_runs_twice() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    rig.attach(2, 4);
    rig.submit(1, 1, &plain(vec![group("a", &[]), group("b", &["a"])]));
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
        "watch worker 1: assigned",
    ]);
}

#[test]
fn copies_never_share_a_worker_and_wait_for_another() {
    let mut rig = Rig::new();
    rig.attach(1, 8);
    let marked = Group {
        critical: true,
        ..group("a", &[])
    };
    rig.submit(1, 1, &redundant(3, 0, vec![marked]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: critical",
    ]);
    rig.attach(2, 8);
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: critical",
    ]);
    rig.attach(3, 8);
    rig.expect(&[
        "measure worker 3: 131072 bytes",
        "worker 3: body a v1",
        "worker 3: assign 1.0/0.1.3",
        "watch worker 3: critical",
    ]);
    rig.attach(4, 8);
    rig.expect(&["measure worker 4: 131072 bytes", "watch worker 4: idle"]);
}

#[test]
fn a_lost_critical_task_is_copied_again_elsewhere() {
    let mut rig = Rig::new();
    (1..=3).for_each(|number| rig.attach(number, 1));
    let marked = Group {
        critical: true,
        ..group("a", &[])
    };
    rig.submit(1, 1, &redundant(2, 0, vec![marked]));
    rig.commit();
    assert_eq!(places(&rig.said())[&0], ["worker 1", "worker 2"]);
    rig.gone(1);
    rig.commit();
    rig.expect(&[
        "append lost 1.0/0.1.1",
        "stop watching worker 1",
        "worker 3: body a v1",
        "worker 3: assign 1.0/0.1.3",
        "watch worker 3: critical",
    ]);
    rig.ask(1, Request::Job(hedge_model::JobId(1)));
    rig.expect(&["client 1 #99: job 1 Running 0/1"]);
}

/// A job of independent tasks of which the two that need most processor time are critical, by history.
fn by_history(groups: Vec<Group>) -> Arc<JobSpec> {
    let draft = Draft {
        name: "history".into(),
        qos: Qos {
            redundancy: Redundancy::Critical,
            copies: 2,
            ..Qos::default()
        },
        critical: CriticalRule {
            by: vec![(Measure::Cpu, 1.0)],
            top: Top::Count(2),
        },
        files: Vec::new(),
        groups,
        outline: false,
    };
    Arc::new(JobSpec::new(draft).expect("a job"))
}

fn of_kind(id: &str, kind: &str) -> Group {
    Group {
        kind: Some(kind.into()),
        ..group(id, &[])
    }
}

#[test]
fn a_task_that_is_critical_by_history_is_watched_closely_from_its_start() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![of_kind("before", "long")]));
    rig.commit();
    rig.done_after(1, attempt(0, 1), Duration::from_secs(30));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body before v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    rig.submit(1, 2, &by_history(vec![of_kind("a", "long")]));
    rig.commit();
    rig.expect(&[
        "append accepted",
        "client 1 #2: accepted 2",
        "worker 1: body a v1",
        "worker 1: assign 2.0/0.1.1",
        "watch worker 1: critical",
    ]);
    // The worker connects anew: what it goes on with is as critical as before.
    let id = AttemptId {
        task: TaskId {
            job: JobId(2),
            number: 0,
        },
        ..attempt(0, 1)
    };
    let back = WorkerInfo {
        in_hand: rig.held([id]),
        ..info(1, 1)
    };
    rig.attach_with(1, back);
    rig.expect(&[
        "stop watching worker 1",
        "measure worker 1: 131072 bytes",
        "watch worker 1: critical",
    ]);
}

#[test]
fn a_task_that_becomes_critical_while_it_runs_is_watched_closely_and_copied() {
    let mut rig = Rig::new();
    for number in 1..=3 {
        rig.attach(number, 1);
    }
    let groups = vec![
        of_kind("a", "long"),
        of_kind("b", "long"),
        of_kind("c", "short"),
    ];
    rig.submit(1, 1, &by_history(groups));
    rig.commit();
    let said = rig.said();
    assert!(!said.iter().any(|line| line.contains("critical")));
    // What a took is expected of b, which is of its kind.
    rig.done_after(1, attempt(0, 1), Duration::from_secs(30));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: body b v1",
        "worker 1: assign 1.1/0.1.2",
        "watch worker 1: critical",
        "watch worker 2: critical",
    ]);
}
