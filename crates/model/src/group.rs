//! Messages between supervisors of one group besides the journal, and the members of the group.

use crate::capacity::Class;
use crate::{AttemptId, Epoch, Hash, PeerAddr, PeerId, Source, Time};
use serde::{Deserialize, Serialize};

/// A peer supervisor of the group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerSupervisor {
    /// Its id and addresses.
    pub addr: PeerAddr,
    /// Whether it has a vote. A member without one is catching up or on standby.
    pub votes: bool,
    /// The newest record format that it supports.
    pub format_max: u32,
}

/// Identifies a member of the Raft group. A peer gets a new random id whenever it joins with an empty log. It is not
/// the peer's id: a supervisor that lost its log and returned under its old id could undo what the group has agreed
/// on.
pub type NodeId = u64;

/// A member of the Raft group, as every member knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMember {
    /// Its id and addresses.
    pub peer: PeerAddr,
    /// The newest record format that it reads.
    pub format_max: u32,
}

/// The state of one member in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// The member.
    pub member: GroupMember,
    /// Whether it votes and its copy of the log counts. If not, it only follows.
    pub voter: bool,
    /// The last log entry up to which its log is known to agree with the leader's. Only the leader knows it.
    pub matched: Option<u64>,
}

/// An assignment hint: the leader's message about an assignment that it made. It is not durable. With it, a new leader waits for an
/// attempt that is probably running instead of starting the task again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    /// The attempt.
    pub attempt: AttemptId,
    /// The worker that it was assigned to.
    pub worker: PeerId,
    /// Whether it is redundant.
    pub redundant: bool,
    /// The class of the worker when it was assigned.
    pub class: Class,
    /// When it was assigned.
    pub since: Time,
    /// Whether the worker no longer has the attempt although it did not end, for example because the worker returned
    /// it.
    pub over: bool,
}

/// A message from the leader to a follower. Followers obey only the highest epoch that they have seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FromLeader {
    /// The leader's epoch.
    pub epoch: Epoch,
    /// The message.
    pub what: LeaderSays,
}

/// What a leader tells another supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaderSays {
    /// This supervisor leads: report which blobs you hold.
    Lead,
    /// Assignment hints.
    Hints(Vec<Hint>),
    /// Replicate this blob.
    Hold {
        /// The blob.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
        /// Peers that hold it, most likely source first.
        sources: Vec<Source>,
    },
    /// You need not hold these blobs any more.
    Drop(Vec<Hash>),
}

/// A message from another supervisor to the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToLeader {
    /// All blobs that it holds, or the first part of them. It replaces earlier lists.
    Holds(Vec<Hash>),
    /// Further blobs that it holds.
    HoldsMore(Vec<Hash>),
    /// It now holds this blob.
    Held(Hash),
    /// It could not get this blob, for the reason in the sentence.
    NotHeld(Hash, String),
    /// It obeyed a [`LeaderSays::Drop`] of these blobs. What it said of them before no longer counts.
    Dropped(Vec<Hash>),
    /// Why it cannot store anything from now on; none if it can again. A leader that has received nothing assumes
    /// that it can.
    Disk(Option<String>),
}
