//! Peers with blob stores.

use super::{loopback, within};
use hedge_model::{Hash, PeerAddr, PeerId};
use hedge_net::{
    DataServer, DataStore, FetchError, Fetcher, Grant, Net, NetConfig, SecretKey, Trust,
};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::runtime::Handle;

/// A peer that holds blobs, serves them and fetches them.
pub struct Peer {
    pub net: Net,
    pub store: DataStore,
    pub server: DataServer,
    pub fetcher: Fetcher,
    pub trust: Trust,
    pub dir: TempDir,
}

impl Peer {
    pub async fn new(trusted: PeerId) -> Peer {
        Peer::with_key(SecretKey::generate(), trusted).await
    }

    pub async fn with_key(key: SecretKey, trusted: PeerId) -> Peer {
        let dir = tempfile::tempdir().unwrap();
        let store = DataStore::open(&dir.path().join("data")).await.unwrap();
        let trust = Trust::new([trusted]);
        let server = DataServer::new(store.clone(), trust.clone());
        let data = Some((server.clone(), Handle::current()));
        let config = NetConfig {
            data,
            ..NetConfig::new(key, loopback())
        };
        let net = Net::bind(config).await.unwrap();
        let fetcher = Fetcher::new(net.clone(), store.clone(), Handle::current());
        Peer {
            net,
            store,
            server,
            fetcher,
            trust,
            dir,
        }
    }

    pub fn addr(&self) -> PeerAddr {
        self.net.local_addr()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub async fn fetch(
        &self,
        hash: Hash,
        size: u64,
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> Result<(), FetchError> {
        within(self.fetcher.fetch(hash, size, sources, grant)).await
    }

    /// Fetches blobs from a peer; gives what did not arrive.
    pub async fn fetch_all(
        &self,
        blobs: &[(Hash, u64)],
        from: &Peer,
        grant: &Grant,
    ) -> Vec<FetchError> {
        within(self.fetcher.fetch_all(blobs, &[from.addr()], Some(grant))).await
    }

    /// Bytes that it has served.
    pub fn served(&self) -> u64 {
        self.server.served_bytes().values().sum()
    }
}

/// A leader's key and peers that trust it.
pub async fn grid<const N: usize>() -> (SecretKey, [Peer; N]) {
    let leader = SecretKey::generate();
    let mut peers = Vec::new();
    for _ in 0..N {
        peers.push(Peer::new(hedge_net::peer_id(&leader)).await);
    }
    (leader, peers.try_into().unwrap_or_else(|_| unreachable!()))
}

/// The time in ten minutes, seconds since 1970.
pub fn soon() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 600
}

/// Where a store keeps a blob.
pub fn stored(store: &Path, hash: Hash) -> PathBuf {
    let name = hash.to_string();
    store.join("blobs").join(&name[..2]).join(&name)
}
