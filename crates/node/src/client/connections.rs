//! A client's connections to all supervisors of the grid. Requests go to the leader. A request that was not answered
//! is repeated to the next leader.

use crate::ClientError;
use crate::known::{Known, moved};
use crate::pause::Pause;
use hedge_model::msg::{Answer, Ask, RefusalKind, Reply, Request, Welcome};
use hedge_model::{Epoch, PeerAddr, PeerId};
use hedge_net::{CloseReason, Hello, Link, LinkReceiver, LinkSender, Net, NetError};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Watch updates of one job that a slow watcher may leave unread. Further ones are dropped, but never the last.
pub(super) const NEWS_MAX: usize = 64;
/// The most supervisors that are dialled.
const SUPERVISORS_MAX: usize = 32;
/// How long a request or a connecting client waits for a leader: longer than an election, as long as a restart.
const PATIENCE: Duration = Duration::from_secs(8);
/// The longest delay before a request is tried again. A change of the connections ends it early.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Connections to all supervisors. They close when this is dropped.
#[derive(Debug)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    net: Net,
    hello: Hello,
    known: Known,
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    keepers: HashMap<PeerId, (PeerAddr, AbortHandle)>,
    open: HashMap<PeerId, Connection>,
    leader: Option<PeerId>,
    /// The highest epoch in which a supervisor claimed to lead.
    epoch: Epoch,
    /// Why the last attempt to reach each supervisor failed.
    failed: HashMap<PeerId, Failed>,
    /// Why the last connection closed.
    ended: Option<CloseReason>,
}

#[derive(Clone, Debug)]
enum Failed {
    Rejected(CloseReason),
    /// It answers but cannot admit this client, because it does not lead.
    Follows,
    Unreachable(String),
}

/// An open connection to one supervisor.
#[derive(Clone, Debug)]
pub(super) struct Connection {
    sender: LinkSender,
    answers: Arc<Mutex<Waiting>>,
    /// The list of supervisors that it sent last.
    supervisors: Arc<Mutex<Vec<PeerAddr>>>,
}

/// The pending requests of a connection.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    asked: HashMap<u64, mpsc::Sender<Reply>>,
    closed: bool,
}

impl Drop for Connections {
    fn drop(&mut self) {
        let state = self.0.lock();
        state
            .keepers
            .values()
            .for_each(|(_, keeper)| keeper.abort());
    }
}

impl Connections {
    /// Dials all known supervisors and those that they name. Returns once the first admits this client, or if none
    /// does.
    pub async fn connect(net: Net, hello: Hello, known: Known) -> Result<Self, ClientError> {
        let supervisors = known.load();
        let connections = Self(Arc::new(Shared {
            net,
            hello,
            known,
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        }));
        if supervisors.is_empty() {
            let why = "the ticket names no supervisor".to_owned();
            return Err(ClientError::Unreachable(why));
        }
        connections.0.learn(&supervisors);
        let mut changes = connections.0.changed.subscribe();
        let deadline = Self::patience();
        loop {
            {
                let state = connections.0.lock();
                if !state.open.is_empty() {
                    break;
                }
                if let Some(error) = state.hopeless() {
                    return Err(error);
                }
                if state.all_failed() && Instant::now() >= deadline {
                    return Err(state.nobody_leads());
                }
            }
            // Cannot fail: the sender is in `connections`.
            _ = tokio::time::timeout(ASK_AGAIN, changes.changed()).await;
        }
        Ok(connections)
    }

    /// Sends a request to the leader and returns the reply. Repeats the request if the leader fails or stops leading
    /// before it replies.
    pub async fn ask(&self, request: Request) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (connection, mut answers) = self.open(&request, deadline).await?;
            match answers.recv().await {
                Some(Reply::No(refusal)) if refusal.kind == RefusalKind::NotLeading => {
                    self.leads_no_longer(&connection);
                }
                Some(reply) => return Ok(reply),
                None => {}
            }
            // A reply may take any time. Only after that does the limit apply again.
            if Instant::now() >= deadline {
                return self.ask_once_more(request).await;
            }
        }
    }

    async fn ask_once_more(&self, request: Request) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        let (_, mut answers) = self.open(&request, deadline).await?;
        let lost = || self.0.lock().nobody_leads();
        answers.recv().await.ok_or_else(lost)
    }

    /// Sends a request to the leader and returns the channel of its replies. The channel closes with the connection
    /// or the leadership.
    pub async fn open(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<(Connection, mpsc::Receiver<Reply>), ClientError> {
        let mut changes = self.0.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let connection = self.0.lock().leader();
            if let Some(connection) = connection
                && let Some(answers) = connection.ask(request).await?
            {
                return Ok((connection, answers));
            }
            {
                let state = self.0.lock();
                if state.open.is_empty()
                    && let Some(error @ ClientError::NotAllowed(_)) = state.hopeless()
                {
                    return Err(error);
                }
                if Instant::now() >= deadline {
                    return Err(state.nobody_leads());
                }
            }
            _ = tokio::time::timeout(ASK_AGAIN, changes.changed()).await;
        }
    }

    /// Returns when a request that is sent now stops waiting for a leader.
    pub fn patience() -> Instant {
        Instant::now() + PATIENCE
    }

    /// Records that a supervisor said that it no longer leads.
    pub fn leads_no_longer(&self, connection: &Connection) {
        let mut state = self.0.lock();
        let peer = connection.sender.peer();
        let same = |open: &Connection| Arc::ptr_eq(&open.answers, &connection.answers);
        if state.leader == Some(peer) && state.open.get(&peer).is_none_or(same) {
            state.leader = None;
        }
        drop(state);
        self.0.tell();
    }

    /// The supervisor that leads, where that is known.
    pub fn leads(&self) -> Option<PeerId> {
        self.0.lock().leader
    }

    /// Returns the supervisors that are dialled.
    pub fn supervisors(&self) -> Vec<PeerId> {
        self.0.lock().keepers.keys().copied().collect()
    }

    /// Closes all connections gracefully.
    pub fn close(&self) {
        let state = self.0.lock();
        state
            .keepers
            .values()
            .for_each(|(_, keeper)| keeper.abort());
        for connection in state.open.values() {
            connection.sender.close(CloseReason::Done);
        }
    }
}

impl State {
    fn leader(&self) -> Option<Connection> {
        let connection = self.open.get(&self.leader?)?;
        (!connection.sender.is_closed()).then(|| connection.clone())
    }

    /// Returns whether every supervisor was tried without success.
    fn all_failed(&self) -> bool {
        let mut all = self.keepers.keys();
        all.all(|peer| self.failed.contains_key(peer))
    }

    /// Returns how many supervisors answer.
    fn answering(&self) -> usize {
        let follow = |failed: &&Failed| matches!(failed, Failed::Follows);
        self.open.len() + self.failed.values().filter(follow).count()
    }

    /// Returns why no supervisor can be reached, once each was tried. None while a follower answers, because another
    /// supervisor may lead soon.
    fn hopeless(&self) -> Option<ClientError> {
        if !self.all_failed() {
            return None;
        }
        let mut why = None;
        for failed in self.failed.values() {
            match failed {
                Failed::Follows => return None,
                Failed::Rejected(reason) => {
                    return Some(ClientError::NotAllowed(format!("not let in: {reason}")));
                }
                Failed::Unreachable(error) => why = Some(error.clone()),
            }
        }
        Some(ClientError::Unreachable(why?))
    }

    fn nobody_leads(&self) -> ClientError {
        let (answering, all) = (self.answering(), self.keepers.len());
        let why = match self.ended {
            _ if answering > 0 => format!(
                "none of the grid's {all} supervisors leads; {answering} can be reached, and most of them must run; \
                 what was accepted is kept"
            ),
            Some(reason) => format!(
                "the connection to the supervisor ended: {reason}; what was accepted goes on there"
            ),
            None => match self.hopeless() {
                Some(error) => return error,
                None => "no supervisor answers".to_owned(),
            },
        };
        ClientError::Unreachable(why)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    /// Keeps connections to exactly these supervisors, as the leader says, and to the leader itself, which may be
    /// about to leave the group.
    fn keep(self: &Arc<Self>, supervisors: &[PeerAddr], leader: PeerId) {
        if supervisors.is_empty() {
            return;
        }
        self.known.save(supervisors);
        let mut state = self.lock();
        let gone: Vec<PeerId> = state
            .keepers
            .keys()
            .filter(|peer| **peer != leader && !supervisors.iter().any(|addr| addr.peer == **peer))
            .copied()
            .collect();
        for peer in gone {
            if let Some((_, keeper)) = state.keepers.remove(&peer) {
                keeper.abort();
            }
            if let Some(connection) = state.open.remove(&peer) {
                connection.give_up();
            }
            state.failed.remove(&peer);
        }
        drop(state);
        self.learn_from(leader, supervisors);
    }

    /// Learns of further supervisors from a connected one, whose own address is known already.
    fn learn_from(self: &Arc<Self>, peer: PeerId, supervisors: &[PeerAddr]) {
        let others = supervisors.iter().filter(|addr| addr.peer != peer);
        let others: Vec<PeerAddr> = others.cloned().collect();
        self.learn(&others);
    }

    /// Adds supervisors: dials new ones, and known ones at new addresses.
    fn learn(self: &Arc<Self>, supervisors: &[PeerAddr]) {
        let mut state = self.lock();
        for addr in supervisors {
            let addr = match state.keepers.get(&addr.peer) {
                None if state.keepers.len() >= SUPERVISORS_MAX => continue,
                None => addr.clone(),
                Some((known, old)) => match moved(known, addr) {
                    None => continue,
                    Some(addr) => {
                        old.abort();
                        addr
                    }
                },
            };
            if let Some(connection) = state.open.remove(&addr.peer) {
                connection.give_up();
            }
            state.failed.remove(&addr.peer);
            let keeper = self.clone().keep_connected(addr.clone());
            let keeper = tokio::spawn(keeper).abort_handle();
            state.keepers.insert(addr.peer, (addr, keeper));
        }
    }

    async fn keep_connected(self: Arc<Self>, addr: PeerAddr) {
        let mut pause = Pause::new();
        loop {
            match self.net.connect(&addr, &self.hello).await {
                Ok((link, welcome)) => {
                    pause = Pause::new();
                    self.serve(link, &welcome).await;
                }
                Err(NetError::Redirected { supervisors }) => {
                    self.learn(&supervisors);
                    self.failed(addr.peer, Failed::Follows);
                }
                Err(NetError::Closed(CloseReason::NotLeader)) => {
                    self.failed(addr.peer, Failed::Follows);
                }
                Err(NetError::Closed(reason)) if !reason.may_retry() => {
                    self.failed(addr.peer, Failed::Rejected(reason));
                    pause.longest();
                }
                Err(error) => {
                    self.failed(addr.peer, Failed::Unreachable(error.to_string()));
                }
            }
            pause.wait().await;
        }
    }

    fn failed(&self, peer: PeerId, why: Failed) {
        self.lock().failed.insert(peer, why);
        self.tell();
    }

    /// Distributes replies until the connection closes.
    async fn serve(self: &Arc<Self>, link: Link, welcome: &[u8]) {
        let peer = link.sender.peer();
        let connection = Connection {
            sender: link.sender,
            answers: Arc::default(),
            supervisors: Arc::default(),
        };
        {
            let mut state = self.lock();
            state.failed.remove(&peer);
            state.open.insert(peer, connection.clone());
        }
        if let Ok(welcome) = postcard::from_bytes::<Welcome>(welcome) {
            self.heard_of(&connection, welcome.supervisors);
            if !welcome.relays.is_empty() {
                self.use_relays(peer, &welcome.relays).await;
            }
        }
        self.tell();
        let reason = self.hand_out(link.receiver, &connection).await;
        connection.give_up();
        {
            let mut state = self.lock();
            state.ended = Some(reason);
            // A supervisor that rejects this client will not admit it later.
            if !reason.may_retry() {
                state.failed.insert(peer, Failed::Rejected(reason));
            }
            state.open.remove(&peer);
            if state.leader == Some(peer) {
                state.leader = None;
            }
        }
        self.tell();
    }

    async fn hand_out(
        self: &Arc<Self>,
        mut receiver: LinkReceiver,
        connection: &Connection,
    ) -> CloseReason {
        loop {
            match receiver.recv::<Answer>().await {
                Ok(batch) => {
                    for Answer { id, reply } in batch {
                        match reply {
                            Reply::Lead(epoch) => self.led_by(connection, epoch),
                            Reply::Supervisors(all) => self.heard_of(connection, all),
                            Reply::Relays(all) => {
                                self.use_relays(connection.sender.peer(), &all).await
                            }
                            reply => connection.answer(id, reply).await,
                        }
                    }
                }
                Err(NetError::Closed(reason)) => return reason,
                Err(_) => return CloseReason::Malformed,
            }
        }
    }

    /// Handles a supervisor's claim to lead: requests that are pending elsewhere are repeated there.
    fn led_by(self: &Arc<Self>, connection: &Connection, epoch: Epoch) {
        let peer = connection.sender.peer();
        {
            let mut state = self.lock();
            if epoch < state.epoch {
                return;
            }
            state.epoch = epoch;
            state.leader = Some(peer);
            for (other, connection) in &state.open {
                if *other != peer {
                    connection.forget_all();
                }
            }
        }
        let supervisors = connection.said_supervisors().clone();
        self.keep(&supervisors, peer);
        self.tell();
    }

    async fn use_relays(&self, from: PeerId, relays: &[PeerAddr]) {
        if self.lock().leader.is_none_or(|leader| leader == from) {
            self.known.save_relays(relays);
            self.net.set_relays(relays).await;
        }
    }

    /// The leader's list of supervisors replaces the known one. While no leader is known, other lists are added,
    /// because they may lack removals.
    fn heard_of(self: &Arc<Self>, connection: &Connection, supervisors: Vec<PeerAddr>) {
        let peer = connection.sender.peer();
        connection.said_supervisors().clone_from(&supervisors);
        let leader = self.lock().leader;
        match leader {
            None => self.learn_from(peer, &supervisors),
            Some(leader) if leader == peer => self.keep(&supervisors, leader),
            Some(_) => {}
        }
    }
}

impl Connection {
    /// Sends a request. Returns none if the connection has closed.
    async fn ask(&self, request: &Request) -> Result<Option<mpsc::Receiver<Reply>>, ClientError> {
        let (sender, replies) = mpsc::channel(NEWS_MAX);
        let id = {
            let mut waiting = self.lock();
            waiting.last += 1;
            waiting.last
        };
        let ask = Ask {
            id,
            request: request.clone(),
        };
        let frame = hedge_net::encode(&[ask]);
        let frame = frame.map_err(|error| ClientError::Local(error.to_string()))?;
        {
            let mut waiting = self.lock();
            if waiting.closed {
                return Ok(None);
            }
            waiting.asked.insert(id, sender);
        }
        Ok(self.sender.send(frame).await.is_ok().then_some(replies))
    }

    async fn answer(&self, id: u64, reply: Reply) {
        let over = !matches!(&reply, Reply::Job(view) if !view.state.ended());
        let reply_to = self.lock().asked.get(&id).cloned();
        let Some(reply_to) = reply_to else { return };
        // A slow watcher may miss updates, but never the last.
        let sent = if over {
            reply_to.send(reply).await.is_ok()
        } else {
            reply_to.try_send(reply).is_ok()
        };
        if over || (!sent && reply_to.is_closed()) {
            self.lock().asked.remove(&id);
        }
    }

    fn forget_all(&self) {
        self.lock().asked.clear();
    }

    fn give_up(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.asked.clear();
    }

    fn said_supervisors(&self) -> MutexGuard<'_, Vec<PeerAddr>> {
        let said = self.supervisors.lock();
        said.unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
