//! The events that the journal publishes to the core's loop, and its view of the group.

use crate::{NodeId, ProposalId, StoreError};
use bytes::Bytes;
use hedge_model::PeerId;
use hedge_model::group::Seat;
use hedge_model::record::Record;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::oneshot;

/// What the journal says, in an order that holds: state changes by `Restore` and `Committed` alone.
#[derive(Debug)]
pub enum JournalEvent {
    /// The state as it was after the entry `index`: at start, or because this member was too far behind.
    /// It replaces what was.
    Restore {
        /// The last entry that it covers.
        index: u64,
        /// What [`SnapshotRequest::give`] wrote, here or on another member.
        state: Bytes,
    },
    /// Records are committed: durable, on most members, and in this order everywhere.
    Committed {
        /// The entry.
        index: u64,
        /// The name of its first record, if it was proposed here since this member leads.
        first: Option<ProposalId>,
        /// The records.
        records: Arc<[Record]>,
    },
    /// A snapshot of the state as it is now is wanted.
    Snapshot(SnapshotRequest),
    /// This member leads, and all earlier records were published. It may propose.
    Lead {
        /// Grows with every leader the group has had.
        term: u64,
    },
    /// This member leads no longer: proposals that were not published as committed have an unknown outcome.
    Deposed {
        /// Who leads now, if known.
        leader: Option<PeerId>,
    },
    /// This member was taken out of its group and keeps quiet from now on. To be a member again it joins
    /// with an empty folder.
    Removed,
    /// The journal cannot continue. No event follows.
    Failed(StoreError),
}

/// Writes a state; runs on a thread of its own, so it must own what it writes.
pub type WriteState = Box<dyn FnOnce(&mut dyn Write) -> io::Result<()> + Send>;

/// Asks for a snapshot of the state after all earlier events.
pub struct SnapshotRequest {
    pub(crate) reply: oneshot::Sender<WriteState>,
}

impl SnapshotRequest {
    /// Gives the means to write the state: typically a cheap clone of it, moved into a closure. Not giving
    /// it (dropping the request) fails the journal.
    pub fn give(self, write: WriteState) {
        // The journal may have been closed meanwhile; then nobody needs it.
        let _ = self.reply.send(write);
    }
}

impl fmt::Debug for SnapshotRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SnapshotRequest")
    }
}

/// The group as this member knows it.
#[derive(Clone, Debug)]
pub struct Group {
    /// This member.
    pub me: NodeId,
    /// The members; empty until it is founded or joined.
    pub seats: BTreeMap<NodeId, Seat>,
    /// Who leads, as far as known.
    pub leader: Option<NodeId>,
    /// Whether this member leads and has published that.
    pub leading: bool,
    /// Grows with every leader the group has had.
    pub term: u64,
    /// When most voters were last known to follow this leader; see [`Group::surely_leads`].
    pub quorum_at: Option<Instant>,
    /// How much there is.
    pub log: LogSize,
}

impl Group {
    /// Whether this member surely leads now, so that nobody else can have been chosen: it is the only voter,
    /// or a majority followed it less than [`crate::Timing::election_max`] ago.
    pub fn surely_leads(&self, timing: &crate::Timing) -> bool {
        let alone = self
            .seats
            .iter()
            .all(|(id, seat)| !seat.voter || *id == self.me);
        let heard = self
            .quorum_at
            .is_some_and(|at| at.elapsed() < timing.election_max);
        self.leading && (alone || heard)
    }
}

/// How much a log holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogSize {
    /// The last entry that snapshots made unnecessary and that is gone.
    pub purged: Option<u64>,
    /// The last entry.
    pub last: Option<u64>,
    /// The last entry that was published.
    pub applied: Option<u64>,
    /// The last entry that the newest snapshot covers.
    pub snapshot: Option<u64>,
    /// Bytes of the log's entries, here; 0 in memory as long as nobody needed them as bytes.
    pub bytes: u64,
}
