//! Workers whose links are too slow are kept out until they recover; data goes where it arrives soon.

mod support;

use hedge_core::supervisor::{Event, Measured};
use hedge_model::msg::FromWorker;
use hedge_model::spec::{CriticalRule, Draft, Group, Input, Qos};
use hedge_model::{AttemptId, Data, FileEntry, JobSpec};
use std::sync::Arc;
use std::time::Duration;
use support::*;

const KBIT: u64 = 1_000;
/// The six rates that have names.
const NAMED: [(&str, u64); 6] = [
    ("100 kbit/s", 100 * KBIT),
    ("250 kbit/s", 250 * KBIT),
    ("1 Mbit/s", 1_000 * KBIT),
    ("10 Mbit/s", 10_000 * KBIT),
    ("100 Mbit/s", 100_000 * KBIT),
    ("1 Gbit/s", 1_000_000 * KBIT),
];

fn set(rig: &mut Rig, name: &str, value: &str) {
    let record = format!("append set {name} = {value}");
    let (name, value) = (name.to_owned(), value.to_owned());
    rig.ask(1, hedge_model::msg::Request::Set { name, value });
    rig.commit();
    // Links that are known are measured again.
    rig.expect_without(&["measure worker"], &[&record, "client 1 #99: Ok"]);
}

/// The measurement under way finds these rates, bits a second down and up.
fn measured(rig: &mut Rig, number: u8, down: u64, up: u64) {
    assert!(rig.measures.iter().any(|(peer, _)| *peer == worker(number)));
    rig.measures.retain(|(peer, _)| *peer != worker(number));
    rig.from(number, FromWorker::Probed(down / 8));
    let found = Measured {
        up: up / 8,
        round_trip: Some(Duration::from_millis(3)),
    };
    let peer = worker(number);
    rig.event(Event::LinkMeasured { peer, found });
}

fn admission(rig: &Rig, number: u8) -> String {
    let views = rig.core.worker_views();
    let peer = worker(number).to_string();
    views
        .into_iter()
        .find(|view| view.peer == peer)
        .unwrap()
        .admission
}

#[test]
fn a_link_below_each_named_rate_keeps_a_worker_out_and_one_above_lets_it_in() {
    for (name, rate) in NAMED {
        let mut rig = Rig::new();
        set(&mut rig, "min_link", name);
        rig.attach(1, 1);
        rig.attach(2, 1);
        let job = plain(vec![array(4, group("a", &[]))]);
        rig.submit(1, 1, &job);
        rig.commit();
        let said = rig.said();
        assert!(
            assigned(&said).is_empty(),
            "{name}: none is measured yet: {said:?}"
        );
        // Slow in one direction is slow.
        measured(&mut rig, 1, rate / 2, rate * 2);
        assert!(assigned(&rig.said()).is_empty());
        let told = admission(&rig, 1);
        assert!(
            told.starts_with("quarantined: its link carries") && told.contains(name),
            "{told}"
        );
        // Met at nine tenths.
        measured(&mut rig, 2, rate * 2, rate * 92 / 100);
        let given = assigned(&rig.said());
        assert!(
            !given.is_empty() && given.iter().all(|(to, _)| *to == 2),
            "{name}: {given:?}"
        );
        assert_eq!(admission(&rig, 2), "admitted");
    }
}

#[test]
fn a_worker_that_was_kept_out_is_measured_again_and_let_in_when_its_link_recovers() {
    let mut rig = Rig::new();
    set(&mut rig, "min_link", "1 Mbit/s");
    rig.attach(1, 1);
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 168572 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
    ]);
    for _ in 0..3 {
        measured(&mut rig, 1, 500 * KBIT, 500 * KBIT);
        assert!(assigned(&rig.said()).is_empty());
        rig.pass_with_heartbeats(Duration::from_secs(21), &[1]);
    }
    measured(&mut rig, 1, 2_000 * KBIT, 2_000 * KBIT);
    assert_eq!(assigned(&rig.said()).len(), 1);
    assert_eq!(admission(&rig, 1), "admitted");
}

#[test]
fn a_link_that_cannot_be_measured_is_not_taken_for_fast() {
    let mut rig = Rig::new();
    set(&mut rig, "min_link", "1 Mbit/s");
    rig.attach(1, 1);
    let peer = worker(1);
    let found = Measured {
        up: 1_000_000,
        round_trip: None,
    };
    rig.event(Event::LinkMeasured { peer, found });
    // It never says what arrived there.
    rig.pass_with_heartbeats(Duration::from_secs(1), &[1]);
    let told = admission(&rig, 1);
    assert!(told.contains("could not be measured"), "{told}");
    // A monitor that needs no rate takes it all the same.
    rig.expect(&[
        "measure worker 1: 168572 bytes",
        "watch worker 1: idle",
        "link worker 1: 1000000",
    ]);
    set(&mut rig, "min_link", "none");
    measured(&mut rig, 1, 0, 0);
    assert_eq!(admission(&rig, 1), "admitted");
    rig.expect(&["link worker 1: 1000000"]);
}

#[test]
fn an_idle_workers_link_is_measured_again_when_that_is_old_and_signs_of_life_keep_to_their_share() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    measured(&mut rig, 1, 64 * KBIT, 32 * KBIT);
    assert_eq!(
        rig.rates,
        [(worker(1), 4 * KBIT)],
        "bytes of the slower direction"
    );
    rig.pass_with_heartbeats(Duration::from_secs(599), &[1]);
    assert!(rig.measures.is_empty(), "{:?}", rig.measures);
    rig.pass_with_heartbeats(Duration::from_secs(2), &[1]);
    assert_eq!(rig.measures.len(), 1);
    // Benchmark tasks are due by then too.
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "link worker 1: 4000",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "measure worker 1: 131072 bytes",
    ]);
}

/// Submits a group that reads a file of 50 MiB, which supervisors have.
fn submit_with_large_input(rig: &mut Rig, group: Group) {
    let large = FileEntry {
        data: Data::Blob {
            hash: hash(7),
            size: 50 << 20,
        },
        ..blob("large", 7)
    };
    let draft = Draft {
        name: "job".into(),
        qos: Qos::default(),
        critical: CriticalRule::default(),
        files: vec![large],
        groups: vec![Group {
            inputs: vec![Input::File(0)],
            ..group
        }],
        outline: false,
    };
    rig.submit(1, 1, &Arc::new(JobSpec::new(draft).unwrap()));
    rig.commit();
    rig.event(Event::Fetched {
        hash: hash(7),
        result: Ok(Some(client(1))),
    });
    rig.commit();
}

#[test]
fn a_task_with_large_inputs_goes_where_they_arrive_soonest() {
    let mut rig = Rig::new();
    for (number, rate) in [(1, 1_000 * KBIT), (2, 100_000 * KBIT), (3, 10_000 * KBIT)] {
        rig.attach(number, 1);
        measured(&mut rig, number, rate, rate);
    }
    submit_with_large_input(&mut rig, group("a", &[]));
    let given = assigned(&rig.said());
    assert_eq!(given.first().map(|(to, _)| *to), Some(2), "{given:?}");
}

#[test]
fn a_worker_where_one_task_failed_still_gets_others_with_large_inputs() {
    let mut rig = Rig::new();
    for number in [1, 2] {
        rig.attach(number, 1);
        measured(&mut rig, number, 10_000 * KBIT, 10_000 * KBIT);
    }
    let retried = Group {
        retries: 3,
        ..group("a", &[])
    };
    submit_with_large_input(&mut rig, array(3, retried));
    let given = assigned(&rig.said());
    assert_eq!(given.len(), 2, "{given:?}");
    let (worker, failed) = given[0];
    rig.fails(worker, failed);
    rig.commit();
    let next = assigned(&rig.said());
    let third = |(to, attempt): &(u8, AttemptId)| *to == worker && attempt.task.number == 2;
    assert!(next.iter().any(third), "the worker is free: {next:?}");
}

/// What a transfer showed of a worker's link: the rate to it in bits a second, and whether a measurement follows within
/// so many seconds.
fn showed(rig: &mut Rig, mbit: u64, seconds: u64) -> (Option<u64>, bool) {
    rig.measures.clear();
    let bytes = mbit * 1_000_000 / 8;
    let took = Duration::from_secs(1);
    rig.from(1, FromWorker::Fetched { bytes, took });
    let link = rig.core.worker_views()[0].link;
    rig.pass_with_heartbeats(Duration::from_secs(seconds), &[1]);
    let down = link.and_then(|link| link.down_bits_per_second);
    (down, !rig.measures.is_empty())
}

#[test]
fn large_transfers_count_as_measurements_but_a_slow_one_alone_keeps_nobody_out() {
    const MBIT: u64 = 1_000_000;
    let mut rig = Rig::new();
    set(&mut rig, "min_link", "10 Mbit/s");
    rig.attach(1, 1);
    measured(&mut rig, 1, 40 * MBIT, 50 * MBIT);
    rig.pass_with_heartbeats(Duration::from_secs(500), &[1]);
    let faster = showed(&mut rig, 80, 500);
    assert_eq!(
        faster,
        (Some(80 * MBIT), false),
        "not measured again before that is old"
    );
    let somewhat_slower = showed(&mut rig, 30, 20);
    assert_eq!(somewhat_slower, (Some(80 * MBIT), false));
    rig.pass_with_heartbeats(Duration::from_secs(100), &[1]);
    measured(&mut rig, 1, 80 * MBIT, 50 * MBIT);
    let much_slower = showed(&mut rig, 5, 61);
    assert_eq!(much_slower, (Some(80 * MBIT), true), "it is looked at");
    assert_eq!(admission(&rig, 1), "admitted");
    measured(&mut rig, 1, 5 * MBIT, 50 * MBIT);
    assert!(admission(&rig, 1).starts_with("quarantined"));
    assert_eq!(
        showed(&mut rig, 90, 0).0,
        Some(5 * MBIT),
        "only a measurement lets it in"
    );
    // Benchmark tasks were due too.
    rig.expect(&[
        "measure worker 1: 506072 bytes",
        "watch worker 1: idle",
        "link worker 1: 5000000",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "link worker 1: 6250000",
        "worker 1: benchmark",
        "worker 1: benchmark",
        "measure worker 1: 506072 bytes",
        "link worker 1: 6250000",
        "measure worker 1: 506072 bytes",
        "link worker 1: 625000",
    ]);
}
