//! Content: inline bytes and blobs, files, checkpoints, and the addresses of peers that hold blobs.

use crate::{CheckpointId, Hash, PeerId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// Content up to this many bytes is sent inside messages; larger content is fetched by its hash. 16 KiB is a handful
/// of packets: below it, a separate fetch costs more than the bytes.
pub const INLINE_BYTES_MAX: usize = 16 << 10;

/// The most bytes kept of each stream that an attempt prints; they are its end. A client holds as much in memory.
pub const PRINTED_BYTES_MAX: u64 = 64 << 20;

/// Some content: inline if it is small, otherwise a reference to a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// The content itself, at most [`INLINE_BYTES_MAX`] bytes.
    Inline(Arc<[u8]>),
    /// A blob, to be fetched from a peer that holds it.
    Blob {
        /// BLAKE3 hash of the content.
        hash: Hash,
        /// Length in bytes.
        size: u64,
    },
}

impl Data {
    /// Returns the length of the content in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Data::Inline(bytes) => bytes.len() as u64,
            Data::Blob { size, .. } => *size,
        }
    }

    /// Returns the hash of the blob; none for inline content.
    pub fn hash(&self) -> Option<Hash> {
        match self {
            Data::Inline(_) => None,
            Data::Blob { hash, .. } => Some(*hash),
        }
    }
}

/// One file of a task's inputs or outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// Its path in the task's scratch directory: relative, `/`-separated, without `.` or `..`.
    pub path: Arc<str>,
    /// Whether it may be executed.
    pub executable: bool,
    /// Its content.
    pub data: Data,
}

/// A checkpoint: files from which another attempt of the task can continue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its id.
    pub id: CheckpointId,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// Thousandths of the task's work that were done, if the attempt reports them.
    pub permille: Option<u16>,
}

impl Checkpoint {
    /// The blobs among its files, with their sizes in bytes.
    pub fn blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let data = self.files.iter().map(|file| &file.data);
        data.filter_map(|data| Some((data.hash()?, data.size())))
    }

    /// Returns the total length of its files in bytes.
    pub fn bytes(&self) -> u64 {
        let sizes = self.files.iter().map(|file| file.data.size());
        sizes.fold(0, u64::saturating_add)
    }
}

/// A peer and its network addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddr {
    /// The peer's id.
    pub peer: PeerId,
    /// UDP addresses of its endpoint. Any of them may work.
    pub addrs: Vec<SocketAddr>,
}

/// The peer that serves the inputs of a client's jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputServer {
    /// The peer that serves them.
    pub addr: PeerAddr,
    /// The peer's signed statement that it serves for this client; empty if it is the client itself.
    pub consent: Vec<u8>,
}

/// `ID@ADDRESS`, with further addresses after commas.
impl std::fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let addrs: Vec<String> = self.addrs.iter().map(SocketAddr::to_string).collect();
        write!(f, "{}@{}", self.peer, addrs.join(","))
    }
}

impl std::str::FromStr for PeerAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || format!("{text:?} is no peer with its address: write ID@ADDRESS:PORT");
        let (peer, addrs) = text.split_once('@').ok_or_else(form)?;
        let peer = peer.parse().map_err(|_| form())?;
        let addrs = addrs
            .split(',')
            .map(|addr| addr.parse().map_err(|_| form()));
        let addrs = addrs.collect::<Result<_, _>>()?;
        Ok(Self { peer, addrs })
    }
}

/// A peer that holds some blob.
pub type Source = PeerAddr;
