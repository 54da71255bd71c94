//! What supervisors of one group tell each other beside the journal.

use crate::capacity::Class;
use crate::{AttemptId, Epoch, Hash, PeerAddr, PeerId, Source, Time};
use serde::{Deserialize, Serialize};

/// A supervisor of the group, as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSupervisor {
    /// Who, and where it is reached.
    pub addr: PeerAddr,
    /// Whether it has a vote; one without is catching up or standing by.
    pub votes: bool,
    /// The newest format of records that it speaks.
    pub format_max: u32,
}

/// Names one life of a supervisor in its group. It is random and new whenever a peer joins with an empty log, so it is
/// not the peer's identity: a supervisor that lost its log and came back under its old name could undo what the group
/// has agreed on.
pub type NodeId = u64;

/// A member of a group of supervisors, as every member knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Its identity, and where it is reached.
    pub peer: PeerAddr,
    /// The newest format of records that it reads.
    pub format_max: u32,
}

/// One member's seat in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Who has it.
    pub member: GroupMember,
    /// Whether its vote and its copy of the log count; if not, it only follows.
    pub voter: bool,
    /// The last entry up to which its log is known to agree with the leader's. Only the leader knows it.
    pub matched: Option<u64>,
}

/// An assignment that the leader made. It is not durable: it only lets a new leader wait for an attempt that
/// is likely to be running rather than start it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// Which.
    pub attempt: AttemptId,
    /// To whom it was given.
    pub worker: PeerId,
    /// Whether it is a redundant one.
    pub redundant: bool,
    /// The class of its worker when it was given.
    pub class: Class,
    /// When it was given.
    pub since: Time,
    /// Whether the worker has it no more without having ended it, as when it gave it back.
    pub over: bool,
}

/// From the leader to the others, with its epoch: they obey only the highest that they have seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromLeader {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// What it says.
    pub what: LeaderSays,
}

/// What a leader says to another supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaderSays {
    /// Say what content you hold.
    Lead,
    /// Assignments that were made.
    Hints(Vec<Hint>),
    /// Hold this content too.
    Hold {
        /// Which.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
        /// Who holds it, likeliest first.
        sources: Vec<Source>,
    },
    /// This content need not be held any more.
    Drop(Vec<Hash>),
}

/// From another supervisor to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLeader {
    /// All content that it holds, or the first part of it: it replaces what was said before.
    Holds(Vec<Hash>),
    /// More content that it holds.
    HoldsMore(Vec<Hash>),
    /// It holds this now.
    Held(Hash),
    /// It could not get this; a sentence.
    NotHeld(Hash, String),
    /// Why it cannot store anything from now on; none where it can again. A leader that has not heard of it takes it
    /// that it can.
    Disk(Option<String>),
}
