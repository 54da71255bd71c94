//! How a journal is opened, and what its caller gives it.

use bytes::Bytes;
use hedge_model::group::GroupMember;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where the log lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory: its end is the end of the process, unless other members keep it.
    Memory,
    /// In files of this folder, which is made if it is not there.
    Disk(PathBuf),
}

/// How fast the missed heartbeats of a leader are noticed. It trades that against elections without cause on busy
/// machines: measured, a leader that stops costs about `election_max` and the smaller of two draws between the two
/// limits. The end of its process is noticed without it, see [`crate::Journal::ended`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How often the leader tells the others that it lives.
    pub heartbeat: Duration,
    /// The least gap after which another may want to lead.
    pub election_min: Duration,
    /// The most; also how long a leader may count on not being replaced.
    pub election_max: Duration,
}

impl Default for Timing {
    /// No election without cause in a minute of a saturated journal on busy cores; see [`Timing`].
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
        }
    }
}

impl Timing {
    /// For machines where the process runs at raised priority: missed heartbeats are noticed in half the time.
    pub fn fast() -> Self {
        Self {
            heartbeat: Duration::from_millis(40),
            election_min: Duration::from_millis(120),
            election_max: Duration::from_millis(150),
        }
    }
}

/// Writes the log's files. [`SystemDisk`] is the machine's; a journal on another is for trials of disks that fail.
/// Called from the journal's own threads.
pub trait Disk: std::fmt::Debug + Send + Sync + 'static {
    /// Writes all bytes at an offset of a file.
    ///
    /// # Errors
    /// Not all of them were written; a part may have been.
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written to a file durable.
    ///
    /// # Errors
    /// It may not be durable.
    fn flush(&self, file: &File) -> io::Result<()>;
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}

/// How a journal is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the log lives.
    pub place: Place,
    /// Who this member is.
    pub me: GroupMember,
    /// How fast the end of a leader is noticed.
    pub timing: Timing,
    /// A snapshot is asked for after this many records. It trades time at start against work while running.
    pub snapshot_records: u64,
    /// A snapshot is asked for after this many bytes of log, or after as many as the last snapshot had,
    /// whichever is more.
    pub snapshot_bytes: u64,
    /// So many entries may be proposed and not yet committed; more are refused as [`crate::Refused::Full`].
    pub open_max: usize,
    /// So many messages may wait in the channel of [`crate::JournalEvent`] before the journal waits too.
    pub events_max: usize,
    /// The log goes on in a new file after this many bytes. Whole files are removed after a snapshot.
    pub segment_bytes: u64,
    /// Writes the files.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// The defaults for a member at a place.
    pub fn new(place: Place, me: GroupMember) -> Self {
        Self {
            // Read again at start on disk, at a million or so a second; in memory they cost memory.
            snapshot_records: match &place {
                Place::Memory => 100_000,
                Place::Disk(_) => 1_000_000,
            },
            place,
            me,
            timing: Timing::default(),
            snapshot_bytes: 128 << 20,
            open_max: 4096,
            events_max: 1024,
            segment_bytes: 64 << 20,
            disk: Arc::new(SystemDisk),
        }
    }
}

/// Brings messages to other members. Called from the journal's own threads.
pub trait Transport: Send + Sync + 'static {
    /// Brings a request to a member, whose node passes it to [`crate::Journal::answer`], and brings back what
    /// that returned. Requests to one member may overlap. At most
    /// [`crate::CALL_BYTES_MAX`] each way. An error means that nothing is known of the request's fate.
    fn call(
        &self,
        to: &GroupMember,
        request: Bytes,
        limit: Duration,
    ) -> impl Future<Output = io::Result<Bytes>> + Send;
}
