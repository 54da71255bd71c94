//! Whose turn it is, and what cannot be placed.

mod support;

use hedge_model::msg::{Request, WorkerInfo};
use hedge_model::spec::{Group, Qos, Redundancy, Unplaceable};
use hedge_model::{JobId, Resources};
use std::collections::BTreeMap;
use support::*;

/// Lets one worker do everything, task by task, and gives the order in which tasks were assigned.
fn order(rig: &mut Rig, number: u8) -> Vec<(u64, u32)> {
    let mut order = Vec::new();
    loop {
        let next = assigned(&rig.said());
        if next.is_empty() {
            return order;
        }
        for (_, id) in next {
            order.push((id.task.job.0, id.task.number));
            rig.done(number, id);
        }
        rig.commit();
    }
}

#[test]
fn higher_priority_starts_first_and_older_jobs_before_younger() {
    let mut rig = Rig::new();
    let with = |priority, id: &str| Group {
        priority,
        ..group(id, &[])
    };
    let first = plain(vec![with(0, "a"), with(5, "b"), with(-5, "c")]);
    let second = plain(vec![with(5, "d"), with(0, "e")]);
    rig.submit(1, 1, &first);
    rig.submit(1, 2, &second);
    rig.commit();
    rig.expect(&[
        "append accepted",
        "append accepted",
        "client 1 #1: accepted 1",
        "client 1 #2: accepted 2",
    ]);
    rig.attach(1, 1);
    assert_eq!(order(&mut rig, 1), [(1, 1), (2, 0), (1, 0), (2, 1), (1, 2)]);
}

#[test]
fn two_clients_share_the_pool_fairly() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![array(100, group("a", &[]))]));
    rig.commit();
    rig.submit(2, 2, &plain(vec![array(3, group("b", &[]))]));
    rig.submit(2, 3, &plain(vec![array(100, group("c", &[]))]));
    rig.commit();
    rig.expect(&[
        "append accepted",
        "client 1 #1: accepted 1",
        "append accepted",
        "append accepted",
        "client 2 #2: accepted 2",
        "client 2 #3: accepted 3",
    ]);
    rig.attach(1, 8);
    let mut share = BTreeMap::<u64, u32>::new();
    for (_, id) in assigned(&rig.said()) {
        *share.entry(id.task.job.0).or_default() += 1;
    }
    assert_eq!(share, [(1, 4), (2, 3), (3, 1)].into());
}

/// Lets each of three clients submit a job of four tasks with half a second of work each, and one CPU do all of them.
/// Returns the jobs in the order in which their tasks start.
fn turns_on_one_cpu(begin: impl FnOnce(&mut Rig)) -> Vec<u64> {
    let mut rig = Rig::new();
    for client in 1..=3 {
        let tasks = plain(vec![array(4, group("a", &[]))]);
        rig.submit(client, client, &tasks);
    }
    rig.commit();
    begin(&mut rig);
    rig.skip("three jobs");
    rig.attach(1, 1);
    order(&mut rig, 1).into_iter().map(|(job, _)| job).collect()
}

#[test]
fn clients_take_turns_on_one_cpu() {
    let turns = turns_on_one_cpu(|_| {});
    assert_eq!(turns, [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_client_that_ends_its_job_leaves_the_turns_to_the_others() {
    let turns = turns_on_one_cpu(|rig| {
        rig.ask(2, Request::Cancel(JobId(2)));
        rig.commit();
    });
    assert_eq!(turns, [1, 3, 1, 3, 1, 3, 1, 3]);
}

#[test]
fn a_client_that_comes_late_gets_what_becomes_free() {
    let mut rig = Rig::new();
    rig.attach(1, 4);
    rig.submit(1, 1, &plain(vec![array(100, group("a", &[]))]));
    rig.commit();
    let first = assigned(&rig.said());
    rig.submit(2, 2, &plain(vec![array(100, group("b", &[]))]));
    rig.commit();
    rig.expect(&["append accepted", "client 2 #2: accepted 2"]);
    let mut next = Vec::new();
    for (_, id) in first.into_iter().take(3) {
        // Half a second each, so that nothing is sent ahead.
        rig.done(1, id);
        rig.commit();
        next.extend(assigned(&rig.said()));
    }
    let jobs: Vec<u64> = next.iter().map(|(_, id)| id.task.job.0).collect();
    assert_eq!(jobs, [2, 2, 1], "two each, then the turn goes round");
}

#[test]
fn what_no_worker_could_take_waits_and_says_why() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let big = Group {
        resources: Resources::cpus(8000),
        ..group("big", &[])
    };
    rig.submit(1, 1, &plain(vec![big, group("small", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body small v1",
        "worker 1: assign 1.1/0.1.1",
        "watch worker 1: assigned",
    ]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(
        view.waits,
        ["task \"big\" asks for cpus 8, and the most that any worker has is 2"]
    );
    rig.attach(2, 8);
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "worker 2: body big v1",
        "worker 2: assign 1.0/0.1.1",
        "watch worker 2: assigned",
    ]);
    let view = rig.core.job_view(JobId(1)).expect("a job");
    assert_eq!(view.waits, [""; 0]);
}

#[test]
fn a_job_that_asked_for_it_fails_when_no_worker_could_take_a_task() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let qos = Qos {
        redundancy: Redundancy::None,
        unplaceable: Unplaceable::Fail,
        ..Qos::default()
    };
    let picky = Group {
        labels: vec![("gpu".into(), "yes".into())],
        ..group("picky", &[])
    };
    rig.submit(1, 1, &job(qos, 0, vec![picky]));
    rig.commit();
    rig.expect(&[
"measure worker 1: 131072 bytes",
"watch worker 1: idle",
"append accepted",
"append job 1 failed: task \"picky\" needs a worker labelled gpu = \"yes\", and none is; no worker has a label \"gpu\"",
"client 1 #1: accepted 1",
]);
}

#[test]
fn many_groups_that_cannot_be_placed_hold_nothing_up() {
    let mut rig = Rig::new();
    rig.attach(1, 2);
    let big = |at: usize| Group {
        resources: Resources::cpus(8000 + at as u64),
        ..group(&format!("big-{at}"), &[])
    };
    let mut groups: Vec<Group> = (0..200).map(big).collect();
    groups.push(group("small", &[]));
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body small v1",
        "worker 1: assign 1.200/0.1.1",
        "watch worker 1: assigned",
    ]);
}

#[test]
fn labels_and_memory_choose_the_worker() {
    let mut rig = Rig::new();
    rig.attach(1, 8);
    let site = WorkerInfo {
        labels: vec![("site".into(), "a".into())],
        ..info(2, 1)
    };
    rig.attach_with(2, site);
    let memory = WorkerInfo {
        resources: Resources {
            memory: 1 << 30,
            ..Resources::cpus(1000)
        },
        ..info(3, 1)
    };
    rig.attach_with(3, memory);
    let groups = vec![
        Group {
            labels: vec![("site".into(), "a".into())],
            ..group("there", &[])
        },
        Group {
            resources: Resources {
                memory: 1 << 29,
                ..Resources::cpus(500)
            },
            ..group("large", &[])
        },
    ];
    rig.submit(1, 1, &plain(groups));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "measure worker 3: 131072 bytes",
        "watch worker 3: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 2: body there v1",
        "worker 2: assign 1.0/0.1.1",
        "worker 3: body large v1",
        "worker 3: assign 1.1/0.1.1",
        "watch worker 2: assigned",
        "watch worker 3: assigned",
    ]);
}

#[test]
fn one_key_is_one_job() {
    let mut rig = Rig::new();
    let spec = plain(vec![group("a", &[])]);
    rig.submit(1, 7, &spec);
    rig.submit(1, 7, &spec);
    rig.commit();
    rig.expect(&[
        "append accepted",
        "append accepted",
        "client 1 #7: accepted 1",
        "client 1 #7: accepted 1",
    ]);
    rig.submit(1, 7, &spec);
    rig.expect(&["client 1 #7: accepted 1"]);
    rig.submit(2, 7, &spec); // another client's key is another's
    rig.commit();
    rig.expect(&["append accepted", "client 2 #7: accepted 2"]);
    rig.ask(1, Request::Job(JobId(3)));
    rig.expect(&["client 1 #99: no, Unknown: there is no job 3; `hedge jobs` lists them"]);
}

#[test]
fn a_client_that_went_is_not_answered_over_its_next_connection() {
    let mut rig = Rig::new();
    rig.submit(1, 7, &plain(vec![group("a", &[])]));
    rig.event(hedge_core::supervisor::Event::Gone {
        peer: client(1),
        silent: false,
    });
    rig.commit();
    rig.expect(&["append accepted"]);
    rig.submit(1, 7, &plain(vec![group("a", &[])]));
    rig.expect(&["client 1 #7: accepted 1"]);
}

#[test]
fn copies_without_a_place_hold_no_other_task_up() {
    let mut rig = Rig::new();
    let names: Vec<String> = (0..40).map(|number| format!("c{number}")).collect();
    let mut groups: Vec<Group> = names.iter().map(|name| group(name, &[])).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    groups.push(group("end", &all));
    rig.submit(1, 1, &redundant(2, 40, groups));
    rig.commit();
    rig.expect(&["append accepted", "client 1 #1: accepted 1"]);
    rig.attach(1, 64);
    assert_eq!(assigned(&rig.said()).len(), 40);
}

#[test]
fn a_task_that_would_read_more_files_than_can_be_listed_fails_its_job_and_says_so() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.submit(
        1,
        1,
        &plain(vec![group("many", &[]), reader("one", &["many"])]),
    );
    rig.commit();
    let attempt = assigned(&rig.said())[0].1;
    let file = |number: u32| hedge_model::FileEntry {
        path: format!("{}/{number}", "x".repeat(200)).into(),
        executable: false,
        data: hedge_model::Data::Inline([].into()),
    };
    let outputs = (0..150_001).map(file).collect();
    rig.reports(1, attempt, hedge_model::msg::Outcome::Done(outputs));
    rig.commit();
    rig.expect(&[
"append done 1.0/0.1.1 by worker 1",
"append job 1 failed: task \"one\" reads 150001 files, and their list of 30.2 MiB does not fit into one message to a worker, which has 16.0 MiB at most: let the tasks before it pack theirs into fewer files, or give these shorter names",
"worker 1: settled 1.0/0.1.1",
"watch worker 1: idle",
"worker 1: forget 1",
]);
    let why = rig.core.job_view(JobId(1)).and_then(|view| view.why);
    let why = why.expect("the job failed");
    assert!(why.contains("reads 150001 files"), "{why}");
}

#[test]
fn who_stops_watching_is_told_nothing_more() {
    let mut rig = Rig::new();
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.ask(1, Request::Watch(JobId(1)));
    rig.expect(&[
        "append accepted",
        "client 1 #1: accepted 1",
        "client 1 #99: job 1 Waiting 0/1",
    ]);
    rig.event(hedge_core::supervisor::Event::RequestsAbandoned(
        (0..1000).collect(),
    ));
    rig.attach(1, 1);
    let attempt = assigned(&rig.said())[0].1;
    rig.done(1, attempt);
    rig.commit();
    rig.pass(std::time::Duration::from_millis(500));
    let said = rig.said();
    assert!(
        !said.iter().any(|line| line.starts_with("client")),
        "{said:?}"
    );
}
