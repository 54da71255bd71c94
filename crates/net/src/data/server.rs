//! Answers data requests: checks the grant, then streams the verified content, or proves that it is held.

use super::digest::GROUP_BYTES;
use super::possession::Tagger;
use super::sealed::{Expected, Offer, Sealed, Way};
use super::wire::{ANSWER_DATA, Request, Wanted};
use super::{DataStore, Refusal, Trust};
use crate::handshake::HELLO_TIMEOUT;
use crate::pending::Pending;
use crate::{CloseReason, NetError, TcpPort};
use bytes::Bytes;
use hedge_model::{Hash, PeerId};
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Transfers that run at a time, over all readers; each may hold about 2 MiB.
const TRANSFERS_MAX: usize = 128;
/// A proven reader that asks nothing for this long is disconnected.
const IDLE: Duration = Duration::from_secs(60);
/// A reader that takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(30);
/// Small blobs are read and handed to the transport in pieces of about this length.
const PIECE_BYTES: usize = 1 << 20;

/// Who reads, and over which connection.
struct Reader {
    peer: PeerId,
    connection: Connection,
    /// Where the reader may connect.
    port: Option<TcpPort>,
}

/// A large blob from one of its groups on.
struct Large {
    hash: Hash,
    size: u64,
    first: u64,
}

/// Serves what a [`DataStore`] holds to whom [`Trust`] allows; cheap to clone.
#[derive(Clone, Debug)]
pub struct DataServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: DataStore,
    trust: Trust,
    room: Semaphore,
    served: Mutex<HashMap<PeerId, u64>>,
    requests: AtomicU64,
    tcp_bytes: AtomicU64,
}

impl DataServer {
    /// A server of this store.
    pub fn new(store: DataStore, trust: Trust) -> DataServer {
        let (room, served) = (Semaphore::new(TRANSFERS_MAX), Mutex::default());
        DataServer(Arc::new(Inner {
            store,
            trust,
            room,
            served,
            requests: AtomicU64::new(0),
            tcp_bytes: AtomicU64::new(0),
        }))
    }

    /// Bytes sent to each reader so far, proofs included; to the first 4096 of them.
    pub fn served_bytes(&self) -> HashMap<PeerId, u64> {
        self.0
            .served
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many of the bytes sent so far went over TCP.
    pub fn tcp_bytes(&self) -> u64 {
        self.0.tcp_bytes.load(Ordering::Relaxed)
    }

    /// Requests answered or refused so far.
    pub fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// Serves one connection to its end. The first request that is granted frees the connection's place among
    /// those that have not authenticated; it has to come soon.
    /// Large blobs go over TCP where the reader listens, or connects to this port.
    pub(crate) async fn serve(
        &self,
        connection: Connection,
        port: Option<TcpPort>,
        pending: Pending,
    ) {
        let peer = PeerId(*connection.remote_id().as_bytes());
        let proven = Arc::new(Notify::new());
        let mut pending = Some(pending);
        let mut requests = JoinSet::new();
        let mut deadline = Instant::now() + HELLO_TIMEOUT;
        let mut revoked = std::pin::pin!(self.0.trust.revoked(peer));
        loop {
            tokio::select! {
                () = &mut revoked => return CloseReason::Revoked.close(&connection),
                () = evicted(&mut pending) => return CloseReason::TooManyPeers.close(&connection),
                () = proven.notified(), if pending.is_some() => {
                    pending = None;
                    deadline = Instant::now() + IDLE;
                }
                Some(_) = requests.join_next() => {
                    if pending.is_none() {
                        deadline = Instant::now() + IDLE;
                    }
                }
                () = tokio::time::sleep_until(deadline), if pending.is_some() || requests.is_empty() => {
                    let reason = match pending {
                        Some(_) => CloseReason::HandshakeTimeout,
                        None => CloseReason::Done,
                    };
                    return reason.close(&connection);
                }
                streams = connection.accept_bi() => {
                    let Ok((send, recv)) = streams else { return };
                    let (server, proven) = (self.clone(), proven.clone());
                    let reader = Reader {
                        peer,
                        connection: connection.clone(),
                        port: port.clone(),
                    };
                    requests.spawn(async move { server.answer(&reader, send, recv, &proven).await });
                }
            }
        }
    }

    async fn answer(
        &self,
        reader: &Reader,
        mut send: SendStream,
        mut recv: RecvStream,
        proven: &Notify,
    ) {
        let request = timeout(HELLO_TIMEOUT, Request::read(&mut recv))
            .await
            .ok()
            .flatten();
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let answered = match request {
            Some(request) => {
                self.answer_request(reader, &mut send, request, proven)
                    .await
            }
            // A reader that is gone needs no answer.
            None => self.refuse(&mut send, Refusal::Malformed).await,
        };
        if let Err(refusal) = answered {
            _ = send.reset(VarInt::from_u32(refusal.code().into()));
        }
        _ = send.finish();
    }

    /// An error is the code with which the stream is to be broken off.
    async fn answer_request(
        &self,
        reader: &Reader,
        send: &mut SendStream,
        request: Request,
        proven: &Notify,
    ) -> Result<(), Refusal> {
        let peer = reader.peer;
        let allowed = self.check(peer, &request);
        if allowed.iter().any(Result::is_ok) {
            proven.notify_one();
        }
        if let Some(refusal) = allowed.iter().find_map(|allowed| allowed.err()) {
            tracing::debug!(%peer, %refusal, "a data request is refused");
        }
        let Ok(_place) = self.0.room.acquire().await else {
            return Err(Refusal::NotHeld);
        };
        let tagger = request
            .challenge
            .map(|challenge| Tagger::new(challenge, peer));
        match request.wanted {
            Wanted::Small(hashes) => {
                self.send_small(peer, send, &hashes, &allowed, tagger.as_ref())
                    .await
            }
            Wanted::Large { hash, group } => {
                let size = self.0.store.size(hash).ok_or(Refusal::NotHeld);
                let size = allowed[0].and(size);
                match (size, tagger) {
                    (Ok(size), None) => {
                        let blob = Large {
                            hash,
                            size,
                            first: group,
                        };
                        self.send_large(reader, send, blob, request.tcp).await
                    }
                    (Ok(size), Some(tagger)) => {
                        self.send_tags(peer, send, hash, size, &tagger).await
                    }
                    (Err(refusal), _) => self.refuse(send, refusal).await,
                }
            }
        }
    }

    fn check(&self, peer: PeerId, request: &Request) -> Vec<Result<(), Refusal>> {
        let hashes = request.wanted.hashes();
        if self.0.trust.is_supervisor(peer) {
            return vec![Ok(()); hashes.len()];
        }
        if request.challenge.is_some() {
            return vec![Err(Refusal::NotGranted); hashes.len()];
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_unix_s = now.map_or(u64::MAX, |now| now.as_secs());
        match &request.grant {
            None => vec![Err(Refusal::NotGranted); hashes.len()],
            Some(grant) => grant.verify_all(peer, hashes, now_unix_s, &self.0.trust),
        }
    }

    async fn send_small(
        &self,
        peer: PeerId,
        send: &mut SendStream,
        hashes: &[Hash],
        allowed: &[Result<(), Refusal>],
        tagger: Option<&Tagger>,
    ) -> Result<(), Refusal> {
        let mut left = hashes.iter().zip(allowed).peekable();
        while left.peek().is_some() {
            let wanted = left.clone().filter(|(_, allowed)| allowed.is_ok());
            let wanted = wanted.map(|(hash, _)| *hash).collect();
            let mut read = self
                .0
                .store
                .read_some(wanted, PIECE_BYTES)
                .await
                .into_iter();
            let (mut chunks, mut bytes) = (Vec::new(), 0);
            while let Some((_, allowed)) = left.peek() {
                let answer = match (*allowed, read.len()) {
                    (Err(refusal), _) => Err(*refusal),
                    (Ok(()), 0) => break,
                    (Ok(()), _) => match read.next() {
                        Some(Ok(bytes)) => Ok(bytes),
                        Some(Err(error)) => Err(refusal_for(&error)),
                        None => Err(Refusal::NotHeld),
                    },
                };
                match answer {
                    Ok(content) => {
                        let head = head(content.len() as u64);
                        let sent = match tagger {
                            Some(tagger) => Bytes::copy_from_slice(&tagger.tag(0, &content)),
                            None => content,
                        };
                        bytes += (head.len() + sent.len()) as u64;
                        chunks.extend([head, sent]);
                    }
                    Err(refusal) => chunks.push(Bytes::copy_from_slice(&[refusal.code()])),
                }
                left.next();
            }
            self.send(peer, send, &mut chunks, bytes).await?;
        }
        Ok(())
    }

    /// Sends a large blob. One group is read while the one before it is sent.
    async fn send_large(
        &self,
        reader: &Reader,
        send: &mut SendStream,
        Large { hash, size, first }: Large,
        offer: Option<Offer>,
    ) -> Result<(), Refusal> {
        if size <= GROUP_BYTES as u64 {
            return self.refuse(send, Refusal::Malformed).await;
        }
        let proof = match self.0.store.proof(hash).await {
            Ok(proof) => proof,
            Err(error) => return self.refuse(send, refusal_for(&error)).await,
        };
        let mut start = [head(size), proof.encode().into()];
        let bytes = start.iter().map(|chunk| chunk.len() as u64).sum();
        self.send(reader.peer, send, &mut start, bytes).await?;
        let mut tcp = match offer {
            Some(offer) => open_tcp(reader, send, offer).await?,
            None => None,
        };
        let mut read = Bytes::new();
        for group in first..=proof.count() {
            let reading = async {
                match group < proof.count() {
                    true => self.0.store.read_group(hash, &proof, group).await,
                    false => Ok(Bytes::new()),
                }
            };
            let sending = self.send_group(reader.peer, send, tcp.as_mut(), read);
            let (sent, reading) = tokio::join!(sending, reading);
            sent?;
            read = reading.map_err(|error| refusal_for(&error))?;
        }
        Ok(())
    }

    async fn send_group(
        &self,
        peer: PeerId,
        send: &mut SendStream,
        tcp: Option<&mut Sealed>,
        group: Bytes,
    ) -> Result<(), Refusal> {
        let count = group.len() as u64;
        match tcp {
            Some(stream) => match timeout(STALL, stream.send(&group)).await {
                Ok(Ok(())) => {
                    self.0.tcp_bytes.fetch_add(count, Ordering::Relaxed);
                    self.count(peer, count);
                }
                _ => return Err(Refusal::NotHeld),
            },
            None => self.send(peer, send, &mut [group], count).await?,
        }
        Ok(())
    }

    /// Sends the tags of a large blob's groups, each as soon as the group is read.
    async fn send_tags(
        &self,
        peer: PeerId,
        send: &mut SendStream,
        hash: Hash,
        size: u64,
        tagger: &Tagger,
    ) -> Result<(), Refusal> {
        if size <= GROUP_BYTES as u64 {
            return self.refuse(send, Refusal::Malformed).await;
        }
        let proof = match self.0.store.proof(hash).await {
            Ok(proof) => proof,
            Err(error) => return self.refuse(send, refusal_for(&error)).await,
        };
        let mut start = [head(size)];
        let bytes = start[0].len() as u64;
        self.send(peer, send, &mut start, bytes).await?;
        for group in 0..proof.count() {
            let bytes = self.0.store.read_group(hash, &proof, group).await;
            let bytes = bytes.map_err(|error| refusal_for(&error))?;
            let tag = Bytes::copy_from_slice(&tagger.tag(group, &bytes));
            let count = tag.len() as u64;
            self.send(peer, send, &mut [tag], count).await?;
        }
        Ok(())
    }

    /// Answers without content.
    async fn refuse(&self, send: &mut SendStream, refusal: Refusal) -> Result<(), Refusal> {
        let code = Bytes::copy_from_slice(&[refusal.code()]);
        write(send, &mut [code]).await
    }

    /// Writes content, which is counted.
    async fn send(
        &self,
        peer: PeerId,
        send: &mut SendStream,
        chunks: &mut [Bytes],
        bytes: u64,
    ) -> Result<(), Refusal> {
        write(send, chunks).await?;
        self.count(peer, bytes);
        Ok(())
    }

    fn count(&self, peer: PeerId, bytes: u64) {
        let mut served = self.0.served.lock().unwrap_or_else(PoisonError::into_inner);
        super::count(&mut served, peer, bytes);
    }
}

/// Opens the way that a reader offers, as far as that goes, and tells it which that is.
async fn open_tcp(
    reader: &Reader,
    send: &mut SendStream,
    offer: Offer,
) -> Result<Option<Sealed>, Refusal> {
    match offer {
        Offer::Listens { port, nonce } => {
            let stream = Sealed::connect(&reader.connection, port, nonce).await.ok();
            let way = match stream {
                Some(_) => Way::Connected,
                None => Way::Quic,
            };
            write_way(send, way).await?;
            Ok(stream)
        }
        Offer::Connects => {
            let Some(expected) = reader.port.as_ref().and_then(Expected::at) else {
                write_way(send, Way::Quic).await?;
                return Ok(None);
            };
            let (port, nonce) = (expected.port, expected.nonce);
            write_way(send, Way::Listens { port, nonce }).await?;
            // A reader that does not get through asks again without TCP.
            let stream = expected.stream(&reader.connection).await;
            stream.map(Some).ok_or(Refusal::NotHeld)
        }
    }
}

async fn write_way(send: &mut SendStream, way: Way) -> Result<(), Refusal> {
    write(send, &mut [Bytes::copy_from_slice(&way.encode())]).await
}

async fn write(send: &mut SendStream, chunks: &mut [Bytes]) -> Result<(), Refusal> {
    match timeout(STALL, send.write_all_chunks(chunks)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Refusal::NotHeld),
    }
}

/// What goes before the content.
fn head(size: u64) -> Bytes {
    [&[ANSWER_DATA][..], &size.to_le_bytes()].concat().into()
}

fn refusal_for(error: &NetError) -> Refusal {
    match error {
        NetError::Damaged(_) => Refusal::Damaged,
        NetError::TooLarge { .. } => Refusal::Malformed,
        _ => Refusal::NotHeld,
    }
}

/// Waits until the place is needed for another connection; for ever where it is free already.
async fn evicted(pending: &mut Option<Pending>) {
    match pending {
        Some(pending) => pending.evicted().await,
        None => std::future::pending().await,
    }
}
