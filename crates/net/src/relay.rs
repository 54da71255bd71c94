//! An own relay: carries packets, which it cannot read, between peers that cannot reach each other directly, and
//! tells peers behind an address translator what address others see.

mod trust;

pub(crate) use trust::Trusted;

use crate::{NetError, SecretKey, peer_id, public_key};
use futures_util::future::BoxFuture;
use hedge_model::{Hash, PeerAddr, PeerId};
use iroh::EndpointId;
use iroh_relay::server::{
    Access, AccessControl, CertConfig, ClientRequest, ConnectionId, QuicConfig, RelayConfig,
    Server, ServerConfig, TlsConfig,
};
use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Peers with a connection to one relay at a time.
const CONNECTED_MAX: usize = 16_384;
/// How long the end of a relay's connections may take.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// Decides whether a relay serves a peer, proven by its key, which may have shown the hash of a ticket's secret;
/// an error is a sentence for the peer.
pub type AccessCheck =
    Arc<dyn Fn(PeerId, Option<Hash>) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

type Open = Arc<Mutex<HashMap<ConnectionId, Connected>>>;

/// A running relay: TLS over TCP for packets, QUIC over UDP for address discovery, both at one port number.
/// Its key is a peer's: who knows the id needs no certificate.
#[derive(Debug)]
pub struct RelayServer {
    server: Server,
    connected: Open,
    peer: PeerId,
    at: SocketAddr,
}

/// A peer that a relay serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Who.
    pub peer: PeerId,
    /// The hash of its ticket's secret, where it showed one.
    pub ticket: Option<Hash>,
}

impl RelayServer {
    /// Starts to listen at `listen`, whose port must not be 0.
    pub async fn start(
        key: &SecretKey,
        listen: SocketAddr,
        gate: AccessCheck,
    ) -> Result<Self, NetError> {
        let failed = |why: String| NetError::Bind { addr: listen, why };
        let tls = trust::server_tls(key).map_err(|error| failed(error.to_string()))?;
        let connected = Open::default();
        // Only a check for captive portals would be answered there, and nobody makes it.
        let mut serve = RelayConfig::new((Ipv4Addr::LOCALHOST, 0));
        let cert = CertConfig::Manual { server_config: tls };
        serve.tls = Some(TlsConfig::new(listen, cert));
        serve.access = Arc::new(Acceptor {
            gate,
            connected: Arc::clone(&connected),
        });
        let mut config = ServerConfig::default();
        config.relay = Some(serve);
        config.quic = Some(QuicConfig::new(listen));
        let server = Server::spawn(config).await;
        Ok(Self {
            server: server.map_err(|error| failed(format!("{error:#}")))?,
            connected,
            peer: peer_id(key),
            at: listen,
        })
    }

    /// Who and where it is: for an unspecified address those of all interfaces, loopback last.
    pub fn addr(&self) -> PeerAddr {
        PeerAddr {
            peer: self.peer,
            addrs: crate::endpoint::offered(&[self.at]),
        }
    }

    /// The peers that it serves now.
    pub fn connected(&self) -> Vec<Connected> {
        lock(&self.connected).values().copied().collect()
    }

    /// Ends what it has with a peer.
    pub fn disconnect(&self, peer: PeerId) {
        if let (Some(service), Ok(id)) = (self.server.relay_service(), public_key(peer)) {
            service.clients().disconnect(id, None);
        }
    }

    /// Bytes of packets that it has carried since it started.
    pub fn carried_bytes(&self) -> u64 {
        self.server.metrics().server.bytes_sent.get()
    }

    /// Ends all connections and closes the port.
    pub async fn stop(self) {
        _ = tokio::time::timeout(STOP_WITHIN, self.server.shutdown()).await;
    }
}

struct Acceptor {
    gate: AccessCheck,
    connected: Open,
}

impl fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").finish_non_exhaustive()
    }
}

impl AccessControl for Acceptor {
    async fn on_connect(&self, request: &ClientRequest) -> Access {
        let peer = PeerId(*request.endpoint_id().as_bytes());
        let ticket = request.auth_token().and_then(|text| text.parse().ok());
        let full = lock(&self.connected).len() >= CONNECTED_MAX;
        let decided = match full {
            true => Err("this relay serves as many peers as it can; try again later".to_owned()),
            false => (self.gate)(peer, ticket).await,
        };
        match decided {
            Ok(()) => {
                let id = request.connection_id();
                lock(&self.connected).insert(id, Connected { peer, ticket });
                Access::Allow
            }
            Err(why) => {
                tracing::info!(peer = %peer.short(), %why, "not served");
                Access::Deny { reason: Some(why) }
            }
        }
    }

    fn on_disconnect(&self, _: EndpointId, connection: ConnectionId) {
        lock(&self.connected).remove(&connection);
    }
}

fn lock(connected: &Open) -> MutexGuard<'_, HashMap<ConnectionId, Connected>> {
    connected.lock().unwrap_or_else(PoisonError::into_inner)
}
