//! The journal: records made durable and, with several supervisors, agreed on.
//!
//! One supervisor is a group of one and takes the same path as three. The agreement is openraft's; the log,
//! its files and their checksums are here. The state that records lead to belongs to the core, which hears
//! everything in order over one bounded channel of [`Said`]: what is committed, when it leads, when a
//! snapshot of its state is wanted or given. How a message reaches another member is the node's: [`Transport`].

mod error;
mod journal;
mod options;
mod said;

pub use error::StoreError;
pub use journal::{Journal, NotTaken, Refused};
pub use options::{Faults, Member, NodeId, Options, Place, Timing, Transport};
pub use said::{Group, LogSize, Said, Seat, SnapshotRequest, WriteState};

/// Names the first of the records that are proposed together; the others follow by one.
pub type ProposalId = u64;

/// The newest format of records that this build reads and writes.
pub const FORMAT_MAX: u32 = 1;
