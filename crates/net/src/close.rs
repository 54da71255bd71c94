//! Why a connection ended, as a number on the wire and a sentence for the user.

use iroh::endpoint::{ConnectionError, VarInt};
use std::fmt;

/// Why a connection was closed or refused. The numbers are part of the protocol and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The peer finished what it had to do; also what a process says that ends without a reason.
    Done,
    /// The other side does not know this peer, and it showed no valid ticket.
    Stranger,
    /// The peer is known but may not do this.
    NotAllowed,
    /// No protocol version is spoken by both sides.
    WrongVersion,
    /// Bytes that are no valid message.
    Malformed,
    /// A message longer than allowed.
    Oversized,
    /// The ticket has expired.
    Expired,
    /// The ticket is for another role.
    WrongRole,
    /// The peer was a member and was thrown out.
    Revoked,
    /// The same peer has connected again; the newer connection stays.
    Replaced,
    /// The other side is stopping.
    ShuttingDown,
    /// The other side has as many peers as it can serve.
    TooManyPeers,
    /// The first message did not come in time.
    HandshakeTimeout,
    /// The other side is not the leader; its answer names no one to turn to.
    NotLeader,
    /// The grid uses a format of its journal that this release cannot read.
    FormatTooOld,
    /// The supervisor was removed from its group.
    Removed,
    /// No heartbeat for the idle timeout, or the network took the connection away.
    Lost,
    /// A number that this version does not know.
    Other(u32),
}

const CODES: [(CloseReason, u32); 16] = [
    (CloseReason::Done, 0),
    (CloseReason::Stranger, 1),
    (CloseReason::NotAllowed, 2),
    (CloseReason::WrongVersion, 3),
    (CloseReason::Malformed, 4),
    (CloseReason::Oversized, 5),
    (CloseReason::Expired, 6),
    (CloseReason::WrongRole, 7),
    (CloseReason::Revoked, 8),
    (CloseReason::Replaced, 9),
    (CloseReason::ShuttingDown, 10),
    (CloseReason::TooManyPeers, 11),
    (CloseReason::HandshakeTimeout, 12),
    (CloseReason::NotLeader, 13),
    (CloseReason::FormatTooOld, 15),
    (CloseReason::Removed, 16),
];

const CODE_LOST: u32 = 14;

impl CloseReason {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        match self {
            CloseReason::Other(code) => code,
            reason => CODES
                .iter()
                .find(|(r, _)| *r == reason)
                .map_or(CODE_LOST, |(_, code)| *code),
        }
    }

    /// The reason that a number on the wire stands for.
    pub fn from_code(code: u64) -> CloseReason {
        match CODES.iter().find(|(_, c)| u64::from(*c) == code) {
            Some((reason, _)) => *reason,
            None if code == u64::from(CODE_LOST) => CloseReason::Lost,
            None => CloseReason::Other(u32::try_from(code).unwrap_or(u32::MAX)),
        }
    }

    /// Whether connecting again later, with nothing changed by a person, can succeed.
    pub fn may_retry(self) -> bool {
        matches!(
            self,
            CloseReason::Done
                | CloseReason::ShuttingDown
                | CloseReason::TooManyPeers
                | CloseReason::HandshakeTimeout
                | CloseReason::NotLeader
                | CloseReason::Lost
        )
    }

    /// What happened and what to do, for the user of the side that was closed.
    pub fn sentence(self) -> &'static str {
        match self {
            CloseReason::Done => "the other side finished and closed the connection",
            CloseReason::Stranger => {
                "the supervisor does not know this peer and accepted no ticket from it; \
                 ask for a new ticket with `hedge ticket`"
            }
            CloseReason::NotAllowed => "this peer may not do that; ask the grid's owner",
            CloseReason::WrongVersion => {
                "the two sides speak no common protocol version; install the same release on both"
            }
            CloseReason::Malformed => {
                "the other side received bytes it could not read; install the same release on both"
            }
            CloseReason::Oversized => {
                "the other side received a message longer than it allows; install the same release on both"
            }
            CloseReason::Expired => {
                "the ticket has expired, is used up or was revoked; ask for a new one with `hedge ticket`"
            }
            CloseReason::WrongRole => {
                "the ticket is for another role; use one made by `hedge ticket` for this role"
            }
            CloseReason::Revoked => {
                "this peer was revoked, under this identity for good; \
                 with a new ticket and an empty --dir it joins as another"
            }
            CloseReason::Replaced => {
                "a newer connection of this same peer took over; \
                 give every process a --dir of its own"
            }
            CloseReason::ShuttingDown => "the other side is stopping; connect again later",
            CloseReason::TooManyPeers => {
                "the other side serves as many peers as it can; try again later"
            }
            CloseReason::HandshakeTimeout => "the first message did not arrive in time; try again",
            CloseReason::NotLeader => {
                "the supervisor does not lead and does not know this peer; name a supervisor that leads, or try again"
            }
            CloseReason::FormatTooOld => {
                "the grid uses a format that this release cannot read; install the release that the other \
                 supervisors run"
            }
            CloseReason::Removed => {
                "this supervisor was removed from its group; to come back it joins again with a ticket of \
                 `hedge ticket supervisor` and an empty folder"
            }
            CloseReason::Lost => {
                "the connection was lost; the network or the other machine went away"
            }
            CloseReason::Other(_) => {
                "the other side closed the connection for a reason that this version does not know; \
                 install the same release on both"
            }
        }
    }

    pub(crate) fn close(self, connection: &iroh::endpoint::Connection) {
        connection.close(VarInt::from_u32(self.code()), self.sentence().as_bytes());
    }

    /// What ended a connection that ended by itself or by the peer.
    pub(crate) fn of(error: &ConnectionError) -> CloseReason {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                CloseReason::from_code(close.error_code.into_inner())
            }
            ConnectionError::LocallyClosed => CloseReason::Done,
            _ => CloseReason::Lost,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.sentence())?;
        match self {
            CloseReason::Other(code) => write!(f, " (code {code})"),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_for_one_reason() {
        for code in 0..40 {
            assert_eq!(CloseReason::from_code(code).code(), code as u32);
        }
        assert_eq!(CloseReason::from_code(1), CloseReason::Stranger);
        assert_eq!(CloseReason::from_code(999), CloseReason::Other(999));
        assert_eq!(CloseReason::Lost.code(), 14);
    }
}
