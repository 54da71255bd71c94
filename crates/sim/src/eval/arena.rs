//! The real cores of a supervisor and its workers in virtual time, joined without a network: lean, so that
//! thousands of runs take seconds. What the network, processes and clients can do to them is for [`crate::Grid`].

use super::running::{Course, Stay, done_in};
use crate::Error;
use hedge_core::supervisor::{self, Config, Effects, Proposal, State, Supervisor};
use hedge_core::worker::{self, Worker};
use hedge_model::capacity::BenchScores;
use hedge_model::msg::{
    FromWorker, GrantedBody, Grants, Outcome, Reply, Report, Role, ToWorker, Usage, WorkerInfo,
};
use hedge_model::record::{JobEnd, Record};
use hedge_model::spec::Network;
use hedge_model::{
    AttemptId, Ending, Epoch, JobId, JobSpec, PeerAddr, PeerId, Resources, SubmitKey, Time,
};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a machine offers and how long things take there.
pub(crate) trait World {
    /// What an attempt does at a machine. `begun_at` is the share of its task's work that is in the checkpoint from
    /// which it resumes.
    fn course(&mut self, machine: usize, attempt: AttemptId, begun_at: f64, now: Time) -> Course;
    /// An attempt's inputs are at its machine.
    fn staged(&mut self, machine: usize, attempt: AttemptId) {
        let _ = (machine, attempt);
    }
    /// An attempt's time at a machine is over: it was there from `from` to `to`.
    fn ended(&mut self, attempt: AttemptId, machine: usize, span: Span);
    /// A record is about to be committed.
    fn committed(&mut self, record: &Record);
}

/// When an attempt was at its machine, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Arrival.
    pub from: Time,
    /// End.
    pub to: Time,
    /// How.
    pub how: Ended,
}

/// How an attempt's time at its machine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// It ran to its end.
    Done,
    /// It was stopped.
    Cancelled,
    /// Its machine went.
    Lost,
}

/// What is to happen at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// A machine comes.
    Up(u32),
    /// A machine goes.
    Down(u32),
    /// The supervisor hears of it.
    Noticed(u32),
    /// An attempt's inputs are there.
    Staged(u32, AttemptId),
    /// An attempt's program ends.
    Finished(u32, AttemptId),
    /// A heartbeat reports its progress.
    Reports(u32, AttemptId),
    /// Its program saves a checkpoint.
    Saves(u32, AttemptId),
}

#[derive(Debug)]
pub(super) struct Place {
    core: Worker,
    info: Option<Box<WorkerInfo>>,
    scores: Option<BenchScores>,
    up: bool,
    pub stays: BTreeMap<AttemptId, Stay>,
}

/// A supervisor and its machines.
pub(crate) struct Arena<W> {
    pub core: Supervisor,
    pub world: W,
    pub now: Time,
    pub(super) places: Vec<Place>,
    due: BinaryHeap<Reverse<(Time, u64, Due)>>,
    /// Counts what was made due, so that equal times keep their order.
    count: u64,
    to_core: VecDeque<supervisor::Event>,
    out: Effects,
    /// Seconds until a loss is noticed.
    detect: f64,
    pub(super) epoch: Epoch,
    submitted: u64,
    /// The jobs that ended, and when.
    pub ends: Vec<(JobId, Time, JobEnd)>,
    /// Real time spent in the supervisor's core, where it is measured.
    pub core_time: Option<Duration>,
    pub events: u64,
}

/// The supervisor's own name.
pub(crate) fn me() -> PeerId {
    PeerId([0xff; 32])
}

fn addr(peer: PeerId) -> PeerAddr {
    let addrs = Vec::new();
    PeerAddr { peer, addrs }
}

/// The name of a machine by the life of the supervisor and its number: another life meets other machines.
pub(super) fn peer(epoch: Epoch, machine: usize) -> PeerId {
    let mut id = [1; 32];
    id[..4].copy_from_slice(&(machine as u32).to_be_bytes());
    id[4..12].copy_from_slice(&epoch.0.to_be_bytes());
    PeerId(id)
}

/// The machine with a name.
pub(crate) fn machine(peer: PeerId) -> usize {
    let mut number = [0; 4];
    number.copy_from_slice(&peer.0[..4]);
    u32::from_be_bytes(number) as usize
}

/// The default configuration of a supervisor here.
pub(crate) fn config() -> Config {
    Config::new(addr(me()))
}

/// Seconds as an instant or a span.
pub(crate) fn seconds(time: f64) -> Duration {
    Duration::from_secs_f64(time.clamp(0.0, 1e10))
}

impl<W: World> Arena<W> {
    /// A supervisor that leads, without machines.
    pub fn new(config: Config, state: State, world: W, detect: f64) -> Self {
        let (now, epoch) = (state.recorded_time(), state.epoch());
        let mut arena = Self {
            core: Supervisor::new(config, state),
            world,
            now,
            places: Vec::new(),
            due: BinaryHeap::new(),
            count: 0,
            to_core: VecDeque::new(),
            out: Effects::default(),
            detect,
            epoch: Epoch(epoch.0 + 1),
            submitted: 0,
            ends: Vec::new(),
            core_time: None,
            events: 0,
        };
        let holds = Vec::new();
        arena.tell(supervisor::Event::Lead {
            holds,
            secret: [7; 32],
        });
        arena
    }

    /// How many machines are known.
    pub fn machines(&self) -> usize {
        self.places.len()
    }

    /// Adds a machine that comes `from` seconds after `base`. It answers with `scores` when the supervisor asks it for
    /// benchmark tasks, which take no time here.
    pub fn add(&mut self, info: WorkerInfo, scores: Option<BenchScores>, base: Time, from: f64) {
        let number = self.places.len() as u32;
        self.places.push(Place {
            core: Worker::new(info.resources.clone()),
            info: Some(Box::new(info)),
            scores,
            up: false,
            stays: BTreeMap::new(),
        });
        self.at(base + seconds(from), Due::Up(number));
    }

    /// A machine goes `at` seconds after `base`.
    pub fn goes(&mut self, number: usize, base: Time, at: f64) {
        self.at(base + seconds(at), Due::Down(number as u32));
    }

    /// Submits a job.
    pub fn submit(&mut self, spec: Arc<JobSpec>) {
        self.submit_as(me(), spec);
    }

    /// Submits a job of a client.
    pub fn submit_as(&mut self, peer: PeerId, spec: Arc<JobSpec>) {
        self.submitted += 1;
        let mut key = [0; 16];
        key[..8].copy_from_slice(&self.epoch.0.to_be_bytes());
        key[8..].copy_from_slice(&self.submitted.to_be_bytes());
        self.tell(supervisor::Event::Submit {
            requester: supervisor::Requester::Here {
                peer,
                role: Role::Client,
            },
            request_id: self.submitted,
            key: SubmitKey(key),
            offer: supervisor::Offer::Job(spec),
            from: addr(me()),
            held: Vec::new(),
        });
    }

    /// Goes on until `over` holds, or the next thing would happen behind `until`; says whether it is over.
    pub fn run(&mut self, until: Time, over: impl Fn(&Self) -> bool) -> Result<bool, Error> {
        loop {
            self.settle()?;
            if over(self) {
                return Ok(true);
            }
            let due = self.due.peek().map(|Reverse((at, _, _))| *at);
            let tick = self.core.next_deadline().map(|at| at.max(self.now));
            match (due, tick) {
                (Some(at), tick) if at <= until && tick.is_none_or(|tick| at <= tick) => {
                    if let Some(Reverse((at, _, due))) = self.due.pop() {
                        self.now = at;
                        self.happen(due);
                    }
                }
                (_, Some(at)) if at <= until => {
                    self.now = at;
                    self.tell(supervisor::Event::Tick);
                }
                _ => {
                    self.now = self.now.max(until);
                    return Ok(false);
                }
            }
        }
    }

    /// Whether all jobs submitted have ended.
    pub fn all_over(&self) -> bool {
        self.ends.len() as u64 == self.submitted
    }

    /// What the supervisor is told of the next machine to be added, which has `resources`.
    pub fn info(&self, resources: Resources) -> WorkerInfo {
        let number = self.places.len();
        WorkerInfo {
            host: format!("m{number}").into(),
            pid: 1,
            resources,
            labels: Vec::new(),
            shares: Vec::new(),
            network: Network::Loopback,
            addr: addr(peer(self.epoch, number)),
            hardware: Default::default(),
            holds: Vec::new(),
            in_hand: Vec::new(),
        }
    }

    pub(super) fn tell(&mut self, event: supervisor::Event) {
        self.to_core.push_back(event);
    }

    pub(super) fn at(&mut self, at: Time, due: Due) {
        self.count += 1;
        self.due.push(Reverse((at, self.count, due)));
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Up(number) => {
                let place = &mut self.places[number as usize];
                place.up = true;
                if let Some(info) = place.info.take() {
                    let msg = FromWorker::Attach(info);
                    let peer = peer(self.epoch, number as usize);
                    self.tell(supervisor::Event::FromWorker { peer, msg });
                    let connected = worker::Event::Connected(self.epoch);
                    self.at_worker(number as usize, connected);
                }
            }
            Due::Down(number) => {
                let place = &mut self.places[number as usize];
                if !std::mem::replace(&mut place.up, false) {
                    return;
                }
                for (attempt, stay) in std::mem::take(&mut place.stays) {
                    let (from, to, how) = (stay.from, self.now, Ended::Lost);
                    let span = Span { from, to, how };
                    self.world.ended(attempt, number as usize, span);
                }
                self.at(self.now + seconds(self.detect), Due::Noticed(number));
            }
            Due::Noticed(number) => {
                let peer = peer(self.epoch, number as usize);
                let silent = false;
                self.tell(supervisor::Event::Gone { peer, silent });
            }
            Due::Staged(number, attempt) => {
                let place = &mut self.places[number as usize];
                if let Some(stay) = place.stays.get_mut(&attempt) {
                    stay.started = Some(self.now);
                    self.world.staged(number as usize, attempt);
                    self.starts(number, attempt);
                    let event = worker::Event::Staged(attempt, Ok(()));
                    self.at_worker(number as usize, event);
                }
            }
            Due::Finished(number, attempt) => {
                let outcome = Outcome::Done(Vec::new());
                self.end(number as usize, attempt, outcome, Ended::Done);
            }
            Due::Reports(number, attempt) => self.reports(number, attempt),
            Due::Saves(number, attempt) => self.saves(number, attempt),
        }
    }

    /// An attempt ends at its machine, if it is still there.
    fn end(&mut self, number: usize, attempt: AttemptId, outcome: Outcome, how: Ended) {
        let place = &mut self.places[number];
        let Some(stay) = place.stays.remove(&attempt) else {
            return;
        };
        let (from, to) = (stay.from, self.now);
        self.world.ended(attempt, number, Span { from, to, how });
        let usage = Usage {
            running: to.since(stay.started.unwrap_or(to)),
            cpu: stay.cpu(to),
            ..Usage::default()
        };
        let report = Report {
            attempt,
            outcome,
            usage,
            log: None,
        };
        self.at_worker(number, worker::Event::Finished(Box::new(report)));
    }

    pub(super) fn at_worker(&mut self, number: usize, event: worker::Event) {
        let place = &mut self.places[number];
        if !place.up {
            return;
        }
        let mut out = Vec::new();
        place.core.handle(self.now, event, &mut out);
        for action in out {
            match action {
                worker::Action::Stage(_, order) => {
                    let id = order.attempt;
                    let begun_at = done_in(order.checkpoint());
                    let course = self.world.course(number, id, begun_at, self.now);
                    let (staging, running) = (course.staging, course.running);
                    let staged = self.now + seconds(staging);
                    let stay = Stay::new(self.now, begun_at, course);
                    self.places[number].stays.insert(id, stay);
                    self.at(staged + seconds(running), Due::Finished(number as u32, id));
                    if staging > 0.0 {
                        self.at(staged, Due::Staged(number as u32, id));
                    } else {
                        self.happen(Due::Staged(number as u32, id));
                    }
                }
                worker::Action::End(id) | worker::Action::Stop(id, _) => self.stop(number, id),
                worker::Action::Tell(msg) => {
                    let peer = peer(self.epoch, number);
                    self.tell(supervisor::Event::FromWorker { peer, msg });
                }
                worker::Action::Benchmark => {
                    let scores = self.places[number].scores;
                    self.at_worker(number, worker::Event::Benchmarked(scores));
                }
                worker::Action::Start(..)
                | worker::Action::Drop(_)
                | worker::Action::EndBenchmark
                | worker::Action::Pause(_)
                | worker::Action::Lower(_)
                | worker::Action::Leave => {}
            }
        }
    }

    /// Stops an attempt that is staged or runs.
    fn stop(&mut self, number: usize, id: AttemptId) {
        let place = &mut self.places[number];
        let Some(stay) = place.stays.get(&id) else {
            return;
        };
        let from = stay.from;
        if stay.started.is_some() {
            return self.end(
                number,
                id,
                Outcome::Ended(Ending::Cancelled),
                Ended::Cancelled,
            );
        }
        place.stays.remove(&id);
        let (to, how) = (self.now, Ended::Cancelled);
        self.world.ended(id, number, Span { from, to, how });
        self.at_worker(number, worker::Event::Staged(id, Ok(())));
    }

    /// Hands everything that waits to the supervisor, and carries out what it wants.
    fn settle(&mut self) -> Result<(), Error> {
        while let Some(event) = self.to_core.pop_front() {
            self.events += 1;
            let began = self.core_time.map(|_| Instant::now());
            self.core.handle(self.now, event, &mut self.out);
            if let (Some(began), Some(time)) = (began, &mut self.core_time) {
                *time += began.elapsed();
            }
            let mut out = std::mem::take(&mut self.out);
            for proposal in out.proposals.drain(..) {
                self.commit(proposal);
            }
            for action in out.actions.drain(..) {
                self.carry_out(action)?;
            }
            self.out = out;
        }
        Ok(())
    }

    /// Here every record is durable at once.
    fn commit(&mut self, proposal: Proposal) {
        let Proposal { id, record } = proposal;
        self.world.committed(&record);
        if let Record::JobEnded { job, end, .. } = &record {
            self.ends.push((*job, self.now, end.clone()));
        }
        let proposal = Some(id);
        self.tell(supervisor::Event::Committed { proposal, record });
    }

    fn order(&mut self, to: PeerId, msg: ToWorker) {
        self.at_worker(machine(to), worker::Event::Order(self.epoch, msg));
    }

    fn carry_out(&mut self, action: supervisor::Action) -> Result<(), Error> {
        match action {
            supervisor::Action::Send { to, msg } => self.order(to, msg),
            supervisor::Action::SendBody { to, body, .. } => {
                let grants = Grants::default();
                let body = Arc::new(GrantedBody { body, grants });
                self.order(to, ToWorker::Body(body));
            }
            supervisor::Action::SendAssignment { to, order } => {
                let order = order.with(Grants::default());
                self.order(to, ToWorker::Assign(order));
            }
            supervisor::Action::Answer { answer, .. } => {
                if let Reply::No(refusal) = answer.reply {
                    return Err(Error::Run(format!("the job is refused: {}", refusal.why)));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
