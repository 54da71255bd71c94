//! A relay of the grid. It carries packets for members and holders of tickets, and asks the supervisors about each
//! peer.

use crate::folders::occupy;
use crate::known::Known;
use crate::pause::Pause;
use crate::transport::Threads;
use crate::{Client, ClientError, Folders, NodeError};
use hedge_model::msg::{RefusalKind, Reply, Request};
use hedge_model::{Hash, PeerAddr, PeerId};
use hedge_net::{AccessCheck, RelayServer, Ticket};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// How long the supervisors may take to reply. The peer waits meanwhile.
const ASK_WITHIN: Duration = Duration::from_secs(4);
/// The most requests about peers at the same time.
const ASKED_MAX: usize = 64;
/// How often the supervisors are asked again about connected peers.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The most peers that are remembered for times when no supervisor answers. Beyond it, all are asked about anew.
const SERVED_MAX: usize = 65_536;

/// The configuration of a relay.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Its directory: identity, and known supervisors.
    pub dir: PathBuf,
    /// A ticket of the grid that it serves.
    pub ticket: Ticket,
    /// Where it listens, TCP and UDP. The port must not be 0.
    pub listen: SocketAddr,
}

impl RelayConfig {
    /// Returns the configuration with the relay's directory in `folders`.
    pub fn new(folders: &Folders, ticket: Ticket, listen: SocketAddr) -> Self {
        let dir = folders.relay();
        Self {
            dir,
            ticket,
            listen,
        }
    }
}

/// Runs a relay until `stop` resolves or the grid revokes it. Calls `started` with its id and addresses once it
/// listens. While no supervisor answers, it serves the supervisors and the peers that it has served before.
///
/// # Errors
/// It cannot listen, or the grid does not admit it.
pub async fn run(
    config: RelayConfig,
    started: impl FnOnce(&PeerAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), ClientError> {
    let _lock = occupy(&config.dir)?;
    let key = hedge_net::load_or_create_identity(&config.dir).map_err(NodeError::from)?;
    let threads = Threads::content()?;
    let known = Known::of_ticket(&config.dir, &config.ticket);
    let members = Arc::new(Members {
        me: hedge_net::peer_id(&key),
        known: known.clone(),
        client: watch::Sender::new(None),
        served: Mutex::default(),
        room: Semaphore::new(ASKED_MAX),
    });
    let gate = members.clone().gate();
    let server = threads
        .run(async move { RelayServer::start(&key, config.listen, gate).await })
        .await?
        .map_err(NodeError::from)?;
    let addr = server.addr();
    started(&addr);
    let mut ticket = config.ticket;
    // Supervisors that cannot be reached in any other way use this relay.
    ticket.relays = own_first(&addr, known.load_relays());
    known.save_relays(&ticket.relays);
    let ended = tokio::select! {
        () = stop => Ok(()),
        ended = members.keep_asking(&config.dir, &ticket, &server) => ended,
    };
    let carried = server.carried_bytes();
    tracing::info!(
        carried,
        "the relay has stopped; bytes carried since its start"
    );
    threads.run(server.stop()).await?;
    ended
}

fn own_first(own: &PeerAddr, others: Vec<PeerAddr>) -> Vec<PeerAddr> {
    let others = others.into_iter().filter(|other| other.peer != own.peer);
    [own.clone()].into_iter().chain(others).collect()
}

/// Decides which peers to serve.
struct Members {
    me: PeerId,
    known: Known,
    /// The connection to the grid, once there is one.
    client: watch::Sender<Option<Client>>,
    served: Mutex<HashSet<(PeerId, Option<Hash>)>>,
    room: Semaphore,
}

impl Members {
    fn gate(self: Arc<Self>) -> AccessCheck {
        Arc::new(move |peer, ticket| {
            let members = self.clone();
            Box::pin(async move { members.admit(peer, ticket).await })
        })
    }

    async fn admit(&self, peer: PeerId, ticket: Option<Hash>) -> Result<(), String> {
        let _place = match self.room.try_acquire() {
            Ok(place) => place,
            Err(_) => return Err("this relay has too many questions open; try again".to_owned()),
        };
        let asked = tokio::time::timeout(ASK_WITHIN, self.ask(peer, ticket)).await;
        match asked {
            Ok(Ok(())) => {
                let mut served = self.served();
                if served.len() >= SERVED_MAX {
                    served.clear();
                }
                served.insert((peer, ticket));
                Ok(())
            }
            Ok(Err(ClientError::Refused(refusal))) if refusal.kind == RefusalKind::NotAllowed => {
                self.served().remove(&(peer, ticket));
                Err(refusal.why)
            }
            Ok(Err(_)) | Err(_) if self.served().contains(&(peer, ticket)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err("no supervisor of the grid answers this relay; try again".to_owned())
            }
        }
    }

    async fn ask(&self, peer: PeerId, ticket: Option<Hash>) -> Result<(), ClientError> {
        // Supervisors are served without a request, which may have to go through this relay itself.
        let ours = |addr: &PeerAddr| addr.peer == peer;
        if peer == self.me || self.known.load().iter().any(ours) {
            return Ok(());
        }
        let mut client = self.client.subscribe();
        let client = client.wait_for(Option::is_some).await;
        let client = client.ok().and_then(|client| client.clone());
        let gone = || ClientError::Unreachable("this relay is ending".to_owned());
        match client
            .ok_or_else(gone)?
            .ask(Request::MayRelay { peer, ticket })
            .await?
        {
            Reply::Ok => Ok(()),
            _ => Err(ClientError::Local("an answer that does not fit".to_owned())),
        }
    }

    /// Keeps a connection to the grid, and disconnects peers that may no longer be served. Returns if the grid does
    /// not admit this relay.
    async fn keep_asking(
        &self,
        dir: &std::path::Path,
        ticket: &Ticket,
        server: &RelayServer,
    ) -> Result<(), ClientError> {
        let mut pause = Pause::new();
        let client = loop {
            match Client::join(dir, ticket).await {
                Ok(client) => break client,
                Err(ClientError::Unreachable(why)) => {
                    tracing::info!(%why, "no supervisor answers; trying again until one does");
                }
                Err(error) => return Err(error),
            }
            pause.wait().await;
        };
        tracing::info!("the grid answers; its members are served");
        self.client.send_replace(Some(client));
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for one in server.connected() {
                if let Err(why) = self.admit(one.peer, one.ticket).await {
                    tracing::info!(peer = %one.peer.short(), %why, "served no more");
                    server.disconnect(one.peer);
                }
            }
        }
    }

    fn served(&self) -> MutexGuard<'_, HashSet<(PeerId, Option<Hash>)>> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
