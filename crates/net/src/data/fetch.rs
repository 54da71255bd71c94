//! Fetches blobs by their hashes from whichever peer holds them.

use super::wire::Wanted;
use super::{DataStore, Grant, Refusal};
use crate::{ALPN_DATA, Net};
use batch::{Batch, Origin, batches_of};
use bytes::Bytes;
use claims::{Claim, Claims};
use futures_util::StreamExt;
use hedge_model::{Hash, PeerAddr, PeerId};
use iroh::endpoint::Connection;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use transfer::{Incoming, Tcp};

mod batch;
mod claims;
mod large;
mod measured;
mod possession;
mod transfer;
use measured::Received;
pub use measured::Transfer;

/// A source that sends nothing for this long is given up.
const STALL: Duration = Duration::from_secs(5);
/// A source may let a request wait for its turn this long.
const TURN: Duration = Duration::from_secs(30);
/// Requests for small blobs under way at a time.
const SMALL_MAX: usize = 4;
/// Large blobs that arrive at a time; of each at most 2 MiB are held in memory.
const LARGE_MAX: usize = 32;
/// Connections unused for one to two of these are closed.
const IDLE_CHECK: Duration = Duration::from_secs(10);

/// How long two peers that met through a relay may take to find a direct way before more than a little content
/// goes through the relay: some round trips across the world.
const DIRECT_WITHIN: Duration = Duration::from_millis(1500);
const DIRECT_LOOK: Duration = Duration::from_millis(20);
/// So little that the search for a direct way would take longer.
const RELAYED_AT_ONCE: u64 = 256 << 10;

/// Why content could not be fetched. What had arrived and was verified is kept for the next try.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FetchError {
    /// There is nobody to ask.
    #[error("cannot fetch {hash}: no other peer is known to hold it")]
    NoSource {
        /// The content.
        hash: Hash,
    },
    /// No source delivered.
    #[error("cannot fetch {hash}: {}; what arrived is kept for the next try", list(.failures))]
    Sources {
        /// The content.
        hash: Hash,
        /// What went wrong with each source, in the order of asking.
        failures: Vec<(PeerId, SourceFailure)>,
    },
    /// This machine cannot keep it.
    #[error("cannot keep {hash} on this machine: {why}; make room on the disk and try again")]
    Local {
        /// The content.
        hash: Hash,
        /// The cause.
        why: String,
    },
}

impl FetchError {
    /// The content that could not be fetched.
    pub const fn hash(&self) -> Hash {
        match self {
            FetchError::NoSource { hash }
            | FetchError::Sources { hash, .. }
            | FetchError::Local { hash, .. } => *hash,
        }
    }
}

/// What became of blobs that were to be fetched.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Why the store does not hold some of them.
    pub failed: Vec<FetchError>,
    /// Those that one source sent from the first byte to the last, and which source. Others were held before, or came
    /// in parts.
    pub delivered: Vec<(Hash, PeerId)>,
}

/// What went wrong with one source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceFailure {
    /// It could not be dialled.
    #[error("{0}")]
    Unreachable(String),
    /// It answered with a refusal.
    #[error("{0}")]
    Refused(Refusal),
    /// It sent nothing for a while.
    #[error("it sent nothing for {} s", .0.as_secs())]
    Stalled(Duration),
    /// Its content has another length.
    #[error("it holds {found} bytes under this name instead of {expected}")]
    WrongSize {
        /// The length asked for.
        expected: u64,
        /// The length that it claims.
        found: u64,
    },
    /// What it sent is not the content.
    #[error("what it sent does not match the hash")]
    Unverified,
    /// The connection broke.
    #[error("the transfer broke off: {0}")]
    Broken(String),
    /// It offered TCP, and cannot be reached by that.
    #[error("it cannot be reached by TCP")]
    NoTcp,
}

/// Fetches content into a [`DataStore`]; cheap to clone.
///
/// Connections are kept a while for the next fetch. Where two fetches want the same blob, one transfers it and the
/// other waits.
#[derive(Clone, Debug)]
pub struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    net: Net,
    store: DataStore,
    runtime: Handle,
    claims: Claims,
    small: Semaphore,
    large: Semaphore,
    connections: Mutex<HashMap<PeerId, Arc<Connection>>>,
    /// Peers that could not be reached by TCP, or not reach this one.
    without_tcp: Mutex<HashSet<PeerId>>,
    fetched: Received,
}

impl Fetcher {
    /// Fetches through this port into this store; the work is done on `runtime`.
    pub fn new(net: Net, store: DataStore, runtime: Handle) -> Fetcher {
        Fetcher(Arc::new(Inner {
            net,
            store,
            runtime,
            claims: Claims::default(),
            small: Semaphore::new(SMALL_MAX),
            large: Semaphore::new(LARGE_MAX),
            connections: Mutex::default(),
            without_tcp: Mutex::default(),
            fetched: Received::default(),
        }))
    }

    /// Makes the store hold `hash`, whose length is `size`; see [`Fetcher::fetch_all`].
    pub async fn fetch(
        &self,
        hash: Hash,
        size: u64,
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> Result<(), FetchError> {
        let failed = self.fetch_all(&[(hash, size)], sources, grant).await;
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// Makes the store hold these blobs, given with their lengths; returns an error for each that it does not hold
    /// then. Asks the sources in their order, shows each the grant, and continues with the next where one breaks off.
    /// Small blobs are asked for many at a time. Ends at once where all are held already.
    ///
    /// Dropping the future ends the transfers; other callers that wait for the same blobs fetch them.
    pub async fn fetch_all(
        &self,
        blobs: &[(Hash, u64)],
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> Vec<FetchError> {
        self.fetch_from(blobs, sources, grant).await.failed
    }

    /// Like [`Fetcher::fetch_all`]; also tells which blobs one source delivered in whole.
    pub async fn fetch_from(
        &self,
        blobs: &[(Hash, u64)],
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> Fetched {
        let mut seen = HashSet::new();
        let new = |(hash, _): &&(Hash, u64)| seen.insert(*hash);
        let mut wanted: Vec<(Hash, u64)> = blobs.iter().filter(new).copied().collect();
        let from = Arc::new(Origin {
            sources: sources.to_vec(),
            grant: grant.cloned(),
        });
        let mut fetched = Fetched::default();
        loop {
            let store = &self.0.store;
            wanted.retain(|(hash, _)| !store.has(*hash) && !store.revive(*hash));
            if wanted.is_empty() {
                return fetched;
            }
            let mut others = Vec::new();
            let mut batches = Vec::new();
            for batch in batches_of(&wanted) {
                let claim = self.0.claims.claim(&batch);
                let mine = |(hash, _): &(Hash, u64)| claim.hashes().contains(hash);
                let (batch, rest): (Vec<_>, Vec<_>) = batch.into_iter().partition(mine);
                others.extend(rest);
                if !batch.is_empty() {
                    batches.push((claim, batch));
                }
            }
            let started = batches
                .into_iter()
                .map(|(claim, batch)| self.start(claim, batch, from.clone()));
            let mut running =
                futures_util::stream::iter(started).buffer_unordered(SMALL_MAX + LARGE_MAX);
            while let Some(more) = running.next().await {
                fetched.failed.extend(more.failed);
                fetched.delivered.extend(more.delivered);
            }
            if others.is_empty() {
                return fetched;
            }
            self.0.claims.released(&others).await;
            wanted = others;
        }
    }

    /// Fetches a batch on the runtime for transfers.
    async fn start(&self, claim: Claim, batch: Vec<(Hash, u64)>, from: Arc<Origin>) -> Fetched {
        let (fetcher, blobs) = (self.clone(), batch.clone());
        let task = self.0.runtime.spawn(async move {
            let _claim = claim;
            fetcher.try_sources(blobs, &from).await
        });
        let mut task = AbortOnDrop(task);
        let ended = (&mut task.0).await;
        ended.unwrap_or_else(|error| {
            Batch::new(batch).fail_here(&format!("the transfer ended early: {error}"))
        })
    }

    async fn try_sources(&self, blobs: Vec<(Hash, u64)>, from: &Origin) -> Fetched {
        let bytes = blobs
            .iter()
            .map(|(_, size)| *size)
            .fold(0, u64::saturating_add);
        let room = self.0.store.check_room(bytes);
        let mut batch = Batch::new(blobs);
        let turn = if batch.is_large() {
            &self.0.large
        } else {
            &self.0.small
        };
        let _turn = turn.acquire().await;
        if let Err(why) = room {
            return batch.fail_here(&why);
        }
        if let Err(why) = self.take_empty(&mut batch).await {
            return batch.fail_here(&why);
        }
        if let (true, [(hash, size)]) = (batch.is_large(), &batch.left[..])
            && self.0.store.take_from_neighbours(*hash, *size).await
        {
            batch.left.clear();
        }
        let own = self.0.net.peer();
        for source in from.sources.iter().filter(|source| source.peer != own) {
            if batch.left.is_empty() {
                break;
            }
            batch.refused = HashSet::new();
            match self
                .try_source(&mut batch, source, from.grant.as_ref())
                .await
            {
                Ok(()) => {}
                Err(Failure::Source(failure)) => {
                    tracing::debug!(peer = %source.peer, %failure, "a source did not deliver");
                    batch.fail_left(source.peer, &failure);
                }
                Err(Failure::Local(why)) => return batch.fail_here(&why),
            }
        }
        batch.into_fetched()
    }

    /// Nobody has to be asked for the empty blob.
    async fn take_empty(&self, batch: &mut Batch) -> Result<(), String> {
        let empty = Hash(*blake3::hash(b"").as_bytes());
        if batch.left.iter().all(|(_, size)| *size > 0) {
            return Ok(());
        }
        if batch
            .left
            .iter()
            .any(|(hash, size)| *size == 0 && *hash != empty)
        {
            return Err("only one content is empty".to_owned());
        }
        let added = self.0.store.add_bytes(Bytes::new()).await;
        batch.left.retain(|(_, size)| *size > 0);
        added.map(drop).map_err(|error| error.to_string())
    }

    async fn try_source(
        &self,
        batch: &mut Batch,
        source: &PeerAddr,
        grant: Option<&Grant>,
    ) -> Result<(), Failure> {
        let used = self.open_for(source, batch.bytes()).await?;
        let first = self.transfer(&used.0, batch, source.peer, grant).await;
        match self.open_again(source, &used, &first).await? {
            Some(new) => self.transfer(&new, batch, source.peer, grant).await,
            None => first,
        }
    }

    /// A connection over which about so many bytes are to come, and whether it is from before.
    async fn open_for(
        &self,
        source: &PeerAddr,
        bytes: u64,
    ) -> Result<(Arc<Connection>, bool), SourceFailure> {
        let (connection, reused) = self.connection(source).await?;
        if !reused {
            let way = way_for(&connection, bytes).await;
            tracing::debug!(peer = %source.peer.short(), "content comes {way}");
        }
        Ok((connection, reused))
    }

    /// A new connection, where one from before was of no use: its other end may have started anew since.
    async fn open_again<T>(
        &self,
        source: &PeerAddr,
        (used, reused): &(Arc<Connection>, bool),
        result: &Result<T, Failure>,
    ) -> Result<Option<Arc<Connection>>, SourceFailure> {
        use SourceFailure::{Broken, Stalled};
        match result {
            Err(Failure::Source(Broken(_) | Stalled(_))) if *reused => {
                self.drop_connection(source.peer, used);
                let (connection, _) = self.connection(source).await?;
                Ok(Some(connection))
            }
            _ => Ok(None),
        }
    }

    /// Asks a source until it has answered for each blob of the batch.
    async fn transfer(
        &self,
        connection: &Connection,
        batch: &mut Batch,
        peer: PeerId,
        grant: Option<&Grant>,
    ) -> Result<(), Failure> {
        while let Some((wanted, sizes)) = batch.next(&self.0.store) {
            let since = Instant::now();
            let tcp = match &wanted {
                Wanted::Large { group, .. } => self.tcp_for(connection, peer, sizes[0], *group),
                Wanted::Small(_) => Tcp::None,
            };
            let mut incoming = Incoming::open(connection, wanted.clone(), None, tcp, grant).await?;
            let taken = match &wanted {
                Wanted::Small(hashes) => {
                    self.take_small(hashes, &sizes, peer, batch, &mut incoming)
                        .await
                }
                Wanted::Large { hash, group } => {
                    let size = sizes[0];
                    self.take_large(connection, (*hash, size), *group, &mut incoming)
                        .await
                }
            };
            self.0.fetched.add(peer, incoming.bytes, since.elapsed());
            match (taken, wanted) {
                // It is asked for again, without TCP.
                (Err(Failure::Source(SourceFailure::NoTcp)), _) => {}
                (Ok(()), Wanted::Large { hash, group }) => {
                    batch.left.retain(|(h, _)| *h != hash);
                    if group == 0 {
                        batch.delivered.push((hash, peer));
                    }
                }
                (Err(Failure::Source(failure)), Wanted::Large { hash, .. })
                    if !matches!(
                        failure,
                        SourceFailure::Broken(_) | SourceFailure::Stalled(_)
                    ) =>
                {
                    batch.refuse(hash, peer, failure);
                }
                (taken, _) => taken?,
            }
        }
        Ok(())
    }

    async fn take_small(
        &self,
        hashes: &[Hash],
        sizes: &[u64],
        peer: PeerId,
        batch: &mut Batch,
        incoming: &mut Incoming,
    ) -> Result<(), Failure> {
        let mut arrived = Vec::with_capacity(hashes.len());
        let mut broken = None;
        for (hash, size) in hashes.iter().zip(sizes) {
            match incoming.blob(*size).await {
                Ok(Ok(bytes)) => arrived.push((*hash, bytes)),
                Ok(Err(refusal)) => {
                    batch.refuse(*hash, peer, SourceFailure::Refused(refusal));
                }
                // The rest is asked for again.
                Err(failure @ SourceFailure::WrongSize { .. }) => {
                    batch.refuse(*hash, peer, failure);
                    break;
                }
                Err(failure) => {
                    broken = Some(failure);
                    break;
                }
            }
        }
        let came: HashSet<Hash> = arrived.iter().map(|(hash, _)| *hash).collect();
        let added = self.0.store.add_small(arrived).await;
        let wrong = added.map_err(|error| Failure::Local(error.to_string()))?;
        let here = |hash: &Hash| came.contains(hash) && !wrong.contains(hash);
        batch.left.retain(|(hash, _)| !here(hash));
        let delivered = hashes.iter().filter(|hash| here(hash));
        batch.delivered.extend(delivered.map(|hash| (*hash, peer)));
        for hash in wrong {
            batch.refuse(hash, peer, SourceFailure::Unverified);
        }
        broken.map_or(Ok(()), |failure| Err(failure.into()))
    }

    async fn connection(
        &self,
        source: &PeerAddr,
    ) -> Result<(Arc<Connection>, bool), SourceFailure> {
        let open = lock(&self.0.connections).get(&source.peer).cloned();
        if let Some(open) = open.filter(|open| open.close_reason().is_none()) {
            return Ok((open, true));
        }
        let dialled = self.0.net.dial(source, ALPN_DATA).await;
        let dialled = dialled.map_err(|error| SourceFailure::Unreachable(error.to_string()))?;
        let connection = Arc::new(dialled);
        lock(&self.0.connections).insert(source.peer, connection.clone());
        self.0
            .runtime
            .spawn(close_when_idle(Arc::downgrade(&self.0), source.peer));
        Ok((connection, false))
    }

    fn drop_connection(&self, peer: PeerId, connection: &Arc<Connection>) {
        let mut connections = lock(&self.0.connections);
        if connections
            .get(&peer)
            .is_some_and(|open| Arc::ptr_eq(open, connection))
        {
            connections.remove(&peer);
        }
    }
}

/// Lets a new connection find its way before it carries much; says which it has.
async fn way_for(connection: &Connection, size: u64) -> &'static str {
    let until = Instant::now() + DIRECT_WITHIN;
    while crate::link::is_relayed(connection) {
        if size <= RELAYED_AT_ONCE || Instant::now() >= until {
            return "through a relay";
        }
        tokio::time::sleep(DIRECT_LOOK).await;
    }
    "directly"
}

async fn close_when_idle(fetcher: std::sync::Weak<Inner>, peer: PeerId) {
    let mut was_idle = false;
    loop {
        tokio::time::sleep(IDLE_CHECK).await;
        let Some(inner) = fetcher.upgrade() else {
            return;
        };
        let mut connections = lock(&inner.connections);
        let Some(connection) = connections.get(&peer) else {
            return;
        };
        let idle = Arc::strong_count(connection) == 1;
        if connection.close_reason().is_some() || (idle && was_idle) {
            connections.remove(&peer);
            // It is tried again with the next connection.
            lock(&inner.without_tcp).remove(&peer);
            return;
        }
        was_idle = idle;
    }
}

#[derive(Debug)]
enum Failure {
    Source(SourceFailure),
    Local(String),
}

impl From<SourceFailure> for Failure {
    fn from(failure: SourceFailure) -> Failure {
        Failure::Source(failure)
    }
}

#[derive(Debug)]
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn list(failures: &[(PeerId, SourceFailure)]) -> String {
    let one = |(peer, failure): &(PeerId, SourceFailure)| format!("{}: {failure}", peer.short());
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
