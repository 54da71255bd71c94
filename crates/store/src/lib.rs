//! The journal: makes records durable and, with several supervisors, replicates them by Raft.
//!
//! A single supervisor is a group of one and uses the same code as three. openraft implements Raft; the log, its files and
//! their checksums are here. The state that results from the records belongs to the core. One bounded channel of
//! [`JournalEvent`] tells the core in order what is committed, when it leads, and when a snapshot of its state is needed or
//! arrives. The node carries messages to other members: [`Transport`].

mod entry;
mod error;
mod event;
mod files;
mod folder;
mod frame;
mod journal;
mod log;
mod machine;
mod open;
mod options;
mod repair;
mod rpc;
mod segment;
mod serve;
mod snapshot;
mod succession;
mod tools;
mod writer;

pub use error::StoreError;
pub use event::{Group, JournalEvent, LogSize, SnapshotRequest, WriteState};
pub use journal::{Journal, NotTaken, Refused};
pub use options::{Disk, Options, Place, SystemDisk, Timing, Transport};
pub use repair::{Repair, repair};
pub use tools::{Dump, Line, Report, What, backup, check, dump, recover};

/// Names the first of the records that are proposed together; the others follow by one.
pub type ProposalId = u64;

pub use hedge_model::group::{GroupMember, NodeId, Seat};
pub use hedge_model::record::FORMAT_MAX;

/// The longest message that a [`Transport`] is given, or gives back, in bytes.
pub const CALL_BYTES_MAX: usize = 15 << 20;
