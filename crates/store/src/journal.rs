//! The journal as its node uses it.

use crate::{Group, Member, NodeId, Options, ProposalId, Said, StoreError, Transport};
use bytes::Bytes;
use hedge_model::PeerId;
use hedge_model::record::Record;
use tokio::sync::{mpsc, watch};

/// Why records were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// As many entries as allowed wait to be committed: try again when something was said.
    Full,
    /// This member does not lead: [`Said::Deposed`] was said or is on its way.
    NotLeading,
}

/// Records that were not taken, given back.
#[derive(Debug)]
pub struct NotTaken {
    /// Why.
    pub why: Refused,
    /// The records.
    pub records: Vec<Record>,
}

/// A journal; clones are the same one. It ends with [`Journal::close`].
#[derive(Clone)]
pub struct Journal {
    id: NodeId,
    group: watch::Receiver<Group>,
}

impl Journal {
    /// Opens the journal of a folder, or an empty one, which belongs to no group until it is founded here or
    /// a leader adds it. What is there is checked first; it is said again on the channel, in order.
    ///
    /// # Errors
    /// Damage, a newer format, a folder in use, or the system's refusal. Nothing was changed.
    pub async fn open<T: Transport>(
        _options: Options,
        _transport: T,
    ) -> Result<(Self, mpsc::Receiver<Said>), StoreError> {
        Err(StoreError::Closed)
    }

    /// This member's name in the group.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The group, as it changes.
    pub fn group(&self) -> watch::Receiver<Group> {
        self.group.clone()
    }

    /// Whether a group was founded or joined here, now or in an earlier life.
    pub fn founded(&self) -> bool {
        !self.group.borrow().seats.is_empty()
    }

    /// Makes a new group of this member alone, which then leads.
    ///
    /// # Errors
    /// It is in a group already, or the file could not be written.
    pub async fn found(&self) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Answers another member's request, which came over the node's [`Transport`] from `from`, a peer that the
    /// node knows to be a supervisor of the grid. What cannot be read is answered with an error, nothing else.
    pub async fn answer(&self, _from: PeerId, _request: Bytes) -> Bytes {
        Bytes::new()
    }

    /// Proposes records as one entry; the first is named `first`, the next `first + 1`, and so on. Returns
    /// at once. They are committed together, said as [`Said::Committed`], or never, after [`Said::Deposed`].
    /// An entry proposed in one term is never committed in another.
    ///
    /// # Errors
    /// The queue is full, or this member does not lead; nothing was taken.
    pub fn propose(&self, _first: ProposalId, records: Vec<Record>) -> Result<(), NotTaken> {
        Err(NotTaken {
            why: Refused::NotLeading,
            records,
        })
    }

    /// The format in which records proposed here are written from now on; 1 at first. The node sets it to
    /// what the group has agreed on.
    pub fn use_format(&self, _level: u32) {}

    /// Adds a member that follows without a vote; the leader brings it up to date. Returns when the group
    /// knows it.
    ///
    /// # Errors
    /// Not the leader, not possible, or undecided.
    pub async fn add(&self, _id: NodeId, _member: Member) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Gives a member its vote. It must be nearly up to date: see [`crate::Seat::matched`].
    ///
    /// # Errors
    /// Not the leader, not possible, or undecided.
    pub async fn promote(&self, _id: NodeId) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Takes a member out, voter or not, and tells it. Leadership is handed over first if it is this member's.
    ///
    /// # Errors
    /// Not the leader, not possible (the last voter), or undecided.
    pub async fn remove(&self, _id: NodeId) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Hands leadership to a voter. Returns when this member was told [`Said::Deposed`].
    ///
    /// # Errors
    /// Not the leader, not possible, or the other did not take it in time.
    pub async fn transfer_leader(&self, _to: NodeId) -> Result<(), StoreError> {
        Err(StoreError::Closed)
    }

    /// Stops, after what was appended is flushed. Hand over leadership first, where there are others.
    pub async fn close(&self) {}
}
