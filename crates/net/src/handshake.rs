//! The handshake of a control connection: role, protocol version, and the secret of a ticket.

use crate::{CloseReason, Link, NetError, Role};
use bytes::{Buf, BytesMut};
use hedge_model::{PeerAddr, PeerId};
use iroh::endpoint::{Connection, RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The longest first message, and the longest reply to it, in bytes.
pub const HELLO_BYTES_MAX: usize = 64 << 10;
/// The protocol version that this release speaks.
pub const PROTOCOL_VERSION: u16 = 1;

/// The time limit for a dialler from its first packet to the end of its first message.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a dialler waits for the reply, which may need a decision of the application.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// Stands in the reply instead of the protocol version: a list of peers to dial instead follows.
const REDIRECT: u16 = 0;
/// The most peers that one redirect may name.
const REDIRECT_MAX: usize = 32;
/// The receive window of an accepted peer, in bytes.
const MEMBER_RECEIVE_WINDOW: u32 = 4 << 20;

/// The protocol versions that one side speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Default for VersionRange {
    fn default() -> Self {
        VersionRange {
            min: PROTOCOL_VERSION,
            max: PROTOCOL_VERSION,
        }
    }
}

impl VersionRange {
    /// The newest version in both ranges.
    pub fn common(self, other: VersionRange) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// The first message of a dialler.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The role that it asks for.
    pub role: Role,
    /// The secret of its ticket; none if it is a member already.
    pub proof: Option<[u8; 16]>,
    /// Data of the application, at most about [`HELLO_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello")
            .field("role", &self.role)
            .field("has_proof", &self.proof.is_some())
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// A peer that has said hello and waits to be accepted or refused; dropping it refuses it.
#[derive(Debug)]
pub struct Incoming {
    /// The peer, proven by its key.
    pub peer: PeerId,
    /// Its first message.
    pub hello: Hello,
    /// The addresses that it dialled from.
    pub addrs: Vec<SocketAddr>,
    version: u16,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    connection: Connection,
    send: SendStream,
    recv: RecvStream,
    left_over: BytesMut,
}

impl Incoming {
    /// The protocol version that both sides speak.
    pub fn version(&self) -> u16 {
        self.version
    }

    /// Accepts the peer. `welcome` is the application's reply, at most about [`HELLO_BYTES_MAX`] bytes.
    pub async fn accept(mut self, welcome: &[u8]) -> Result<Link, NetError> {
        let Some(pending) = self.pending.take() else {
            return Err(NetError::Closed(CloseReason::Lost));
        };
        let Pending {
            connection,
            mut send,
            recv,
            left_over,
        } = pending;
        let mut message = self.version.to_le_bytes().to_vec();
        message.extend_from_slice(welcome);
        connection.set_receive_window(MEMBER_RECEIVE_WINDOW.into());
        write_message(&connection, &mut send, &message).await?;
        Ok(Link::new(self.peer, connection, send, recv, left_over))
    }

    /// Tells the peer to dial `others` instead. Returns once it has read that and closed the connection, or after 3 s.
    pub async fn redirect(mut self, others: &[PeerAddr]) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        let connection = pending.connection;
        let others = &others[..others.len().min(REDIRECT_MAX)];
        let message = postcard::to_extend(others, REDIRECT.to_le_bytes().to_vec());
        let mut send = pending.send;
        if let Ok(message) = message
            && write_message(&connection, &mut send, &message)
                .await
                .is_ok()
        {
            _ = tokio::time::timeout(HELLO_TIMEOUT, connection.closed()).await;
        }
        CloseReason::NotLeader.close(&connection);
    }

    /// Refuses the peer and tells it why.
    pub fn refuse(mut self, reason: CloseReason) {
        if let Some(pending) = self.pending.take() {
            reason.close(&pending.connection);
        }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(pending) = self.pending.take() {
            CloseReason::ShuttingDown.close(&pending.connection);
        }
    }
}

/// Carries out the dialler's side.
pub(crate) async fn say_hello(
    peer: PeerId,
    connection: Connection,
    versions: VersionRange,
    hello: &Hello,
) -> Result<(Link, Vec<u8>), NetError> {
    let mut message = versions.min.to_le_bytes().to_vec();
    message.extend_from_slice(&versions.max.to_le_bytes());
    let message = postcard::to_extend(hello, message).map_err(NetError::Encode)?;
    let exchange = async {
        let (mut send, mut recv) = connection
            .open_bi()
            .await
            .map_err(|e| NetError::Closed(CloseReason::of(&e)))?;
        write_message(&connection, &mut send, &message).await?;
        let mut buffer = BytesMut::new();
        let answer = read_message(&connection, &mut recv, &mut buffer).await?;
        Ok((send, recv, buffer, answer))
    };
    let (send, recv, left_over, answer) = tokio::time::timeout(WELCOME_TIMEOUT, exchange)
        .await
        .unwrap_or_else(|_| {
            CloseReason::HandshakeTimeout.close(&connection);
            Err(NetError::Closed(CloseReason::HandshakeTimeout))
        })?;
    let version = answer
        .first_chunk::<2>()
        .map(|bytes| u16::from_le_bytes(*bytes));
    if version == Some(REDIRECT) {
        CloseReason::Done.close(&connection);
        let mut supervisors: Vec<PeerAddr> =
            postcard::from_bytes(&answer[2..]).map_err(NetError::Decode)?;
        supervisors.truncate(REDIRECT_MAX);
        return Err(NetError::Redirected { supervisors });
    }
    if !version.is_some_and(|version| (versions.min..=versions.max).contains(&version)) {
        CloseReason::WrongVersion.close(&connection);
        return Err(NetError::Closed(CloseReason::WrongVersion));
    }
    Ok((
        Link::new(peer, connection, send, recv, left_over),
        answer[2..].to_vec(),
    ))
}

/// Carries out the accepting side up to the application's decision. On an error the connection is closed already.
pub(crate) async fn hear_hello(
    connection: Connection,
    versions: VersionRange,
) -> Result<Incoming, NetError> {
    let peer = PeerId(*connection.remote_id().as_bytes());
    let (send, mut recv) = connection
        .accept_bi()
        .await
        .map_err(|e| NetError::Closed(CloseReason::of(&e)))?;
    let mut left_over = BytesMut::new();
    let message = read_message(&connection, &mut recv, &mut left_over).await?;
    let refuse = |reason: CloseReason| {
        reason.close(&connection);
        NetError::Closed(reason)
    };
    let Some((range, body)) = message.split_first_chunk::<4>() else {
        return Err(refuse(CloseReason::Malformed));
    };
    let theirs = VersionRange {
        min: u16::from_le_bytes([range[0], range[1]]),
        max: u16::from_le_bytes([range[2], range[3]]),
    };
    // The versions come first and unencoded, so that a later release can change everything behind them.
    let Some(version) = versions.common(theirs) else {
        return Err(refuse(CloseReason::WrongVersion));
    };
    let Ok(hello) = postcard::from_bytes::<Hello>(body) else {
        return Err(refuse(CloseReason::Malformed));
    };
    let addrs = crate::link::remote_addrs(&connection);
    let pending = Pending {
        connection,
        send,
        recv,
        left_over,
    };
    Ok(Incoming {
        peer,
        hello,
        addrs,
        version,
        pending: Some(pending),
    })
}

async fn write_message(
    connection: &Connection,
    send: &mut SendStream,
    message: &[u8],
) -> Result<(), NetError> {
    if message.len() > HELLO_BYTES_MAX {
        CloseReason::Oversized.close(connection);
        return Err(NetError::TooLarge {
            bytes: message.len(),
            limit: HELLO_BYTES_MAX,
        });
    }
    let mut bytes = (message.len() as u32).to_le_bytes().to_vec();
    bytes.extend_from_slice(message);
    send.write_all(&bytes).await.map_err(|_| closed(connection))
}

async fn read_message(
    connection: &Connection,
    recv: &mut RecvStream,
    buffer: &mut BytesMut,
) -> Result<BytesMut, NetError> {
    loop {
        if let Some(header) = buffer.first_chunk::<4>() {
            let length = u32::from_le_bytes(*header) as usize;
            if length > HELLO_BYTES_MAX {
                CloseReason::Oversized.close(connection);
                return Err(NetError::Closed(CloseReason::Oversized));
            }
            if buffer.len() >= 4 + length {
                buffer.advance(4);
                return Ok(buffer.split_to(length));
            }
        }
        match recv.read_chunk(HELLO_BYTES_MAX).await {
            Ok(Some(chunk)) => buffer.extend_from_slice(&chunk),
            Err(iroh::endpoint::ReadError::ConnectionLost(_)) => return Err(closed(connection)),
            Ok(None) | Err(_) => {
                CloseReason::Malformed.close(connection);
                return Err(NetError::Closed(CloseReason::Malformed));
            }
        }
    }
}

fn closed(connection: &Connection) -> NetError {
    let reason = connection
        .close_reason()
        .map_or(CloseReason::Lost, |e| CloseReason::of(&e));
    NetError::Closed(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_spoken() {
        let range = |min, max| VersionRange { min, max };
        assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
        assert_eq!(range(2, 2).common(range(1, 9)), Some(2));
        assert_eq!(range(1, 2).common(range(3, 4)), None);
        assert_eq!(range(9, 1).common(range(1, 9)), None);
    }
}
