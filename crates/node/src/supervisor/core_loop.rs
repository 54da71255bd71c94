//! The loop around the core: takes inputs, has the journal make the core's proposals durable, and carries out its
//! actions, those for one peer in one frame.

use super::audit::Audit;
use super::disk::Disk;
use super::links::PeerLinks;
use super::membership::{self, Changes, GroupRequest, Moved};
use super::peers;
use super::pending_requests::{PendingRequests, ReplyTo};
use super::recording::Recording;
use super::requests::{NewJob, Submitted};
use super::ticket_files::TicketContacts;
use super::watch::Watch;
use crate::NodeError;
use crate::clock::Clock;
use crate::folders::FolderLock;
use crate::known::Known;
use crate::memory::HeapTrimmer;
use crate::metrics::{SupervisorMetrics, SupervisorTally};
use hedge_core::commit_batcher::CommitBatcher;
use hedge_core::group::Absences;
use hedge_core::monitor::Finding;
use hedge_core::supervisor::{
    self, Config, Effects, Event, FetchFailure, Measured, Requester, State,
};
use hedge_model::group::{FromLeader, GroupMember, PeerSupervisor, ToLeader};
use hedge_model::msg::{Ask, FromWorker, Request, Role};
use hedge_model::{Hash, PeerAddr, PeerId};
use hedge_net::{
    Call, Caller, CloseReason, DataStore, Fetcher, Incoming, Link, LinkSender, SecretKey, Trust,
};
use hedge_store::{Group, Journal, JournalEvent, Timing};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;

/// The most inputs handled before actions are carried out: a batch for the network, and a bound for its delay.
const BATCH: usize = 256;
/// The most proposals that wait for the journal before no more is read from peers: sixteen full entries.
const PROPOSALS_MAX: usize = 65_536;
/// The most concurrent transfers into this supervisor's store.
const FETCHES_MAX: usize = 32;
/// The most supervisors of a group that a joining supervisor dials.
const INVITERS_MAX: usize = 32;
/// How often the loop looks for absent and revoked members, new relays, memory to give back and a slow journal.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After this long with records that wait and nothing committed, the loop logs a warning.
const JOURNAL_SLOW: Duration = Duration::from_secs(5);
/// How long the handover of leadership may take when the supervisor stops.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);

/// Identifies a connection, also among those of one peer.
pub(crate) type ConnId = u64;

/// An input of the loop.
#[derive(Debug)]
pub(crate) enum Input {
    Incoming(Box<Incoming>),
    Linked {
        peer: PeerId,
        role: Role,
        link: Box<Link>,
    },
    From {
        peer: PeerId,
        conn: ConnId,
        from: From,
    },
    /// A finding of the monitor about the worker at this connection.
    Found {
        conn: ConnId,
        finding: Finding,
    },
    /// The measurement of the link to the worker at this connection ended, with or without success.
    LinkMeasured {
        peer: PeerId,
        conn: ConnId,
        found: Measured,
    },
    Gone {
        peer: PeerId,
        conn: ConnId,
        /// Whether neither end closed it deliberately, so that the peer's process may live.
        silent: bool,
    },
    /// This supervisor has connected to another.
    Dialled {
        peer: PeerId,
    },
    /// That connection has closed.
    Undialled {
        peer: PeerId,
    },
    /// Another supervisor cannot admit this one, and names others.
    Redirected(Vec<PeerAddr>),
    /// Another supervisor does not admit this one; trying again would not help.
    Rejected {
        by: PeerId,
        reason: CloseReason,
    },
    /// Another supervisor has dialled this one.
    PeerSupervisor {
        peer: PeerId,
        caller: Caller,
    },
    FromLeader {
        peer: PeerId,
        msg: FromLeader,
    },
    ToLeader {
        peer: PeerId,
        msg: ToLeader,
    },
    GroupRequest(PeerId, GroupRequest, Call),
    /// From within this process, in this role.
    Local {
        role: Role,
        request: Request,
        reply_to: ReplyTo,
    },
    Submit {
        requester: Requester,
        request_id: u64,
        job: NewJob,
        result: Result<Submitted, String>,
    },
    Fetched(Vec<(Hash, Result<Option<PeerId>, FetchFailure>)>),
    /// The proofs of a peer that it holds blobs.
    Proved(PeerId, Vec<(Hash, Result<(), String>)>),
    WorkerProcessEnded(u32),
    /// Asks whether a ticket admits peers of this role. The reply is none if this supervisor does not lead.
    IsTicketValid {
        ticket: Hash,
        role: Role,
        reply: oneshot::Sender<Option<bool>>,
    },
    /// The supervisor cannot continue, for the reason in the sentence.
    Failed(String),
    Stop(oneshot::Sender<()>),
}

/// A batch of messages.
#[derive(Debug)]
pub(crate) enum From {
    Worker(Vec<FromWorker>),
    Client(Vec<Ask>),
}

#[derive(Debug)]
pub(super) struct Worker {
    pub conn: ConnId,
    pub sender: LinkSender,
    pub pid: u32,
}

/// The state of a supervisor, for tasks that wait for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// Whether its core leads.
    pub live: bool,
    /// Why it has ended.
    pub ended: Option<Arc<NodeError>>,
}

/// Everything that the loop needs.
pub(crate) struct Setup {
    pub key: SecretKey,
    pub addr: PeerAddr,
    pub store: DataStore,
    pub fetcher: Fetcher,
    pub trust: Trust,
    pub inputs: mpsc::Sender<Input>,
    pub journal: Journal,
    pub timing: Timing,
    /// This supervisor as a member of its group.
    pub me: GroupMember,
    pub links: PeerLinks,
    pub known: Option<Known>,
    pub audit: Audit,
    pub clock: Clock,
    pub watch: Watch,
    pub disk: Disk,
    pub standing: watch::Sender<Standing>,
    /// What the tickets in files name.
    pub ticket_contacts: watch::Sender<TicketContacts>,
    pub recording: Option<Recording>,
    pub metrics: SupervisorMetrics,
    /// Locks the supervisor's directory while the loop runs.
    pub _lock: FolderLock,
}

pub(crate) struct Loop {
    pub(super) setup: Setup,
    pub(super) core: supervisor::Supervisor,
    pub(super) tally: SupervisorTally,
    /// Proposals that the journal has not received yet, and actions for the end of the batch.
    pub(super) effects: Effects,
    /// Entries that the journal has received and not committed.
    pub(super) in_flight: usize,
    pub(super) batcher: CommitBatcher,
    /// Messages to other supervisors, and the time before which those with only hints wait.
    pub(super) queued: BTreeMap<PeerId, FromLeader>,
    pub(super) hints_at: Instant,
    /// The term in which the core leads or led last.
    pub(super) term: u64,
    /// When the journal last received or committed something.
    pub(super) journal_at: Instant,
    journal_slow: bool,
    pub(super) group: watch::Receiver<Group>,
    /// The group as the core knows it.
    pub(super) told_group: Vec<PeerSupervisor>,
    pub(super) changes: Changes,
    pub(super) absences: Absences,
    moved: Moved,
    look_at: Instant,
    trimmer: HeapTrimmer,
    /// Connections that wait for the core to admit their peer, oldest first.
    pub(super) undecided: HashMap<PeerId, Vec<Incoming>>,
    pub(super) workers: HashMap<PeerId, Worker>,
    pub(super) clients: HashMap<ConnId, LinkSender>,
    /// The last connection that each other supervisor dialled.
    pub(super) peer_supervisors: HashMap<PeerId, Caller>,
    /// Supervisors of the group, and those that this one was told to join.
    pub(super) trusted: HashSet<PeerId>,
    pub(super) pending: PendingRequests,
    pub(super) last_conn: ConnId,
    pub(super) fetches: Arc<Semaphore>,
    /// The relay setting that was applied last.
    pub(super) relays: Arc<[PeerAddr]>,
}

/// Why the loop ends.
pub(super) enum End {
    Stopped(oneshot::Sender<()>),
    Failed(NodeError),
}

impl Loop {
    pub fn new(setup: Setup, trusted: HashSet<PeerId>) -> Self {
        let state = State::default();
        let config = Config {
            format_max: setup.me.format_max,
            ..Config::new(setup.addr.clone())
        };
        if let Some(recording) = &setup.recording {
            recording.begin(&config);
        }
        let core = supervisor::Supervisor::new(config, state);
        Self {
            core,
            tally: SupervisorTally::new(setup.metrics.clone()),
            effects: Effects::default(),
            in_flight: 0,
            batcher: CommitBatcher::default(),
            queued: BTreeMap::new(),
            hints_at: Instant::now(),
            term: 0,
            journal_at: Instant::now(),
            journal_slow: false,
            group: setup.journal.group(),
            told_group: Vec::new(),
            changes: Changes::new(setup.journal.clone()),
            absences: Absences::default(),
            moved: Moved::default(),
            look_at: Instant::now() + LOOK_EVERY,
            trimmer: HeapTrimmer::new(),
            undecided: HashMap::new(),
            workers: HashMap::new(),
            clients: HashMap::new(),
            peer_supervisors: HashMap::new(),
            trusted,
            pending: PendingRequests::default(),
            last_conn: 0,
            fetches: Arc::new(Semaphore::new(FETCHES_MAX)),
            relays: Arc::default(),
            setup,
        }
    }

    pub async fn run(mut self, queue: mpsc::Receiver<Input>, events: mpsc::Receiver<JournalEvent>) {
        self.on_group();
        let ended = match self.turn(queue, events).await {
            Ok(()) => None,
            Err(End::Stopped(done)) => {
                self.hand_over().await;
                self.close_all();
                self.setup.links.keep(&[]);
                self.setup.journal.close().await;
                _ = done.send(());
                None
            }
            Err(End::Failed(error)) => {
                self.close_all();
                self.setup.links.keep(&[]);
                self.setup.journal.close().await;
                Some(error)
            }
        };
        let ended = ended.unwrap_or_else(|| NodeError::Other("the supervisor has stopped".into()));
        let ended = Some(Arc::new(ended));
        self.setup
            .standing
            .send_replace(Standing { live: false, ended });
    }

    async fn turn(
        &mut self,
        mut queue: mpsc::Receiver<Input>,
        mut events: mpsc::Receiver<JournalEvent>,
    ) -> Result<(), End> {
        let (mut batch, mut committed) = (Vec::with_capacity(BATCH), Vec::with_capacity(BATCH));
        loop {
            let sleep = sleep_until(self.wake_at());
            tokio::select! {
                biased;
                count = events.recv_many(&mut committed, BATCH) => if count == 0 {
                    let why = "the journal has stopped".to_owned();
                    return Err(End::Failed(NodeError::Other(why)));
                },
                count = queue.recv_many(&mut batch, BATCH), if self.has_room() => if count == 0 { return Ok(()) },
                changed = self.group.changed() => if changed.is_ok() { self.on_group() },
                () = sleep => {}
            }
            for event in committed.drain(..) {
                self.on_journal_event(event)?;
            }
            while batch.len() < BATCH
                && self.has_room()
                && let Ok(input) = queue.try_recv()
            {
                batch.push(input);
            }
            for input in batch.drain(..) {
                self.take(input)?;
            }
            // If the queue is never empty, `select!` above may never check for this change.
            if self.group.has_changed().unwrap_or(false) {
                self.on_group();
            }
            self.ask_held();
            let due = self.core.next_deadline();
            if due.is_some_and(|at| at <= self.setup.clock.now()) {
                self.feed(Event::Tick);
            }
            self.propose();
            self.carry_out();
            self.look();
            self.check_disk()?;
        }
    }

    /// Returns whether the core may take further inputs. Proposals that the journal does not take fast enough stay in
    /// memory, so peers get back-pressure.
    fn has_room(&self) -> bool {
        self.effects.proposals.len() < PROPOSALS_MAX
    }

    fn wake_at(&self) -> Instant {
        let core = self.core.next_deadline();
        let core = core.map(|at| Instant::from(self.setup.clock.instant(at)));
        let hints = (!self.queued.is_empty()).then_some(self.hints_at);
        let uptime = self.setup.clock.uptime();
        let entry = self.batcher.due(uptime);
        let entry = entry.map(|due| Instant::now() + due.since(uptime));
        let due = [core, entry, hints, Some(self.look_at)];
        due.into_iter().flatten().min().unwrap_or(self.look_at)
    }

    fn look(&mut self) {
        let now = Instant::now();
        if now >= self.look_at {
            self.look_at = now + LOOK_EVERY;
            self.replace_absent();
            let format_max = self.setup.me.format_max;
            self.moved
                .look(&self.changes, &self.setup.links, format_max);
            self.remove_revoked();
            self.follow_relays();
            self.trimmer.trim_if_due();
            let slow = self.in_flight > 0 && self.journal_at.elapsed() > JOURNAL_SLOW;
            if slow && !self.journal_slow {
                let waiting = self.effects.proposals.len();
                tracing::warn!(
                    waiting,
                    "the journal has committed nothing for 5 s; nothing is promised meanwhile"
                );
            }
            self.journal_slow = slow;
        }
    }

    /// Passes an event to the core.
    pub(super) fn feed(&mut self, event: Event) {
        self.tally
            .on_event(self.setup.clock.uptime(), &event, &self.core);
        let now = self.setup.clock.now();
        let Some(recording) = &self.setup.recording else {
            return self.core.handle(now, event, &mut self.effects);
        };
        let mut effects = Effects::default();
        self.core.handle(now, event.clone(), &mut effects);
        recording.heard(now, event, &effects);
        self.effects.proposals.extend(effects.proposals);
        self.effects.actions.extend(effects.actions);
    }

    fn take(&mut self, input: Input) -> Result<(), End> {
        match input {
            Input::Incoming(incoming) => self.on_incoming(*incoming),
            Input::Linked { peer, role, link } => self.on_linked(peer, role, *link),
            Input::From { peer, conn, from } => self.on_messages(peer, conn, from),
            Input::Found { conn, finding } => {
                // Ignore findings about an earlier connection.
                if self.is_worker_on(finding.peer, conn) {
                    self.feed(Event::Found(finding));
                }
            }
            Input::LinkMeasured { peer, conn, found } => {
                if self.is_worker_on(peer, conn) {
                    self.feed(Event::LinkMeasured { peer, found });
                }
            }
            Input::Gone { peer, conn, silent } => self.on_gone(peer, conn, silent),
            Input::Dialled { peer } => self.feed(Event::Linked {
                peer,
                role: Role::Supervisor,
            }),
            Input::Undialled { peer } => self.feed(Event::Gone {
                peer,
                silent: false,
            }),
            Input::Redirected(supervisors) => self.on_redirected(&supervisors),
            Input::Rejected { by, reason } => return self.on_rejected(by, reason),
            Input::PeerSupervisor { peer, caller } => self.on_peer_supervisor(peer, caller),
            Input::FromLeader { peer, msg } if self.trusted.contains(&peer) => {
                self.feed(Event::FromLeader { peer, msg });
            }
            Input::ToLeader { peer, msg } if self.trusted.contains(&peer) => {
                self.feed(Event::ToLeader { peer, msg });
            }
            Input::FromLeader { .. } | Input::ToLeader { .. } => {}
            Input::GroupRequest(peer, request, call) => self.on_group_request(peer, request, call),
            Input::Local {
                role,
                request,
                reply_to,
            } => self.ask_here(role, request, reply_to),
            Input::Submit {
                requester,
                request_id,
                job,
                result,
            } => self.on_decoded(requester, request_id, job, result),
            Input::Fetched(fetched) => {
                for (hash, result) in fetched {
                    self.feed(Event::Fetched { hash, result });
                }
            }
            Input::Proved(holder, proofs) => self.feed(Event::Proved { holder, proofs }),
            Input::WorkerProcessEnded(pid) => self.on_process_ended(pid),
            Input::IsTicketValid {
                ticket,
                role,
                reply,
            } => _ = reply.send(self.is_ticket_valid(ticket, role)),
            Input::Failed(why) => return Err(End::Failed(NodeError::NotAllowed(why))),
            Input::Stop(done) => {
                self.carry_out();
                return Err(End::Stopped(done));
            }
        }
        Ok(())
    }

    /// If this supervisor is in no group yet, dials the named supervisors. The leader will dial it.
    fn on_redirected(&mut self, supervisors: &[PeerAddr]) {
        if !self.told_group.is_empty() {
            return;
        }
        for addr in supervisors.iter().take(INVITERS_MAX) {
            if self.trusted.len() < INVITERS_MAX && self.trusted.insert(addr.peer) {
                self.setup.links.ensure(addr);
            }
        }
    }

    /// A rejection ends a supervisor that is in no group, or was revoked. Else the other supervisor may be wrong.
    fn on_rejected(&mut self, by: PeerId, reason: CloseReason) -> Result<(), End> {
        let group = self.group.borrow();
        if group.seats.contains_key(&group.me) && reason != CloseReason::Revoked {
            tracing::warn!(peer = %by.short(), %reason, "another supervisor does not let this one in");
            return Ok(());
        }
        let why = format!("not let in: {reason}");
        Err(End::Failed(NodeError::NotAllowed(why)))
    }

    fn on_group_request(&mut self, peer: PeerId, request: GroupRequest, call: Call) {
        let honest = match &request {
            GroupRequest::Join { member, .. } => member.peer.peer == peer,
            _ => self.trusted.contains(&peer) || self.core.state().member(peer).is_some(),
        };
        if !honest {
            return call_off(call);
        }
        if let GroupRequest::Join { .. } = &request {
            let role = Some(Role::Supervisor);
            self.setup.audit.note(peer, role, "join the group", "asked");
        }
        let answer = membership::answer(request, self.changes.clone(), self.setup.inputs.clone());
        tokio::spawn(async move {
            let reply = postcard::to_stdvec(&answer.await).unwrap_or_default();
            _ = call.answer(reply.into()).await;
        });
    }

    /// Hands leadership to another supervisor before the end, if there is one.
    async fn hand_over(&mut self) {
        if !self.group.borrow().leading {
            return;
        }
        if let Some(successor) = self.successor() {
            let handed = self.setup.journal.transfer_leader(successor);
            _ = tokio::time::timeout(HAND_OVER_WITHIN, handed).await;
        }
    }
}

fn call_off(call: Call) {
    tracing::warn!("a question about the group from one who may not ask it");
    drop(call);
}

async fn sleep_until(at: Instant) {
    tokio::time::sleep_until(at).await;
}

/// Carries out the core's decision on a peer, on the runtime that reads its messages.
pub(super) fn decide(here: &Loop, incoming: Incoming, refused: Option<supervisor::NotAdmitted>) {
    let welcome = here.welcome();
    let deciding = peers::decide(
        incoming,
        refused,
        welcome,
        here.setup.inputs.clone(),
        here.setup.links.clone(),
    );
    tokio::spawn(deciding);
}
