//! Late checks of the monitor, and missed heartbeats.

use super::*;

#[test]
fn a_late_check_excuses_no_gap_while_other_workers_are_heard() {
    let mut rig = Rig::new(Settings::uniform(WatchMode::heartbeats(ms(1))), 2);
    rig.pass(ms(1_000));
    for _ in 0..700 {
        rig.now = rig.now + ms(1);
        rig.heartbeat(1, 0);
    }
    let mut out = Vec::new();
    rig.monitor.check(rig.now, &mut out);
    rig.carry_out(out);
    let (found, live) = (rig.found.clone(), rig.status(1).liveness);
    let silent = |found: &(u64, Finding)| match found.1.what {
        Found::Silent { silent, .. } => found.1.peer == peer(0) && silent >= ms(700),
        _ => false,
    };
    assert!(found.iter().any(silent), "{found:?}");
    assert_eq!(
        (rig.status(0).liveness, live),
        (Liveness::Suspect, Liveness::Live)
    );
}

#[test]
fn a_slightly_late_check_sends_the_missed_status_requests_and_a_frozen_one_does_not() {
    let mut rig = Rig::new(Settings::uniform(WatchMode::poll(ms(1))), 1);
    rig.pass(ms(100));
    let mut asked_after = |late| {
        let before = rig.asks;
        rig.now = rig.now + ms(late);
        rig.pass(ms(10));
        rig.asks - before
    };
    let (little, frozen) = (asked_after(4), asked_after(1_000));
    assert!((13..=15).contains(&little), "{little} in 14 ms");
    assert!(frozen <= 12, "{frozen} after a freeze");
}

#[test]
fn missed_heartbeats_are_counted() {
    for way in [WatchMode::heartbeats(ms(10)), WatchMode::poll(ms(10))] {
        let mut rig = Rig::new(Settings::uniform(way), 1);
        rig.pass(ms(1_005));
        let before = rig.status(0);
        assert!(before.missed <= 1, "{before:?}");
        match way.mode {
            Mode::Heartbeats => rig.workers[0].seq += 20,
            Mode::Poll => {
                rig.workers[0].silent = true;
                rig.pass(ms(200));
                rig.workers[0].silent = false;
            }
        }
        rig.pass(ms(1_000));
        let after = rig.status(0);
        assert_eq!(after.missed - before.missed, 20, "{way:?}");
        assert!((99..=101).contains(&(after.heartbeats - before.heartbeats)));
    }
}

#[test]
fn a_gap_is_no_lack_of_progress_and_what_went_before_it_counts() {
    let mut settings = Settings::uniform(WatchMode::heartbeats(ms(1)));
    (settings.progress_every, settings.stall_after) = (ms(1), Some(ms(100)));
    let mut rig = Rig::new(settings, 1);
    rig.workers[0].attempts = vec![AttemptHeartbeat {
        attempt: attempt(0),
        phase: Phase::Running,
        cpu_us: 7,
        written: 0,
        permille: None,
        notes: 0,
    }];
    let stalled_within = |rig: &mut Rig, most: u64| {
        (0..most).find(|_| {
            rig.pass(ms(1));
            rig.stalled()
        })
    };
    // Heard for 80 ms, but for a short gap now and then.
    for _ in 0..8 {
        assert_eq!(stalled_within(&mut rig, 8), None);
        rig.workers[0].silent = true;
        rig.pass(ms(2));
        rig.workers[0].silent = false;
    }
    rig.workers[0].silent = true;
    rig.pass(ms(500));
    rig.workers[0].silent = false;
    let after = stalled_within(&mut rig, 200);
    assert!(
        after.is_some_and(|after| (20..=60).contains(&after)),
        "{after:?}"
    );
}
