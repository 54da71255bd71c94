//! The content of log entries, and the types that openraft is instantiated with.

use crate::{GroupMember, NodeId, StoreError};
use bytes::Bytes;
use hedge_model::record::{self, Record, RecordError};
use openraft::impls::leader_id_adv::LeaderId;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Notify, OwnedSemaphorePermit};

/// The types of openraft's generic parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Types;

impl openraft::RaftTypeConfig for Types {
    type D = Batch;
    type R = ();
    type NodeId = NodeId;
    type Node = GroupMember;
    type Term = u64;
    type LeaderId = Term;
    type Vote = openraft::Vote<Term>;
    type Payload = openraft::EntryPayload<Batch, NodeId, GroupMember>;
    type Entry = openraft::Entry<Term, Self::Payload>;
    type Responder<T>
        = Slot
    where
        T: Send + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: Send + 'static;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type Term = LeaderId<u64, NodeId>;
pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type Entry = openraft::alias::EntryOf<Types>;
pub(crate) type Membership = openraft::Membership<NodeId, GroupMember>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type Snapshot = openraft::alias::SnapshotOf<Types, crate::snapshot::Image>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// The time in one term for which this member leads. Proposals belong to it.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its term.
    pub term: Term,
    /// A random id, which each proposal contains.
    pub id: u64,
    /// Whether a proposal was refused, so that this member must stop leading.
    pub refused: AtomicBool,
}

/// A place among the open proposals. It is free again when openraft has accepted or refused the proposal.
pub(crate) struct Slot {
    /// Notified if openraft refused the proposal.
    pub lost: Arc<Notify>,
    pub session: Arc<Session>,
    pub _permit: OwnedSemaphorePermit,
}

impl<T> openraft::raft::responder::Responder<Types, T> for Slot
where
    T: Send + 'static,
{
    fn on_complete(self, result: T) {
        let result: &dyn Any = &result;
        let written = result.downcast_ref::<openraft::raft::ClientWriteResult<Types>>();
        if written.is_some_and(Result::is_err) {
            self.session.refused.store(true, Ordering::Relaxed);
            self.lost.notify_one();
        }
    }
}

/// The head of a batch of records, which can be read without decoding them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The format of the records.
    pub level: u32,
    /// The member that proposed them.
    pub proposer: NodeId,
    /// The id of the session in which it proposed them.
    pub session: u64,
    /// The proposal id of the first.
    pub first: u64,
    /// How many they are; 0 in the entry by which a new leader learns that it has applied all earlier ones.
    pub count: u32,
}

/// Records that were proposed together. They are decoded or encoded only when somebody needs the other form.
#[derive(Clone)]
pub(crate) struct Batch(Arc<Inner>);

struct Inner {
    head: Head,
    records: OnceLock<Arc<[Record]>>,
    bytes: OnceLock<Result<Bytes, RecordError>>,
}

impl Batch {
    pub fn new(head: Head, records: Arc<[Record]>) -> Self {
        Self(Arc::new(Inner {
            head,
            records: OnceLock::from(records),
            bytes: OnceLock::new(),
        }))
    }

    pub fn encoded(head: Head, bytes: Bytes) -> Self {
        Self(Arc::new(Inner {
            head,
            records: OnceLock::new(),
            bytes: OnceLock::from(Ok(bytes)),
        }))
    }

    pub fn head(&self) -> &Head {
        &self.0.head
    }

    /// Returns the records as values.
    pub fn records(&self) -> Result<Arc<[Record]>, StoreError> {
        if let Some(records) = self.0.records.get() {
            return Ok(records.clone());
        }
        let bytes = self.bytes()?;
        let records: Arc<[Record]> = record::decode(self.0.head.level, &bytes)?.into();
        Ok(self.0.records.get_or_init(|| records).clone())
    }

    /// Returns the records as bytes. The first caller encodes them; others wait for it.
    pub fn bytes(&self) -> Result<Bytes, RecordError> {
        let encode = || {
            let records = self.0.records.get().map_or(&[][..], |records| records);
            record::encode(self.0.head.level, records).map(Bytes::from)
        };
        self.0.bytes.get_or_init(encode).clone()
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records", self.0.head.count)
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = self.bytes().map_err(serde::ser::Error::custom)?;
        (self.0.head, Raw(bytes)).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (head, Raw(bytes)) = Deserialize::deserialize(deserializer)?;
        Ok(Self::encoded(head, bytes))
    }
}

/// Bytes in one piece.
pub(crate) struct Raw(pub Bytes);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(Bytes::copy_from_slice(bytes)))
            }

            fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(Bytes::from(bytes)))
            }
        }
        deserializer.deserialize_bytes(Whole)
    }
}
