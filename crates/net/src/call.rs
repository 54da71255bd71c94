//! Requests and replies over a [`Link`], in both directions at once, and messages without a reply (notes). Supervisors of
//! one group use them.
//!
//! Long messages are sent in pieces, so that a short one does not wait for the end of a long one.

use crate::{CloseReason, Link, LinkReceiver, LinkSender, NetError, encode};
use bytes::{Bytes, BytesMut};
use hedge_model::PeerId;
use serde::de::{Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// The longest request or reply in bytes, and the most bytes of incomplete ones of one peer. Messages of journals are sent
/// in far shorter parts.
pub const CALL_BYTES_MAX: usize = 128 << 20;
/// The longest note in bytes; it is sent in one frame.
pub const NOTE_BYTES_MAX: usize = 8 << 20;

/// The most pending requests in each direction. A peer waits before it sends more, and stops reading if it gets more.
const OPEN_MAX: usize = 64;
/// Long messages are sent in pieces of this length, which takes 2 ms on a link of 1 Gbit/s.
const PIECE_BYTES: usize = 256 << 10;
/// The time limit for passing a reply to the transport. The requester stops waiting long before.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// One piece of one message.
#[derive(Serialize, Deserialize)]
enum Wire {
    /// A piece of a request: the requester's number for it, its kind, its whole length, and the piece.
    Ask(u64, u8, u64, Piece),
    /// A piece of the reply to the request with this number.
    Answer(u64, u8, u64, Piece),
    Note(Piece),
}

/// Bytes that are encoded as one block, not element by element.
struct Piece(Bytes);

impl Serialize for Piece {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Piece {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Piece;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Piece, E> {
                if bytes.len() > NOTE_BYTES_MAX {
                    return Err(E::custom("a piece is too long"));
                }
                Ok(Piece(Bytes::copy_from_slice(bytes)))
            }
        }
        deserializer
            .deserialize_bytes(Whole)
            .map_err(D::Error::custom)
    }
}

/// Sends requests and notes to the peer at the other end; cheap to clone.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sender: LinkSender,
    last: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Bytes>>>,
    room: Semaphore,
}

impl Caller {
    /// The peer at the other end.
    pub fn peer(&self) -> PeerId {
        self.0.sender.peer()
    }

    /// Sends a request and waits for the reply, at most `within`. The kind tells the other peer how to decode it.
    ///
    /// An error means that no reply came; the peer may have handled the request. Dropping the future only loses the reply.
    pub async fn call(
        &self,
        kind: u8,
        request: Bytes,
        within: Duration,
    ) -> Result<Bytes, NetError> {
        if request.len() > CALL_BYTES_MAX {
            return Err(too_large(request.len(), CALL_BYTES_MAX));
        }
        let asked = async {
            let lost = || NetError::Closed(CloseReason::Lost);
            let _place = self.0.room.acquire().await.map_err(|_| lost())?;
            let id = self.0.last.fetch_add(1, Ordering::Relaxed) + 1;
            let (answer, answered) = oneshot::channel();
            let _waiting = Waits::new(&self.0, id, answer);
            // The peer must get all pieces of a message, even if the caller stops waiting.
            let sender = self.0.sender.clone();
            if request.len() <= PIECE_BYTES {
                let ask = Wire::Ask(id, kind, request.len() as u64, Piece(request));
                sender.send(frame(ask)?).await?;
            } else {
                tokio::spawn(
                    async move { send_pieces(&sender, (id, kind), request, Wire::Ask).await },
                );
            }
            answered
                .await
                .map_err(|_| NetError::Closed(CloseReason::Lost))
        };
        match tokio::time::timeout(within, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(NetError::NoAnswer { within }),
        }
    }

    /// Queues a note without waiting. A full queue is an error.
    pub fn note(&self, note: Bytes) -> Result<(), NetError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(too_large(note.len(), NOTE_BYTES_MAX));
        }
        self.0.sender.try_send(frame(Wire::Note(Piece(note)))?)
    }

    /// The sender of the link below, to close or measure it.
    pub fn link(&self) -> &LinkSender {
        &self.0.sender
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Bytes>>> {
        self.0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Removes a pending request when nobody waits for its reply any more.
struct Waits<'a>(&'a Inner, u64);

impl<'a> Waits<'a> {
    fn new(inner: &'a Inner, id: u64, answer: oneshot::Sender<Bytes>) -> Self {
        let mut waiting = inner.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.insert(id, answer);
        Waits(inner, id)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut waiting = self
            .0
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        waiting.remove(&self.1);
    }
}

/// A message of the peer at the other end.
#[derive(Debug)]
pub enum Heard {
    /// A request.
    Call(Call),
    /// A message without a reply.
    Note(Bytes),
}

/// A request that waits for its reply. If it is dropped, the requester gets none.
#[derive(Debug)]
pub struct Call {
    /// How to decode it, as given by the requester.
    pub kind: u8,
    /// The request.
    pub request: Bytes,
    id: u64,
    sender: LinkSender,
    _place: OwnedSemaphorePermit,
}

impl Call {
    /// Sends the reply. Returns once the transport has accepted all of it.
    pub async fn answer(self, answer: Bytes) -> Result<(), NetError> {
        if answer.len() > CALL_BYTES_MAX {
            return Err(too_large(answer.len(), CALL_BYTES_MAX));
        }
        let sent = send_pieces(&self.sender, (self.id, self.kind), answer, Wire::Answer);
        let sent = tokio::time::timeout(ANSWER_WITHIN, sent).await;
        sent.unwrap_or(Err(NetError::NoAnswer {
            within: ANSWER_WITHIN,
        }))
    }
}

/// Receives the messages of the peer at the other end. Replies arrive only while it is read.
#[derive(Debug)]
pub struct Hearing {
    receiver: LinkReceiver,
    caller: Caller,
    asked: Partial,
    answers: Partial,
    room: Arc<Semaphore>,
    ready: std::collections::VecDeque<Heard>,
}

/// Messages of which pieces are still missing, by number.
type Partial = HashMap<u64, (usize, BytesMut)>;

impl Hearing {
    /// Waits for the next message. It may be dropped and called again without losing anything.
    ///
    /// Passes replies to the requests that wait for them. Disconnects a peer that violates the protocol.
    pub async fn next(&mut self) -> Result<Heard, NetError> {
        loop {
            if let Some(heard) = self.ready.pop_front() {
                return Ok(heard);
            }
            let batch = match self.receiver.recv::<Wire>().await {
                Ok(batch) => batch,
                Err(error) => {
                    self.caller.lock().clear();
                    return Err(error);
                }
            };
            for wire in batch {
                self.take(wire)?;
            }
        }
    }

    fn take(&mut self, wire: Wire) -> Result<(), NetError> {
        let joined = match wire {
            Wire::Note(Piece(note)) => {
                self.ready.push_back(Heard::Note(note));
                return Ok(());
            }
            Wire::Answer(id, _, total, Piece(piece)) => {
                let whole = join(&mut self.answers, id, total, piece);
                whole.map(|whole| {
                    if let Some(bytes) = whole
                        && let Some(requester) = self.caller.lock().remove(&id)
                    {
                        _ = requester.send(bytes);
                    }
                })
            }
            Wire::Ask(id, kind, total, Piece(piece)) => {
                let whole = join(&mut self.asked, id, total, piece);
                match whole {
                    Ok(Some(request)) => self.asked(id, kind, request),
                    other => other.map(drop),
                }
            }
        };
        joined.map_err(|reason| {
            self.caller.link().close(reason);
            NetError::Closed(reason)
        })
    }

    fn asked(&mut self, id: u64, kind: u8, request: Bytes) -> Result<(), CloseReason> {
        // The requester has the same bound, so a request beyond it violates the protocol.
        let place = self.room.clone().try_acquire_owned();
        let place = place.map_err(|_| CloseReason::Malformed)?;
        self.ready.push_back(Heard::Call(Call {
            kind,
            request,
            id,
            sender: self.caller.link().clone(),
            _place: place,
        }));
        Ok(())
    }
}

impl Drop for Hearing {
    /// Fails all pending requests, because no reply is received any more.
    fn drop(&mut self) {
        self.caller.lock().clear();
    }
}

/// Splits a link into the two ends for requests and replies.
pub fn calls(link: Link) -> (Caller, Hearing) {
    let caller = Caller(Arc::new(Inner {
        sender: link.sender,
        last: AtomicU64::new(0),
        waiting: Mutex::default(),
        room: Semaphore::new(OPEN_MAX),
    }));
    let hearing = Hearing {
        receiver: link.receiver,
        caller: caller.clone(),
        asked: HashMap::new(),
        answers: HashMap::new(),
        // Twice as many, because requests whose replies the requester no longer waits for may still be handled.
        room: Arc::new(Semaphore::new(2 * OPEN_MAX)),
        ready: std::collections::VecDeque::new(),
    };
    (caller, hearing)
}

/// Adds a piece. Returns the message when it is complete. Allocates nothing for a length that was only announced.
fn join(
    partial: &mut Partial,
    id: u64,
    total: u64,
    piece: Bytes,
) -> Result<Option<Bytes>, CloseReason> {
    let total = usize::try_from(total).map_err(|_| CloseReason::Oversized)?;
    if total > CALL_BYTES_MAX {
        return Err(CloseReason::Oversized);
    }
    if piece.len() == total && !partial.contains_key(&id) {
        return Ok(Some(piece));
    }
    if partial.len() >= 2 * OPEN_MAX && !partial.contains_key(&id) {
        return Err(CloseReason::Malformed);
    }
    let held: usize = partial.values().map(|(_, bytes)| bytes.len()).sum();
    let (expected, bytes) = partial
        .entry(id)
        .or_insert_with(|| (total, BytesMut::new()));
    let fits = !piece.is_empty() && *expected == total && bytes.len() + piece.len() <= total;
    if !fits || held + piece.len() > CALL_BYTES_MAX {
        return Err(CloseReason::Malformed);
    }
    bytes.extend_from_slice(&piece);
    if bytes.len() < total {
        return Ok(None);
    }
    Ok(partial.remove(&id).map(|(_, bytes)| bytes.freeze()))
}

async fn send_pieces(
    sender: &LinkSender,
    (id, kind): (u64, u8),
    mut bytes: Bytes,
    wrap: fn(u64, u8, u64, Piece) -> Wire,
) -> Result<(), NetError> {
    let total = bytes.len() as u64;
    loop {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        sender
            .send(frame(wrap(id, kind, total, Piece(piece)))?)
            .await?;
        if bytes.is_empty() {
            return Ok(());
        }
    }
}

fn frame(wire: Wire) -> Result<Bytes, NetError> {
    encode(&[wire])
}

fn too_large(bytes: usize, limit: usize) -> NetError {
    NetError::TooLarge { bytes, limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_join_in_any_interleaving_and_lies_about_lengths_are_refused() {
        let mut partial = Partial::new();
        let piece = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(join(&mut partial, 1, 4, piece("ab")), Ok(None));
        assert_eq!(join(&mut partial, 2, 3, piece("x")), Ok(None));
        assert_eq!(join(&mut partial, 3, 1, piece("!")), Ok(Some(piece("!"))));
        assert_eq!(
            join(&mut partial, 1, 4, piece("cd")),
            Ok(Some(piece("abcd")))
        );
        assert_eq!(
            join(&mut partial, 2, 4, piece("y")),
            Err(CloseReason::Malformed)
        );
        assert_eq!(
            join(&mut partial, 2, 3, piece("yyyy")),
            Err(CloseReason::Malformed)
        );
        assert_eq!(
            join(&mut partial, 9, 1 << 40, piece("z")),
            Err(CloseReason::Oversized)
        );
        assert_eq!(
            join(&mut partial, 9, 3, piece("")),
            Err(CloseReason::Malformed)
        );
    }
}
