//! Connections to the other supervisors of the group. This supervisor dials each of them, and sends requests and most
//! messages over the connection that it dialled. What it tells its leader, and its offers of tripwires, go back over
//! the connection that the other one dialled.

use super::core_loop::Input;
use super::membership::GroupRequest;
use crate::pause::Pause;
use bytes::Bytes;
use hedge_model::group::GroupMember;
use hedge_model::group::{FromLeader, ToLeader};
use hedge_model::msg::Role;
use hedge_model::{PeerAddr, PeerId};
use hedge_net::{
    Broken, Caller, CloseReason, Heard, Hearing, Hello, Incoming, Link, LinkSender, Net, NetError,
    Nonce, TcpPort, Tripwire, calls,
};
use hedge_store::{Journal, Transport};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::AbortHandle;

/// A request of the journal.
const KIND_JOURNAL: u8 = 0;
/// A request about the group.
const KIND_GROUP: u8 = 1;
/// Longer requests use a separate connection once it is open, so that no heartbeat waits behind a snapshot; until then
/// they use the usual one.
const BULK_BYTES: usize = 64 << 10;
/// The time limit for an attempt to connect. A running supervisor answers at once, and one that has just restarted
/// must be found soon.
const DIAL_WITHIN: Duration = Duration::from_millis(1500);

/// A message between supervisors without a reply.
#[derive(Serialize, Deserialize)]
enum Note {
    FromLeader(FromLeader),
    ToLeader(ToLeader),
    /// Offers a tripwire to the peer that dialled this connection: it may connect to this TCP port and show this
    /// nonce. The connection then closes at once when a process dies, without waiting for a gap, and is opened again
    /// as soon as the process is back.
    Tripwire {
        port: u16,
        nonce: Nonce,
    },
}

/// Connections to other supervisors; clones share them.
#[derive(Clone)]
pub(crate) struct PeerLinks(Arc<Shared>);

struct Shared {
    net: Net,
    me: PeerId,
    runtime: Handle,
    inputs: mpsc::Sender<Input>,
    /// The secret of the ticket with which this supervisor joins.
    proof: Option<[u8; 16]>,
    journal: OnceLock<Journal>,
    tripwires: OnceLock<TcpPort>,
    peers: Mutex<HashMap<PeerId, Peer>>,
    /// Connections that others dialled and that were open when the last one arrived. Each supervisor dials two.
    admitted: Mutex<Vec<LinkSender>>,
}

struct Peer {
    addr: PeerAddr,
    keeper: AbortHandle,
    caller: Option<Caller>,
    bulk: Bulk,
}

enum Bulk {
    None,
    Dialling,
    Open(Caller),
}

impl Drop for Shared {
    fn drop(&mut self) {
        let peers = self.peers.get_mut().unwrap_or_else(PoisonError::into_inner);
        peers.values().for_each(|peer| peer.keeper.abort());
    }
}

impl PeerLinks {
    /// Creates the table without connections. Their tasks will run on `runtime`.
    pub fn new(
        net: Net,
        runtime: Handle,
        inputs: mpsc::Sender<Input>,
        proof: Option<[u8; 16]>,
    ) -> Self {
        Self(Arc::new(Shared {
            me: net.peer(),
            net,
            runtime,
            inputs,
            proof,
            journal: OnceLock::new(),
            tripwires: OnceLock::new(),
            peers: Mutex::default(),
            admitted: Mutex::default(),
        }))
    }

    /// Sets the journal that answers the journals of others.
    pub fn serve(&self, journal: Journal) {
        _ = self.0.journal.set(journal);
    }

    /// Sets where the others may connect their tripwires.
    pub fn offer(&self, tripwires: Option<TcpPort>) {
        if let Some(tripwires) = tripwires {
            _ = self.0.tripwires.set(tripwires);
        }
    }

    /// Keeps connections to exactly these supervisors.
    pub fn keep(&self, supervisors: &[PeerAddr]) {
        let mut gone = Vec::new();
        self.0.lock().retain(|peer, link| {
            let stays = supervisors.iter().any(|addr| addr.peer == *peer);
            if !stays {
                link.let_go();
                gone.push(*peer);
            }
            stays
        });
        for addr in supervisors {
            self.ensure(addr);
        }
        for peer in gone {
            // The loop itself may be the caller, so this must not wait for the loop's queue.
            if let Err(TrySendError::Full(gone)) = self.0.inputs.try_send(Input::Undialled { peer })
            {
                let inputs = self.0.inputs.clone();
                self.0.runtime.spawn(async move { inputs.send(gone).await });
            }
        }
    }

    /// Keeps a connection to this supervisor too.
    pub fn ensure(&self, addr: &PeerAddr) {
        if addr.peer == self.0.me {
            return;
        }
        let mut peers = self.0.lock();
        if peers
            .get(&addr.peer)
            .is_some_and(|known| known.addr == *addr)
        {
            return;
        }
        let keeper = keep_connected(Arc::downgrade(&self.0), addr.clone());
        let peer = Peer {
            addr: addr.clone(),
            keeper: self.0.runtime.spawn(keeper).abort_handle(),
            caller: None,
            bulk: Bulk::None,
        };
        if let Some(old) = peers.insert(addr.peer, peer) {
            old.let_go();
        }
    }

    /// Closes every connection that a revoked peer dialled.
    pub fn shut_out(&self, peer: PeerId) {
        let mut admitted = self.0.lock_admitted();
        for link in admitted.extract_if(.., |link| link.peer() == peer) {
            link.close(CloseReason::Revoked);
        }
    }

    /// Closes every connection with a worker that has ended.
    pub fn hang_up(&self, worker: PeerId) {
        self.0.net.hang_up(worker);
    }

    /// Returns the addresses at which others can dial this supervisor now.
    pub fn local_addr(&self) -> PeerAddr {
        self.0.net.local_addr()
    }

    /// Uses these relays from now on.
    pub fn use_relays(&self, relays: Vec<PeerAddr>) {
        let net = self.0.net.clone();
        let setting = async move { net.set_relays(&relays).await };
        self.0.runtime.spawn(setting);
    }

    /// Returns the supervisors that this one is connected to.
    pub fn open(&self) -> Vec<PeerId> {
        let peers = self.0.lock();
        let open = peers.iter().filter(|(_, peer)| peer.caller.is_some());
        open.map(|(peer, _)| *peer).collect()
    }

    /// Sends another supervisor a message as its leader. Without a connection the message is dropped.
    pub fn tell(&self, to: PeerId, msg: FromLeader) {
        self.note(to, Note::FromLeader(msg));
    }

    /// Sends the leader a message, over the connection that it dialled if that is known, otherwise over the own one.
    pub fn tell_leader(&self, to: PeerId, over: Option<&Caller>, msg: ToLeader) {
        match over {
            Some(caller) => say(caller, &Note::ToLeader(msg)),
            None => self.note(to, Note::ToLeader(msg)),
        }
    }

    fn note(&self, to: PeerId, note: Note) {
        let caller = self.0.lock().get(&to).and_then(|peer| peer.caller.clone());
        if let Some(caller) = caller {
            say(&caller, &note);
        }
    }

    /// Sends another supervisor a request about the group and returns the reply.
    pub async fn ask(
        &self,
        to: PeerId,
        request: &GroupRequest,
        within: Duration,
    ) -> io::Result<Bytes> {
        let caller = self.0.lock().get(&to).and_then(|peer| peer.caller.clone());
        let caller = caller.ok_or(io::ErrorKind::NotConnected)?;
        let request = postcard::to_stdvec(request).map_err(io::Error::other)?;
        let answer = caller.call(KIND_GROUP, request.into(), within).await;
        answer.map_err(io::Error::other)
    }

    /// Admits a supervisor that dialled this one, and serves its connection until it closes.
    pub fn admit(&self, incoming: Incoming, welcome: Vec<u8>) {
        let shared = self.0.clone();
        // On the transport's thread, so that the journal's heartbeats wait for nothing else.
        self.0.runtime.spawn(async move {
            let peer = incoming.peer;
            let Ok(link) = incoming.accept(&welcome).await else {
                return;
            };
            tracing::info!(peer = %peer.short(), "another supervisor is connected");
            let (caller, hearing) = calls(link);
            shared.note_admitted(caller.link());
            shared.offer_tripwire(&caller);
            let here = caller.clone();
            let known = Input::PeerSupervisor { peer, caller };
            if shared.inputs.send(known).await.is_ok() {
                shared.hear(&here, hearing).await;
            }
        });
    }
}

impl Transport for PeerLinks {
    async fn call(&self, to: &GroupMember, request: Bytes, limit: Duration) -> io::Result<Bytes> {
        let caller = self.0.caller(&to.peer, request.len() > BULK_BYTES);
        let Some(caller) = caller else {
            // If it is dialled already, the known address may be newer than this one.
            if !self.0.lock().contains_key(&to.peer.peer) {
                self.ensure(&to.peer);
            }
            return Err(io::ErrorKind::NotConnected.into());
        };
        let answer = caller.call(KIND_JOURNAL, request, limit).await;
        answer.map_err(|error| match error {
            NetError::NoAnswer { .. } => io::Error::new(io::ErrorKind::TimedOut, error),
            error => io::Error::other(error),
        })
    }
}

fn say(caller: &Caller, note: &Note) {
    let sent = postcard::to_stdvec(note)
        .map_err(|error| error.to_string())
        .and_then(|note| caller.note(note.into()).map_err(|error| error.to_string()));
    if let Err(error) = sent {
        // On the next connection each side repeats what the other has to know.
        tracing::warn!(peer = %caller.peer().short(), %error, "a supervisor does not keep up; disconnected");
        caller.link().close(CloseReason::Lost);
    }
}

impl Peer {
    /// Closes the connections and stops dialling. The peer's tripwire beside them would keep them open.
    fn let_go(&self) {
        self.keeper.abort();
        let bulk = match &self.bulk {
            Bulk::Open(bulk) => Some(bulk),
            Bulk::None | Bulk::Dialling => None,
        };
        for caller in self.caller.iter().chain(bulk) {
            caller.link().close(CloseReason::Done);
        }
    }
}

impl Shared {
    fn lock_admitted(&self) -> MutexGuard<'_, Vec<LinkSender>> {
        self.admitted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_admitted(&self, link: &LinkSender) {
        let mut admitted = self.lock_admitted();
        admitted.retain(|link| !link.is_closed());
        admitted.push(link.clone());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PeerId, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn caller(self: &Arc<Self>, to: &PeerAddr, long: bool) -> Option<Caller> {
        let mut peers = self.lock();
        let peer = peers.get_mut(&to.peer)?;
        let caller = peer.caller.clone()?;
        if !long {
            return Some(caller);
        }
        match &peer.bulk {
            Bulk::Open(bulk) if !bulk.link().is_closed() => return Some(bulk.clone()),
            Bulk::Dialling => {}
            Bulk::None | Bulk::Open(_) => {
                peer.bulk = Bulk::Dialling;
                let dialled = dial_bulk(self.clone(), peer.addr.clone());
                self.runtime.spawn(dialled);
            }
        }
        Some(caller)
    }

    async fn dial(&self, addr: &PeerAddr) -> Result<Link, NetError> {
        let hello = Hello {
            role: Role::Supervisor,
            proof: self.proof,
            payload: Vec::new(),
        };
        let dialled = tokio::time::timeout(DIAL_WITHIN, self.net.connect(addr, &hello)).await;
        let within = DIAL_WITHIN;
        dialled
            .unwrap_or(Err(NetError::NoAnswer { within }))
            .map(|(link, _)| link)
    }

    /// Lets the peer that dialled a connection connect a tripwire beside it.
    fn offer_tripwire(self: &Arc<Self>, caller: &Caller) {
        let mut nonce = Nonce::default();
        let Some(tripwires) = self.tripwires.get() else {
            return;
        };
        if getrandom::fill(&mut nonce).is_err() {
            return;
        }
        let expected = tripwires.expect(nonce);
        let port = tripwires.port();
        say(caller, &Note::Tripwire { port, nonce });
        let (links, caller) = (self.clone(), caller.clone());
        self.runtime.spawn(async move {
            if let Some(tripwire) = expected.await {
                links.watch_tripwire(caller, tripwire).await;
            }
        });
    }

    /// Connects a tripwire beside a connection.
    async fn hold_tripwire(self: Arc<Self>, caller: Caller, port: u16, nonce: Nonce) {
        let ips = caller.link().remote_addrs();
        let ips = ips.into_iter().map(|addr| addr.ip());
        match Tripwire::connect(ips, port, nonce).await {
            Ok(tripwire) => self.watch_tripwire(caller, tripwire).await,
            Err(error) => tracing::debug!(%error, "no tripwire to another supervisor"),
        }
    }

    /// Waits until the process at the other end of a connection has ended, or the connection closes. If this process lives
    /// on then, it says so to the other end, which would else replace it as leader.
    async fn watch_tripwire(&self, caller: Caller, mut tripwire: Tripwire) {
        let broken = tokio::select! {
            broken = tripwire.broken() => broken,
            why = caller.link().closed() => match why {
                CloseReason::Done | CloseReason::ShuttingDown => return,
                _ => return tripwire.let_go().await,
            },
        };
        match broken {
            Broken::Died => self.ended(&caller),
            Broken::LetGo => caller.link().close(CloseReason::Lost),
        }
    }

    /// Handles the end of another supervisor's process.
    fn ended(&self, caller: &Caller) {
        let peer = caller.peer();
        caller.link().close(CloseReason::Lost);
        if let Some(known) = self.lock().get_mut(&peer)
            && let Bulk::Open(bulk) = std::mem::replace(&mut known.bulk, Bulk::None)
        {
            bulk.link().close(CloseReason::Lost);
        }
        if let Some(journal) = self.journal.get() {
            journal.ended(peer);
        }
    }

    /// Receives messages on a connection, whichever side dialled it, until it closes.
    async fn hear(self: &Arc<Self>, caller: &Caller, mut hearing: Hearing) {
        let peer = caller.peer();
        while let Ok(heard) = hearing.next().await {
            let input = match heard {
                Heard::Call(call) if call.kind == KIND_JOURNAL => {
                    if let Some(journal) = self.journal.get().cloned() {
                        tokio::spawn(async move {
                            let answer = journal.answer(peer, call.request.clone()).await;
                            _ = call.answer(answer).await;
                        });
                    }
                    continue;
                }
                Heard::Call(call) => match postcard::from_bytes(&call.request) {
                    Ok(request) if call.kind == KIND_GROUP => {
                        Input::GroupRequest(peer, request, call)
                    }
                    _ => continue,
                },
                Heard::Note(note) => match postcard::from_bytes(&note) {
                    Ok(Note::FromLeader(msg)) => Input::FromLeader { peer, msg },
                    Ok(Note::ToLeader(msg)) => Input::ToLeader { peer, msg },
                    Ok(Note::Tripwire { port, nonce }) => {
                        let held = self.clone().hold_tripwire(caller.clone(), port, nonce);
                        self.runtime.spawn(held);
                        continue;
                    }
                    Err(_) => continue,
                },
            };
            if self.inputs.send(input).await.is_err() {
                return;
            }
        }
    }
}

async fn dial_bulk(shared: Arc<Shared>, addr: PeerAddr) {
    let link = shared.dial(&addr).await;
    let (bulk, hearing) = match link {
        Ok(link) => {
            let (caller, hearing) = calls(link);
            (Bulk::Open(caller.clone()), Some((caller, hearing)))
        }
        Err(_) => (Bulk::None, None),
    };
    match shared.lock().get_mut(&addr.peer) {
        Some(peer) => peer.bulk = bulk,
        // The supervisor was dropped meanwhile.
        None => return,
    }
    if let Some((caller, hearing)) = hearing {
        shared.hear(&caller, hearing).await;
    }
}

/// Dials a supervisor again and again until the table or this task ends.
async fn keep_connected(shared: std::sync::Weak<Shared>, addr: PeerAddr) {
    let mut pause = Pause::new();
    loop {
        let Some(links) = shared.upgrade() else {
            return;
        };
        match links.dial(&addr).await {
            Ok(link) => {
                pause = Pause::new();
                let (caller, hearing) = calls(link);
                if let Some(peer) = links.lock().get_mut(&addr.peer) {
                    peer.caller = Some(caller.clone());
                }
                let peer = addr.peer;
                if links.inputs.send(Input::Dialled { peer }).await.is_err() {
                    return;
                }
                links.hear(&caller, hearing).await;
                if let Some(peer) = links.lock().get_mut(&peer) {
                    peer.caller = None;
                }
                if links.inputs.send(Input::Undialled { peer }).await.is_err() {
                    return;
                }
            }
            Err(NetError::Redirected { supervisors }) => {
                let redirected = Input::Redirected(supervisors);
                if links.inputs.send(redirected).await.is_err() {
                    return;
                }
            }
            Err(NetError::Closed(reason)) if !reason.may_retry() => {
                let rejected = Input::Rejected {
                    by: addr.peer,
                    reason,
                };
                if links.inputs.send(rejected).await.is_err() {
                    return;
                }
                pause.longest();
            }
            Err(error) => {
                tracing::debug!(peer = %addr.peer.short(), %error, "a supervisor does not answer");
            }
        }
        drop(links);
        pause.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_net::{NetConfig, SecretKey};
    use std::net::{Ipv4Addr, SocketAddr};

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn net() -> Net {
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = NetConfig::new(SecretKey::generate(), here);
        Net::bind(config).await.unwrap()
    }

    /// Dials, and is admitted.
    async fn link(from: &Net, to: &Net, links: &PeerLinks) -> Link {
        let hello = Hello {
            role: Role::Supervisor,
            proof: None,
            payload: Vec::new(),
        };
        let addr = to.local_addr();
        let (dialled, ()) = tokio::join!(from.connect(&addr, &hello), async {
            links.admit(to.accept().await.unwrap(), Vec::new());
        });
        dialled.unwrap().0
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_link_that_one_that_is_shut_out_dialled_ends() {
        let (here, out, other) = (net().await, net().await, net().await);
        let (inputs, mut queue) = mpsc::channel(16);
        let links = PeerLinks::new(here.clone(), Handle::current(), inputs, None);
        let theirs = [
            link(&out, &here, &links).await,
            link(&out, &here, &links).await,
        ];
        let stays = link(&other, &here, &links).await;
        for _ in 0..3 {
            let heard = tokio::time::timeout(PATIENCE, queue.recv()).await;
            assert!(matches!(heard, Ok(Some(Input::PeerSupervisor { .. }))));
        }
        links.shut_out(out.peer());
        for link in theirs {
            let ended = tokio::time::timeout(PATIENCE, link.sender.closed()).await;
            assert_eq!(ended.unwrap(), CloseReason::Revoked);
        }
        assert!(!stays.sender.is_closed());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_link_to_a_dropped_peer_ends_on_both_sides() {
        let (here, gone) = (net().await, net().await);
        let (inputs, mut queue) = mpsc::channel(16);
        let links = PeerLinks::new(here.clone(), Handle::current(), inputs, None);
        links.keep(&[gone.local_addr()]);
        let incoming = gone.accept().await.unwrap();
        let dialled = incoming.accept(&[]).await.unwrap();
        let heard = tokio::time::timeout(PATIENCE, queue.recv()).await;
        assert!(matches!(heard, Ok(Some(Input::Dialled { .. }))));
        // As a tripwire beside it does.
        let held = links.0.caller(&gone.local_addr(), false).unwrap();
        links.keep(&[]);
        let ended = tokio::time::timeout(PATIENCE, dialled.sender.closed()).await;
        assert_eq!(ended.unwrap(), CloseReason::Done);
        assert!(held.link().is_closed());
    }
}
