//! Answers data requests: checks the grant, then streams the verified content.

use super::store::theirs;
use super::wire::{ANSWER_DATA, Request, WHOLE_BYTES_MAX};
use super::{DataStore, Refusal, Trust};
use crate::handshake::HELLO_TIMEOUT;
use crate::pending::Pending;
use crate::{CloseReason, NetError};
use bytes::Bytes;
use futures_util::StreamExt;
use hedge_model::PeerId;
use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Transfers that run at a time, over all readers; each may hold about 1 MiB.
const TRANSFERS_MAX: usize = 128;
/// A proven reader that asks nothing for this long is disconnected.
const IDLE: Duration = Duration::from_secs(60);
/// A reader that takes nothing for this long is given up.
const STALL: Duration = Duration::from_secs(30);
/// Pieces of up to 16 KiB that are handed to the transport in one go.
const PIECES_MAX: usize = 16;

/// Serves what a [`DataStore`] holds to whom [`Trust`] allows; cheap to clone.
#[derive(Clone, Debug)]
pub struct DataServer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: DataStore,
    trust: Trust,
    room: Semaphore,
    served: Mutex<HashMap<PeerId, u64>>,
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

    /// Serves one connection to its end. The first request that is granted frees the connection's place among
    /// those that have not authenticated; it has to come soon.
    pub(crate) async fn serve(&self, connection: Connection, pending: Pending) {
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
                    requests.spawn(async move { server.answer(peer, send, recv, &proven).await });
                }
            }
        }
    }

    async fn answer(
        &self,
        peer: PeerId,
        mut send: SendStream,
        mut recv: RecvStream,
        proven: &Notify,
    ) {
        let request = timeout(HELLO_TIMEOUT, Request::read(&mut recv))
            .await
            .ok()
            .flatten();
        let allowed = request.ok_or(Refusal::Malformed).and_then(|request| {
            self.check(peer, &request)?;
            proven.notify_one();
            let size = self.0.store.size(request.hash).ok_or(Refusal::NotHeld)?;
            Ok((request, size))
        });
        match allowed {
            Ok((request, size)) => {
                if let Err(refusal) = self.stream(peer, &mut send, &request, size).await {
                    _ = send.reset(VarInt::from_u32(refusal.code().into()));
                }
            }
            Err(refusal) => {
                tracing::debug!(%peer, %refusal, "a data request is refused");
                // A reader that is gone needs no answer.
                _ = timeout(STALL, send.write_all(&[refusal.code()])).await;
            }
        }
        _ = send.finish();
    }

    fn check(&self, peer: PeerId, request: &Request) -> Result<(), Refusal> {
        if self.0.trust.is_supervisor(peer) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now_unix_s = now.map_or(u64::MAX, |now| now.as_secs());
        let grant = request.grant.as_ref().ok_or(Refusal::NotGranted)?;
        grant.verify(peer, request.hash, now_unix_s, &self.0.trust)
    }

    /// An error is the code with which the stream is to be broken off.
    async fn stream(
        &self,
        peer: PeerId,
        send: &mut SendStream,
        request: &Request,
        size: u64,
    ) -> Result<(), Refusal> {
        let Ok(_place) = self.0.room.acquire().await else {
            return Err(Refusal::NotHeld);
        };
        if request.whole {
            let bytes = self.0.store.read(request.hash, WHOLE_BYTES_MAX).await;
            let bytes = bytes.map_err(|error| match error {
                NetError::Damaged(_) => Refusal::Damaged,
                NetError::TooLarge { .. } => Refusal::Malformed,
                _ => Refusal::NotHeld,
            })?;
            let head = [&[ANSWER_DATA][..], &size.to_le_bytes()].concat();
            return self.write(peer, send, &mut [head.into(), bytes]).await;
        }
        let head = Bytes::from_static(&[ANSWER_DATA]);
        self.write(peer, send, &mut [head]).await?;
        let ranges = ChunkRanges::chunks(request.first_chunk..);
        let blobs = self.0.store.files().blobs();
        let encoded = blobs
            .export_bao(theirs(request.hash), ranges)
            .into_byte_stream();
        let mut pieces = std::pin::pin!(encoded.ready_chunks(PIECES_MAX));
        while let Some(ready) = pieces.next().await {
            let mut chunks = Vec::with_capacity(ready.len());
            let mut damage = None;
            for piece in ready {
                match piece {
                    Ok(piece) => chunks.push(piece),
                    Err(error) => damage = Some(error),
                }
            }
            if let Some(error) = damage {
                self.0.store.damaged(request.hash, error).await;
                return Err(Refusal::Damaged);
            }
            self.write(peer, send, &mut chunks).await?;
        }
        Ok(())
    }

    async fn write(
        &self,
        peer: PeerId,
        send: &mut SendStream,
        chunks: &mut [Bytes],
    ) -> Result<(), Refusal> {
        let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
        match timeout(STALL, send.write_all_chunks(chunks)).await {
            Ok(Ok(())) => {
                let mut served = self.0.served.lock().unwrap_or_else(PoisonError::into_inner);
                super::count(&mut served, peer, bytes);
                Ok(())
            }
            _ => Err(Refusal::NotHeld),
        }
    }
}

/// Waits until the place is needed for another connection; for ever where it is free already.
async fn evicted(pending: &mut Option<Pending>) {
    match pending {
        Some(pending) => pending.evicted().await,
        None => std::future::pending().await,
    }
}
