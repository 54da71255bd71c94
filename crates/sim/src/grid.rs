//! The virtual grid itself: clock, queue of what happens next, network, and what it counts.

use crate::actors::{Conn, ConnId, Event, Peer, Queued};
use crate::client::Client;
use crate::dice::Dice;
use crate::journal::Journal;
use crate::shadow::Shadow;
use crate::supervisors::Sup;
use crate::worker::{Input, Virtual};
use hedge_core::monitor::Settings as Watch;
use hedge_core::supervisor::{self, Supervisor};
use hedge_model::owner::OwnerRules;
use hedge_model::spec::Extension;
use hedge_model::{Hash, JobId, JobSpec, PeerId, Resources, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

/// Lines of the event log that are kept for a report.
const TRACE_LINES: usize = 20_000;

/// What a virtual worker is.
#[derive(Clone, Debug)]
pub struct WorkerKind {
    /// What it offers.
    pub resources: Resources,
    /// Its labels.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Whether it fails everything that it is given.
    pub bad: bool,
    /// What it does about its owner, where it has one.
    pub owner: Option<OwnerRules>,
}

impl WorkerKind {
    /// A healthy worker with this many CPUs and 1 GiB of memory each.
    pub fn cpus(cpus: u64) -> Self {
        let resources = Resources {
            memory: cpus << 30,
            disk: cpus << 34,
            ..Resources::cpus(cpus * 1000)
        };
        Self {
            resources,
            labels: Vec::new(),
            bad: false,
            owner: None,
        }
    }
}

/// What breaks while faults are on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Connections break, heartbeats are lost, repeated or late, content is out of reach for a while.
    pub network: bool,
    /// Workers crash, freeze and lose their disks.
    pub workers: bool,
    /// Owners drain their workers.
    pub drains: bool,
    /// Owners come back to their machines and go again.
    pub owners: bool,
    /// Supervisors freeze, restart, lose touch with each other or their disks, and the leadership moves.
    pub supervisor: bool,
    /// Members are revoked.
    pub revoke: bool,
    /// Mean time between two faults; none without.
    pub every: Option<Duration>,
}

/// How a virtual grid is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its workers.
    pub workers: Vec<WorkerKind>,
    /// How many supervisors it has; most of them must be there for anything to be committed.
    pub supervisors: usize,
    /// How many clients it has.
    pub clients: usize,
    /// How workers are watched.
    pub watch: Watch,
    /// How long a message travels: shortest and longest, milliseconds.
    pub delay_ms: (u64, u64),
    /// How long a record takes to be durable: shortest and longest, milliseconds.
    pub commit_ms: (u64, u64),
    /// What breaks.
    pub faults: Faults,
    /// Whether every invariant is checked after each event of the supervisor.
    pub check: bool,
    /// Whether what happens is hashed, and its last lines kept for a report.
    pub trace: bool,
}

impl Options {
    /// A quiet local network with these workers and one client, everything checked.
    pub fn quiet(workers: Vec<WorkerKind>) -> Self {
        Self {
            workers,
            supervisors: 1,
            clients: 1,
            watch: Watch::default(),
            delay_ms: (0, 1),
            commit_ms: (0, 1),
            faults: Faults::default(),
            check: true,
            trace: false,
        }
    }
}

/// What a run counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events that supervisors handled.
    pub supervisor_events: u64,
    /// Events that workers handled.
    pub worker_events: u64,
    /// Attempts whose process started.
    pub started: u64,
    /// Tasks done, those counted again whose outputs were lost.
    pub tasks_done: u64,
    /// Tasks whose outputs were lost.
    pub outputs_lost: u64,
    /// Jobs done.
    pub jobs_done: u64,
    /// Jobs failed.
    pub jobs_failed: u64,
    /// Jobs that failed and were let go on.
    pub jobs_retried: u64,
    /// Tasks given up.
    pub tasks_failed: u64,
    /// Extensions that were added to open jobs.
    pub extensions: u64,
    /// Open jobs that were closed, or closed themselves.
    pub jobs_closed: u64,
    /// Checkpoints recorded.
    pub checkpoints: u64,
    /// Attempts that went on from one.
    pub resumed: u64,
    /// Jobs cancelled.
    pub jobs_cancelled: u64,
    /// Faults injected.
    pub faults: u64,
    /// Workers that left after draining.
    pub left: u64,
    /// Epochs beyond the first.
    pub takeovers: u64,
    /// Attempts that went on under another leader than the one that had assigned them.
    pub adopted: u64,
    /// Hash over everything that happened, where it is traced.
    pub digest: u64,
}

impl std::ops::AddAssign for Stats {
    fn add_assign(&mut self, other: Self) {
        self.supervisor_events += other.supervisor_events;
        self.worker_events += other.worker_events;
        self.started += other.started;
        self.tasks_done += other.tasks_done;
        self.outputs_lost += other.outputs_lost;
        self.jobs_done += other.jobs_done;
        self.jobs_failed += other.jobs_failed;
        self.jobs_retried += other.jobs_retried;
        self.tasks_failed += other.tasks_failed;
        self.extensions += other.extensions;
        self.jobs_closed += other.jobs_closed;
        self.checkpoints += other.checkpoints;
        self.resumed += other.resumed;
        self.jobs_cancelled += other.jobs_cancelled;
        self.faults += other.faults;
        self.left += other.left;
        self.takeovers += other.takeovers;
        self.adopted += other.adopted;
        self.digest ^= other.digest;
    }
}

/// Something that must never be was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, in virtual time.
    pub at: Time,
    /// What.
    pub what: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {:.6} s: {}", self.at.0 as f64 / 1e9, self.what)
    }
}

/// A virtual grid.
#[derive(Debug)]
pub struct Grid {
    pub(crate) options: Options,
    pub(crate) dice: Dice,
    pub(crate) now: Time,
    seq: u64,
    queue: BinaryHeap<Queued>,
    pub(crate) sups: Vec<Sup>,
    pub(crate) journal: Journal,
    pub(crate) workers: Vec<Virtual>,
    pub(crate) clients: Vec<Client>,
    pub(crate) conns: Vec<Conn>,
    pub(crate) suspected: BTreeSet<Hash>,
    /// Blobs of checkpoints: whose they are, and how far their task was, in thousandths.
    pub(crate) saved: BTreeMap<Hash, (TaskId, u16)>,
    /// Attempts that were given back; the journal does not know of them.
    pub(crate) returned: BTreeSet<hedge_model::AttemptId>,
    pub(crate) healed: bool,
    pub(crate) stats: Stats,
    trace: VecDeque<String>,
}

impl Grid {
    /// A grid in which everybody is about to connect.
    pub fn new(seed: u64, options: Options) -> Self {
        let mut grid = Self {
            dice: Dice::new(seed),
            now: Time(0),
            seq: 0,
            queue: BinaryHeap::new(),
            sups: (0..options.supervisors).map(|_| Sup::default()).collect(),
            journal: Journal::new(options.supervisors > 1 || options.faults.supervisor),
            workers: options
                .workers
                .iter()
                .map(|kind| Virtual::new(kind.clone(), options.supervisors))
                .collect(),
            clients: (0..options.clients)
                .map(|_| Client::new(options.supervisors))
                .collect(),
            conns: Vec::new(),
            suspected: BTreeSet::new(),
            saved: BTreeMap::new(),
            returned: BTreeSet::new(),
            healed: options.faults.every.is_none(),
            stats: Stats::default(),
            trace: VecDeque::new(),
            options,
        };
        for sup in 0..grid.sups.len() {
            grid.after(Duration::ZERO, Event::Restart(sup));
            let peers = (0..grid.workers.len())
                .map(Peer::Worker)
                .chain((0..grid.clients.len()).map(Peer::Client));
            for peer in peers.collect::<Vec<_>>() {
                let after = Duration::from_millis(5) + grid.dice.millis(0, 20);
                grid.after(after, Event::Connect(peer, sup));
            }
        }
        grid.after(Duration::ZERO, Event::Elect(0, false));
        if !grid.healed {
            grid.after(Duration::from_millis(100), Event::Fault);
        }
        grid
    }

    /// A client submits a job as soon as it can; says which submission of the client it is.
    pub fn submit(&mut self, client: usize, spec: JobSpec) -> usize {
        let key = self.dice.any();
        let at = self.clients[client].add(key, Arc::new(spec));
        self.after(Duration::ZERO, Event::Client(client));
        at
    }

    /// A client opens a job, adds these to it one after the other, and closes it.
    pub fn submit_open(
        &mut self,
        client: usize,
        spec: JobSpec,
        extensions: Vec<Extension>,
    ) -> usize {
        let at = self.submit(client, spec);
        self.clients[client].extend_later(at, extensions);
        at
    }

    /// The same with a job that may name files which the client does not have.
    pub(crate) fn submit_as_is(&mut self, client: usize, spec: JobSpec) -> usize {
        let key = self.dice.any();
        let at = self.clients[client].add_as_is(key, Arc::new(spec));
        self.after(Duration::ZERO, Event::Client(client));
        at
    }

    /// The job that a client's submission became, once it is accepted.
    pub fn job(&self, client: usize, submission: usize) -> Option<JobId> {
        self.clients[client].submissions[submission].accepted
    }

    /// Handles the next event; false when nothing is left to happen.
    pub fn step(&mut self) -> Result<bool, Violation> {
        let Some(next) = self.queue.pop() else {
            return Ok(false);
        };
        self.now = self.now.max(next.at);
        self.dispatch(next.event)?;
        Ok(true)
    }

    /// Runs until `end` holds, for at most `limit` of virtual time; says whether it came to hold.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut end: impl FnMut(&Grid) -> bool,
    ) -> Result<bool, Violation> {
        let last = self.now + limit;
        while !end(self) {
            if self.queue.peek().is_none_or(|next| next.at > last) {
                return Ok(false);
            }
            self.step()?;
        }
        Ok(true)
    }

    /// Whether every job that was accepted has ended.
    pub fn all_ended(&self) -> bool {
        self.truth().open == 0
    }

    /// The virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// What happened so far, in numbers.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The supervisor that leads, if one does.
    pub fn supervisor(&self) -> Option<&Supervisor> {
        let leader = &self.sups[self.journal.leader?];
        leader.core.as_ref().filter(|core| core.is_live())
    }

    /// Where the present leader told each attempt to run, with the worker's number; known where invariants
    /// are checked.
    pub fn assigned(&self) -> impl Iterator<Item = (hedge_model::AttemptId, usize)> + '_ {
        let leader = self.journal.leader.map(|leader| &self.sups[leader]);
        let told = leader.into_iter().flat_map(|leader| leader.told.values());
        told.map(|told| (told.attempt, told.worker))
    }

    /// What the journal says up to its end.
    pub(crate) fn truth(&self) -> &Shadow {
        if self.journal.stored {
            &self.journal.shadow
        } else {
            &self.sups[0].shadow
        }
    }

    /// The last lines of the event log, where it is traced.
    pub fn log_tail(&self) -> impl Iterator<Item = &str> {
        self.trace.iter().map(String::as_str)
    }

    pub(crate) fn after(&mut self, span: Duration, event: Event) {
        self.seq += 1;
        self.queue.push(Queued {
            at: self.now + span,
            seq: self.seq,
            event,
        });
    }

    pub(crate) fn delay(&mut self) -> Duration {
        let (low, high) = self.options.delay_ms;
        let far = self.options.faults.network && !self.healed && self.dice.permille(10);
        self.dice.millis(low, if far { high * 20 } else { high })
    }

    pub(crate) fn violated<T>(&self, what: String) -> Result<T, Violation> {
        Err(Violation { at: self.now, what })
    }

    pub(crate) fn tracing(&self) -> bool {
        self.options.trace
    }

    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let mut line = format!("{:.6} ", self.now.0 as f64 / 1e9);
        let _ = line.write_fmt(what);
        for byte in line.bytes() {
            self.stats.digest = (self.stats.digest ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    /// Sends over a connection towards the supervisor; lost if the connection breaks before it arrives.
    pub(crate) fn send_up(&mut self, conn: ConnId, event: supervisor::Event) {
        let after = self.delay();
        let line = &mut self.conns[conn];
        if !line.up {
            return;
        }
        line.last_up = line.last_up.max(self.now + after);
        let at = line.last_up.since(self.now);
        self.after(at, Event::Up(conn, event));
    }

    /// The same in the other direction.
    pub(crate) fn send_down(&mut self, conn: ConnId, event: Event) {
        let after = self.delay();
        let line = &mut self.conns[conn];
        if !line.up {
            return;
        }
        line.last_down = line.last_down.max(self.now + after);
        let at = line.last_down.since(self.now);
        self.after(at, event);
    }

    /// A connection breaks: what is under way is lost, and each end notices in its own time.
    pub(crate) fn break_conn(&mut self, conn: ConnId) {
        if !std::mem::replace(&mut self.conns[conn].up, false) {
            return;
        }
        let (there, here) = (self.dice.millis(0, 1500), self.dice.millis(0, 2500));
        self.after(there, Event::Closed(conn));
        self.after(here, Event::Gone(conn));
    }

    /// Whether somebody gives this content now.
    pub(crate) fn serves(&self, source: PeerId, hash: Hash) -> bool {
        match Peer::of(source) {
            Some(Peer::Worker(ix)) => {
                let worker = &self.workers[ix];
                worker.serves(self.now) && worker.disk.contains(&hash)
            }
            Some(Peer::Client(ix)) => {
                self.clients[ix].present && self.clients[ix].files.contains(&hash)
            }
            Some(Peer::Supervisor(ix)) => {
                let sup = &self.sups[ix];
                sup.serves(self.now) && sup.store.contains(&hash)
            }
            None => false,
        }
    }

    fn dispatch(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Up(conn, event) => self.arrive_up(conn, event),
            Event::HeartbeatArrives(conn, heartbeat) => self.heartbeat_arrives(conn, heartbeat),
            Event::Down(conn, event) => self.arrive_down(conn, event),
            Event::AtWorker(ix, Input::Order(conn, order)) => {
                if self.conns[conn].up {
                    self.at_worker(ix, Input::Order(conn, order))
                } else {
                    Ok(())
                }
            }
            Event::AtWorker(ix, input) => self.at_worker(ix, input),
            Event::InLife(ix, life, input) => {
                if self.workers[ix].life == life {
                    self.at_worker(ix, input)
                } else {
                    Ok(())
                }
            }
            Event::Answered(conn, answer) => self.answered(conn, answer),
            Event::Told(conn, reply) => self.client_told(conn, &reply),
            Event::Heartbeat(ix, conn, schedules) => {
                self.heartbeat(ix, conn, schedules);
                Ok(())
            }
            Event::Planned(ix, conn, plan) => {
                self.planned(ix, conn, plan);
                Ok(())
            }
            Event::Asked(ix, conn, seq) => {
                self.asked(ix, conn, seq);
                Ok(())
            }
            Event::Closed(conn) => match self.conns[conn].peer {
                Peer::Worker(ix) => self.at_worker(ix, Input::Closed(conn)),
                Peer::Client(ix) => {
                    self.client_closed(ix, conn);
                    Ok(())
                }
                Peer::Supervisor(ix) => self.link_closed(ix, conn),
            },
            Event::Gone(conn) => self.noticed_gone(conn),
            Event::Connect(Peer::Worker(ix), sup) => self.at_worker(ix, Input::Connect(sup)),
            Event::Connect(Peer::Client(ix), sup) => self.connect_client(ix, sup),
            Event::Connect(Peer::Supervisor(ix), sup) => self.link(ix, sup),
            Event::Thaw(ix) => self.thaw(ix),
            Event::Reboot(ix) => {
                self.reboot(ix);
                Ok(())
            }
            Event::Client(ix) => self.client_acts(ix),
            Event::Fault => self.fault(),
            about_supervisors => self.at_supervisor(about_supervisors),
        }
    }

    fn at_supervisor(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Commit(term) => self.commit(term),
            Event::Apply(sup, life, upto) => self.apply(sup, life, upto),
            Event::Elect(term, forced) => self.elect(term, forced),
            Event::Depose(sup, life) => self.depose(sup, life),
            Event::Fetched(sup, life, hash, sources) => self.on_fetched(sup, life, hash, &sources),
            Event::Proved(sup, life, holder, hashes) => self.proved(sup, life, holder, hashes),
            Event::Tick(sup, life) => self.tick(sup, life),
            Event::Check(sup, life) => self.check(sup, life),
            Event::ThawSupervisor(sup, life) => self.thaw_supervisor(sup, life),
            Event::Restart(sup) => self.restart(sup),
            Event::Stray(sup, event) => self.sup_handle(sup, event),
            _ => Ok(()),
        }
    }
}
