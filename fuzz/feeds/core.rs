//! Whatever peers send, in any order, into a live supervisor whose invariants are checked after each event; and
//! whatever a supervisor sends into a worker.

use hedge_core::monitor::{Monitor, Output, Settings, WatchId};
use hedge_core::supervisor::{
    Action, Config, Effects, Event, FetchFailure, Offer, State, Supervisor,
};
use hedge_core::worker::{self, Worker};
use hedge_model::group::{FromLeader, PeerSupervisor, ToLeader};
use hedge_model::msg::{
    FromWorker, Heartbeat, HeldAttempt, Outcome, Report, Request, Role, ToWorker, Usage, WorkerInfo,
};
use hedge_model::record::{FORMAT_MAX, Record, Ticket};
use hedge_model::spec::{Draft, Group, Input, Need, Network, Redundancy};
use hedge_model::{
    Data, Ending, Epoch, FileEntry, Hash, JobId, JobSpec, PeerAddr, PeerId, Resources, SubmitKey,
    Time,
};
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Events of one input: enough for any state to be reached, few enough for many inputs a second.
const EVENTS_MAX: usize = 300;
/// Jobs of more tasks are lawful and slow, which is not looked for here.
const TASKS_MAX: u32 = 2_000;

/// The first byte says which machine; the others are events.
pub fn core(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let mut input = Bytes(bytes);
    if kind % 4 == 3 {
        return worker(&mut input);
    }
    let mut rig = Rig::new();
    for _ in 0..EVENTS_MAX {
        if input.0.is_empty() {
            break;
        }
        rig.step(&mut input);
    }
    rig.commit(usize::MAX);
}

/// What is left of an input.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end.max(1)
    }

    fn value<T: DeserializeOwned>(&mut self) -> Option<T> {
        let (value, rest) = postcard::take_from_bytes(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }
}

struct Rig {
    core: Supervisor,
    monitor: Monitor,
    watched: BTreeMap<PeerId, WatchId>,
    now: Time,
    out: Effects,
    pulls: VecDeque<Hash>,
    proofs: VecDeque<Event>,
    /// What each worker was given, with the proofs, and those of workers long gone.
    given: Vec<(PeerId, HeldAttempt)>,
    request_id: u64,
}

impl Rig {
    fn new() -> Rig {
        let mut state = State::default();
        let peers = (0..4).map(|n| (worker_id(n), Role::Worker));
        let peers = peers.chain((0..3).map(|n| (client_id(n), Role::Client)));
        let others = (0..2).map(|n| (supervisor_id(n), Role::Supervisor));
        for (peer, role) in peers.chain([(client_id(3), Role::Admin)]).chain(others) {
            let hash = Hash([role as u8; 32]);
            let (expires, uses, ticket, at) = (None, None, hash, Time(0));
            state.apply(&Record::TicketMade(Ticket {
                hash,
                role,
                expires,
                uses,
            }));
            state.apply(&Record::MemberJoined {
                peer,
                role,
                ticket,
                at,
            });
        }
        let mut rig = Rig {
            core: Supervisor::new(Config::new(addr(PeerId([9; 32]))), state),
            monitor: Monitor::new(Settings::default()),
            watched: BTreeMap::new(),
            now: Time(1),
            out: Effects::default(),
            pulls: VecDeque::new(),
            proofs: VecDeque::new(),
            given: Vec::new(),
            request_id: 0,
        };
        rig.lead();
        rig.commit(usize::MAX);
        rig
    }

    fn lead(&mut self) {
        let (holds, secret) = (vec![Hash([0; 32])], [7; 32]);
        self.event(Event::Lead { holds, secret });
    }

    fn event(&mut self, event: Event) {
        self.core.handle(self.now, event, &mut self.out);
        let mut outputs = Vec::new();
        for action in std::mem::take(&mut self.out.actions) {
            match action {
                Action::WatchSettings(settings) => {
                    self.monitor.set(self.now, settings, &mut outputs);
                }
                Action::Watch { peer, attention } => match attention {
                    Some(attention) => {
                        let (monitor, now) = (&mut self.monitor, self.now);
                        let start = || monitor.start(now, peer, &mut outputs);
                        let id = *self.watched.entry(peer).or_insert_with(start);
                        monitor.set_attention(now, id, attention, &mut outputs);
                    }
                    None => {
                        if let Some(id) = self.watched.remove(&peer) {
                            self.monitor.stop(self.now, id, &mut outputs);
                        }
                    }
                },
                Action::Fetch { hash, .. } => self.pulls.push_back(hash),
                Action::Prove { holder, blobs } => self.proofs.push_back(Event::Proved {
                    holder: holder.peer,
                    proofs: blobs.into_iter().map(|(hash, _)| (hash, Ok(()))).collect(),
                }),
                Action::Send {
                    to,
                    msg: ToWorker::Assign(order),
                } => {
                    let held = HeldAttempt {
                        attempt: order.attempt,
                        redundant: order.redundant,
                        seal: order.seal,
                    };
                    self.given.push((to, held));
                }
                _ => {}
            }
        }
        if let Err(broken) = self.core.check() {
            panic!("an invariant is broken: {broken}");
        }
        self.found(outputs);
    }

    fn found(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            if let Output::Found(finding) = output {
                self.event(Event::Found(finding));
            }
        }
    }

    fn heartbeat(&mut self, peer: PeerId, heartbeat: &Heartbeat) {
        if let Some(id) = self.watched.get(&peer).copied() {
            let mut outputs = Vec::new();
            self.monitor
                .heartbeat(self.now, id, heartbeat, 40, &mut outputs);
            self.found(outputs);
        }
    }

    fn look_for_the_silent(&mut self) {
        if self.monitor.next_check().is_some_and(|at| at <= self.now) {
            let mut outputs = Vec::new();
            self.monitor.check(self.now, &mut outputs);
            self.found(outputs);
        }
    }

    fn commit(&mut self, count: usize) {
        for _ in 0..count.min(100_000) {
            let next = self.out.proposals.pop_front();
            let Some(next) = next else { return };
            let (proposal, record) = (Some(next.id), next.record);
            self.event(Event::Committed { proposal, record });
        }
    }

    fn step(&mut self, input: &mut Bytes) {
        match input.byte() % 20 {
            0 => self.attach(input),
            1 => self.submit(input),
            2..=4 => self.report(input),
            5 => {
                let count = input.below(6) + 1;
                self.commit(count);
            }
            6 => self.commit(usize::MAX),
            7 => self.pass(input),
            8 => {
                let peer = worker_id(input.below(4));
                if let Some(msg) = input.value() {
                    self.event(Event::FromWorker { peer, msg });
                }
            }
            9 => self.ask(input),
            10 => {
                let peer = worker_id(input.below(4));
                if let Some(heartbeat) = input.value() {
                    self.heartbeat(peer, &heartbeat);
                }
            }
            11 => self.link(input),
            12 => self.pulled(input),
            13 => self.peer_supervisor(input),
            14 => self.fail_over(input),
            15 => {
                let peer = worker_id(input.below(4));
                if let Some(held) = self.held(input) {
                    let msg = FromWorker::Started(held.attempt);
                    self.event(Event::FromWorker { peer, msg });
                }
            }
            16 => self.submit_as_decoded(input),
            17 => self.heartbeats(),
            18 => {
                let ids =
                    (0..input.below(4) as u64).map(|back| self.request_id.saturating_sub(back));
                self.event(Event::RequestsAbandoned(ids.collect()));
            }
            _ => self.simple_ask(input),
        }
    }

    fn pass(&mut self, input: &mut Bytes) {
        let spans_ms = [0, 1, 20, 100, 350, 1_000, 3_000, 60_000, 86_400_000];
        let end = self.now + Duration::from_millis(spans_ms[input.below(9)]);
        for _ in 0..50 {
            let Some(at) = self.core.next_deadline().filter(|at| *at <= end) else {
                break;
            };
            self.now = self.now.max(at);
            self.look_for_the_silent();
            self.event(Event::Tick);
        }
        self.now = end;
        self.look_for_the_silent();
        self.event(Event::Tick);
    }

    fn heartbeats(&mut self) {
        for number in 0..4 {
            let heartbeat = Heartbeat {
                seq: self.now.0,
                sent_ns: self.now.0,
                ..Heartbeat::default()
            };
            self.heartbeat(worker_id(number), &heartbeat);
        }
    }

    fn held(&mut self, input: &mut Bytes) -> Option<HeldAttempt> {
        let at = input.below(self.given.len());
        self.given.get(at).map(|(_, held)| *held)
    }

    fn attach(&mut self, input: &mut Bytes) {
        let number = input.below(4);
        let mut in_hand = Vec::new();
        for _ in 0..input.below(3) {
            in_hand.extend(self.held(input));
        }
        let holds = (0..input.below(4)).map(|n| Hash([n as u8; 32])).collect();
        let info = WorkerInfo {
            host: format!("host-{number}").into(),
            pid: 1,
            resources: Resources::cpus(1000 * (1 + input.below(3) as u64)),
            labels: Vec::new(),
            shares: Vec::new(),
            network: Network::Loopback,
            addr: addr(worker_id(number)),
            hardware: Default::default(),
            holds,
            in_hand,
        };
        let (peer, msg) = (worker_id(number), FromWorker::Attach(Box::new(info)));
        self.event(Event::FromWorker { peer, msg });
    }

    /// Some worker says that some attempt is over; mostly the one that it was given to.
    fn report(&mut self, input: &mut Bytes) {
        let at = input.below(self.given.len());
        let Some(&(owner, held)) = self.given.get(at) else {
            return;
        };
        let choice = input.byte();
        let outcome = match choice % 8 {
            0 => Outcome::Ended(Ending::Exited {
                status: 1,
                said: String::new(),
            }),
            1 => Outcome::Ended(Ending::Cancelled),
            2 => Outcome::Returned,
            3 => Outcome::Ended(Ending::Input {
                missing: vec![Hash([input.byte() % 4; 32])],
                why: "nobody has it".into(),
            }),
            _ => Outcome::Done(files(input)),
        };
        let peer = match choice / 64 {
            3 => worker_id(input.below(4)),
            _ => owner,
        };
        let report = Report {
            attempt: held.attempt,
            outcome,
            usage: Usage {
                running: Duration::from_millis(u64::from(input.byte())),
                ..input.value().unwrap_or_default()
            },
            log: None,
        };
        let msg = FromWorker::Ended(Box::new(report));
        self.event(Event::FromWorker { peer, msg });
    }

    fn submit(&mut self, input: &mut Bytes) {
        let Ok(spec) = JobSpec::new(draft(input)) else {
            return;
        };
        self.submit_spec(input, spec);
    }

    fn submit_as_decoded(&mut self, input: &mut Bytes) {
        let spec = input.value::<JobSpec>();
        if let Some(spec) = spec.filter(|spec| spec.task_count() <= TASKS_MAX) {
            self.submit_spec(input, spec);
        }
    }

    fn submit_spec(&mut self, input: &mut Bytes, spec: JobSpec) {
        self.request_id += 1;
        let peer = client_id(input.below(4));
        self.event(Event::Submit {
            requester: peer.into(),
            request_id: self.request_id,
            key: SubmitKey([input.byte(); 16]),
            offer: Offer::Job(Arc::new(spec)),
            from: addr(peer),
            held: Vec::new(),
        });
    }

    fn simple_ask(&mut self, input: &mut Bytes) {
        let job = JobId(1 + input.below(4) as u64);
        let request = match input.byte() % 8 {
            0 => Request::Cancel(job),
            1 => Request::Watch(job),
            2 => Request::Results { job, from: 0 },
            3 => Request::Forget(job),
            4 => Request::Explain(job, None),
            5 => Request::Jobs(None),
            6 => Request::Revoke(worker_id(input.below(4)).to_string()),
            _ => Request::Drain(worker_id(input.below(4)).to_string()),
        };
        self.ask_for(input, request);
    }

    fn ask(&mut self, input: &mut Bytes) {
        // Submissions are decoded by the node and come as events of their own.
        let request = input.value();
        if let Some(request) = request.filter(|it| !matches!(it, Request::Submit { .. })) {
            self.ask_for(input, request);
        }
    }

    fn ask_for(&mut self, input: &mut Bytes, request: Request) {
        self.request_id += 1;
        let secret = matches!(request, Request::Ticket { .. });
        self.event(Event::Request {
            requester: client_id(input.below(4)).into(),
            request_id: self.request_id,
            request,
            secret: secret.then(|| (Hash([input.byte(); 32]), "secret".into())),
        });
    }

    fn link(&mut self, input: &mut Bytes) {
        let (peer, role) = match input.below(4) {
            0 => (worker_id(input.below(4)), Role::Worker),
            1 => (client_id(input.below(4)), Role::Client),
            2 => (supervisor_id(input.below(2)), Role::Supervisor),
            _ => {
                let (role, at) = (Role::Worker, input.byte());
                let peer = PeerId([input.byte(); 32]);
                let ticket = at.is_multiple_of(2).then_some(Hash([at / 2; 32]));
                return self.event(Event::Joining { peer, role, ticket });
            }
        };
        let kind = input.byte() % 4;
        let silent = kind == 3;
        self.event(match kind {
            0 | 2 => Event::Linked { peer, role },
            _ => Event::Gone { peer, silent },
        });
    }

    fn pulled(&mut self, input: &mut Bytes) {
        if let Some(event) = self.proofs.pop_front() {
            return self.event(event);
        }
        let next = self.pulls.pop_front();
        let Some(hash) = next else { return };
        let result = match input.byte() % 4 {
            0 => Err(FetchFailure::Here("the disk is full".into())),
            1 => Err(FetchFailure::Sources("nobody has it".into())),
            2 => Ok(None),
            _ => Ok(Some(client_id(input.below(4)))),
        };
        self.event(Event::Fetched { hash, result });
    }

    fn peer_supervisor(&mut self, input: &mut Bytes) {
        let peer = supervisor_id(input.below(2));
        match input.byte() % 3 {
            0 => {
                if let Some(msg) = input.value::<FromLeader>() {
                    self.event(Event::FromLeader { peer, msg });
                }
            }
            1 => {
                if let Some(msg) = input.value::<ToLeader>() {
                    self.event(Event::ToLeader { peer, msg });
                }
            }
            _ => {
                let all = [PeerId([9; 32]), supervisor_id(0), supervisor_id(1)];
                let group = all[..1 + input.below(3)].iter().map(|peer| PeerSupervisor {
                    addr: addr(*peer),
                    votes: true,
                    format_max: FORMAT_MAX,
                });
                let group = group.collect();
                self.event(Event::Group(group));
            }
        }
    }

    /// This core is deposed; what it proposed is committed, lost, or committed after another's epoch.
    fn fail_over(&mut self, input: &mut Bytes) {
        self.event(Event::Deposed);
        let kept = input.below(4);
        self.commit(kept);
        self.out.proposals.clear();
        if input.byte().is_multiple_of(2) {
            let record = Record::Epoch {
                epoch: Epoch(self.core.state().epoch().0 + 1),
                at: self.now,
                secret: [8; 32],
            };
            let proposal = None;
            self.event(Event::Committed { proposal, record });
        }
        self.lead();
    }
}

fn worker(input: &mut Bytes) {
    let mut worker = Worker::new(Resources::cpus(2000));
    let (mut now, mut out) = (Time(1), Vec::new());
    let mut started = VecDeque::new();
    for _ in 0..EVENTS_MAX {
        if input.0.is_empty() {
            return;
        }
        now = now + Duration::from_millis(10);
        let epoch = Epoch(u64::from(input.byte() % 4));
        let event = match input.byte() % 8 {
            0 => worker::Event::Connected(epoch),
            1 => worker::Event::Disconnected,
            2 => match started.pop_front() {
                Some(attempt) if input.byte().is_multiple_of(2) => {
                    worker::Event::Staged(attempt, Ok(()))
                }
                Some(attempt) => worker::Event::Finished(Box::new(Report {
                    attempt,
                    outcome: Outcome::Done(Vec::new()),
                    usage: Usage::default(),
                    log: None,
                })),
                None => worker::Event::Drain,
            },
            _ => match input.value() {
                Some(order) => worker::Event::Order(epoch, order),
                None => continue,
            },
        };
        worker.handle(now, event, &mut out);
        for action in out.drain(..) {
            match action {
                worker::Action::Stage(_, order) | worker::Action::Start(_, order) => {
                    started.push_back(order.attempt);
                }
                _ => {}
            }
        }
        drop(worker.in_hand());
    }
}

fn draft(input: &mut Bytes) -> Draft {
    let kinds = Redundancy::WORDS;
    let mut draft = Draft {
        name: "fuzz".into(),
        qos: Default::default(),
        critical: Default::default(),
        files: files(input),
        groups: Vec::new(),
        outline: false,
    };
    draft.qos.redundancy = kinds[input.below(kinds.len())].1;
    draft.qos.copies = 1 + input.below(3) as u32;
    draft.qos.need = Need::Share(f64::from(input.byte() % 5) / 4.0);
    for number in 0..1 + input.below(4) {
        let mut group = Group::program(&format!("g{number}"), &["true"]);
        let shape = input.byte();
        group.array = (shape % 2 == 1).then(|| (0, u32::from(shape / 32)));
        group.retries = u32::from(shape / 2 % 4);
        group.critical = shape / 8 % 2 == 1;
        let before = input.byte();
        for earlier in 0..number {
            let name = format!("g{earlier}").into();
            match before >> (2 * earlier) & 3 {
                1 => group.deps.push(name),
                2 => group.inputs.push(Input::Task(name)),
                _ => {}
            }
        }
        if !draft.files.is_empty() && shape / 16 % 2 == 1 {
            group.inputs.push(Input::File(0));
        }
        draft.groups.push(group);
    }
    draft
}

fn files(input: &mut Bytes) -> Vec<FileEntry> {
    let file = |number: usize, kind: u8| FileEntry {
        path: format!("file-{number}").into(),
        executable: false,
        data: match kind % 4 {
            0 => Data::Inline(Arc::from([kind])),
            kind => Data::Blob {
                hash: Hash([kind; 32]),
                size: 1 << 20,
            },
        },
    };
    (0..input.below(3))
        .map(|number| file(number, input.byte()))
        .collect()
}

fn worker_id(number: usize) -> PeerId {
    PeerId([10 + number as u8; 32])
}

fn client_id(number: usize) -> PeerId {
    PeerId([100 + number as u8; 32])
}

fn supervisor_id(number: usize) -> PeerId {
    PeerId([20 + number as u8; 32])
}

fn addr(peer: PeerId) -> PeerAddr {
    let addrs = Vec::new();
    PeerAddr { peer, addrs }
}
