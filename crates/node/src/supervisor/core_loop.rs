//! The loop around the core: takes inputs as they come, makes what the core appends durable (in memory), and
//! carries out its actions, those for one peer in one frame.

use super::askers::{Asker, Askers};
use super::spec::{decode, fetch_spec};
use super::watch::Watch;
use super::{peers, ticket_text};
use crate::clock::Clock;
use crate::frames::send;
use crate::grants::seal;
use hedge_core::monitor::Finding;
use hedge_core::supervisor::{self, Action, Config, Event, PullFailure, State};
use hedge_model::msg::{
    Answer, Ask, FromWorker, Refusal, RefusalKind, Reply, Request, Role, ToWorker, Welcome,
};
use hedge_model::{Data, Hash, JobSpec, PeerAddr, PeerId, Source};
use hedge_net::{
    CloseReason, DataStore, FetchError, Fetcher, Incoming, Link, LinkSender, SecretKey,
};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Inputs that are handled before actions are carried out: a batch for the network, a bound for its delay.
const BATCH: usize = 256;
/// Files whose list fits into a frame whatever they are called.
const FILES_SURE_TO_FIT: usize = 10_000;
/// Transfers into the own store at once.
const PULLS_MAX: usize = 32;

/// Tells connections apart, also those of one peer.
pub(crate) type ConnId = u64;

/// What reaches the loop.
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
    /// The monitor found something out about the worker at this connection.
    Found {
        conn: ConnId,
        finding: Finding,
    },
    Gone {
        peer: PeerId,
        conn: ConnId,
    },
    /// From within this process; a watch is answered many times through [`Input::LocalWatch`].
    Local {
        request: Request,
        reply: oneshot::Sender<Reply>,
    },
    LocalWatch {
        request: Request,
        replies: mpsc::Sender<Reply>,
    },
    Submit {
        peer: PeerId,
        ask: u64,
        result: Result<(Request, Arc<JobSpec>), String>,
    },
    Pulled {
        hash: Hash,
        result: Result<(), PullFailure>,
    },
    WorkerProcessEnded(u32),
    Stop(oneshot::Sender<()>),
}

/// A batch of messages.
#[derive(Debug)]
pub(crate) enum From {
    Worker(Vec<FromWorker>),
    Client(Vec<Ask>),
}

#[derive(Debug)]
struct Worker {
    conn: ConnId,
    sender: LinkSender,
    pid: u32,
}

pub(crate) struct Loop {
    key: SecretKey,
    addr: PeerAddr,
    store: DataStore,
    fetcher: Fetcher,
    inputs: mpsc::Sender<Input>,
    clock: Clock,
    watch: Watch,
    core: supervisor::Supervisor,
    actions: Vec<Action>,
    undecided: HashMap<PeerId, Vec<Incoming>>,
    workers: HashMap<PeerId, Worker>,
    clients: HashMap<ConnId, LinkSender>,
    askers: Askers,
    last_conn: ConnId,
    pulls: Arc<Semaphore>,
}

impl Loop {
    pub fn new(
        key: SecretKey,
        addr: PeerAddr,
        store: DataStore,
        fetcher: Fetcher,
        inputs: mpsc::Sender<Input>,
        (clock, watch): (Clock, Watch),
    ) -> Self {
        let state = State::default();
        let core = supervisor::Supervisor::new(Config::new(addr.clone()), state);
        Self {
            key,
            addr,
            store,
            fetcher,
            inputs,
            clock,
            watch,
            core,
            actions: Vec::new(),
            undecided: HashMap::new(),
            workers: HashMap::new(),
            clients: HashMap::new(),
            askers: Askers::default(),
            last_conn: 0,
            pulls: Arc::new(Semaphore::new(PULLS_MAX)),
        }
    }

    pub async fn run(mut self, mut queue: mpsc::Receiver<Input>) {
        let holds = self
            .store
            .list()
            .into_iter()
            .map(|(hash, _)| hash)
            .collect();
        let mut secret = [0; 32];
        // Without randomness from the system there is no identity either, so the process cannot get here.
        _ = getrandom::fill(&mut secret);
        self.feed(Event::Lead { holds, secret });
        self.carry_out();
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let deadline = self.core.next_deadline();
            let sleep = async {
                match deadline {
                    Some((at, _)) => tokio::time::sleep_until(self.clock.instant(at).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                count = queue.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = sleep => self.feed(Event::Tick),
            }
            for input in batch.drain(..) {
                if let Input::Stop(done) = input {
                    self.carry_out();
                    self.close_all();
                    _ = done.send(());
                    return;
                }
                self.take(input);
            }
            if self
                .core
                .next_deadline()
                .is_some_and(|(at, _)| at <= self.clock.now())
            {
                self.feed(Event::Tick);
            }
            self.carry_out();
        }
    }

    /// Hands an event to the core and commits what it appends at once: the journal is in memory.
    fn feed(&mut self, event: Event) {
        let now = self.clock.now();
        let mut said = Vec::new();
        let mut appended = VecDeque::new();
        self.core.handle(now, event, &mut said);
        loop {
            for action in said.drain(..) {
                match action {
                    Action::Append { proposal, record } => appended.push_back((proposal, record)),
                    action => self.actions.push(action),
                }
            }
            let Some((proposal, record)) = appended.pop_front() else {
                return;
            };
            let proposal = Some(proposal);
            let event = Event::Committed { proposal, record };
            self.core.handle(now, event, &mut said);
        }
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Incoming(incoming) => self.on_incoming(*incoming),
            Input::Linked { peer, role, link } => self.on_linked(peer, role, *link),
            Input::From {
                peer,
                conn,
                from: From::Worker(msgs),
            } => self.on_worker(peer, conn, msgs),
            Input::From {
                peer,
                conn,
                from: From::Client(asks),
            } => {
                for ask in asks {
                    let watch = matches!(ask.request, Request::Watch(_));
                    self.ask(
                        peer,
                        ask.request,
                        Asker::Remote {
                            conn,
                            ask: ask.id,
                            watch,
                        },
                    );
                }
            }
            Input::Found { conn, finding } => {
                // A later connection is another matter.
                if self.is_worker_on(finding.peer, conn) {
                    self.feed(Event::Found(finding));
                }
            }
            Input::Gone { peer, conn } => self.on_gone(peer, conn),
            Input::Local { request, reply } => {
                self.ask(self.addr.peer, request, Asker::Once(Some(reply)));
            }
            Input::LocalWatch { request, replies } => {
                self.ask(self.addr.peer, request, Asker::Watch(replies));
            }
            Input::Submit { peer, ask, result } => self.on_decoded(peer, ask, result),
            Input::Pulled { hash, result } => self.feed(Event::Pulled { hash, result }),
            Input::WorkerProcessEnded(pid) => {
                let found = self.workers.iter().find(|(_, worker)| worker.pid == pid);
                if let Some((peer, worker)) = found.map(|(peer, worker)| (*peer, worker)) {
                    worker.sender.close(CloseReason::Lost);
                    let conn = worker.conn;
                    self.on_gone(peer, conn);
                }
            }
            Input::Stop(_) => {}
        }
    }

    /// Whether this is the worker's present connection.
    fn is_worker_on(&self, peer: PeerId, conn: ConnId) -> bool {
        let worker = self.workers.get(&peer);
        worker.is_some_and(|worker| worker.conn == conn)
    }

    fn on_worker(&mut self, peer: PeerId, conn: ConnId, msgs: Vec<FromWorker>) {
        if !self.is_worker_on(peer, conn) {
            return;
        }
        for msg in msgs {
            if let (FromWorker::Attach(info), Some(worker)) = (&msg, self.workers.get_mut(&peer)) {
                worker.pid = info.pid;
            }
            self.feed(Event::FromWorker { peer, msg });
        }
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let (peer, role) = (incoming.peer, incoming.hello.role);
        let ticket = incoming
            .hello
            .proof
            .map(|secret| hedge_net::secret_hash(&secret));
        self.undecided.entry(peer).or_default().push(incoming);
        self.feed(Event::Joining { peer, role, ticket });
    }

    fn on_linked(&mut self, peer: PeerId, role: Role, link: Link) {
        self.last_conn += 1;
        let conn = self.last_conn;
        let sender = peers::serve(link, role, conn, self.inputs.clone(), &self.watch);
        match role {
            Role::Worker => {
                let worker = Worker {
                    conn,
                    sender,
                    pid: 0,
                };
                if let Some(old) = self.workers.insert(peer, worker) {
                    old.sender.close(CloseReason::Replaced);
                    self.watch.unlink(old.conn);
                    self.feed(Event::Gone { peer });
                }
            }
            Role::Client | Role::Admin | Role::Supervisor => {
                drop(self.clients.insert(conn, sender));
            }
        }
        self.feed(Event::Linked { peer, role });
    }

    fn on_gone(&mut self, peer: PeerId, conn: ConnId) {
        if self.is_worker_on(peer, conn) {
            self.workers.remove(&peer);
            self.watch.unlink(conn);
            self.feed(Event::Gone { peer });
        }
        if self.clients.remove(&conn).is_some() {
            let asks = self.askers.forget(conn);
            self.feed(Event::Unasked(asks));
            // One peer may have several connections; only with the last is nobody there who waits.
            let here = self.clients.values().any(|other| other.peer() == peer);
            if !here && !self.workers.contains_key(&peer) {
                self.feed(Event::Gone { peer });
            }
        }
    }

    fn ask(&mut self, peer: PeerId, request: Request, asker: Asker) {
        let (ask, too_many) = self.askers.add(asker);
        if too_many {
            let why = "the supervisor has too many questions open; ask again later";
            return self.reply(ask, no(RefusalKind::Busy, why));
        }
        match request {
            Request::Submit { key, spec, from } => {
                let (store, fetcher, inputs, room) = (
                    self.store.clone(),
                    self.fetcher.clone(),
                    self.inputs.clone(),
                    self.pulls.clone(),
                );
                let request = Request::Submit {
                    key,
                    spec: spec.clone(),
                    from: from.clone(),
                };
                if let Data::Inline(bytes) = &spec {
                    let result = decode(bytes).map(|spec| (request, spec));
                    return self.on_decoded(peer, ask, result);
                }
                tokio::spawn(async move {
                    let _place = room.acquire_owned().await;
                    let fetched = fetch_spec(&store, &fetcher, &spec, &from).await;
                    if let Some(hash) = spec.hash() {
                        // The core knows whether anybody else needs this content, and drops it if not.
                        let result = Ok(());
                        _ = inputs.send(Input::Pulled { hash, result }).await;
                    }
                    let result = fetched.map(|spec| (request, spec));
                    _ = inputs.send(Input::Submit { peer, ask, result }).await;
                });
            }
            Request::Ticket {
                role,
                valid_for,
                uses,
            } => {
                let mut secret = [0; 16];
                if getrandom::fill(&mut secret).is_err() {
                    return self.reply(
                        ask,
                        no(RefusalKind::Busy, "the system gives no random bytes"),
                    );
                }
                let valid_s = valid_for.map(|span| span.as_secs());
                let text = ticket_text(role, &self.addr, secret, valid_s);
                let secret = Some((hedge_net::secret_hash(&secret), text));
                let request = Request::Ticket {
                    role,
                    valid_for,
                    uses,
                };
                self.feed(Event::Ask {
                    peer,
                    ask,
                    request,
                    secret,
                });
            }
            request => self.feed(Event::Ask {
                peer,
                ask,
                request,
                secret: None,
            }),
        }
    }

    fn on_decoded(
        &mut self,
        peer: PeerId,
        ask: u64,
        result: Result<(Request, Arc<JobSpec>), String>,
    ) {
        match result {
            Ok((Request::Submit { key, from, .. }, spec)) => {
                let here = peer == self.addr.peer;
                self.feed(Event::Submit {
                    peer,
                    ask,
                    key,
                    spec: spec.clone(),
                    from,
                });
                if here {
                    self.notice_local_content(&spec);
                }
            }
            Ok(_) => {}
            Err(why) => self.reply(ask, no(RefusalKind::Bad, &why)),
        }
    }

    /// Whoever submits from within this process has put the inputs into this store. Said after the submission:
    /// before it, the core knows nobody who needs them.
    fn notice_local_content(&mut self, spec: &JobSpec) {
        let files = spec.files().iter().map(|file| &file.data);
        let stdin = spec
            .groups()
            .iter()
            .filter_map(|group| group.stdin.as_ref());
        for hash in files.chain(stdin).filter_map(Data::hash) {
            if self.store.has(hash) {
                self.feed(Event::Pulled {
                    hash,
                    result: Ok(()),
                });
            }
        }
    }

    /// Carries out what the core wants, in its order, with one frame for each peer.
    fn carry_out(&mut self) {
        let mut orders: BTreeMap<PeerId, Vec<ToWorker>> = BTreeMap::new();
        let mut answers: BTreeMap<ConnId, Vec<Answer>> = BTreeMap::new();
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Append { .. } => {} // committed when it was said
                Action::Send { to, msg } => {
                    orders.entry(to).or_default().push(self.sealed(to, msg))
                }
                Action::Answer { to, answer } => {
                    let reply = self.sealed_reply(to, answer.reply);
                    self.askers.answer(answer.id, reply, &mut answers);
                }
                Action::Watch { peer, attention } => self.watch.watch(peer, attention),
                Action::WatchSettings(settings) => self.watch.set(settings),
                Action::Admit { peer, refused } => self.admit(peer, refused),
                Action::Tell { to, reply } => {
                    for (conn, sender) in &self.clients {
                        if sender.peer() == to {
                            let (id, reply) = (0, reply.clone());
                            answers.entry(*conn).or_default().push(Answer { id, reply });
                        }
                    }
                }
                Action::Expel(peer) => self.expel(peer),
                // A supervisor alone has no colleagues to talk to.
                Action::ToSupervisor { .. }
                | Action::ToLeader { .. }
                | Action::TellHoldings { .. } => {}
                Action::Pull {
                    hash,
                    size,
                    sources,
                } => self.pull(hash, size, sources),
                Action::Drop(hashes) => {
                    let store = self.store.clone();
                    tokio::spawn(async move {
                        for hash in hashes {
                            _ = store.forget(hash).await;
                        }
                    });
                }
            }
        }
        for (peer, batch) in orders {
            if let Some(worker) = self.workers.get(&peer) {
                send(&worker.sender, &batch);
            }
        }
        for (conn, batch) in answers {
            if let Some(sender) = self.clients.get(&conn) {
                let batch: Vec<Answer> = batch.into_iter().map(fitting).collect();
                send(sender, &batch);
            }
        }
    }

    /// Adds the grant to what needs one.
    fn sealed(&self, to: PeerId, msg: ToWorker) -> ToWorker {
        match msg {
            ToWorker::Body(body) if !body.blobs.is_empty() => {
                let mut body = (*body).clone();
                body.grant = seal(&self.key, to, &body.blobs, self.core.state().epoch());
                ToWorker::Body(Arc::new(body))
            }
            other => other,
        }
    }

    fn sealed_reply(&self, to: PeerId, reply: Reply) -> Reply {
        let epoch = self.core.state().epoch();
        match reply {
            Reply::Results(mut view) => {
                let hashes: Vec<Hash> = view
                    .files
                    .iter()
                    .filter_map(|(_, file)| file.data.hash())
                    .collect();
                view.grant = seal(&self.key, to, &hashes, epoch);
                Reply::Results(view)
            }
            Reply::Workers(mut views) => {
                views.iter_mut().for_each(|view| self.watch.show(view));
                Reply::Workers(views)
            }
            Reply::Log(mut view) => {
                let hashes: Vec<Hash> = view.log.iter().flat_map(|log| log.blobs()).collect();
                view.grant = seal(&self.key, to, &hashes, epoch);
                Reply::Log(view)
            }
            other => other,
        }
    }

    fn reply(&mut self, ask: u64, reply: Reply) {
        self.actions.push(Action::Answer {
            to: self.addr.peer,
            answer: Answer { id: ask, reply },
        });
    }

    fn admit(&mut self, peer: PeerId, refused: Option<supervisor::NotAdmitted>) {
        let Some(waiting) = self.undecided.get_mut(&peer) else {
            return;
        };
        let incoming = waiting.remove(0);
        if waiting.is_empty() {
            self.undecided.remove(&peer);
        }
        let beat_interval = self.core.watch().idle.interval;
        let welcome = Welcome {
            epoch: self.core.state().epoch(),
            beat_interval,
            supervisors: self.core.supervisors(),
        };
        tokio::spawn(peers::decide(
            incoming,
            refused,
            welcome,
            self.inputs.clone(),
        ));
    }

    fn pull(&self, hash: Hash, size: u64, sources: Vec<Source>) {
        let (fetcher, inputs, room) = (
            self.fetcher.clone(),
            self.inputs.clone(),
            self.pulls.clone(),
        );
        tokio::spawn(async move {
            let _place = room.acquire_owned().await;
            let result =
                fetcher
                    .fetch(hash, size, &sources, None)
                    .await
                    .map_err(|error| match error {
                        FetchError::Local { .. } | FetchError::Damaged { .. } => {
                            PullFailure::Here(error.to_string())
                        }
                        _ => PullFailure::Sources(error.to_string()),
                    });
            _ = inputs.send(Input::Pulled { hash, result }).await;
        });
    }

    /// Ends all connections of a peer that is a member no more.
    fn expel(&self, peer: PeerId) {
        let clients = self.clients.values().filter(|sender| sender.peer() == peer);
        let worker = self.workers.get(&peer).map(|worker| &worker.sender);
        clients
            .chain(worker)
            .for_each(|sender| sender.close(CloseReason::Revoked));
    }

    fn close_all(&mut self) {
        for sender in self
            .clients
            .values()
            .chain(self.workers.values().map(|worker| &worker.sender))
        {
            sender.close(CloseReason::ShuttingDown);
        }
    }
}

/// Lists of files without number do not fit into a frame; whoever asked is told so instead of waiting.
fn fitting(answer: Answer) -> Answer {
    let long =
        matches!(&answer.reply, Reply::Results(view) if view.files.len() > FILES_SURE_TO_FIT);
    if !long || hedge_net::encode(std::slice::from_ref(&answer)).is_ok() {
        return answer;
    }
    let why = "the results are too many files for one list; let the tasks pack them into fewer";
    Answer {
        id: answer.id,
        reply: no(RefusalKind::Bad, why),
    }
}

fn no(kind: RefusalKind, why: &str) -> Reply {
    Reply::No(Refusal {
        kind,
        why: why.to_owned(),
    })
}
