//! A supervisor alone: events in, whole lists of actions out, in short lines. What a test does not look at
//! makes it fail.

#![allow(dead_code)] // each test file uses its own part

mod lines;

use hedge_core::monitor::{Monitor, Output, Settings, WatchId, WatchMode};
use hedge_core::supervisor::{Action, Config, Effects, Event, Offer, Proposal, State, Supervisor};
use hedge_model::msg::{
    Assignment, FromWorker, Heartbeat, HeldAttempt, Offsets, Outcome, PrintedRequest, Reply,
    Report, Request, Role, ToWorker, Usage, WorkerInfo,
};
use hedge_model::record::{Record, Ticket};
use hedge_model::spec::{
    CriticalRule, Draft, Estimate, Group, Input, Measure, Network, Qos, Redundancy, Top,
};
use hedge_model::view::JobView;
use hedge_model::{
    AttemptId, Data, Ending, Epoch, FileEntry, Hash, JobId, JobSpec, PeerAddr, PeerId, Resources,
    SubmitKey, TaskId, Time,
};
pub use lines::lines;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A supervisor that leads, with everything it said since the last look.
pub struct Rig {
    pub core: Supervisor,
    pub now: Time,
    pub monitor: Monitor,
    watched: BTreeMap<PeerId, (WatchId, u32)>,
    /// What events led to since the last look, not committed yet.
    out: Effects,
    lines: Vec<String>,
    /// What workers were given, with the proofs.
    pub given: BTreeMap<AttemptId, HeldAttempt>,
    /// Views of jobs that clients were told.
    views: Vec<JobView>,
    /// Links to be measured, with the most bytes each way.
    pub measures: Vec<(PeerId, u64)>,
    /// Links as the monitor was told of them.
    pub rates: Vec<(PeerId, u64)>,
}

impl Drop for Rig {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert_eq!(self.said(), Vec::<String>::new(), "left over");
        }
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with(State::default(), &[])
    }

    /// A new leader on this state, with this content in its store.
    pub fn with(mut state: State, holds: &[Hash]) -> Self {
        // The first clients are administrators: most tests are not about what others may not do.
        for (number, role) in (0..5)
            .map(|n| (n, Role::Admin))
            .chain((5..10).map(|n| (n, Role::Client)))
        {
            let ticket = Ticket {
                hash: hash(240 + number),
                role,
                expires: None,
                uses: None,
            };
            state.apply(&Record::TicketMade(ticket));
            state.apply(&Record::MemberJoined {
                peer: client(number),
                role,
                ticket: hash(240 + number),
                at: Time(0),
            });
        }
        let watch = Settings::uniform(WatchMode::heartbeats(Duration::from_millis(100)));
        let config = Config {
            watch,
            ..Config::new(addr(PeerId([9; 32])))
        };
        let mut rig = Self {
            now: state.recorded_time(),
            core: Supervisor::new(config, state),
            monitor: Monitor::new(watch),
            watched: BTreeMap::new(),
            measures: Vec::new(),
            rates: Vec::new(),
            out: Effects::default(),
            lines: Vec::new(),
            given: BTreeMap::new(),
            views: Vec::new(),
        };
        let holds = holds.to_vec();
        rig.event(Event::Lead {
            holds,
            secret: [7; 32],
        });
        rig.commit();
        let epoch = rig.core.state().epoch().0;
        let mut said = rig.said();
        // Where it is the first of its grid.
        said.retain(|line| !line.starts_with("append format"));
        assert_eq!(said, [&format!("append epoch {epoch}"), "watch settings"]);
        rig
    }

    pub fn event(&mut self, event: Event) {
        let mut effects = Effects::default();
        self.core.handle(self.now, event, &mut effects);
        self.core.check().expect("an invariant is broken");
        self.lines.extend(lines(&effects));
        let mut outputs = Vec::new();
        for action in &effects.actions {
            self.remember(action);
            match action {
                Action::WatchSettings(settings) => {
                    self.monitor.set(self.now, *settings, &mut outputs);
                }
                Action::Watch {
                    peer,
                    attention: Some(attention),
                } => {
                    let (monitor, now) = (&mut self.monitor, self.now);
                    let start = || (monitor.start(now, *peer, &mut outputs), 0);
                    let (id, _) = *self.watched.entry(*peer).or_insert_with(start);
                    monitor.set_attention(now, id, *attention, &mut outputs);
                }
                Action::Watch {
                    peer,
                    attention: None,
                } => {
                    if let Some((id, _)) = self.watched.remove(peer) {
                        self.monitor.stop(self.now, id, &mut outputs);
                    }
                }
                Action::MeasureLink { peer, most } => self.measures.push((*peer, most.bytes)),
                Action::LinkRate { peer, rate } => self.rates.push((*peer, *rate)),
                _ => {}
            }
        }
        self.out.proposals.extend(effects.proposals);
        self.out.actions.extend(effects.actions);
        self.monitored(outputs);
    }

    fn monitored(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Found(finding) => self.event(Event::Found(finding)),
                Output::Plan { peer, plan, .. } => {
                    if let Some(watched) = self.watched.get_mut(&peer) {
                        watched.1 = plan.number;
                    }
                }
                Output::Ask { .. } => {}
            }
        }
    }

    /// What a worker says of attempts that it was given by this leader.
    pub fn held<const N: usize>(&mut self, attempts: [AttemptId; N]) -> Vec<HeldAttempt> {
        attempts.map(|attempt| self.given[&attempt]).to_vec()
    }

    /// Time passes, with a tick at each deadline on the way.
    pub fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let tick = self.core.next_deadline();
            let check = self.monitor.next_check();
            let first = [tick, check].into_iter().flatten().min();
            let Some(at) = first.filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            if tick == Some(at) {
                self.event(Event::Tick);
            } else {
                let mut outputs = Vec::new();
                self.monitor.check(self.now, &mut outputs);
                self.monitored(outputs);
            }
        }
        self.now = end;
    }

    /// Time passes in which these workers send a heartbeat every 100 ms.
    pub fn pass_with_heartbeats(&mut self, span: Duration, workers: &[u8]) {
        let steps = span.as_millis() / 100;
        for _ in 0..steps {
            for number in workers {
                let seq = self.now.0;
                let heartbeat = Heartbeat {
                    seq,
                    sent_ns: seq,
                    in_hand: 0,
                    ..Heartbeat::default()
                };
                let mut outputs = Vec::new();
                if let Some((id, plan)) = self.watched.get(&worker(*number)).copied() {
                    let heartbeat = Heartbeat { plan, ..heartbeat };
                    self.monitor
                        .heartbeat(self.now, id, &heartbeat, 40, &mut outputs);
                }
                self.monitored(outputs);
            }
            self.pass(Duration::from_millis(100));
        }
    }

    /// All records proposed so far become durable, and those that follow from them.
    pub fn commit(&mut self) {
        loop {
            let proposals = std::mem::take(&mut self.out).proposals;
            if proposals.is_empty() {
                return;
            }
            for Proposal { id, record } in proposals {
                self.committed((id, record));
            }
        }
    }

    /// The oldest records proposed, not committed yet; the others stay to be looked at.
    pub fn proposed(&mut self) -> Vec<(u64, Record)> {
        let proposals = std::mem::take(&mut self.out).proposals;
        proposals
            .into_iter()
            .map(|one| (one.id, one.record))
            .collect()
    }

    pub fn committed(&mut self, (proposal, record): (u64, Record)) {
        self.event(Event::Committed {
            proposal: Some(proposal),
            record,
        });
    }

    /// What the last events led to, but for records; it stays to be looked at in lines.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out).actions
    }

    fn remember(&mut self, action: &Action) {
        match action {
            Action::Answer { answer, .. } => {
                if let Reply::Job(view) = &answer.reply {
                    self.views.push((**view).clone());
                }
            }
            Action::Send {
                msg: ToWorker::Assign(order),
                ..
            } => self.remember_order(order),
            Action::SendAssignment { order, .. } => self.remember_order(&order.order),
            _ => {}
        }
    }

    fn remember_order(&mut self, order: &Assignment) {
        let held = HeldAttempt {
            attempt: order.attempt,
            redundant: order.redundant,
            seal: order.seal,
        };
        self.given.insert(order.attempt, held);
    }

    /// The views of jobs that clients were told since the last look, oldest first.
    pub fn told_views(&mut self) -> Vec<JobView> {
        std::mem::take(&mut self.views)
    }

    /// Everything said since the last look.
    pub fn said(&mut self) -> Vec<String> {
        self.out = Effects::default();
        std::mem::take(&mut self.lines)
    }

    /// Leaves out what was said since the last look, for this reason.
    pub fn skip(&mut self, why: &str) {
        assert!(!why.is_empty());
        self.said();
    }

    #[track_caller]
    pub fn expect(&mut self, expected: &[&str]) {
        let said = self.said();
        assert_eq!(said, expected);
    }

    /// What was said since the last look, but for lines that contain any of `skipped`.
    #[track_caller]
    pub fn expect_without(&mut self, skipped: &[&str], expected: &[&str]) {
        let mut said = self.said();
        said.retain(|line| !skipped.iter().any(|word| line.contains(word)));
        assert_eq!(said, expected);
    }

    pub fn attach(&mut self, number: u8, cpus: u64) {
        self.attach_with(number, info(number, cpus));
    }

    pub fn attach_with(&mut self, number: u8, info: WorkerInfo) {
        self.from(number, FromWorker::Attach(Box::new(info)));
    }

    pub fn from(&mut self, number: u8, msg: FromWorker) {
        let peer = worker(number);
        self.event(Event::FromWorker { peer, msg });
    }

    pub fn gone(&mut self, number: u8) {
        let (peer, silent) = (worker(number), false);
        self.event(Event::Gone { peer, silent });
    }

    pub fn gone_client(&mut self, number: u8) {
        let (peer, silent) = (client(number), false);
        self.event(Event::Gone { peer, silent });
    }

    /// A client submits a job under this key; its question has the key's number.
    pub fn submit(&mut self, number: u8, key: u8, spec: &Arc<JobSpec>) {
        let peer = client(number);
        self.event(Event::Submit {
            requester: peer.into(),
            request_id: u64::from(key),
            key: SubmitKey([key; 16]),
            offer: Offer::Job(spec.clone()),
            from: addr(peer),
            held: Vec::new(),
        });
    }

    pub fn ask(&mut self, number: u8, request: Request) {
        self.event(Event::Request {
            requester: client(number).into(),
            request_id: 99,
            request,
            secret: None,
        });
    }

    pub fn reports(&mut self, number: u8, attempt: AttemptId, outcome: Outcome) {
        let report = Report {
            attempt,
            outcome,
            usage: Usage {
                running: Duration::from_secs(1),
                ..Usage::default()
            },
            log: None,
        };
        self.from(number, FromWorker::Ended(Box::new(report)));
    }

    /// It succeeded, after running on its CPU for so long.
    pub fn done_after(&mut self, number: u8, attempt: AttemptId, running: Duration) {
        let report = Report {
            attempt,
            outcome: Outcome::Done(Vec::new()),
            usage: Usage {
                running,
                cpu: running,
                ..Usage::default()
            },
            log: None,
        };
        self.from(number, FromWorker::Ended(Box::new(report)));
    }

    pub fn done(&mut self, number: u8, attempt: AttemptId) {
        self.reports(number, attempt, Outcome::Done(Vec::new()));
    }

    pub fn fails(&mut self, number: u8, attempt: AttemptId) {
        self.reports(number, attempt, Outcome::Ended(exited(1)));
    }
}

/// A member joins by a ticket of its own.
pub fn join(rig: &mut Rig, number: u8, role: Role) {
    ticket(rig, 60 + number, role, None, None);
    rig.event(Event::Joining {
        peer: worker(number),
        role,
        ticket: Some(hash(60 + number)),
    });
    rig.commit();
    assert!(rig.said().contains(&format!("admit worker {number}: None")));
}

/// An administrator makes a ticket with this secret.
pub fn ticket(
    rig: &mut Rig,
    secret: u8,
    role: Role,
    valid_for: Option<Duration>,
    uses: Option<u32>,
) {
    rig.event(Event::Request {
        requester: client(1).into(),
        request_id: 1,
        request: Request::Ticket {
            role,
            valid_for,
            uses,
        },
        secret: Some((hash(secret), "secret".into())),
    });
    rig.commit();
    rig.expect(&["append ticket", "client 1 #1: Ticket(\"secret\")"]);
}

/// A question about what the first task of a job prints.
pub fn printed_request(job: JobId) -> Request {
    Request::Printed(PrintedRequest {
        job,
        task: "0".into(),
        attempt: None,
        from: Offsets::default(),
    })
}

/// The end of a program with an exit status.
pub fn exited(status: i32) -> Ending {
    Ending::Exited {
        status,
        said: String::new(),
    }
}

pub fn worker(number: u8) -> PeerId {
    PeerId([number; 32])
}

pub fn client(number: u8) -> PeerId {
    PeerId([100 + number; 32])
}

pub fn addr(peer: PeerId) -> PeerAddr {
    PeerAddr {
        peer,
        addrs: Vec::new(),
    }
}

pub fn info(number: u8, cpus: u64) -> WorkerInfo {
    WorkerInfo {
        host: format!("host-{number}").into(),
        pid: 1,
        resources: Resources::cpus(cpus * 1000),
        labels: vec![("arch".into(), "x86_64".into())],
        shares: Vec::new(),
        network: Network::Loopback,
        addr: addr(worker(number)),
        hardware: Default::default(),
        holds: Vec::new(),
        in_hand: Vec::new(),
    }
}

/// Which attempts went to which workers, as the lines of a rig say.
pub fn assigned(said: &[String]) -> Vec<(u8, AttemptId)> {
    let numbers = |text: &str| -> Vec<u64> {
        text.split(|c: char| !c.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect()
    };
    said.iter()
        .filter_map(|line| line.split(", may").next()?.split_once(": assign "))
        .map(|(place, id)| match numbers(id)[..] {
            [job, number, generation, epoch, count] => (
                numbers(place)[0] as u8,
                AttemptId {
                    task: TaskId {
                        job: JobId(job),
                        number: number as u32,
                    },
                    generation: generation as u32,
                    epoch: Epoch(epoch),
                    number: count as u32,
                },
            ),
            _ => panic!("{id} is no attempt"),
        })
        .collect()
}

/// The attempt `number` of a task of job 1 in generation 0 and epoch 1.
pub fn attempt(task: u32, number: u32) -> AttemptId {
    AttemptId {
        task: TaskId {
            job: JobId(1),
            number: task,
        },
        generation: 0,
        epoch: Epoch(1),
        number,
    }
}

pub fn hash(number: u8) -> Hash {
    Hash([number; 32])
}

pub fn blob(path: &str, number: u8) -> FileEntry {
    FileEntry {
        path: path.into(),
        executable: false,
        data: Data::Blob {
            hash: hash(number),
            size: 1 << 20,
        },
    }
}

pub fn group(id: &str, deps: &[&str]) -> Group {
    Group {
        deps: deps.iter().map(|dep| Arc::from(*dep)).collect(),
        ..Group::program(id, &["true"])
    }
}

/// A group that reads the outputs of others.
pub fn reader(id: &str, inputs: &[&str]) -> Group {
    Group {
        inputs: inputs
            .iter()
            .map(|input| Input::Task(Arc::from(*input)))
            .collect(),
        ..Group::program(id, &["true"])
    }
}

pub fn array(count: u32, group: Group) -> Group {
    Group {
        array: Some((0, count)),
        ..group
    }
}

/// A group of one task that is expected to compute for so many seconds.
pub fn timed(id: &str, seconds: u64, deps: &[&str]) -> Group {
    Group {
        estimate: Estimate {
            cpu_time: Some(Duration::from_secs(seconds)),
            ..Estimate::default()
        }
        .into(),
        ..group(id, deps)
    }
}

/// A job without redundancy.
pub fn plain(groups: Vec<Group>) -> Arc<JobSpec> {
    let qos = Qos {
        redundancy: Redundancy::None,
        ..Qos::default()
    };
    job(qos, 0, groups)
}

/// A job with `copies` attempts of each critical task, up to `top` of which are found by precedence.
pub fn redundant(copies: u32, top: u32, groups: Vec<Group>) -> Arc<JobSpec> {
    let qos = Qos {
        redundancy: Redundancy::Critical,
        copies,
        ..Qos::default()
    };
    job(qos, top, groups)
}

pub fn job(qos: Qos, top: u32, groups: Vec<Group>) -> Arc<JobSpec> {
    let draft = Draft {
        name: "test".into(),
        qos,
        critical: CriticalRule {
            by: vec![(Measure::Precedence, 1.0)],
            top: Top::Count(top),
        },
        files: Vec::new(),
        groups,
        outline: false,
    };
    Arc::new(JobSpec::new(draft).expect("a job"))
}
