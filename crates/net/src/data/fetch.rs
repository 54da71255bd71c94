//! Fetches content by its hash from whichever peer holds it.

use super::store::theirs;
use super::wire::{ANSWER_DATA, Request, WHOLE_BYTES_MAX};
use super::{DataStore, Grant, Refusal};
use crate::{ALPN_DATA, Net, NetError};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use hedge_model::{Hash, PeerAddr, PeerId};
use iroh::endpoint::{Connection, ReadError, RecvStream, VarInt};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

mod measured;
use measured::Received;
pub use measured::Transfer;

/// A source that sends nothing for this long is given up.
const STALL: Duration = Duration::from_secs(5);
/// A source may let a request wait for its turn this long.
const TURN: Duration = Duration::from_secs(30);
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
    /// This peer's earlier copy is damaged and still in the way.
    #[error(
        "an earlier copy of {hash} on this machine is damaged and not removed yet; \
         try again in a few minutes, or elsewhere"
    )]
    Damaged {
        /// The content.
        hash: Hash,
    },
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
}

/// Fetches content into a [`DataStore`]; cheap to clone.
///
/// Connections are kept a while for the next fetch; fetches of one hash at a time become one.
#[derive(Clone, Debug)]
pub struct Fetcher(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    net: Net,
    store: DataStore,
    runtime: Handle,
    running: Mutex<HashMap<Hash, WeakShared<Running>>>,
    connections: Mutex<HashMap<PeerId, Arc<Connection>>>,
    fetched: Received,
}

type Running = BoxFuture<'static, Result<(), FetchError>>;

impl Fetcher {
    /// Fetches through this port into this store; the work is done on `runtime`.
    pub fn new(net: Net, store: DataStore, runtime: Handle) -> Fetcher {
        Fetcher(Arc::new(Inner {
            net,
            store,
            runtime,
            running: Mutex::default(),
            connections: Mutex::default(),
            fetched: Received::default(),
        }))
    }

    /// Makes the store hold `hash`, whose length is `size`. Asks the sources in their order, shows each
    /// the grant, and continues with the next where one breaks off. Ends at once where it is held already.
    ///
    /// Dropping the future ends the transfer unless another fetch of the same hash waits for it.
    pub async fn fetch(
        &self,
        hash: Hash,
        size: u64,
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> Result<(), FetchError> {
        loop {
            if self.0.store.has(hash) {
                return Ok(());
            }
            let (running, first) = self.join_or_start(hash, size, sources, grant);
            match running.await {
                // Its sources and grant were another caller's; ours may do better.
                Err(FetchError::Sources { .. } | FetchError::NoSource { .. }) if !first => {}
                done => return done,
            }
        }
    }

    fn join_or_start(
        &self,
        hash: Hash,
        size: u64,
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> (Shared<Running>, bool) {
        let mut running = lock(&self.0.running);
        // A transfer that ended must not be joined: its failure would be returned for ever.
        let open = running.get(&hash).and_then(WeakShared::upgrade);
        if let Some(open) = open.filter(|open| open.peek().is_none()) {
            return (open, false);
        }
        running.retain(|_, transfer| transfer.upgrade().is_some());
        let (fetcher, sources, grant) = (self.clone(), sources.to_vec(), grant.cloned());
        let task = self.0.runtime.spawn(async move {
            fetcher
                .try_sources(hash, size, &sources, grant.as_ref())
                .await
        });
        let mut task = AbortOnDrop(task);
        let transfer = async move {
            (&mut task.0).await.unwrap_or_else(|error| {
                Err(FetchError::Local {
                    hash,
                    why: format!("the transfer ended early: {error}"),
                })
            })
        };
        let transfer = transfer.boxed().shared();
        running.extend(transfer.downgrade().map(|weak| (hash, weak)));
        (transfer, true)
    }

    async fn try_sources(
        &self,
        hash: Hash,
        size: u64,
        sources: &[PeerAddr],
        grant: Option<&Grant>,
    ) -> Result<(), FetchError> {
        let local = |error: NetError| FetchError::Local {
            hash,
            why: error.to_string(),
        };
        if size == 0 {
            if hash.0 != *blake3::hash(b"").as_bytes() {
                let why = "only one content is empty".to_owned();
                return Err(FetchError::Local { hash, why });
            }
            return self
                .0
                .store
                .add_bytes(Bytes::new())
                .await
                .map(drop)
                .map_err(local);
        }
        let whole = size <= WHOLE_BYTES_MAX as u64;
        if !whole && self.0.store.is_damaged(hash) {
            return Err(FetchError::Damaged { hash });
        }
        if let Err(why) = self.0.store.check_room(size) {
            return Err(FetchError::Local { hash, why });
        }
        let pin = match whole {
            true => None,
            false => Some(self.0.store.pin(hash).await.map_err(local)?),
        };
        let mut failures = Vec::new();
        for source in sources
            .iter()
            .filter(|source| source.peer != self.0.net.peer())
        {
            match self.try_source(hash, size, source, grant).await {
                Ok(()) => {
                    return match pin {
                        Some(pin) => self.0.store.hold(pin, size).await.map(drop).map_err(local),
                        None => Ok(()),
                    };
                }
                Err(Failure::Local(why)) => return Err(FetchError::Local { hash, why }),
                Err(Failure::Source(failure)) => {
                    tracing::debug!(%hash, peer = %source.peer, %failure, "a source did not deliver");
                    failures.push((source.peer, failure));
                }
            }
        }
        match failures.is_empty() {
            true => Err(FetchError::NoSource { hash }),
            false => Err(FetchError::Sources { hash, failures }),
        }
    }

    async fn try_source(
        &self,
        hash: Hash,
        size: u64,
        source: &PeerAddr,
        grant: Option<&Grant>,
    ) -> Result<(), Failure> {
        let (connection, reused) = self.connection(source).await?;
        if !reused {
            let way = way_for(&connection, size).await;
            tracing::debug!(peer = %source.peer.short(), "content comes {way}");
        }
        let first = self
            .transfer(&connection, hash, size, source.peer, grant)
            .await;
        match first {
            // The connection was from before; its other end may have started anew since.
            Err(Failure::Source(SourceFailure::Broken(_) | SourceFailure::Stalled(_)))
                if reused =>
            {
                self.drop_connection(source.peer, &connection);
                let (connection, _) = self.connection(source).await?;
                self.transfer(&connection, hash, size, source.peer, grant)
                    .await
            }
            other => other,
        }
    }

    async fn transfer(
        &self,
        connection: &Connection,
        hash: Hash,
        size: u64,
        peer: PeerId,
        grant: Option<&Grant>,
    ) -> Result<(), Failure> {
        let whole = size <= WHOLE_BYTES_MAX as u64;
        let first_chunk = match whole {
            true => Some(0),
            false => self.first_missing_chunk(hash).await?,
        };
        let Some(first_chunk) = first_chunk else {
            return Ok(());
        };
        let (grant, since) = (grant.cloned(), Instant::now());
        let request = Request {
            hash,
            whole,
            first_chunk,
            grant,
        };
        let mut incoming = Incoming {
            recv: ask(connection, &request).await?,
            size,
            size_read: false,
            bytes: 0,
            failure: None,
        };
        let taken = match whole {
            true => self.take_whole(hash, size, &mut incoming).await,
            false => self.take_pieces(hash, first_chunk, &mut incoming).await,
        };
        self.0.fetched.add(peer, incoming.bytes, since.elapsed());
        taken
    }

    async fn take_whole(
        &self,
        hash: Hash,
        size: u64,
        incoming: &mut Incoming,
    ) -> Result<(), Failure> {
        let mut bytes = vec![0; size as usize];
        let mut read = incoming.fill_exact(&mut [0; 8]).await;
        if read.is_ok() {
            read = incoming.fill_exact(&mut bytes).await;
        }
        if let (Err(error), failure) = (read, incoming.failure.take()) {
            let broken = || SourceFailure::Broken(error.to_string());
            return Err(failure.unwrap_or_else(broken).into());
        }
        if blake3::hash(&bytes).as_bytes() != &hash.0 {
            return Err(SourceFailure::Unverified.into());
        }
        let added = self.0.store.add_bytes(bytes).await;
        added
            .map(drop)
            .map_err(|error| Failure::Local(error.to_string()))
    }

    async fn take_pieces(
        &self,
        hash: Hash,
        first_chunk: u64,
        incoming: &mut Incoming,
    ) -> Result<(), Failure> {
        let ranges = ChunkRanges::chunks(first_chunk..);
        let blobs = self.0.store.files().blobs();
        let imported = blobs.import_bao_reader(theirs(hash), ranges, &mut *incoming);
        let imported = imported
            .await
            .map(drop)
            .map_err(|error| (os_error(&error), error));
        match (imported, incoming.failure.take()) {
            (Ok(()), _) => match self.first_missing_chunk(hash).await? {
                None => Ok(()),
                Some(_) => Err(SourceFailure::Unverified.into()),
            },
            (Err(_), Some(failure)) => Err(failure.into()),
            (Err((Some(os), _)), None) => Err(Failure::Local(os)),
            (Err((None, error)), None) => {
                tracing::debug!(%hash, error = format!("{error:#}"), "content did not verify");
                Err(SourceFailure::Unverified.into())
            }
        }
    }

    /// Where to go on with content of which a part has arrived; none where it is complete.
    async fn first_missing_chunk(&self, hash: Hash) -> Result<Option<u64>, Failure> {
        let present = self.0.store.files().blobs().observe(theirs(hash)).await;
        let present = present.map_err(|error| Failure::Local(format!("{error:#}")))?;
        if present.is_complete() {
            return Ok(None);
        }
        let missing = ChunkRanges::all() - present.ranges;
        Ok(missing.boundaries().first().map(|chunk| chunk.0))
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

/// Sends a request and waits until the data begins.
async fn ask(connection: &Connection, request: &Request) -> Result<RecvStream, Failure> {
    let request = request
        .encode()
        .ok_or_else(|| Failure::Local("the grant names too many hashes".to_owned()))?;
    let broken = |error: &dyn fmt::Display| SourceFailure::Broken(error.to_string());
    let opening = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|e| broken(&e))?;
        send.write_all(&request).await.map_err(|e| broken(&e))?;
        send.finish().map_err(|e| broken(&e))?;
        let mut answer = [0];
        match recv.read(&mut answer).await.map_err(read_failure)? {
            Some(_) if answer[0] == ANSWER_DATA => Ok(recv),
            Some(_) => Err(SourceFailure::Refused(Refusal::from_code(answer[0]))),
            None => Err(broken(&"it ended without an answer")),
        }
    };
    let stalled = Err(SourceFailure::Stalled(TURN));
    Ok(timeout(TURN, opening).await.unwrap_or(stalled)?)
}

fn read_failure(error: ReadError) -> SourceFailure {
    match error {
        ReadError::Reset(code) => {
            let code = u8::try_from(code.into_inner()).unwrap_or(u8::MAX);
            SourceFailure::Refused(Refusal::from_code(code))
        }
        other => SourceFailure::Broken(other.to_string()),
    }
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
struct AbortOnDrop(JoinHandle<Result<(), FetchError>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A source's stream: watches its progress and its claimed length, and remembers what went wrong.
#[derive(Debug)]
struct Incoming {
    recv: RecvStream,
    size: u64,
    size_read: bool,
    bytes: u64,
    failure: Option<SourceFailure>,
}

impl Incoming {
    async fn fill(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < target.len() {
            match timeout(STALL, self.recv.read(&mut target[filled..])).await {
                Ok(Ok(Some(count))) => filled += count,
                Ok(Ok(None)) => break,
                Ok(Err(error)) => return Err(self.fail(read_failure(error))),
                Err(_) => return Err(self.fail(SourceFailure::Stalled(STALL))),
            }
        }
        self.bytes += filled as u64;
        Ok(filled)
    }

    async fn fill_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        if self.fill(target).await? < target.len() {
            return Err(self.fail(SourceFailure::Broken("it ended too soon".to_owned())));
        }
        if !self.size_read {
            // The stream begins with the length that the source claims.
            self.size_read = true;
            let found = target
                .first_chunk::<8>()
                .map_or(0, |bytes| u64::from_le_bytes(*bytes));
            if target.len() != 8 || found != self.size {
                let expected = self.size;
                return Err(self.fail(SourceFailure::WrongSize { expected, found }));
            }
        }
        Ok(())
    }

    fn fail(&mut self, failure: SourceFailure) -> io::Error {
        let error = io::Error::other(failure.to_string());
        self.failure.get_or_insert(failure);
        error
    }
}

impl iroh_blobs::util::RecvStream for Incoming {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        let filled = self.fill(&mut bytes).await?;
        bytes.truncate(filled);
        Ok(bytes.into())
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; len];
        self.fill_exact(&mut bytes).await?;
        Ok(bytes.into())
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        self.fill_exact(target).await
    }

    fn stop(&mut self, code: VarInt) -> io::Result<()> {
        self.recv.stop(code).map_err(io::Error::other)
    }

    fn id(&self) -> u64 {
        self.recv.id().index()
    }
}

/// The system's own error at the bottom of another one, such as a full disk.
fn os_error(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if io.raw_os_error().is_some() {
                return Some(io.to_string());
            }
            if let Some(inner) = io.get_ref() {
                return os_error(inner);
            }
        }
        cause = error.source();
    }
    None
}

fn list(failures: &[(PeerId, SourceFailure)]) -> String {
    let one = |(peer, failure): &(PeerId, SourceFailure)| format!("{}: {failure}", peer.short());
    failures.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
