//! Which tasks each of the six measures picks, alone and together, and by what history instead of estimates.

mod support;

use hedge_core::supervisor::CriticalSet;
use hedge_model::spec::{CriticalRule, Draft, Estimate, Group, Measure, Qos, Top};
use hedge_model::{Data, FileEntry, Hash, JobSpec};
use std::time::Duration;
use support::*;

const MIB: u64 = 1 << 20;

/// Two tasks split and load, of which the first has more work behind it, read by maps and one sum; big needs
/// most memory, wide most disk, long most time, and far reads the largest file.
fn spec(by: &[(Measure, f64)], top: u32) -> JobSpec {
    let estimate = |seconds: u64, memory: u64, disk: u64, output: u64| Estimate {
        cpu_time: Some(Duration::from_secs(seconds)),
        memory: Some(memory * MIB),
        disk: Some(disk * MIB),
        output: Some(output * MIB),
        network: None,
    };
    let with = |group: Group, estimate: Estimate| Group {
        estimate: estimate.into(),
        ..group
    };
    let file = |path: &str, number: u8, size: u64| FileEntry {
        path: path.into(),
        executable: false,
        data: Data::Blob {
            hash: Hash([number; 32]),
            size,
        },
    };
    let far = Group {
        inputs: vec![hedge_model::spec::Input::File(0)],
        ..group("far", &[])
    };
    let groups = vec![
        with(group("split", &[]), estimate(2, 1, 1, 1)),
        with(group("load", &[]), estimate(1, 1, 1, 9)),
        with(array(4, reader("map", &["load"])), estimate(1, 1, 1, 1)),
        with(group("next", &["split"]), estimate(9, 1, 1, 1)),
        with(group("big", &[]), estimate(1, 512, 1, 0)),
        with(group("wide", &[]), estimate(1, 1, 512, 0)),
        with(group("long", &[]), estimate(60, 1, 1, 0)),
        with(far, estimate(1, 1, 1, 0)),
    ];
    let draft = Draft {
        name: "measures".into(),
        qos: Qos::default(),
        critical: CriticalRule {
            by: by.to_vec(),
            top: Top::Count(top),
        },
        files: vec![file("far.dat", 1, 900 * MIB)],
        groups,
        outline: false,
    };
    JobSpec::new(draft).expect("a job")
}

fn picked(spec: &JobSpec) -> Vec<String> {
    let set = CriticalSet::find(spec);
    let all = (0..spec.task_count()).filter(|number| set.contains(spec, *number));
    all.map(|number| spec.label(number)).collect()
}

#[test]
fn tasks_that_others_cannot_start_without() {
    assert_eq!(picked(&spec(&[(Measure::Precedence, 1.0)], 1)), ["split"]);
    assert_eq!(
        picked(&spec(&[(Measure::Precedence, 1.0)], 100)),
        ["split", "load"],
        "no other task holds one up"
    );
}

#[test]
fn tasks_that_supply_data_to_others() {
    assert_eq!(
        picked(&spec(&[(Measure::Data, 1.0)], 100)),
        ["load"],
        "next waits for split, and reads nothing of it"
    );
}

#[test]
fn tasks_that_need_most_memory() {
    assert_eq!(picked(&spec(&[(Measure::Memory, 1.0)], 1)), ["big"]);
}

#[test]
fn tasks_that_need_most_disk() {
    assert_eq!(picked(&spec(&[(Measure::Disk, 1.0)], 1)), ["wide"]);
}

#[test]
fn tasks_that_need_most_processor_time() {
    assert_eq!(picked(&spec(&[(Measure::Cpu, 1.0)], 2)), ["next", "long"]);
}

#[test]
fn tasks_that_move_most_data() {
    assert_eq!(picked(&spec(&[(Measure::Network, 1.0)], 1)), ["far"]);
    assert_eq!(
        picked(&spec(&[(Measure::Network, 1.0)], 5)),
        ["map.0", "map.1", "map.2", "map.3", "far"],
        "what others left counts as much as files"
    );
}

#[test]
fn measures_add_up_by_their_weights() {
    let both = [(Measure::Cpu, 1.0), (Measure::Memory, 1.0)];
    assert_eq!(picked(&spec(&both, 2)), ["big", "long"]);
    let memory = [(Measure::Cpu, 0.1), (Measure::Memory, 1.0)];
    assert_eq!(picked(&spec(&memory, 1)), ["big"]);
    let cpu = [(Measure::Cpu, 1.0), (Measure::Memory, 0.1)];
    assert_eq!(picked(&spec(&cpu, 1)), ["long"]);
    assert_eq!(picked(&spec(&[], 5)), Vec::<String>::new(), "marks alone");
}

#[test]
fn what_earlier_tasks_took_stands_for_what_later_ones_need() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    let groups = || vec![group("quick", &[]), group("slow", &[])];
    let job = |groups: Vec<Group>| {
        let draft = Draft {
            name: "history".into(),
            qos: Qos::default(),
            critical: CriticalRule {
                by: vec![(Measure::Cpu, 1.0)],
                top: Top::Count(1),
            },
            files: Vec::new(),
            groups,
            outline: false,
        };
        std::sync::Arc::new(JobSpec::new(draft).expect("a job"))
    };
    assert_eq!(
        CriticalSet::find(&job(groups())).total(),
        0,
        "nothing is known"
    );
    rig.submit(1, 1, &job(groups()));
    rig.commit();
    for (task, seconds) in [(0, 1), (1, 30)] {
        rig.done_after(1, attempt(task, 1), Duration::from_secs(seconds));
        rig.commit();
    }
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
        "worker 1: body quick v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
        "append done 1.0/0.1.1 by worker 1",
        "worker 1: settled 1.0/0.1.1",
        "worker 1: body slow v1",
        "worker 1: assign 1.1/0.1.1",
        "append done 1.1/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.1/0.1.1",
        "watch worker 1: idle",
        "worker 1: forget 1",
    ]);
    rig.submit(1, 2, &job(groups()));
    rig.commit();
    rig.expect(&[
        "append accepted",
        "client 1 #2: accepted 2",
        "worker 1: body slow v1",
        "worker 1: assign 2.1/0.1.1",
        "watch worker 1: critical",
    ]);
    let view = rig.core.job_view(hedge_model::JobId(2)).expect("a job");
    assert_eq!(view.critical, 1);
    let set = rig.core.critical_set(hedge_model::JobId(2)).expect("a job");
    assert!(set.contains(&job(groups()), 1), "slow was slow before");
}
