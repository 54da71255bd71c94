//! The worker's shell: orders in, reports and heartbeats out, around the core. Attempts run beside the loop.

mod attempt;
mod checkpoints;
mod gpus;
mod heartbeats;
mod inventory;
mod link;
mod owner;
mod permissions;
mod printed;
mod screensaver;
mod senders;
mod setup;
mod staging;
mod trees;

use crate::clock::Clock;
use crate::folders::occupy;
use crate::frames::send;
use crate::known::Known;
use crate::metrics::{WorkerMetrics, WorkerTally};
use crate::transport::Threads;
use crate::{Folders, NodeError};
use attempt::{Attempts, StageResult, Tools};
use gpus::Gpus;
use heartbeats::HeartbeatSender;
use hedge_core::worker::{Action, Event};
use hedge_exec::{Priority, Report, SharedFolder};
use hedge_model::msg::{FromWorker, HASHES_MAX, Phase, ToWorker, Welcome, WorkerInfo};
use hedge_model::{AttemptId, Epoch, Hash, PeerAddr, PeerId, Resources};
use hedge_net::{Fetcher, LinkSender, Ticket, Trust};
use link::Links;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(crate) use inventory::free_disk;
pub use inventory::{labels, offer};
pub use owner::OwnerConfig;
pub use screensaver::{SaverView, saver_socket};
pub use senders::Senders;
pub use trees::TREE_CACHE_BYTES;

/// The most inputs that wait for the loop.
const INPUTS_MAX: usize = 4096;
const BATCH: usize = 256;
/// How long closing the connections may take. A call to a supervisor that is gone would take longer.
const CLOSE_MAX: Duration = Duration::from_millis(500);
/// While attempts wait here to be started, no task waits for this worker's reports. They are then sent together, at
/// most this late, which saves both sides most of the cost of short tasks.
const REPORT_TOGETHER: Duration = Duration::from_millis(5);
/// How long a draining worker waits for running attempts before it leaves anyway.
const DRAIN_LIMIT: Duration = Duration::from_secs(60);
/// How long a leaving worker waits until its last reports are read.
const LEAVE_WITHIN: Duration = Duration::from_millis(500);
/// From this many messages on, they are sent without waiting for more.
const TOGETHER_MAX: usize = 64;

/// The configuration of a worker.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Its directory: identity, blobs, scratch directories.
    pub dir: PathBuf,
    /// A ticket of the grid to join.
    pub ticket: Ticket,
    /// The resources that it offers.
    pub resources: Resources,
    /// Labels in addition to `arch`, `os` and `host`.
    pub labels: Vec<(String, String)>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it also uses mDNS to find its supervisors on the local network.
    pub mdns: bool,
    /// The most bytes of the trees that it has.
    pub tree_cache: u64,
    /// Whether attempts run in a sandbox.
    pub sandbox: bool,
    /// Whether a sandbox with incomplete isolation is accepted.
    pub accept_weak_sandbox: bool,
    /// Whether attempts have network access.
    pub network: bool,
    /// Folders that attempts can ask for, by name.
    pub shares: Vec<(String, SharedFolder)>,
    /// The priority of attempts among the machine's other work.
    pub priority: Priority,
    /// The owner's rules; none for a dedicated machine.
    pub owner: Option<OwnerConfig>,
    /// The folder in which peers of this user on this machine meet that hand large blobs over as files.
    pub neighbours: Option<PathBuf>,
    /// What it counts.
    pub metrics: WorkerMetrics,
}

impl WorkerConfig {
    /// Returns the defaults: the worker's directory in `folders`, all that this machine has, any free port.
    pub fn new(folders: &Folders, ticket: Ticket) -> Self {
        let dir = folders.worker();
        Self {
            resources: offer(&dir),
            dir,
            ticket,
            labels: Vec::new(),
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            mdns: false,
            tree_cache: TREE_CACHE_BYTES,
            sandbox: true,
            accept_weak_sandbox: false,
            network: false,
            shares: Vec::new(),
            priority: Priority::Idle,
            owner: Some(OwnerConfig::default()),
            neighbours: None,
            metrics: WorkerMetrics::default(),
        }
    }
}

/// An input of the loop.
enum Input {
    Linked {
        sender: LinkSender,
        conn: u64,
        welcome: Welcome,
    },
    Orders {
        conn: u64,
        orders: Vec<ToWorker>,
    },
    Unlinked {
        conn: u64,
    },
    /// A supervisor cannot admit this worker, and names others.
    Redirected(Vec<PeerAddr>),
    /// A supervisor does not admit this worker; trying again would not help.
    Rejected {
        by: PeerId,
        why: String,
    },
    Core(Event),
    Folder(AttemptId, StageResult),
    /// A message for the supervisor.
    Told(FromWorker),
    Drain,
}

/// Makes a running worker drain: take no new tasks, finish the running ones, leave.
#[derive(Clone, Debug)]
pub struct Drain(mpsc::Sender<Input>);

impl Drain {
    /// Starts draining.
    pub async fn start(&self) {
        _ = self.0.send(Input::Drain).await;
    }
}

/// Runs a worker until it is drained, told to leave, or not admitted. Once the worker is set up, calls `started` with
/// the handle to drain it and a description of its sandbox.
pub async fn run(
    config: WorkerConfig,
    started: impl FnOnce(Drain, &Report),
) -> Result<(), NodeError> {
    let _lock = occupy(&config.dir)?;
    let key = hedge_net::load_or_create_identity(&config.dir)?;
    let (transport, content) = (Threads::transport()?, Threads::content()?);
    let known = Known::of_ticket(&config.dir, &config.ticket);
    let trust = Trust::new(known.load().iter().map(|addr| addr.peer));
    let bound = setup::bind(&config, key, &known, trust.clone(), (&transport, &content));
    // Most of the time that a worker takes to start is the kernel's, for the namespaces of its attempts.
    let (runner, (net, store)) = tokio::try_join!(setup::start_runner(&config), bound)?;
    let (inputs, queue) = mpsc::channel(INPUTS_MAX);
    started(Drain(inputs.clone()), &runner.report());
    let _watch = match &config.owner {
        Some(owner) => Some(owner::watch(owner, &inputs).await?),
        None => None,
    };
    let shown = setup::show(&config, &inputs);
    let heartbeats = HeartbeatSender::start()?;
    let links = Links::start(
        net.clone(),
        &config.ticket,
        known,
        inputs.clone(),
        heartbeats.clone(),
        transport.handle(),
    );
    let fetcher = Fetcher::new(net.clone(), store.clone(), content.handle());
    let tools = Arc::new(Tools {
        runner,
        gpus: Gpus::of_machine(config.resources.named("gpus")),
        shares: config.shares.clone(),
        store: store.clone(),
        trees: setup::open_trees(&config).await?,
        fetcher,
        inputs,
        heartbeats: heartbeats.clone(),
        stored: Arc::default(),
        outputs: printed::Outputs::default(),
    });
    let result = Loop {
        info: inventory::info(&config, Some(&tools), net.local_addr()),
        core: setup::new_core(&config),
        shown,
        tally: WorkerTally::new(config.metrics.clone()),
        clock: Clock::start(hedge_model::Time(0)),
        links,
        trust,
        epoch: Epoch(0),
        warm: HashMap::new(),
        link: None,
        attempts: Attempts::default(),
        heartbeats,
        tools,
        actions: Vec::new(),
        tell: Vec::new(),
        tell_by: None,
        leave_by: None,
        end_benchmark: Arc::default(),
    }
    .run(queue)
    .await;
    let closing = transport.run(async move { net.close().await });
    _ = tokio::time::timeout(CLOSE_MAX, closing).await;
    store.close();
    result
}

/// A connection to a supervisor, whether it leads or not.
struct Warm {
    sender: LinkSender,
    heartbeat_interval: Duration,
    /// The list of supervisors that this one sent last.
    supervisors: Vec<PeerAddr>,
}

/// The connection to the leader.
struct Leader {
    conn: u64,
    sender: LinkSender,
    epoch: Epoch,
}

struct Loop {
    info: WorkerInfo,
    core: hedge_core::worker::Worker,
    shown: screensaver::Shown,
    tally: WorkerTally,
    clock: Clock,
    links: Links,
    trust: Trust,
    /// Connections to supervisors by number.
    warm: HashMap<u64, Warm>,
    link: Option<Leader>,
    /// The highest epoch in which a supervisor claimed to lead.
    epoch: Epoch,
    attempts: Attempts,
    heartbeats: HeartbeatSender,
    tools: Arc<Tools>,
    actions: Vec<Action>,
    tell: Vec<FromWorker>,
    tell_by: Option<Instant>,
    leave_by: Option<Instant>,
    /// Stops the running benchmark kernels.
    end_benchmark: Arc<AtomicBool>,
}

impl Loop {
    async fn run(mut self, mut queue: mpsc::Receiver<Input>) -> Result<(), NodeError> {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let (leave_by, tell_by) = (self.leave_by, self.tell_by);
            let tick_by = self.tick_by();
            tokio::select! {
                count = queue.recv_many(&mut batch, BATCH) => if count == 0 { return Ok(()) },
                () = reached(leave_by) => return self.leave().await,
                () = reached(tell_by) => self.flush(),
                () = reached(tick_by) => self.feed(Event::Tick),
            }
            for input in batch.drain(..) {
                match input {
                    // The leader is right if another supervisor does not know this worker.
                    Input::Rejected { by, .. } if self.led_by_other_than(by) => {}
                    Input::Rejected { why, .. } => return Err(NodeError::NotAllowed(why)),
                    Input::Drain
                        if self.link.is_none()
                            && self.core.busy() == 0
                            && self.core.unsettled() == 0 =>
                    {
                        return self.leave().await;
                    }
                    other => self.take(other),
                }
            }
            if self.carry_out() {
                return self.leave().await;
            }
            self.tally.running(self.attempts.count());
            if self.tell.is_empty() || (self.core.queued() > 0 && self.tell.len() < TOGETHER_MAX) {
                let late = !self.tell.is_empty();
                self.tell_by =
                    late.then(|| self.tell_by.unwrap_or(Instant::now() + REPORT_TOGETHER));
            } else {
                self.flush();
            }
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Linked {
                sender,
                conn,
                welcome,
            } => {
                // A supervisor that has just started may not know the relays yet.
                if self.link.is_none() && !welcome.relays.is_empty() {
                    self.links.use_relays(welcome.relays);
                }
                let heartbeat_interval = welcome.heartbeat_interval;
                self.warm.insert(
                    conn,
                    Warm {
                        sender,
                        heartbeat_interval,
                        supervisors: Vec::new(),
                    },
                );
                self.heard_of(conn, welcome.supervisors);
            }
            Input::Redirected(supervisors) => {
                if self.link.is_none() {
                    self.links.learn(&supervisors);
                    self.trust.set_supervisors(self.links.supervisors());
                }
            }
            Input::Orders { conn, orders } => {
                for order in orders {
                    self.on_order(conn, order);
                }
            }
            Input::Unlinked { conn } => {
                self.warm.remove(&conn);
                if self.is_led_over(conn) {
                    self.link = None;
                    self.connected(false);
                    self.feed(Event::Disconnected);
                }
            }
            Input::Core(event) => {
                if let Event::Finished(report) = &event {
                    self.shown.ended(report);
                    self.tally.ended(report);
                    self.attempts.forget(report.attempt);
                    self.heartbeats.forget(report.attempt);
                    self.tools.reported(report.attempt);
                }
                if let Event::Checkpoint {
                    saved: Ok(saved), ..
                } = &event
                {
                    self.tools.announced(saved);
                }
                self.feed(event);
            }
            Input::Folder(id, result) => {
                if let Some(event) = self.attempts.staged(id, result) {
                    self.feed(event);
                }
            }
            Input::Told(msg) => self.tell.push(msg),
            Input::Drain => {
                self.leave_by.get_or_insert(Instant::now() + DRAIN_LIMIT);
                self.feed(Event::Drain);
            }
            Input::Rejected { .. } => {}
        }
    }

    fn connected(&self, connected: bool) {
        self.shown.connected(connected);
        self.tally.connected(connected);
    }

    fn is_led_over(&self, conn: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.conn == conn)
    }

    fn led_by_other_than(&self, peer: PeerId) -> bool {
        let link = self.link.as_ref();
        link.is_some_and(|link| link.sender.peer() != peer && !link.sender.is_closed())
    }

    /// Handles messages about connections here, and passes the leader's other messages to the core.
    fn on_order(&mut self, conn: u64, order: ToWorker) {
        let led_here = self.is_led_over(conn);
        match order {
            ToWorker::Lead(epoch) => self.attach(conn, epoch),
            ToWorker::Supervisors(all) => self.heard_of(conn, all),
            ToWorker::Revoked(peers) if led_here => {
                peers.into_iter().for_each(|peer| self.trust.revoke(peer));
            }
            ToWorker::Heartbeat(plan) if led_here => {
                self.tools.runner.watch_progress(plan.progress_every);
            }
            ToWorker::Relays(all) if led_here || self.link.is_none() => self.links.use_relays(all),
            ToWorker::ReadPrinted(read) if led_here => printed::answer(&self.tools, read),
            ToWorker::Revoked(_)
            | ToWorker::Heartbeat(_)
            | ToWorker::Relays(_)
            | ToWorker::ReadPrinted(_) => {}
            order => {
                let link = self.link.as_ref().filter(|link| link.conn == conn);
                if let Some(epoch) = link.map(|link| link.epoch) {
                    self.feed(Event::Order(epoch, order));
                }
            }
        }
    }

    /// Handles a supervisor's claim to lead. The highest epoch wins, and within an epoch the newest connection.
    fn attach(&mut self, conn: u64, epoch: Epoch) {
        let Some(warm) = self.warm.get(&conn) else {
            return;
        };
        if epoch < self.epoch || (epoch == self.epoch && self.is_led_over(conn)) {
            return;
        }
        self.epoch = epoch;
        self.links.keep(&warm.supervisors, warm.sender.peer());
        self.trust.set_supervisors(self.links.supervisors());
        self.heartbeats
            .connect(conn, warm.sender.clone(), warm.heartbeat_interval);
        let leader = Leader {
            conn,
            sender: warm.sender.clone(),
            epoch,
        };
        tracing::info!(supervisor = %leader.sender.peer().short(), epoch = epoch.0, "attached");
        if self.link.replace(leader).is_some() {
            self.feed(Event::Disconnected);
        }
        let mut fresh = self.tools.fresh();
        fresh.extend(self.core.checkpoint_blobs());
        let holds = self.tools.store.list().into_iter();
        let holds = holds.map(|(hash, _)| hash);
        let mut holds: Vec<Hash> = holds.filter(|hash| !fresh.contains(hash)).collect();
        let rest = holds.split_off(holds.len().min(HASHES_MAX));
        let info = WorkerInfo {
            holds,
            in_hand: self.core.in_hand(),
            addr: self.links.local_addr(),
            ..self.info.clone()
        };
        self.tell.clear();
        self.tell.push(FromWorker::Attach(Box::new(info)));
        let rest = rest.chunks(HASHES_MAX).map(<[Hash]>::to_vec);
        self.tell.extend(rest.map(FromWorker::Holds));
        self.connected(true);
        self.feed(Event::Connected(epoch));
    }

    /// Handles a supervisor's list of supervisors. The leader's list replaces the known one; while no leader is
    /// known, other lists are added.
    fn heard_of(&mut self, conn: u64, supervisors: Vec<PeerAddr>) {
        let led_here = self.is_led_over(conn);
        let Some(warm) = self.warm.get_mut(&conn) else {
            return;
        };
        warm.supervisors = supervisors;
        let (peer, supervisors) = (warm.sender.peer(), &warm.supervisors);
        if led_here {
            self.links.keep(supervisors, peer);
        } else if self.link.is_none() {
            self.links.learn_from(peer, supervisors);
        } else {
            return;
        }
        self.trust.set_supervisors(self.links.supervisors());
    }

    fn feed(&mut self, event: Event) {
        self.core.handle(self.clock.now(), event, &mut self.actions);
    }

    /// Runs the benchmark kernels on a blocking thread.
    fn benchmark(&mut self) {
        let inputs = self.tools.inputs.clone();
        let dir = self.tools.runner.scratch_base().to_owned();
        let end = Arc::new(AtomicBool::new(false));
        self.end_benchmark = end.clone();
        tokio::task::spawn_blocking(move || {
            let scores = hedge_host::bench::run(&dir, &end);
            _ = inputs.blocking_send(Input::Core(Event::Benchmarked(scores)));
        });
    }

    /// Returns when the core's next tick is due.
    fn tick_by(&self) -> Option<Instant> {
        let at = self.core.next_deadline()?;
        Some(Instant::now() + at.since(self.clock.now()))
    }

    /// Carries out the core's actions. Returns whether the worker must leave.
    fn carry_out(&mut self) -> bool {
        while !self.actions.is_empty() {
            for action in std::mem::take(&mut self.actions) {
                match action {
                    Action::Tell(msg) => {
                        match &msg {
                            FromWorker::Ended(report) => self.heartbeats.forget(report.attempt),
                            FromWorker::Owner(state) => {
                                self.heartbeats.owner(state.into());
                                self.tally.owner(state);
                            }
                            _ => {}
                        }
                        self.tell.push(msg);
                    }
                    Action::Stage(body, order) => {
                        let id = order.attempt;
                        self.heartbeats.phase(id, Phase::Staging);
                        // Most tasks need nothing fetched, so that the queue can be bypassed.
                        if let Some(result) = self.attempts.stage(&self.tools, body, order) {
                            self.feed(Event::Staged(id, result));
                        }
                    }
                    Action::Start(body, order) => {
                        self.heartbeats.phase(order.attempt, Phase::Running);
                        self.shown.started(&body, &order);
                        self.attempts.start(&self.tools, &body, &order);
                    }
                    Action::End(id) => {
                        if let Some(event) = self.attempts.end(id) {
                            self.feed(event);
                        }
                    }
                    Action::Stop(id, grace) => self.attempts.stop(id, grace),
                    Action::Drop(hashes) => drop(tokio::spawn(self.tools.store.forget(hashes))),
                    Action::Pause(true) => self.tools.runner.suspend(),
                    Action::Pause(false) => self.tools.runner.resume(),
                    Action::Lower(on) => self.tools.runner.lower(on),
                    Action::Leave => return true,
                    Action::Benchmark => self.benchmark(),
                    Action::EndBenchmark => self.end_benchmark.store(true, Ordering::Relaxed),
                }
            }
        }
        false
    }

    fn flush(&mut self) {
        self.tell_by = None;
        let batch = std::mem::take(&mut self.tell);
        if let Some(link) = self.link.as_ref().filter(|_| !batch.is_empty()) {
            send(&link.sender, &batch);
        }
    }

    async fn leave(mut self) -> Result<(), NodeError> {
        self.flush();
        if let Some(link) = self.link.take() {
            link.sender.finish(LEAVE_WITHIN).await;
        }
        Ok(())
    }
}

async fn reached(instant: Option<Instant>) {
    match instant {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
