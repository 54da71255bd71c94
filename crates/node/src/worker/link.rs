//! The worker's connections: one to every supervisor of the grid, dialled again with jittered backoff while the
//! worker lives. The worker attaches to the leader; the other connections are ready for when the leader fails.

use super::Input;
use super::heartbeats::HeartbeatSender;
use crate::frames::send;
use crate::known::{Known, moved};
use crate::pause::Pause;
use hedge_model::msg::{FromWorker, Role, StatusRequest, ToWorker, Welcome};
use hedge_model::{PeerAddr, PeerId};
use hedge_net::{
    CloseReason, HeartbeatReceiver, Hello, Link, LinkSender, Net, NetError, Nonce, Probe, Ticket,
    Tripwire,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

/// The longest measurement of a link.
const PROBE_WITHIN: Duration = Duration::from_secs(1);
/// The most supervisors that are dialled.
const SUPERVISORS_MAX: usize = 32;
/// The most status requests taken from the transport at once.
const QUESTIONS_AT_ONCE: usize = 8;

/// Keeps a connection to every supervisor. The connections close when this is dropped.
pub(super) struct Links {
    dialler: Arc<Dialler>,
    runtime: Handle,
    known: Known,
    keepers: HashMap<PeerId, (PeerAddr, AbortHandle)>,
}

struct Dialler {
    net: Net,
    hello: Hello,
    inputs: mpsc::Sender<Input>,
    heartbeats: HeartbeatSender,
    conns: AtomicU64,
}

impl Links {
    /// Starts to dial all known supervisors. The tasks run on `runtime`.
    pub fn start(
        net: Net,
        ticket: &Ticket,
        known: Known,
        inputs: mpsc::Sender<Input>,
        heartbeats: HeartbeatSender,
        runtime: Handle,
    ) -> Self {
        let hello = Hello {
            role: Role::Worker,
            proof: Some(ticket.secret),
            payload: Vec::new(),
        };
        let conns = AtomicU64::new(0);
        let mut links = Self {
            dialler: Arc::new(Dialler {
                net,
                hello,
                inputs,
                heartbeats,
                conns,
            }),
            runtime,
            keepers: HashMap::new(),
            known,
        };
        let all = links.known.load();
        links.learn(&all);
        links
    }

    /// Keeps connections to exactly these supervisors, as `leader` says, and to the leader itself, which may be about
    /// to leave the group.
    pub fn keep(&mut self, supervisors: &[PeerAddr], leader: PeerId) {
        if supervisors.is_empty() {
            return;
        }
        self.known.save(supervisors);
        self.keepers.retain(|peer, (_, keeper)| {
            let stays = *peer == leader || supervisors.iter().any(|addr| addr.peer == *peer);
            if !stays {
                keeper.abort();
            }
            stays
        });
        self.learn_from(leader, supervisors);
    }

    /// Learns of further supervisors from a connected one, whose own address is known already.
    pub fn learn_from(&mut self, peer: PeerId, supervisors: &[PeerAddr]) {
        let others = supervisors.iter().filter(|addr| addr.peer != peer);
        let others: Vec<PeerAddr> = others.cloned().collect();
        self.learn(&others);
    }

    /// Adds supervisors: dials new ones, and known ones at new addresses.
    pub fn learn(&mut self, supervisors: &[PeerAddr]) {
        for addr in supervisors {
            let addr = match self.keepers.get(&addr.peer) {
                None if self.keepers.len() >= SUPERVISORS_MAX => continue,
                None => addr.clone(),
                Some((known, _)) => match moved(known, addr) {
                    None => continue,
                    Some(addr) => addr,
                },
            };
            let keeper = self.dialler.clone().keep_connected(addr.clone());
            let keeper = self.runtime.spawn(keeper).abort_handle();
            if let Some((_, old)) = self.keepers.insert(addr.peer, (addr, keeper)) {
                old.abort();
            }
        }
    }

    /// The supervisors that are dialled.
    pub fn supervisors(&self) -> impl Iterator<Item = PeerId> {
        self.keepers.keys().copied()
    }

    /// Returns the addresses at which others can dial this worker now.
    pub fn local_addr(&self) -> PeerAddr {
        self.dialler.net.local_addr()
    }

    /// Uses these relays from now on.
    pub fn use_relays(&self, relays: Vec<PeerAddr>) {
        self.known.save_relays(&relays);
        let net = self.dialler.net.clone();
        self.runtime
            .spawn(async move { net.set_relays(&relays).await });
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.keepers.values().for_each(|(_, keeper)| keeper.abort());
    }
}

impl Dialler {
    async fn keep_connected(self: Arc<Self>, addr: PeerAddr) {
        let mut pause = Pause::new();
        let mut told = false;
        loop {
            match self.dial(&addr).await {
                Ok((link, welcome)) => {
                    (pause, told) = (Pause::new(), false);
                    let conn = self.conns.fetch_add(1, Ordering::Relaxed) + 1;
                    let guard = Unlinked {
                        conn,
                        inputs: Some(self.inputs.clone()),
                        answering: None,
                    };
                    if self.serve(guard, link, welcome).await.is_err() {
                        return;
                    }
                }
                Err(NetError::Closed(reason)) if !reason.may_retry() => {
                    let rejected = Input::Rejected {
                        by: addr.peer,
                        why: format!("not let in: {reason}"),
                    };
                    if self.inputs.send(rejected).await.is_err() {
                        return;
                    }
                    pause.longest();
                }
                Err(NetError::Redirected { supervisors }) => {
                    let redirected = Input::Redirected(supervisors);
                    if self.inputs.send(redirected).await.is_err() {
                        return;
                    }
                }
                Err(NetError::Closed(CloseReason::NotLeader)) => {
                    tracing::debug!(peer = %addr.peer.short(), "this supervisor does not know this worker yet");
                }
                Err(error) if told => tracing::debug!(%error, "still no answer"),
                Err(error) => {
                    told = true;
                    tracing::info!(%error, "no supervisor answers; trying again until one does");
                }
            }
            pause.wait().await;
        }
    }

    async fn dial(&self, addr: &PeerAddr) -> Result<(Link, Welcome), NetError> {
        let (link, welcome) = self.net.connect(addr, &self.hello).await?;
        match postcard::from_bytes(&welcome) {
            Ok(welcome) => Ok((link, welcome)),
            Err(_) => Err(NetError::Closed(CloseReason::Malformed)),
        }
    }

    /// Reads messages until the connection closes. Returns an error when the worker has ended.
    async fn serve(&self, mut guard: Unlinked, link: Link, welcome: Welcome) -> Result<(), ()> {
        let Link {
            sender,
            mut receiver,
            heartbeats,
        } = link;
        let conn = guard.conn;
        let linked = Input::Linked {
            sender: sender.clone(),
            conn,
            welcome,
        };
        self.inputs.send(linked).await.map_err(drop)?;
        let answering = tokio::spawn(answer(self.heartbeats.clone(), conn, heartbeats));
        guard.answering = Some(answering.abort_handle());
        while let Ok(orders) = receiver.recv::<ToWorker>().await {
            for order in &orders {
                match order {
                    ToWorker::Heartbeat(plan) => self.heartbeats.follow(conn, plan),
                    ToWorker::Probe {
                        port,
                        nonce,
                        bytes,
                        window,
                    } => {
                        let wanted = (*bytes, *window);
                        tokio::spawn(measure(sender.clone(), *port, *nonce, wanted));
                    }
                    ToWorker::Tripwire { port, nonce } => {
                        tokio::spawn(hold_tripwire(sender.clone(), *port, *nonce));
                    }
                    _ => {}
                }
            }
            self.inputs
                .send(Input::Orders { conn, orders })
                .await
                .map_err(drop)?;
        }
        let reason = sender.closed().await;
        tracing::info!(%reason, "connection closed");
        guard.inputs = None;
        self.heartbeats.disconnect(conn);
        self.inputs
            .send(Input::Unlinked { conn })
            .await
            .map_err(drop)
    }
}

/// Reports that a connection is gone, even if its task was aborted.
struct Unlinked {
    conn: u64,
    inputs: Option<mpsc::Sender<Input>>,
    answering: Option<AbortHandle>,
}

impl Drop for Unlinked {
    fn drop(&mut self) {
        if let Some(answering) = &self.answering {
            answering.abort();
        }
        if let Some(inputs) = self.inputs.take() {
            let conn = self.conn;
            // The task was aborted by the loop itself after the list of supervisors had changed.
            _ = inputs.try_send(Input::Unlinked { conn });
        }
    }
}

/// Answers a supervisor's status requests where they arrive.
async fn answer(heartbeats: HeartbeatSender, conn: u64, mut questions: HeartbeatReceiver) {
    let mut batch = vec![bytes::Bytes::new(); QUESTIONS_AT_ONCE];
    while let Ok(count) = questions.recv(&mut batch).await {
        for bytes in batch.iter().take(count) {
            if let Ok(StatusRequest { seq }) = postcard::from_bytes(bytes) {
                heartbeats.answer(conn, seq);
            }
        }
    }
}

/// Measures the link together with the supervisor, and reports what arrived here.
async fn measure(sender: LinkSender, port: u16, nonce: Nonce, (bytes, window): (u64, u32)) {
    let ips = sender.remote_addrs().into_iter().map(|addr| addr.ip());
    let arrived = match Probe::connect(ips, port, nonce).await {
        Ok(probe) => {
            tokio::task::spawn_blocking(move || probe.run(bytes, window, false, PROBE_WITHIN))
                .await
                .map_err(std::io::Error::other)
                .and_then(|probed| probed.map_err(std::io::Error::other))
                .map(|probed| probed.arrived)
        }
        Err(error) => Err(error),
    };
    let arrived = arrived.inspect_err(|error| tracing::debug!(%error, "the link was not measured"));
    send(&sender, &[FromWorker::Probed(arrived.unwrap_or(0))]);
}

/// Connects a tripwire to the supervisor's process. When that dies, the connection is closed at once.
async fn hold_tripwire(sender: LinkSender, port: u16, nonce: Nonce) {
    let ips = sender.remote_addrs().into_iter().map(|addr| addr.ip());
    match Tripwire::connect(ips, port, nonce).await {
        Ok(mut tripwire) => tokio::select! {
            _ = tripwire.broken() => sender.close(CloseReason::Lost),
            // Otherwise a supervisor that was frozen would declare this worker dead.
            _ = sender.closed() => if sender.fell_silent() { tripwire.let_go().await },
        },
        Err(error) => {
            tracing::info!(%error, "no tripwire: a supervisor that dies is noticed by its gap alone");
        }
    }
}
