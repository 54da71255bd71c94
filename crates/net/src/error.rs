//! What can go wrong between peers.

use crate::CloseReason;
use hedge_model::{Hash, PeerAddr, PeerId};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What went wrong in this crate, apart from tickets and fetches, which have errors of their own.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The identity file could not be read or made.
    #[error("cannot {what} the identity {path}: {source}; nothing was changed")]
    IdentityFile {
        /// The step that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The identity file holds something else.
    #[error(
        "{path} does not hold a Hedgerow identity (64 hexadecimal digits); it was left as it is: \
         restore it from a copy, or remove it to get a new identity and join again"
    )]
    IdentityDamaged {
        /// The file.
        path: PathBuf,
    },
    /// The identity file can be read by other users.
    #[error(
        "{path} can be read by other users of this machine; it was not used: run `chmod 600` on it"
    )]
    IdentityExposed {
        /// The file.
        path: PathBuf,
    },
    /// The port could not be opened.
    #[error(
        "cannot listen on {addr}: {why}; nothing was opened: choose another address with --listen"
    )]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// The system's answer.
        why: String,
    },
    /// Nobody answered.
    #[error(
        "cannot reach {peer} at {addrs}: {why}; check that it runs and that UDP is let through"
    )]
    Unreachable {
        /// Whom we dialled.
        peer: PeerId,
        /// Where, comma-separated.
        addrs: String,
        /// What the transport said.
        why: String,
    },
    /// The peer id is not a valid public key.
    #[error("{peer} is not a valid peer id; nothing was sent: check the ticket")]
    BadPeer {
        /// The id.
        peer: PeerId,
    },
    /// A link could not be measured.
    #[error("the link could not be measured: {0}; nothing was changed, and it is tried again")]
    Probe(std::io::Error),
    /// The other side refused or ended the connection.
    #[error("{0}")]
    Closed(CloseReason),
    /// The other side cannot let this peer in and names supervisors that may.
    #[error("the supervisor does not lead; the grid's other supervisors are tried next")]
    Redirected {
        /// Whom to dial instead.
        supervisors: Vec<PeerAddr>,
    },
    /// A message or batch that cannot be encoded within the limit.
    #[error(
        "a message of {bytes} bytes is over the limit of {limit}; it was not sent: send large content by its hash"
    )]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A question was not answered in time.
    #[error(
        "no answer came within {within:?}; whether the question was heard is not known: ask again"
    )]
    NoAnswer {
        /// How long it was waited for.
        within: std::time::Duration,
    },
    /// The link's queue is full: the peer reads too slowly.
    #[error("the peer reads too slowly and the queue to it is full; this message was not queued")]
    QueueFull,
    /// A value that cannot be encoded; a bug.
    #[error("a message could not be encoded: {0}; nothing was sent; please report this")]
    Encode(postcard::Error),
    /// Bytes that do not decode.
    #[error("bytes that are no valid message: {0}; they were dropped")]
    Decode(postcard::Error),
    /// A frame of another format version.
    #[error("a frame of format version {0}, which this version cannot read; it was dropped")]
    FrameVersion(u8),
    /// The folder of kept content could not be opened or used.
    #[error(
        "cannot {what} the content in {dir}: {why}; what was kept stays; \
         check that no other process uses this folder and that the disk has room"
    )]
    Store {
        /// The step that failed.
        what: &'static str,
        /// The folder.
        dir: PathBuf,
        /// The cause.
        why: String,
    },
    /// A file could not be taken in or written out.
    #[error("cannot {what} {path}: {why}; nothing was kept of it")]
    File {
        /// The step that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        why: String,
    },
    /// Content that is not here.
    #[error("this peer does not hold {0}; fetch it first")]
    NotHeld(Hash),
    /// Content whose bytes on disk are no longer what its hash says.
    #[error(
        "the copy of {0} on this machine's disk is damaged and was given up; take it from another peer"
    )]
    Damaged(Hash),
}
