//! A client's connections: one to every supervisor of the grid. It asks the one that leads, and asks the next
//! one again what the last has not answered.

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

/// News of one job that a slow watcher may leave unread; the end is never lost.
pub(super) const NEWS_MAX: usize = 64;
/// Supervisors that are dialled.
const SUPERVISORS_MAX: usize = 32;
/// How long a question, or a peer that wants in, waits for a supervisor that leads: longer than an election, as long
/// as a restart.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two attempts to ask; what has changed meanwhile ends it early.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Connections to all supervisors; they end with it.
#[derive(Debug)]
pub(super) struct Lines(Arc<Shared>);

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
    open: HashMap<PeerId, Line>,
    leader: Option<PeerId>,
    /// The highest in which a supervisor said that it leads.
    epoch: Epoch,
    /// Why the last attempt to reach each came to nothing.
    failed: HashMap<PeerId, Failed>,
    /// Why the last connection ended.
    ended: Option<CloseReason>,
}

#[derive(Clone, Debug)]
enum Failed {
    Rejected(CloseReason),
    /// It answers and cannot let this client in, because it does not lead.
    Follows,
    Unreachable(String),
}

/// An open connection to one supervisor.
#[derive(Clone, Debug)]
pub(super) struct Line {
    sender: LinkSender,
    answers: Arc<Mutex<Waiting>>,
    /// Who the supervisors are, as it said last.
    supervisors: Arc<Mutex<Vec<PeerAddr>>>,
}

/// Who waits for which answers.
#[derive(Debug, Default)]
struct Waiting {
    last: u64,
    asked: HashMap<u64, mpsc::Sender<Reply>>,
    closed: bool,
}

impl Drop for Lines {
    fn drop(&mut self) {
        let state = self.0.lock();
        state
            .keepers
            .values()
            .for_each(|(_, keeper)| keeper.abort());
    }
}

impl Lines {
    /// Dials all supervisors that are known, and those that they name; returns when the first lets this client in,
    /// or none does.
    pub async fn connect(net: Net, hello: Hello, known: Known) -> Result<Self, ClientError> {
        let supervisors = known.load();
        let lines = Self(Arc::new(Shared {
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
        lines.0.learn(&supervisors);
        let mut changes = lines.0.changed.subscribe();
        let deadline = Self::patience();
        loop {
            {
                let state = lines.0.lock();
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
            // Cannot fail: the sender is in `lines`.
            _ = tokio::time::timeout(ASK_AGAIN, changes.changed()).await;
        }
        Ok(lines)
    }

    /// Asks the leader; over again where that one ends or leads no longer before it has answered.
    pub async fn ask(&self, request: Request) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (line, mut answers) = self.open(&request, deadline).await?;
            match answers.recv().await {
                Some(Reply::No(refusal)) if refusal.kind == RefusalKind::NotLeading => {
                    self.leads_no_longer(&line);
                }
                Some(reply) => return Ok(reply),
                None => {}
            }
            // An answer may take as long as it likes; only then is there a limit again.
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

    /// Asks the leader, and gives the way of the answers; they end where the connection or the lead does.
    pub async fn open(
        &self,
        request: &Request,
        deadline: Instant,
    ) -> Result<(Line, mpsc::Receiver<Reply>), ClientError> {
        let mut changes = self.0.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let line = self.0.lock().leader();
            if let Some(line) = line
                && let Some(answers) = line.ask(request).await?
            {
                return Ok((line, answers));
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

    /// When a question that is asked now stops waiting for a leader.
    pub fn patience() -> Instant {
        Instant::now() + PATIENCE
    }

    /// A supervisor that was asked says so.
    pub fn leads_no_longer(&self, line: &Line) {
        let mut state = self.0.lock();
        let peer = line.sender.peer();
        let same = |open: &Line| Arc::ptr_eq(&open.answers, &line.answers);
        if state.leader == Some(peer) && state.open.get(&peer).is_none_or(same) {
            state.leader = None;
        }
        drop(state);
        self.0.tell();
    }

    /// Supervisors that were told last.
    pub fn supervisors(&self) -> Vec<PeerId> {
        self.0.lock().keepers.keys().copied().collect()
    }

    /// Ends all connections in order.
    pub fn close(&self) {
        let state = self.0.lock();
        state
            .keepers
            .values()
            .for_each(|(_, keeper)| keeper.abort());
        for line in state.open.values() {
            line.sender.close(CloseReason::Done);
        }
    }
}

impl State {
    fn leader(&self) -> Option<Line> {
        let line = self.open.get(&self.leader?)?;
        (!line.sender.is_closed()).then(|| line.clone())
    }

    /// Whether each supervisor was tried without success.
    fn all_failed(&self) -> bool {
        let mut all = self.keepers.keys();
        all.all(|peer| self.failed.contains_key(peer))
    }

    /// How many supervisors answer.
    fn answering(&self) -> usize {
        let follow = |failed: &&Failed| matches!(failed, Failed::Follows);
        self.open.len() + self.failed.values().filter(follow).count()
    }

    /// Why no supervisor can be reached, once each of them was tried. While one follows, another may lead soon.
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

    /// The supervisors are these, as the one that leads says: others are let go, but for that one itself, which may
    /// be on its way out of the group.
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
            if let Some(line) = state.open.remove(&peer) {
                line.give_up();
            }
            state.failed.remove(&peer);
        }
        drop(state);
        self.learn_from(leader, supervisors);
    }

    /// What one that is connected says of the others; at which address it answers is known.
    fn learn_from(self: &Arc<Self>, peer: PeerId, supervisors: &[PeerAddr]) {
        let others = supervisors.iter().filter(|addr| addr.peer != peer);
        let others: Vec<PeerAddr> = others.cloned().collect();
        self.learn(&others);
    }

    /// These are supervisors too: those that are new are dialled, and all at addresses that are new.
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
            if let Some(line) = state.open.remove(&addr.peer) {
                line.give_up();
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

    /// Hands out answers until the connection ends.
    async fn serve(self: &Arc<Self>, link: Link, welcome: &[u8]) {
        let peer = link.sender.peer();
        let line = Line {
            sender: link.sender,
            answers: Arc::default(),
            supervisors: Arc::default(),
        };
        {
            let mut state = self.lock();
            state.failed.remove(&peer);
            state.open.insert(peer, line.clone());
        }
        if let Ok(welcome) = postcard::from_bytes::<Welcome>(welcome) {
            self.heard_of(&line, welcome.supervisors);
            if !welcome.relays.is_empty() {
                self.use_relays(peer, &welcome.relays).await;
            }
        }
        self.tell();
        let reason = self.hand_out(link.receiver, &line).await;
        line.give_up();
        {
            let mut state = self.lock();
            state.ended = Some(reason);
            // Nothing more is to be expected from one that shut this client out.
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

    async fn hand_out(self: &Arc<Self>, mut receiver: LinkReceiver, line: &Line) -> CloseReason {
        loop {
            match receiver.recv::<Answer>().await {
                Ok(batch) => {
                    for Answer { id, reply } in batch {
                        match reply {
                            Reply::Lead(epoch) => self.led_by(line, epoch),
                            Reply::Supervisors(all) => self.heard_of(line, all),
                            Reply::Relays(all) => self.use_relays(line.sender.peer(), &all).await,
                            reply => line.answer(id, reply).await,
                        }
                    }
                }
                Err(NetError::Closed(reason)) => return reason,
                Err(_) => return CloseReason::Malformed,
            }
        }
    }

    /// A supervisor says that it leads: what is open elsewhere is to be asked there.
    fn led_by(self: &Arc<Self>, line: &Line, epoch: Epoch) {
        let peer = line.sender.peer();
        {
            let mut state = self.lock();
            if epoch < state.epoch {
                return;
            }
            state.epoch = epoch;
            state.leader = Some(peer);
            for (other, line) in &state.open {
                if *other != peer {
                    line.forget_all();
                }
            }
        }
        let supervisors = line.said_supervisors().clone();
        self.keep(&supervisors, peer);
        self.tell();
    }

    async fn use_relays(&self, from: PeerId, relays: &[PeerAddr]) {
        if self.lock().leader.is_none_or(|leader| leader == from) {
            self.known.save_relays(relays);
            self.net.set_relays(relays).await;
        }
    }

    /// The one that leads is right about who the supervisors are. Another may be wrong about who is none any more,
    /// and what it says is added.
    fn heard_of(self: &Arc<Self>, line: &Line, supervisors: Vec<PeerAddr>) {
        let peer = line.sender.peer();
        line.said_supervisors().clone_from(&supervisors);
        let leader = self.lock().leader;
        match leader {
            None => self.learn_from(peer, &supervisors),
            Some(leader) if leader == peer => self.keep(&supervisors, leader),
            Some(_) => {}
        }
    }
}

impl Line {
    /// Sends a question; nothing where the connection has ended.
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
        // News may be missed by one who is behind; the end may not.
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
