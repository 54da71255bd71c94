//! Owners who come back: what their worker does, and what the supervisor does elsewhere.

mod support;

use hedge_core::monitor::{Finding, Found};
use hedge_core::supervisor;
use hedge_core::worker::owner::Owner;
use hedge_core::worker::{Action, Event, Worker};
use hedge_model::msg::{
    Assignment, Body, FromWorker, GrantedBody, Grants, Outcome, Report, ToWorker, Usage,
};
use hedge_model::owner::{
    Activity, Cause, Hours, OwnerNote, OwnerResponse, OwnerRules, OwnerState, Signal,
};
use hedge_model::spec::{CheckpointRule, Runtime};
use hedge_model::{AttemptId, Ending, Epoch, JobId, Resources, TaskId, Time};
use std::sync::Arc;
use std::time::Duration;
use support::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> Time {
    Time(seconds * 1_000_000_000)
}

fn watched(rules: OwnerRules) -> Owner {
    let mut owner = Owner::new(rules);
    assert_eq!(owner.response(), OwnerResponse::Pause, "nobody knows yet");
    owner.signal(at(0), Signal::Watched(true));
    assert_eq!(owner.response(), OwnerResponse::Work);
    owner
}

#[test]
fn each_kind_of_activity_stops_work_at_once_and_quiet_lets_it_go_on() {
    for kind in Activity::ALL {
        let mut owner = watched(OwnerRules::default());
        assert!(owner.signal(at(100), Signal::Seen(kind)));
        assert_eq!(owner.response(), OwnerResponse::Pause, "{kind}");
        assert_eq!(owner.state(at(101)).why, [Cause::Activity(kind)]);
        assert_eq!(owner.state(at(101)).away, SECOND);
        assert!(!owner.signal(at(200), Signal::Seen(kind)), "nothing new");
        assert_eq!(owner.next_deadline(), Some(at(380)), "3 min after the last");
        assert!(!owner.update(at(379)));
        assert!(owner.update(at(380)));
        assert_eq!(
            (owner.response(), owner.next_deadline()),
            (OwnerResponse::Work, None)
        );
    }
}

#[test]
fn what_lasts_holds_until_it_is_over_and_a_long_pause_gives_up() {
    let mut owner = watched(OwnerRules::default());
    owner.signal(at(0), Signal::Lasting(Activity::Processes, true));
    assert_eq!(owner.next_deadline(), Some(at(600)));
    assert!(owner.update(at(600)));
    assert_eq!(owner.response(), OwnerResponse::Vacate);
    owner.signal(at(700), Signal::Seen(Activity::Mouse));
    assert_eq!(owner.response(), OwnerResponse::Vacate, "it stays given up");
    owner.signal(at(800), Signal::Lasting(Activity::Processes, false));
    owner.update(at(979));
    assert_eq!(owner.response(), OwnerResponse::Vacate);
    owner.update(at(980));
    assert_eq!(owner.response(), OwnerResponse::Work);
}

#[test]
fn a_lock_or_the_saver_says_that_the_owner_went() {
    for gone in [Signal::Locked(true), Signal::Saver(true)] {
        let mut owner = watched(OwnerRules::default());
        owner.signal(at(0), Signal::Seen(Activity::Keyboard));
        assert!(owner.signal(at(1), gone));
        assert_eq!(owner.response(), OwnerResponse::Work);
        owner.signal(at(2), Signal::Lasting(Activity::Processes, true));
        owner.signal(at(3), gone);
        assert_eq!(
            owner.response(),
            OwnerResponse::Pause,
            "programs still work"
        );
    }
    let mut owner = watched(OwnerRules::default());
    owner.signal(at(0), Signal::Saver(true));
    assert!(owner.signal(at(1), Signal::Saver(false)));
    assert_eq!(owner.state(at(1)).why, [Cause::Activity(Activity::Input)]);
}

#[test]
fn without_a_source_of_input_the_machine_is_in_use() {
    let mut owner = Owner::new(OwnerRules::default());
    owner.signal(at(0), Signal::Watched(false));
    assert_eq!(owner.response(), OwnerResponse::Pause);
    assert_eq!(owner.state(at(0)).why, [Cause::Unwatched]);
    let dedicated = Owner::new(OwnerRules::dedicated());
    assert_eq!(
        dedicated.response(),
        OwnerResponse::Work,
        "unless it has no owner"
    );
}

#[test]
fn a_machine_in_use_from_the_start_is_away_since_its_first_event() {
    // Clocks show the time since 1970.
    let start = 1_795_000_000;
    let mut owner = Owner::new(OwnerRules::default());
    assert_eq!(owner.state(at(start)).away, Duration::ZERO);
    owner.signal(at(start), Signal::Watched(false));
    assert_eq!(owner.state(at(start + 7)).away, SECOND * 7);
    assert_eq!(
        owner.response(),
        OwnerResponse::Pause,
        "nothing is given up at once"
    );
    assert_eq!(owner.next_deadline(), Some(at(start + 600)));
}

#[test]
fn power_network_and_hours_count_as_the_rules_say() {
    let rules = OwnerRules {
        battery: OwnerResponse::Vacate,
        metered: OwnerResponse::Lower,
        // Sunday 23:00 to Monday 01:00.
        hours: vec![Hours {
            from: 6 * 1440 + 1380,
            to: 60,
        }],
        ..OwnerRules::default()
    };
    let mut owner = watched(rules);
    owner.signal(at(0), Signal::Metered(true));
    assert_eq!(owner.response(), OwnerResponse::Lower);
    owner.signal(at(0), Signal::Battery(true));
    assert_eq!(owner.response(), OwnerResponse::Vacate);
    owner.signal(at(1), Signal::Battery(false));
    owner.signal(at(1), Signal::Metered(false));
    assert_eq!(owner.response(), OwnerResponse::Work);
    owner.signal(at(10), Signal::Clock(6 * 1440 + 1379));
    assert_eq!(owner.next_deadline(), Some(at(70)));
    owner.update(at(70));
    assert_eq!(owner.state(at(70)).why, [Cause::Hours]);
    owner.update(at(70 + 119 * 60));
    assert_ne!(owner.response(), OwnerResponse::Work);
    owner.update(at(70 + 120 * 60));
    assert_eq!(owner.response(), OwnerResponse::Work);
}

/// An owner's hour, replayed at speed over many of them: whatever happens, the worker works again once all has
/// been quiet for long enough, and never stays paused beyond the time after which it gives up.
#[test]
fn no_pattern_of_an_hour_leaves_a_worker_paused_for_ever() {
    let mut seed = 1u64;
    let mut dice = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    for hour in 0..200 {
        let rules = OwnerRules::default();
        let (resume, vacate) = (rules.resume_after, rules.vacate_after.unwrap());
        let mut owner = watched(rules);
        let (mut now, mut lasting) = (0, false);
        let mut paused = None;
        let mut look = |owner: &Owner, now: Time| {
            let since = *paused.get_or_insert(now);
            if owner.response() != OwnerResponse::Pause {
                paused = None;
            } else {
                assert!(now.since(since) < vacate, "hour {hour}");
            }
        };
        while now < 3600 {
            now += dice(400);
            while let Some(due) = owner.next_deadline().filter(|due| *due <= at(now)) {
                owner.update(due);
                look(&owner, due);
            }
            let signal = match dice(6) {
                0 => {
                    lasting = !lasting;
                    Signal::Lasting(Activity::Processes, lasting)
                }
                1 => Signal::Locked(dice(2) == 0),
                2 => Signal::Seen(Activity::Voice),
                _ => Signal::Seen(Activity::Keyboard),
            };
            owner.signal(at(now), signal);
            look(&owner, at(now));
        }
        if lasting {
            owner.signal(at(now), Signal::Lasting(Activity::Processes, false));
        }
        let quiet = at(now) + resume;
        while let Some(due) = owner.next_deadline().filter(|due| *due <= quiet) {
            owner.update(due);
        }
        assert_eq!(owner.response(), OwnerResponse::Work, "hour {hour}");
    }
}

fn id(task: u32) -> AttemptId {
    AttemptId {
        task: TaskId {
            job: JobId(1),
            number: task,
        },
        generation: 0,
        epoch: Epoch(1),
        number: 1,
    }
}

fn body() -> Arc<GrantedBody> {
    let body = Body {
        job: JobId(1),
        group: 0,
        version: 1,
        id: "task".into(),
        runtime: Runtime::Process,
        preload: Vec::new(),
        parameters: Vec::new(),
        command: vec!["true".into()],
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        inline_max: 0,
        printed_max: 0,
        resources: Resources::cpus(1000),
        time_limit: None,
        shares: Vec::new(),
        cwd: String::new(),
        network: None,
        checkpoint: None,
        mounts: Vec::new(),
        sources: Vec::new(),
    };
    let (body, grants) = (Arc::new(body), Grants::default());
    Arc::new(GrantedBody { body, grants })
}

/// What a worker does, a line for each.
fn lines(actions: &[Action]) -> Vec<String> {
    let line = |action: &Action| match action {
        Action::Tell(FromWorker::Owner(state)) => state.response.name().to_owned(),
        Action::Tell(FromWorker::Ended(report)) => {
            format!("{:?} {}", report.outcome, report.attempt)
        }
        Action::Stage(_, order) => format!("stage {}", order.attempt),
        other => format!("{other:?}"),
    };
    actions.iter().map(line).collect()
}

fn assign(task: u32) -> Event {
    let order = Assignment {
        attempt: id(task),
        group: 0,
        version: 1,
        index: None,
        own: None,
        redundant: false,
        seal: Default::default(),
    };
    Event::Order(Epoch(1), ToWorker::Assign(order))
}

#[test]
fn a_worker_first_stops_what_runs_then_tells_and_takes_nothing_new() {
    let mut out = Vec::new();
    let mut worker = Worker::new(Resources::cpus(1000)).with_owner(OwnerRules::default());
    let mut say = |now: u64, event: Event| {
        worker.handle(at(now), event, &mut out);
        std::mem::take(&mut out)
    };
    assert_eq!(lines(&say(0, Event::Connected(Epoch(1)))), ["pause"]);
    say(0, Event::Order(Epoch(1), ToWorker::Body(body())));
    assert_eq!(
        lines(&say(0, assign(0))),
        ["Returned 1.0/0.1.1"],
        "in use until known otherwise"
    );
    assert_eq!(
        lines(&say(1, Event::Owner(Signal::Watched(true)))),
        ["Pause(false)", "work"]
    );
    say(1, Event::Order(Epoch(1), ToWorker::Settled(id(0))));
    assert_eq!(lines(&say(1, assign(1))), ["stage 1.1/0.1.1"]);
    say(1, Event::Staged(id(1), Ok(())));
    assert!(say(1, assign(2)).is_empty(), "it waits for the CPU");
    let key = Event::Owner(Signal::Seen(Activity::Keyboard));
    assert_eq!(
        lines(&say(2, key.clone())),
        ["Pause(true)", "pause", "Returned 1.2/0.1.1"]
    );
    assert!(say(3, key).is_empty(), "told once");
    // A new connection is told again.
    say(4, Event::Disconnected);
    assert_eq!(lines(&say(5, Event::Connected(Epoch(1))))[0], "pause");
    assert_eq!(lines(&say(183, Event::Tick)), ["Pause(false)", "work"]);
    // The next owner stays: what runs is given up.
    say(
        200,
        Event::Owner(Signal::Lasting(Activity::Processes, true)),
    );
    let gone = say(800, Event::Tick);
    assert_eq!(
        lines(&gone),
        ["vacate".to_owned(), format!("{:?}", Action::End(id(1)))]
    );
    let report = Report {
        attempt: id(1),
        outcome: Outcome::Ended(Ending::Cancelled),
        usage: Usage::default(),
        log: None,
    };
    let ended = say(801, Event::Finished(Box::new(report)));
    assert_eq!(lines(&ended), ["Ended(Vacated) 1.1/0.1.1"]);
}

fn owner(change: u32, response: OwnerResponse) -> FromWorker {
    let why = match response {
        OwnerResponse::Work => Vec::new(),
        _ => vec![Cause::Activity(Activity::Keyboard)],
    };
    FromWorker::Owner(OwnerState {
        change,
        response,
        why,
        away: Duration::ZERO,
    })
}

#[test]
fn a_heartbeat_that_comes_before_the_message_tells_the_same_and_nothing_is_done_twice() {
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
    rig.attach(2, 1);
    let FromWorker::Owner(state) = owner(3, OwnerResponse::Pause) else {
        unreachable!()
    };
    let what = Found::Owner(OwnerNote::from(&state));
    let finding = Finding {
        peer: worker(1),
        what,
    };
    rig.event(supervisor::Event::Found(finding));
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
    let why = |rig: &Rig| {
        rig.core.worker_views()[0]
            .owner
            .clone()
            .map(|view| view.why)
    };
    assert_eq!(why(&rig), Some(vec!["keyboard".to_owned()]));
    rig.from(1, FromWorker::Owner(state));
    rig.event(supervisor::Event::Found(finding));
    rig.expect(&[]);
    rig.from(1, owner(4, OwnerResponse::Work));
    rig.event(supervisor::Event::Found(finding));
    assert_eq!(why(&rig), None);
}

#[test]
fn what_an_owner_stopped_is_copied_elsewhere_at_once_and_the_first_to_finish_wins() {
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
    rig.attach(2, 1);
    rig.from(1, owner(1, OwnerResponse::Pause));
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "watch worker 2: idle",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
    let view = &rig.core.worker_views()[0];
    assert_eq!(
        (
            view.usage.as_str(),
            view.owner.as_ref().unwrap().why.as_slice()
        ),
        ("away", &["keyboard".to_owned()][..])
    );
    // The owner goes again; both run, and the one that was stopped finishes first.
    rig.from(1, owner(2, OwnerResponse::Work));
    rig.from(1, owner(1, OwnerResponse::Pause));
    assert_eq!(
        rig.core.worker_views()[0].usage,
        "ready",
        "older news change nothing"
    );
    rig.reports(1, attempt(0, 1), Outcome::Done(Vec::new()));
    rig.commit();
    rig.expect(&[
        "append done 1.0/0.1.1 by worker 1",
        "append job 1 done",
        "worker 1: settled 1.0/0.1.1",
        "worker 2: cancel 1.0/0.1.2",
        "watch worker 1: idle",
        "worker 1: forget 1",
        "worker 2: forget 1",
    ]);
}

#[test]
fn a_worker_whose_owner_is_there_gets_nothing_new_until_the_owner_goes() {
    let mut rig = Rig::new();
    rig.attach(1, 1);
    rig.from(1, owner(1, OwnerResponse::Pause));
    rig.submit(1, 1, &plain(vec![group("a", &[])]));
    rig.commit();
    rig.expect(&[
        "measure worker 1: 131072 bytes",
        "watch worker 1: idle",
        "append accepted",
        "client 1 #1: accepted 1",
    ]);
    rig.from(1, owner(2, OwnerResponse::Work));
    rig.expect(&[
        "worker 1: body a v1",
        "worker 1: assign 1.0/0.1.1",
        "watch worker 1: assigned",
    ]);
    // Given up for the owner, a task waits for another worker; its crash limit knows nothing of that.
    rig.from(1, owner(3, OwnerResponse::Vacate));
    rig.reports(1, attempt(0, 1), Outcome::Ended(Ending::Vacated));
    rig.commit();
    rig.expect(&[
        "append vacated 1.0/0.1.1",
        "worker 1: settled 1.0/0.1.1",
        "watch worker 1: idle",
    ]);
    rig.attach(2, 1);
    rig.expect(&[
        "measure worker 2: 131072 bytes",
        "worker 2: body a v1",
        "worker 2: assign 1.0/0.1.2",
        "watch worker 2: assigned",
    ]);
}

#[test]
fn what_can_save_how_far_it_is_goes_on_for_a_while_when_the_owner_wants_the_machine() {
    let saving = |grace: u64| {
        let rule = CheckpointRule {
            grace: SECOND * 20,
            ..CheckpointRule::of(&["state"])
        };
        let body = Body {
            checkpoint: Some(Arc::new(rule)),
            ..(*body().body).clone()
        };
        let mut rules = OwnerRules {
            checkpoint_grace: SECOND * grace as u32,
            ..OwnerRules::default()
        };
        rules.on[Activity::Keyboard.index()] = OwnerResponse::Vacate;
        let (body, grants) = (Arc::new(body), Grants::default());
        let mut worker = Worker::new(Resources::cpus(2000)).with_owner(rules);
        let mut out = Vec::new();
        for event in [
            Event::Owner(Signal::Watched(true)),
            Event::Connected(Epoch(1)),
            Event::Order(
                Epoch(1),
                ToWorker::Body(Arc::new(GrantedBody { body, grants })),
            ),
            assign(0),
            Event::Staged(id(0), Ok(())),
            assign(1),
        ] {
            worker.handle(at(1), event, &mut out);
        }
        worker
    };
    let key = Event::Owner(Signal::Seen(Activity::Keyboard));
    let report = |task| {
        let report = Report {
            attempt: id(task),
            outcome: Outcome::Ended(Ending::Vacated),
            usage: Usage::default(),
            log: None,
        };
        Event::Finished(Box::new(report))
    };
    let mut worker = saving(5);
    let mut say = |event: Event| {
        let mut out = Vec::new();
        worker.handle(at(2), event, &mut out);
        lines(&out)
    };
    let (stop, end) = (
        format!("Stop({:?}, 5s)", id(0)),
        format!("End({:?})", id(1)),
    );
    // What was only being staged has nothing to save.
    assert_eq!(say(key.clone()), ["Lower(true)", "vacate", &stop, &end]);
    assert_eq!(
        say(Event::Staged(id(1), Err(Ending::Cancelled))),
        ["Ended(Vacated) 1.1/0.1.1"]
    );
    assert_eq!(
        say(report(0)),
        ["Pause(true)", "Lower(false)", "Ended(Vacated) 1.0/0.1.1"]
    );
    // An owner may allow no time at all.
    let mut worker = saving(0);
    let mut out = Vec::new();
    worker.handle(at(2), key, &mut out);
    let end = [format!("End({:?})", id(0)), format!("End({:?})", id(1))];
    assert_eq!(lines(&out), ["Pause(true)", "vacate", &end[0], &end[1]]);
}
