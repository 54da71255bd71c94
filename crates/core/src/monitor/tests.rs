use super::*;
use hedge_model::msg::{AttemptHeartbeat, Phase};
use hedge_model::owner::OwnerResponse;
use hedge_model::{Epoch, JobId, TaskId};

mod late_checks;

const MS: u64 = 1_000_000;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn attempt(number: u32) -> AttemptId {
    AttemptId {
        task: TaskId {
            job: JobId(1),
            number,
        },
        generation: 0,
        epoch: Epoch(1),
        number: 1,
    }
}

/// A monitor with workers that follow their plans at once and send heartbeats that arrive after 100 µs.
struct Rig {
    now: Time,
    monitor: Monitor,
    workers: Vec<Worker>,
    found: Vec<(u64, Finding)>,
    asks: u64,
    arrived: u64,
    plans: u64,
}

struct Worker {
    id: WatchId,
    plan: HeartbeatPlan,
    heartbeat_at: Option<Time>,
    seq: u64,
    silent: bool,
    attempts: Vec<AttemptHeartbeat>,
    owner: Option<OwnerNote>,
}

fn peer(at: usize) -> PeerId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(at as u64).to_le_bytes());
    PeerId(id)
}

impl Rig {
    fn new(settings: Settings, workers: usize) -> Self {
        let mut rig = Self {
            now: Time(1_000 * MS),
            monitor: Monitor::new(settings),
            workers: Vec::new(),
            found: Vec::new(),
            asks: 0,
            arrived: 0,
            plans: 0,
        };
        for at in 0..workers {
            let mut out = Vec::new();
            let id = rig.monitor.start(rig.now, peer(at), &mut out);
            rig.workers.push(Worker {
                id,
                plan: HeartbeatPlan {
                    number: 0,
                    every: None,
                    progress_every: ms(500),
                },
                heartbeat_at: None,
                seq: 0,
                silent: false,
                attempts: Vec::new(),
                owner: None,
            });
            rig.carry_out(out);
        }
        rig
    }

    fn carry_out(&mut self, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Found(finding) => self.found.push((self.now.0 / 1_000, finding)),
                Output::Plan { id, plan, .. } => {
                    self.plans += 1;
                    let now = self.now;
                    let worker = self.worker(id);
                    worker.plan = plan;
                    worker.heartbeat_at = Some(now);
                }
                Output::Ask { id, seq, .. } => {
                    self.asks += 1;
                    let at = self
                        .workers
                        .iter()
                        .position(|worker| worker.id == id)
                        .unwrap();
                    if !self.workers[at].silent {
                        self.heartbeat(at, seq);
                    }
                }
            }
        }
    }

    /// Whether any attempt was found stalled so far.
    fn stalled(&self) -> bool {
        let mut found = self.found.iter();
        found.any(|(_, found)| matches!(found.what, Found::Stalled { .. }))
    }

    fn worker(&mut self, id: WatchId) -> &mut Worker {
        // Slots are given out in order, and no worker of a rig ever leaves.
        &mut self.workers[id.slot as usize]
    }

    fn heartbeat(&mut self, at: usize, answers: u64) {
        let worker = &mut self.workers[at];
        worker.seq += 1;
        let heartbeat = Heartbeat {
            seq: worker.seq,
            sent_ns: self.now.0,
            plan: worker.plan.number,
            answers,
            in_hand: worker.attempts.len() as u32,
            attempts: worker.attempts.clone(),
            owner: worker.owner,
        };
        let id = worker.id;
        let mut out = Vec::new();
        self.arrived += 1;
        self.monitor
            .heartbeat(self.now, id, &heartbeat, 40, &mut out);
        self.carry_out(out);
    }

    /// Advances time by `span`, with heartbeats and checks when they are due.
    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        let mut heartbeats: std::collections::BTreeSet<(Time, usize)> = self
            .workers
            .iter()
            .enumerate()
            .filter_map(|(at, worker)| Some((worker.heartbeat_at?, at)))
            .collect();
        loop {
            let check = self.monitor.next_check().filter(|at| *at <= end);
            let heartbeat = heartbeats.first().copied().filter(|(at, _)| *at <= end);
            match (check, heartbeat) {
                (None, None) => break,
                (Some(at), heartbeat) if heartbeat.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    let mut out = Vec::new();
                    self.monitor.check(self.now, &mut out);
                    let plans = self.plans;
                    self.carry_out(out);
                    if self.plans != plans {
                        heartbeats.extend(
                            (self.workers.iter().enumerate())
                                .filter_map(|(at, worker)| Some((worker.heartbeat_at?, at))),
                        );
                    }
                }
                (_, Some((due, at))) => {
                    heartbeats.pop_first();
                    if self.workers[at].heartbeat_at != Some(due) {
                        continue;
                    }
                    self.now = self.now.max(due);
                    if !self.workers[at].silent {
                        self.heartbeat(at, 0);
                    }
                    let worker = &mut self.workers[at];
                    worker.heartbeat_at = worker.plan.every.map(|every| due + every);
                    heartbeats.extend(worker.heartbeat_at.map(|due| (due, at)));
                }
                (Some(_), None) => unreachable!(),
            }
        }
        self.now = end;
    }

    fn set_attention(&mut self, at: usize, attention: Attention) {
        let mut out = Vec::new();
        let id = self.workers[at].id;
        self.monitor
            .set_attention(self.now, id, attention, &mut out);
        self.carry_out(out);
    }

    fn ladder(&mut self) -> Vec<Liveness> {
        let found = std::mem::take(&mut self.found);
        let ladder = found.into_iter().map(|(_, finding)| match finding.what {
            Found::Silent { liveness, .. } => liveness,
            Found::Back { .. } => Liveness::Live,
            other => panic!("{other:?}"),
        });
        ladder.collect()
    }

    fn status(&self, at: usize) -> Status {
        self.monitor.status(self.now, self.workers[at].id).unwrap()
    }
}

#[test]
fn gap_goes_from_late_to_dead_and_a_heartbeat_brings_back() {
    use Liveness::{Dead, Late, Live, Suspect};
    for way in [WatchMode::heartbeats(ms(100)), WatchMode::poll(ms(100))] {
        let mut rig = Rig::new(Settings::uniform(way), 1);
        rig.pass(ms(1_010));
        assert_eq!(rig.ladder(), []);
        rig.workers[0].silent = true;
        rig.pass(ms(280));
        assert_eq!(rig.ladder(), [Late], "{way:?}");
        rig.pass(ms(30));
        assert_eq!(rig.ladder(), [Suspect], "{way:?} {:?}", rig.status(0));
        rig.pass(ms(1_000));
        assert_eq!(rig.ladder(), [Dead]);
        rig.workers[0].silent = false;
        rig.heartbeat(0, 0);
        assert_eq!(rig.ladder(), [Live]);
        rig.pass(ms(1_000));
        assert_eq!(rig.ladder(), []);
    }
}

#[test]
fn each_interval_from_half_a_millisecond_to_ten_minutes_is_kept_and_checked() {
    for interval in [
        Duration::from_micros(500),
        ms(1),
        ms(10),
        ms(100),
        ms(1_000),
        ms(10_000),
        ms(60_000),
        ms(600_000),
    ] {
        for way in [WatchMode::heartbeats(interval), WatchMode::poll(interval)] {
            let mut settings = Settings::uniform(way);
            settings.dead_min = Duration::ZERO;
            let mut rig = Rig::new(settings, 1);
            rig.pass(interval * 50);
            assert!((50..=52).contains(&rig.arrived), "{way:?}: {}", rig.arrived);
            assert!(rig.ladder().is_empty());
            rig.workers[0].silent = true;
            rig.pass(interval * 4 + ms(1));
            let at = |state| {
                let mut found = rig.found.iter();
                found.find_map(|(at, finding)| match finding.what {
                    Found::Silent { liveness, silent } if liveness == state => Some((*at, silent)),
                    _ => None,
                })
            };
            let (_, silent) = at(Liveness::Suspect).expect("it is suspect");
            assert!(
                silent >= interval * 3 && silent < interval * 3 + ms(1),
                "{way:?} {silent:?}"
            );
        }
    }
}

#[test]
fn a_late_check_gives_everyone_grace() {
    let mut rig = Rig::new(Settings::default(), 3);
    rig.pass(ms(3_000));
    rig.workers
        .iter_mut()
        .for_each(|worker| worker.silent = true);
    rig.now = rig.now + Duration::from_secs(5);
    rig.pass(ms(900));
    assert_eq!(rig.ladder(), [], "the supervisor itself was away for 5 s");
    rig.pass(ms(10_000));
    assert_eq!(rig.ladder().len(), 9, "what comes after the grace counts");
}

#[test]
fn after_a_freeze_those_that_connect_again_have_time_for_it() {
    let mut rig = Rig::new(Settings::uniform(WatchMode::heartbeats(ms(50))), 1);
    rig.pass(ms(3_000));
    rig.now = rig.now + Duration::from_secs(5);
    rig.pass(ms(1));
    // What it sends over its new connection is read late.
    let mut out = Vec::new();
    let id = rig.workers[0].id;
    rig.monitor.stop(rig.now, id, &mut out);
    let id = rig.monitor.start(rig.now, peer(0), &mut out);
    rig.workers[0].id = id;
    rig.carry_out(out);
    rig.workers[0].seq = 0;
    rig.pass(ms(100));
    rig.workers[0].silent = true;
    rig.pass(ms(1_000));
    let found = rig.ladder();
    assert!(!found.contains(&Liveness::Suspect), "{found:?}");
    rig.pass(ms(200));
    assert!(rig.ladder().contains(&Liveness::Suspect));
}

#[test]
fn the_more_a_worker_has_in_hand_the_closer_it_is_watched() {
    let mut rig = Rig::new(Settings::default(), 1);
    let interval = |rig: &Rig| rig.status(0).interval;
    assert_eq!(interval(&rig), ms(500));
    rig.set_attention(0, Attention::Assigned);
    assert_eq!(interval(&rig), ms(50));
    rig.set_attention(0, Attention::Critical);
    assert_eq!(interval(&rig), ms(20));
    rig.set_attention(0, Attention::Idle);
    rig.pass(ms(900));
    assert_eq!(interval(&rig), ms(20), "it may have more at once");
    rig.set_attention(0, Attention::Assigned);
    rig.pass(ms(200));
    assert_eq!(interval(&rig), ms(50));
    assert_eq!(rig.ladder(), []);
}

#[test]
fn a_worker_that_freezes_before_it_hears_of_a_closer_watch_is_noticed_all_the_same() {
    let mut rig = Rig::new(Settings::default(), 1);
    rig.pass(ms(5_100));
    rig.workers[0].silent = true;
    rig.set_attention(0, Attention::Critical);
    rig.pass(ms(200));
    assert_eq!(rig.ladder(), [Liveness::Late, Liveness::Suspect]);
}

#[test]
fn a_worker_that_is_irregular_is_trusted_longer_and_one_that_is_regular_is_not() {
    let mut settings = Settings::uniform(WatchMode::heartbeats(ms(1)));
    settings.dead_min = ms(1_000);
    let mut irregular = |deviations| {
        settings.suspect_deviations = deviations;
        let mut rig = Rig::new(settings, 1);
        for round in 0..300 {
            rig.pass(ms(40));
            rig.workers[0].silent = true;
            rig.pass(ms(6 + round % 5));
            rig.workers[0].silent = false;
        }
        (rig.status(0).suspicions, rig)
    };
    let (with, mut rig) = irregular(Some(8.0));
    let (without, _) = irregular(None);
    assert!(with < 15, "{with} suspicions");
    assert_eq!(without, 300);
    rig.found.clear();
    rig.workers[0].silent = true;
    rig.pass(ms(40));
    assert!(
        rig.ladder().contains(&Liveness::Suspect),
        "true gap is still seen"
    );
}

#[test]
fn heartbeats_that_are_overtaken_or_held_up_are_no_sign_of_life() {
    let mut rig = Rig::new(Settings::uniform(WatchMode::heartbeats(ms(100))), 1);
    rig.pass(ms(1_000));
    let heartbeats = rig.status(0).heartbeats;
    let id = rig.workers[0].id;
    let say = |rig: &mut Rig, seq, sent_ns| {
        let heartbeat = Heartbeat {
            seq,
            sent_ns,
            plan: 1,
            ..Heartbeat::default()
        };
        rig.monitor
            .heartbeat(rig.now, id, &heartbeat, 40, &mut Vec::new());
    };
    say(&mut rig, 1, 0);
    assert_eq!(rig.status(0).heartbeats, heartbeats, "overtaken");
    rig.workers[0].silent = true;
    rig.pass(ms(700));
    let sent = rig.now - ms(600);
    say(&mut rig, 100, sent.0);
    let status = rig.status(0);
    assert_eq!(
        (status.heartbeats, status.was_delayed),
        (heartbeats, 1),
        "held up"
    );
    assert_eq!(rig.status(0).liveness, Liveness::Suspect);
    for seq in 101..120 {
        rig.now = rig.now + ms(100);
        let sent = rig.now - ms(600);
        say(&mut rig, seq, sent.0);
    }
    assert_eq!(
        rig.status(0).liveness,
        Liveness::Live,
        "the way became longer"
    );
}

#[test]
fn heartbeats_keep_to_the_share_of_a_slow_link() {
    let mut rig = Rig::new(Settings::uniform(WatchMode::heartbeats(ms(1))), 1);
    rig.pass(ms(100));
    let mut out = Vec::new();
    let id = rig.workers[0].id;
    let rate = 100_000 / 8;
    rig.monitor.measured(rig.now, id, rate, &mut out);
    rig.carry_out(out);
    let before = rig.arrived;
    rig.pass(ms(10_000));
    let bytes = (rig.arrived - before) * (40 + 70);
    assert!(bytes <= rate / 20 * 10 + 110, "{bytes} B in 10 s");
    assert!(rig.arrived - before >= 50, "but it sends heartbeats");
    assert_eq!(rig.ladder(), []);
}

#[test]
fn an_attempt_without_progress_is_stalled_unless_it_says_that_it_waits() {
    let mut settings = Settings::uniform(WatchMode::heartbeats(ms(1)));
    (settings.progress_every, settings.stall_after) = (ms(1), Some(ms(50)));
    let mut rig = Rig::new(settings, 1);
    let said = |number, phase| AttemptHeartbeat {
        attempt: attempt(number),
        phase,
        cpu_us: 7,
        written: 0,
        permille: None,
        notes: 0,
    };
    rig.workers[0].attempts = vec![said(0, Phase::Running), said(1, Phase::Waiting)];
    rig.pass(ms(20));
    rig.workers[0].attempts[0].cpu_us += 5;
    rig.pass(ms(49));
    assert!(rig.found.is_empty(), "{:?}", rig.found);
    rig.pass(ms(3));
    let [(_, found)] = &rig.found[..] else {
        panic!("{:?}", rig.found);
    };
    let Found::Stalled { attempt: id, idle } = found.what else {
        panic!("{found:?}");
    };
    assert_eq!(id, attempt(0));
    assert!(idle < ms(52));
    rig.workers[0].attempts[0].notes += 1;
    rig.pass(ms(2));
    assert_eq!(rig.found[1].1.what, Found::Moving(attempt(0)));
}

#[test]
fn progress_is_checked_at_each_interval_from_a_millisecond_to_ten_minutes() {
    for every in [ms(1), ms(10), ms(100), ms(1_000), ms(10_000), ms(600_000)] {
        for way in [
            WatchMode::heartbeats(every * 10),
            WatchMode::poll(every * 10),
        ] {
            let settings = Settings {
                progress_every: every,
                stall_after: Some(every * 10),
                ..Settings::uniform(way)
            };
            let mut rig = Rig::new(settings, 1);
            rig.set_attention(0, Attention::Assigned);
            let plan = rig.workers[0].plan;
            assert_eq!(plan.progress_every, every, "the worker looks as often");
            rig.workers[0].attempts = vec![AttemptHeartbeat {
                attempt: attempt(0),
                phase: Phase::Running,
                cpu_us: 0,
                written: 0,
                permille: None,
                notes: 0,
            }];
            let arrived = rig.arrived;
            for _ in 0..50 {
                rig.pass(every);
                rig.workers[0].attempts[0].cpu_us += 1;
            }
            let heard = rig.arrived - arrived;
            assert!((49..=52).contains(&heard), "{way:?}: heard {heard} times");
            rig.pass(every * 9);
            assert!(!rig.stalled(), "{way:?}: {:?}", rig.found);
            rig.pass(every * 3);
            assert!(rig.stalled(), "{way:?}");
        }
    }
}

#[test]
fn a_worker_hears_of_another_interval_of_progress_alone() {
    let mut rig = Rig::new(Settings::default(), 1);
    let mut out = Vec::new();
    let settings = Settings {
        progress_every: ms(3),
        ..Settings::default()
    };
    rig.monitor.set(rig.now, settings, &mut out);
    rig.carry_out(out);
    assert_eq!(rig.workers[0].plan.progress_every, ms(3));
}

#[test]
fn ten_thousand_workers_stay_within_the_budget_and_a_hundred_deaths_are_found() {
    let settings = Settings {
        dead_min: Duration::ZERO,
        ..Settings::default()
    };
    let mut rig = Rig::new(settings, 10_000);
    for at in 0..2_000 {
        rig.set_attention(at, Attention::Assigned);
    }
    for at in 0..50 {
        rig.set_attention(at, Attention::Critical);
    }
    rig.pass(ms(30_000));
    rig.found.clear();
    let (arrived, budget) = (rig.arrived, u64::from(settings.budget));
    rig.pass(ms(10_000));
    let a_second = (rig.arrived - arrived) / 10;
    assert!(a_second <= budget, "{a_second} heartbeats a second");
    assert!(a_second >= budget / 8, "{a_second} heartbeats a second");
    assert_eq!(rig.status(0).interval, settings.critical.interval);
    assert!(rig.found.is_empty(), "{:?}", &rig.found[..1]);
    let dead: Vec<usize> = (0..100).map(|at| at * 99).collect();
    let since = rig.now;
    dead.iter().for_each(|at| rig.workers[*at].silent = true);
    let slowest = rig.status(9_999).interval;
    rig.pass(slowest * (settings.suspect_heartbeats + 1));
    for at in dead {
        let status = rig.status(at);
        let seen = rig.found.iter().find_map(|(found_us, finding)| {
            let suspect = matches!(finding.what, Found::Silent { liveness, .. } if liveness == Liveness::Suspect);
            (finding.peer == peer(at) && suspect).then_some(*found_us)
        });
        let after = Time(seen.expect("it is found") * 1_000).since(since);
        let limit = status.interval * (settings.suspect_heartbeats + 1);
        assert!(after <= limit + ms(1), "{after:?} of {:?}", status.interval);
    }
}

#[test]
fn an_owner_who_came_or_went_is_known_with_the_next_heartbeat_and_told_of_once() {
    let mut rig = Rig::new(Settings::uniform(WatchMode::heartbeats(ms(100))), 1);
    rig.pass(ms(1_000));
    let note = |change, response| OwnerNote {
        change,
        response,
        why: 1,
        away_ms: 0,
    };
    let mut told = |owner| {
        rig.workers[0].owner = Some(owner);
        let before = rig.found.len();
        rig.pass(ms(100));
        let told = rig.found[before..].to_vec();
        rig.pass(ms(1_000));
        assert_eq!(rig.found.len(), before + told.len(), "told again");
        told.into_iter()
            .map(|(_, finding)| finding.what)
            .collect::<Vec<_>>()
    };
    let (came, went) = (note(1, OwnerResponse::Pause), note(2, OwnerResponse::Work));
    assert_eq!(told(came), [Found::Owner(came)]);
    assert_eq!(told(went), [Found::Owner(went)]);
    assert_eq!(told(came), [], "older news");
}
