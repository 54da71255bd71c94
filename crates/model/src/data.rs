//! Content and where it is found.

use crate::{CheckpointId, Hash, PeerId};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// Content up to this many bytes travels inside messages; larger content is fetched by its hash.
/// 16 KiB is a handful of packets: below it, a separate fetch costs more than the bytes.
pub const INLINE_BYTES_MAX: usize = 16 << 10;

/// Bytes that are kept at most of each stream that an attempt prints: its end. A client holds as much in memory.
pub const PRINTED_BYTES_MAX: u64 = 64 << 20;

/// Some content: itself if it is small, else its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Data {
    /// At most [`INLINE_BYTES_MAX`] bytes, here.
    Inline(Arc<[u8]>),
    /// To be fetched from a peer that holds it.
    Blob {
        /// BLAKE3 of the content.
        hash: Hash,
        /// Length in bytes.
        size: u64,
    },
}

impl Data {
    /// Length of the content in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Data::Inline(bytes) => bytes.len() as u64,
            Data::Blob { size, .. } => *size,
        }
    }

    /// The content's name, where it has to be fetched.
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
    /// Where it lies in the task's folder: relative, `/`-separated, without `.` or `..`.
    pub path: Arc<str>,
    /// Whether it may be executed.
    pub executable: bool,
    /// Its content.
    pub data: Data,
}

/// What an attempt saved of how far it is: enough for another attempt of its task to go on from there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its name.
    pub id: CheckpointId,
    /// Its files.
    pub files: Vec<FileEntry>,
    /// Thousandths of the task's work that were done, where the attempt says so.
    pub permille: Option<u16>,
}

impl Checkpoint {
    /// Blobs among its files, by hash, with their sizes in bytes.
    pub fn blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let data = self.files.iter().map(|file| &file.data);
        data.filter_map(|data| Some((data.hash()?, data.size())))
    }

    /// Length of its files together, in bytes.
    pub fn bytes(&self) -> u64 {
        let sizes = self.files.iter().map(|file| file.data.size());
        sizes.fold(0, u64::saturating_add)
    }
}

/// A peer and where to dial it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerAddr {
    /// Whom to expect there.
    pub peer: PeerId,
    /// UDP addresses of its endpoint, any of which may work.
    pub addrs: Vec<SocketAddr>,
}

/// Where a client serves the inputs of its jobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputServer {
    /// The peer that serves them.
    pub addr: PeerAddr,
    /// The peer's signature that it serves for this client; empty where it is the client itself.
    pub consent: Vec<u8>,
}

/// `ID@ADDRESS`, further addresses behind commas.
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

/// A peer that holds some content.
pub type Source = PeerAddr;
