//! A virtual worker: the real state machine with a made-up disk, network and processes.

pub(crate) mod blobs;
mod checkpoints;
mod heartbeats;
mod owner;

use self::blobs::{may_read, own_blobs, sources};
use crate::actors::{ConnId, Event, Peer, addr};
use crate::grid::{Grid, Violation, WorkerKind};
use crate::program::Program;
use crate::supervisors::Refused;
use hedge_core::worker::{self, HeartbeatSchedule, Worker};
use hedge_model::msg::{
    Assignment, Body, FromWorker, GrantedBody, Outcome, Report, ToWorker, Usage, WorkerInfo,
};
use hedge_model::owner::Signal;
use hedge_model::spec::Network;
use hedge_model::{AttemptId, Ending, Epoch, Hash, Resources, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// What reaches a worker's process.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    Order(ConnId, ToWorker),
    Closed(ConnId),
    Connect(usize),
    Staged(AttemptId, u64),
    Ended(AttemptId, u64),
    Saves(AttemptId),
    Drain,
    Owner(Signal),
    Tick,
}

#[derive(Debug)]
pub(crate) struct Virtual {
    pub core: Worker,
    pub kind: WorkerKind,
    /// Counts the lives of its process.
    pub life: u32,
    pub up: bool,
    pub left: bool,
    /// One connection to each supervisor, as far as they are there.
    pub conns: Vec<Option<ConnId>>,
    /// The one over which it is attached, and the highest epoch that it has heard of.
    pub conn: Option<ConnId>,
    pub epoch: Epoch,
    pub disk: BTreeSet<Hash>,
    pub frozen_until: Time,
    /// Nobody can fetch from it until then.
    pub unreachable_until: Time,
    pub backlog: Vec<Input>,
    pub busy: BTreeMap<AttemptId, Busy>,
    /// When it sends heartbeats; none before it is attached.
    pub schedule: Option<HeartbeatSchedule>,
    /// Counts the changes of the schedule: events of an old one have no effect.
    pub schedules: u64,
    token: u64,
    /// Whether its attempts are stopped for its owner.
    paused: bool,
    /// Whether its owner's programs are at work.
    owner_busy: bool,
    /// When it is to be told that time has passed.
    tick_at: Option<Time>,
}

/// An attempt that is being staged or runs.
#[derive(Debug)]
pub(crate) struct Busy {
    token: u64,
    running: bool,
    ending: bool,
    /// Whether it saves how far it is once more before it ends.
    saves_last: bool,
    /// Thousandths of its task's work that were done when it began, and how often it saved how far it is.
    begun_at: u16,
    saved: u32,
    body: Arc<GrantedBody>,
    order: Assignment,
    since: Time,
    /// When its process will end.
    due: Time,
    /// How long it will take from when it goes on, while it is stopped.
    left: Option<Duration>,
    /// How long it was stopped.
    paused: Duration,
    paused_at: Time,
}

impl Virtual {
    pub fn new(kind: WorkerKind, supervisors: usize) -> Self {
        Self {
            core: new_core(&kind),
            life: 0,
            up: true,
            left: false,
            conns: vec![None; supervisors],
            conn: None,
            epoch: Epoch(0),
            disk: BTreeSet::new(),
            frozen_until: Time(0),
            unreachable_until: Time(0),
            backlog: Vec::new(),
            busy: BTreeMap::new(),
            schedule: None,
            schedules: 0,
            token: 0,
            paused: kind.owner.is_some(),
            owner_busy: false,
            tick_at: None,
            kind,
        }
    }

    /// Whether others can fetch content from it.
    pub fn serves(&self, now: Time) -> bool {
        self.up && !self.left && self.frozen_until <= now && self.unreachable_until <= now
    }

    /// Whether it works on an attempt and was not told to end it.
    pub fn runs(&self, id: AttemptId) -> bool {
        self.up && !self.left && self.busy.get(&id).is_some_and(|busy| !busy.ending)
    }

    fn used(&self) -> Resources {
        let mut used = Resources::default();
        for busy in self.busy.values() {
            let need = busy.body.resources_of(&busy.order);
            used.cpus_milli += need.cpus_milli;
            used.memory += need.memory;
            used.disk += need.disk;
        }
        used
    }
}

impl Grid {
    /// Hands something to a worker's process, or keeps it until the process runs on.
    pub(crate) fn at_worker(&mut self, ix: usize, input: Input) -> Result<(), Violation> {
        let now = self.now;
        let worker = &mut self.workers[ix];
        if !worker.up || worker.left {
            return Ok(());
        }
        if worker.frozen_until > now {
            worker.backlog.push(input);
            return Ok(());
        }
        match input {
            Input::Order(conn, order) => self.ordered(ix, conn, order),
            Input::Closed(conn) => {
                let sup = self.conns[conn].sup;
                if worker.conns[sup] != Some(conn) {
                    return Ok(());
                }
                worker.conns[sup] = None;
                if worker.conn == Some(conn) {
                    worker.conn = None;
                    self.worker_handle(ix, worker::Event::Disconnected)?;
                }
                let after = self.dice.millis(1, 1500);
                self.after(after, Event::Connect(Peer::Worker(ix), sup));
                Ok(())
            }
            Input::Connect(sup) => self.connect_worker(ix, sup),
            Input::Staged(id, token) => self.staged(ix, id, token),
            Input::Ended(id, token) => self.ended(ix, id, token),
            Input::Saves(id) => self.saves(ix, id),
            Input::Drain => self.worker_handle(ix, worker::Event::Drain),
            Input::Owner(signal) => self.worker_handle(ix, worker::Event::Owner(signal)),
            Input::Tick => {
                self.workers[ix].tick_at = None;
                self.worker_handle(ix, worker::Event::Tick)
            }
        }
    }

    fn connect_worker(&mut self, ix: usize, sup: usize) -> Result<(), Violation> {
        if self.workers[ix].conns[sup].is_some() {
            return Ok(());
        }
        self.worker_handle(ix, worker::Event::Owner(Signal::Watched(true)))?;
        match self.accept(Peer::Worker(ix), sup)? {
            Ok(conn) => self.workers[ix].conns[sup] = Some(conn),
            Err(Refused::Away) => {
                let after = self.dice.millis(100, 700);
                self.after(after, Event::Connect(Peer::Worker(ix), sup));
            }
            Err(Refused::ShutOut) => {
                self.workers[ix].left = true;
                self.lose_process(ix);
            }
        }
        Ok(())
    }

    /// Something said by a supervisor: the worker attaches to the leader with the highest epoch. Orders go to the
    /// core from any supervisor; it is the core that obeys none of an older epoch.
    fn ordered(&mut self, ix: usize, conn: ConnId, order: ToWorker) -> Result<(), Violation> {
        let worker = &mut self.workers[ix];
        if worker.conns[self.conns[conn].sup] != Some(conn) {
            return Ok(());
        }
        if let ToWorker::Lead(epoch) = order {
            self.conns[conn].epoch = Some(epoch);
            let there = worker.conn.is_some();
            return if epoch > worker.epoch || (epoch == worker.epoch && !there) {
                worker.epoch = epoch;
                self.attach(ix, conn, epoch)
            } else {
                Ok(())
            };
        }
        match self.conns[conn].epoch {
            Some(epoch) => self.worker_handle(ix, worker::Event::Order(epoch, order)),
            None if matches!(order, ToWorker::Supervisors(_) | ToWorker::Relays(_)) => Ok(()),
            None => self.violated(format!(
                "worker {ix} gets {order:?} from a supervisor that did not say that it leads"
            )),
        }
    }

    fn attach(&mut self, ix: usize, conn: ConnId, epoch: Epoch) -> Result<(), Violation> {
        let worker = &mut self.workers[ix];
        let before = worker.conn.replace(conn);
        let (now, every) = (self.now, self.options.watch.idle.interval);
        match worker.schedule.as_mut().filter(|_| before == Some(conn)) {
            Some(schedule) => schedule.restart(now, every),
            None => worker.schedule = Some(HeartbeatSchedule::new(now, every)),
        }
        if before.is_some() {
            self.worker_handle(ix, worker::Event::Disconnected)?;
        }
        let info = self.worker_info(ix);
        self.tell(ix, FromWorker::Attach(Box::new(info)));
        self.send_due_heartbeats(ix, conn);
        self.worker_handle(ix, worker::Event::Connected(epoch))
    }

    fn worker_info(&self, ix: usize) -> WorkerInfo {
        let worker = &self.workers[ix];
        WorkerInfo {
            host: format!("host-{ix}").into(),
            pid: worker.life,
            resources: worker.kind.resources.clone(),
            labels: worker.kind.labels.clone(),
            shares: Vec::new(),
            network: Network::Loopback,
            addr: addr(Peer::Worker(ix).id()),
            hardware: Default::default(),
            holds: worker
                .disk
                .iter()
                .copied()
                .filter(|hash| worker.core.checkpoint_blobs().all(|other| other != *hash))
                .collect(),
            in_hand: worker.core.in_hand(),
        }
    }

    /// What a worker that is revoked may have said just before: that it is there, and that all it has in
    /// hand is done.
    pub(crate) fn last_words(&self, ix: usize) -> Vec<FromWorker> {
        let worker = &self.workers[ix];
        let attach = FromWorker::Attach(Box::new(self.worker_info(ix)));
        let done = |id: &AttemptId| {
            let program = worker.busy.get(id).map(|busy| &busy.body.command);
            let outputs = program.map(|command| Program::of(command).outputs(*id, 1));
            FromWorker::Ended(Box::new(Report {
                attempt: *id,
                outcome: Outcome::Done(outputs.unwrap_or_default()),
                usage: Usage::default(),
                log: None,
            }))
        };
        let ended: Vec<FromWorker> = worker.busy.keys().map(done).collect();
        let first = ended.clone();
        first.into_iter().chain([attach]).chain(ended).collect()
    }

    fn tell(&mut self, ix: usize, msg: FromWorker) {
        let Some(conn) = self.workers[ix].conn else {
            return;
        };
        let peer = Peer::Worker(ix).id();
        let event = hedge_core::supervisor::Event::FromWorker { peer, msg };
        self.send_up(conn, event);
    }

    fn worker_handle(&mut self, ix: usize, event: worker::Event) -> Result<(), Violation> {
        self.stats.worker_events += 1;
        let stale =
            matches!(&event, worker::Event::Order(epoch, _) if *epoch < self.workers[ix].epoch);
        if self.tracing() {
            self.note(format_args!("worker {ix} <- {event:?}"));
        }
        let mut out = Vec::new();
        self.workers[ix].core.handle(self.now, event, &mut out);
        if stale && !out.is_empty() {
            let what = format!("worker {ix} obeys an order of an older epoch: {out:?}");
            return self.violated(what);
        }
        for action in out {
            if self.tracing() {
                self.note(format_args!("worker {ix} -> {action:?}"));
            }
            match action {
                worker::Action::Stage(body, order) => self.stage(ix, body, order)?,
                worker::Action::Start(body, order) => self.start(ix, &body, &order)?,
                worker::Action::End(id) => self.end(ix, id),
                worker::Action::Stop(id, grace) => self.stop(ix, id, grace),
                worker::Action::Tell(msg) => self.tell(ix, msg),
                worker::Action::Drop(hashes) => {
                    let disk = &mut self.workers[ix].disk;
                    hashes.iter().for_each(|hash| {
                        disk.remove(hash);
                    });
                }
                worker::Action::Leave => self.leave(ix),
                worker::Action::Benchmark => {
                    self.worker_handle(ix, worker::Event::Benchmarked(None))?;
                }
                worker::Action::Pause(on) => self.pause(ix, on)?,
                worker::Action::Lower(_) | worker::Action::EndBenchmark => {}
            }
        }
        self.set_tick(ix);
        Ok(())
    }

    fn stage(
        &mut self,
        ix: usize,
        body: Arc<GrantedBody>,
        order: Assignment,
    ) -> Result<(), Violation> {
        let blobs = own_blobs(&body, &order);
        let disk = &self.workers[ix].disk;
        let fetched = blobs.iter().filter(|hash| !disk.contains(*hash)).count() as u64;
        let took = self.dice.millis(0, 3 + 40 * fetched);
        let worker = &mut self.workers[ix];
        worker.token += 1;
        let (id, token) = (order.attempt, worker.token);
        let busy = Busy {
            token,
            running: false,
            ending: false,
            saves_last: false,
            begun_at: 0,
            saved: 0,
            body,
            order,
            since: self.now,
            due: self.now,
            left: None,
            paused: Duration::ZERO,
            paused_at: self.now,
        };
        if worker.busy.insert(id, busy).is_some() {
            return self.violated(format!("worker {ix} stages {id} twice"));
        }
        let used = self.workers[ix].used();
        if !self.workers[ix].kind.resources.covers(&used) {
            let all = self.workers[ix].kind.resources.clone();
            return self.violated(format!("worker {ix} has {all} and runs {used}"));
        }
        self.in_worker_life(ix, took, Input::Staged(id, token));
        Ok(())
    }

    fn in_worker_life(&mut self, ix: usize, after: Duration, input: Input) {
        let life = self.workers[ix].life;
        self.after(after, Event::InLife(ix, life, input));
    }

    fn staged(&mut self, ix: usize, id: AttemptId, token: u64) -> Result<(), Violation> {
        let Some(busy) = self.workers[ix].busy.get(&id) else {
            return Ok(());
        };
        if busy.token != token {
            return Ok(());
        }
        let (body, order, ending) = (busy.body.clone(), busy.order.clone(), busy.ending);
        let blobs = own_blobs(&body, &order);
        if let Some(hash) = blobs.iter().find(|hash| !may_read(&body, &order, **hash)) {
            return self.violated(format!("{id} reads {hash:?} and has no leave to"));
        }
        let disk = &self.workers[ix].disk;
        let served = |hash| {
            let mut sources = sources(&body, &order, hash).iter();
            sources.any(|source| self.serves(source.peer, hash))
        };
        let missing = |hash: &Hash| !disk.contains(hash) && !served(*hash);
        let missing: Vec<Hash> = blobs.iter().copied().filter(missing).collect();
        let result = if ending {
            Err(Ending::Cancelled)
        } else if missing.is_empty() {
            self.workers[ix].disk.extend(blobs);
            Ok(())
        } else {
            let why = "no source gave it".into();
            Err(Ending::Input { missing, why })
        };
        if result.is_err() {
            self.workers[ix].busy.remove(&id);
        }
        self.worker_handle(ix, worker::Event::Staged(id, result))
    }

    fn start(&mut self, ix: usize, body: &Body, order: &Assignment) -> Result<(), Violation> {
        self.stats.started += 1;
        let mean = Program::of(&body.command).mean.as_micros() as u64;
        let slow = if self.dice.permille(20) { 4 } else { 1 };
        let took = self.dice.between(mean / 2, mean + mean / 2) * slow;
        let begun_at = self.share_of(order.checkpoint());
        let took = match &body.checkpoint {
            Some(_) => checkpoints::with_cost(took) * (1000 - u64::from(begun_at)) / 1000,
            None => took,
        };
        let (now, paused) = (self.now, self.workers[ix].paused);
        let Some(busy) = self.workers[ix].busy.get_mut(&order.attempt) else {
            return self.violated(format!("worker {ix} starts {} unstaged", order.attempt));
        };
        if busy.running {
            return self.violated(format!("worker {ix} starts {} twice", order.attempt));
        }
        (busy.running, busy.since, busy.begun_at) = (true, now, begun_at);
        let token = busy.token;
        let took = Duration::from_micros(took);
        busy.due = now + took;
        if let Some(rule) = &body.checkpoint {
            self.in_worker_life(ix, rule.every, Input::Saves(order.attempt));
        }
        let Some(busy) = self.workers[ix].busy.get_mut(&order.attempt) else {
            return Ok(());
        };
        if paused {
            (busy.left, busy.paused_at) = (Some(took), now);
            return Ok(());
        }
        self.in_worker_life(ix, took, Input::Ended(order.attempt, token));
        Ok(())
    }

    /// The worker ends an attempt before its time.
    fn end(&mut self, ix: usize, id: AttemptId) {
        let worker = &mut self.workers[ix];
        worker.token += 1;
        let token = worker.token;
        let Some(busy) = worker.busy.get_mut(&id) else {
            return;
        };
        busy.ending = true;
        busy.token = token;
        let input = if busy.running {
            Input::Ended(id, token)
        } else {
            Input::Staged(id, token)
        };
        let took = self.dice.millis(0, 30);
        self.in_worker_life(ix, took, input);
    }

    fn ended(&mut self, ix: usize, id: AttemptId, token: u64) -> Result<(), Violation> {
        let same = |busy: &&mut Busy| busy.token == token;
        self.save_last(ix, id, token)?;
        let worker = &mut self.workers[ix];
        if worker.busy.get_mut(&id).filter(same).is_none() {
            return Ok(());
        }
        let Some(busy) = worker.busy.remove(&id) else {
            return Ok(());
        };
        let bad = worker.kind.bad;
        let program = Program::of(&busy.body.command);
        let outcome = if busy.ending {
            Outcome::Ended(Ending::Cancelled)
        } else if bad || self.dice.permille(program.fail_permille) {
            let limit = busy.body.resources_of(&busy.order).memory;
            Outcome::Ended(if limit > 0 && self.dice.permille(300) {
                Ending::MemoryLimit {
                    limit,
                    used: limit + 1,
                }
            } else {
                Ending::Exited {
                    status: 1,
                    said: String::new(),
                }
            })
        } else {
            let salt = self.dice.any();
            let outputs = program.outputs(id, salt);
            let blobs = outputs.iter().filter_map(|file| file.data.hash());
            self.workers[ix].disk.extend(blobs);
            Outcome::Done(outputs)
        };
        let stopped = busy
            .left
            .map_or(Duration::ZERO, |_| self.now.since(busy.paused_at));
        let usage = Usage {
            running: self.now.since(busy.since),
            paused: busy.paused + stopped,
            cpu: self
                .now
                .since(busy.since)
                .saturating_sub(busy.paused + stopped),
            ..Usage::default()
        };
        let report = Report {
            attempt: id,
            outcome,
            usage,
            log: None,
        };
        self.worker_handle(ix, worker::Event::Finished(Box::new(report)))
    }

    fn leave(&mut self, ix: usize) {
        self.workers[ix].left = true;
        self.stats.left += 1;
        self.lose_process(ix);
        let member = !self.truth().revoked.contains(&Peer::Worker(ix).id());
        if member && self.healed && self.options.faults.every.is_some() {
            self.after(Duration::from_secs(1), Event::Reboot(ix));
        }
    }

    /// A worker's process ends at once.
    pub(crate) fn lose_process(&mut self, ix: usize) {
        let worker = &mut self.workers[ix];
        worker.up = false;
        worker.life += 1;
        worker.busy.clear();
        worker.backlog.clear();
        worker.frozen_until = Time(0);
        worker.core = new_core(&worker.kind);
        (worker.paused, worker.owner_busy) = (worker.kind.owner.is_some(), false);
        worker.tick_at = None;
        worker.conn = None;
        worker.epoch = Epoch(0);
        let open: Vec<ConnId> = worker.conns.iter_mut().filter_map(Option::take).collect();
        open.into_iter().for_each(|conn| self.break_conn(conn));
    }

    pub(crate) fn reboot(&mut self, ix: usize) {
        let shut_out = self.truth().revoked.contains(&Peer::Worker(ix).id());
        let worker = &mut self.workers[ix];
        if (worker.up && !worker.left) || shut_out {
            return;
        }
        worker.up = true;
        worker.left = false;
        for sup in 0..self.sups.len() {
            let after = self.dice.millis(1, 50);
            self.after(after, Event::Connect(Peer::Worker(ix), sup));
        }
    }

    pub(crate) fn thaw(&mut self, ix: usize) -> Result<(), Violation> {
        if self.workers[ix].frozen_until > self.now {
            return Ok(());
        }
        let backlog = std::mem::take(&mut self.workers[ix].backlog);
        backlog
            .into_iter()
            .try_for_each(|input| self.at_worker(ix, input))
    }
}

/// A worker's state machine as its process starts: one that has an owner is watched from the start.
fn new_core(kind: &WorkerKind) -> Worker {
    let core = Worker::new(kind.resources.clone());
    match &kind.owner {
        None => core,
        Some(rules) => core.with_owner(rules.clone()),
    }
}
