//! An open control connection: batches of messages in order, and heartbeats that may be lost.

use crate::frame::HEADER_BYTES;
use crate::{CloseReason, FRAME_BYTES_MAX, NetError, decode};
use bytes::{Buf, Bytes, BytesMut};
use hedge_model::PeerId;
use iroh::TransportAddr;
use iroh::endpoint::{Connection, ReadError, RecvStream, SendStream};
use serde::de::DeserializeOwned;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc};

/// The most frames queued for one peer: enough for a burst, and few enough that a peer that stopped reading is noticed.
const QUEUE_FRAMES_MAX: usize = 4096;
/// The most bytes queued for one peer: two of the longest frames.
const QUEUE_BYTES_MAX: usize = 2 * FRAME_BYTES_MAX + 2 * HEADER_BYTES;
/// The most frames passed to the transport at once.
const WRITE_FRAMES_MAX: usize = 64;
/// The most bytes read from the transport at once. Also the most that is allocated for an announced length.
const READ_BYTES: usize = 256 << 10;

/// An open control connection, to be split into its halves.
#[derive(Debug)]
pub struct Link {
    /// Sends, closes and measures; may be cloned.
    pub sender: LinkSender,
    /// Receives batches of messages.
    pub receiver: LinkReceiver,
    /// Receives heartbeats.
    pub heartbeats: HeartbeatReceiver,
}

impl Link {
    /// The peer at the other end, proven by its key.
    pub fn peer(&self) -> PeerId {
        self.sender.peer()
    }

    pub(crate) fn new(
        peer: PeerId,
        connection: Connection,
        send: SendStream,
        recv: RecvStream,
        left_over: BytesMut,
    ) -> Link {
        let shared = Arc::new(Shared {
            peer,
            connection,
            closed_here: OnceLock::new(),
        });
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        tokio::spawn(write_frames(send, frames, room.clone()));
        Link {
            sender: LinkSender {
                shared: shared.clone(),
                queue,
                room,
            },
            receiver: LinkReceiver {
                shared: shared.clone(),
                recv,
                buffer: left_over,
            },
            heartbeats: HeartbeatReceiver { shared },
        }
    }
}

/// Bytes that one control connection put on the wire and took from it, packet headers included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Sent to the peer.
    pub sent_bytes: u64,
    /// Received from the peer.
    pub received_bytes: u64,
}

/// The sending half of a [`Link`]; cheap to clone. The connection ends when all halves are dropped.
#[derive(Clone, Debug)]
pub struct LinkSender {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Item>,
    room: Arc<Semaphore>,
}

impl LinkSender {
    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.shared.peer
    }

    /// Queues a frame made by [`crate::encode`], without waiting.
    ///
    /// [`NetError::QueueFull`] means that the peer reads too slowly; the frame was not queued.
    pub fn try_send(&self, frame: Bytes) -> Result<(), NetError> {
        let Ok(permit) = self.room.try_acquire_many(frame.len() as u32) else {
            return Err(self.full_or_closed());
        };
        self.queue
            .try_send(Item::Frame(frame))
            .map_err(|_| self.full_or_closed())?;
        permit.forget();
        Ok(())
    }

    /// Queues a frame made by [`crate::encode`]. Waits while the queue is full.
    pub async fn send(&self, frame: Bytes) -> Result<(), NetError> {
        let permit = self.room.acquire_many(frame.len() as u32).await;
        let permit = permit.map_err(|_| self.shared.closed_error())?;
        self.queue
            .send(Item::Frame(frame))
            .await
            .map_err(|_| self.shared.closed_error())?;
        permit.forget();
        Ok(())
    }

    /// Sends a heartbeat: one datagram that may be lost. Where the queue is full the oldest heartbeat is dropped.
    ///
    /// Fails where the connection is closed or the heartbeat is over [`LinkSender::heartbeat_bytes_max`].
    pub fn send_heartbeat(&self, heartbeat: Bytes) -> Result<(), NetError> {
        let bytes = heartbeat.len();
        self.shared
            .connection
            .send_datagram(heartbeat)
            .map_err(|error| match error {
                iroh::endpoint::SendDatagramError::TooLarge => NetError::TooLarge {
                    bytes,
                    limit: self.heartbeat_bytes_max(),
                },
                _ => self.shared.closed_error(),
            })
    }

    /// Longest heartbeat in bytes on the current path; never below 1,100.
    pub fn heartbeat_bytes_max(&self) -> usize {
        self.shared.connection.max_datagram_size().unwrap_or(0)
    }

    /// Sends what is queued, lets the peer read all of it, and ends the connection; at most `within`.
    pub async fn finish(self, within: Duration) {
        let flushed = async {
            if self.queue.send(Item::Finish).await.is_ok() {
                self.shared.connection.closed().await;
            }
        };
        _ = tokio::time::timeout(within, flushed).await;
        self.close(CloseReason::Done);
    }

    /// Ends the connection at once; frames still queued are lost. The first reason given stays.
    pub fn close(&self, reason: CloseReason) {
        self.shared.close(reason);
    }

    /// Waits for the end of the connection, by either peer.
    pub async fn closed(&self) -> CloseReason {
        self.shared.connection.closed().await;
        self.shared.reason()
    }

    /// Returns whether the connection ended by the idle timeout of either side. The process there may still run, and connect
    /// again.
    pub fn fell_silent(&self) -> bool {
        let ended = self.shared.connection.close_reason();
        let lost = ended.is_some_and(|error| CloseReason::of(&error) == CloseReason::Lost);
        lost && self.shared.closed_here.get().is_none()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.connection.close_reason().is_some()
    }

    /// The transport's estimate of the round trip on the path in use.
    pub fn rtt(&self) -> Option<Duration> {
        let paths = self.shared.connection.paths();
        paths
            .iter()
            .find(|path| path.is_selected())
            .map(|path| path.rtt())
    }

    /// Returns whether the connection uses a relay, because there is no direct path.
    pub fn is_relayed(&self) -> bool {
        is_relayed(&self.shared.connection)
    }

    /// The peer's addresses on all open paths.
    pub fn remote_addrs(&self) -> Vec<SocketAddr> {
        remote_addrs(&self.shared.connection)
    }

    /// What this connection has sent and received so far.
    pub fn traffic(&self) -> Traffic {
        let stats = self.shared.connection.stats();
        Traffic {
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
        }
    }

    fn full_or_closed(&self) -> NetError {
        if self.queue.is_closed() {
            self.shared.closed_error()
        } else {
            NetError::QueueFull
        }
    }
}

/// The receiving half of a [`Link`].
#[derive(Debug)]
pub struct LinkReceiver {
    shared: Arc<Shared>,
    recv: RecvStream,
    buffer: BytesMut,
}

impl LinkReceiver {
    /// The next batch of messages. May be dropped and called again without losing any.
    ///
    /// A frame over [`FRAME_BYTES_MAX`] or one that does not decode ends the connection with the matching reason. Allocates
    /// nothing for a length that was only announced.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<Vec<T>, NetError> {
        loop {
            if let Some(body) = self.take_frame()? {
                return decode(&body).map_err(|error| {
                    let reason = match error {
                        NetError::FrameVersion(_) => CloseReason::WrongVersion,
                        _ => CloseReason::Malformed,
                    };
                    self.shared.close(reason);
                    error
                });
            }
            match self.recv.read_chunk(READ_BYTES).await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) => {
                    self.shared.close(CloseReason::Done);
                    return Err(self.shared.closed_error());
                }
                Err(ReadError::ConnectionLost(_)) => return Err(self.shared.closed_error()),
                Err(_) => {
                    self.shared.close(CloseReason::Malformed);
                    return Err(self.shared.closed_error());
                }
            }
        }
    }

    fn take_frame(&mut self) -> Result<Option<Bytes>, NetError> {
        let Some(header) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > FRAME_BYTES_MAX {
            self.shared.close(CloseReason::Oversized);
            return Err(NetError::TooLarge {
                bytes: length,
                limit: FRAME_BYTES_MAX,
            });
        }
        if self.buffer.len() < 4 + length {
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Receives the heartbeats of a [`Link`]. Heartbeats that are not read in time are dropped, oldest first.
#[derive(Debug)]
pub struct HeartbeatReceiver {
    shared: Arc<Shared>,
}

impl HeartbeatReceiver {
    /// Waits for heartbeats and puts all that are there, at most `heartbeats.len()`, into `heartbeats`; returns how many.
    pub async fn recv(&mut self, heartbeats: &mut [Bytes]) -> Result<usize, NetError> {
        let read = self.shared.connection.read_many_datagrams(heartbeats).await;
        read.map_err(|_| self.shared.closed_error())
    }
}

pub(crate) fn is_relayed(connection: &Connection) -> bool {
    let paths = connection.paths();
    let mut selected = paths.iter().filter(|path| path.is_selected());
    selected.all(|path| path.is_relay())
}

pub(crate) fn remote_addrs(connection: &Connection) -> Vec<SocketAddr> {
    let ip = |addr: &TransportAddr| match addr {
        TransportAddr::Ip(addr) => Some(*addr),
        _ => None,
    };
    connection
        .paths()
        .iter()
        .filter_map(|path| ip(path.remote_addr()))
        .collect()
}

#[derive(Debug)]
struct Shared {
    peer: PeerId,
    connection: Connection,
    closed_here: OnceLock<CloseReason>,
}

impl Shared {
    fn close(&self, reason: CloseReason) {
        if self.connection.close_reason().is_none() {
            let reason = *self.closed_here.get_or_init(|| reason);
            reason.close(&self.connection);
        }
    }

    fn reason(&self) -> CloseReason {
        match self.closed_here.get() {
            Some(reason) => *reason,
            None => self
                .connection
                .close_reason()
                .map_or(CloseReason::Lost, |e| CloseReason::of(&e)),
        }
    }

    fn closed_error(&self) -> NetError {
        NetError::Closed(self.reason())
    }
}

#[derive(Debug)]
enum Item {
    Frame(Bytes),
    Finish,
}

async fn write_frames(
    mut send: SendStream,
    mut frames: mpsc::Receiver<Item>,
    room: Arc<Semaphore>,
) {
    let mut items = Vec::with_capacity(WRITE_FRAMES_MAX);
    let mut chunks = Vec::with_capacity(WRITE_FRAMES_MAX);
    let mut more = true;
    while more && frames.recv_many(&mut items, WRITE_FRAMES_MAX).await > 0 {
        let mut bytes = 0;
        for item in items.drain(..) {
            match item {
                Item::Frame(frame) if more => {
                    bytes += frame.len();
                    chunks.push(frame);
                }
                Item::Frame(_) => {}
                Item::Finish => more = false,
            }
        }
        if send.write_all_chunks(&mut chunks).await.is_err() {
            break;
        }
        chunks.clear();
        room.add_permits(bytes);
    }
    frames.close();
    room.close();
    // Fails only where the connection is gone, and then there is nothing to finish.
    _ = send.finish();
}
