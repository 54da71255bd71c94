//! What the leader knows of one worker.

use crate::monitor::{Attention, Liveness};
use crate::supervisor::leader::WorkerIx;
use crate::supervisor::leader::pool::index::Place;
use hedge_model::capacity::Class;
use hedge_model::msg::WorkerInfo;
use hedge_model::owner::{OwnerState, Stand};
use hedge_model::{AttemptId, Hash, JobId, PeerId, Resources, Time};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Worker {
    pub peer: PeerId,
    pub info: WorkerInfo,
    pub free: Resources,
    pub in_hand: BTreeSet<AttemptId>,
    /// Those of critical tasks among them.
    pub critical: BTreeSet<AttemptId>,
    /// How closely it is watched; none where it is not.
    pub attention: Option<Attention>,
    pub liveness: Liveness,
    /// Silent for longer than it usually is: given nothing new, and what it has may be lost.
    pub suspect: bool,
    /// When it last showed a sign of life, where it is silent.
    pub quiet_since: Option<Time>,
    /// Attempts sent ahead that hold no resources yet, in the order in which they will start.
    pub queued: VecDeque<AttemptId>,
    /// Attempts given up when the worker fell silent; they may still come back with it.
    pub lost: BTreeSet<AttemptId>,
    /// Attempts that an earlier leader gave it, and of which it has not spoken yet.
    pub expected: BTreeSet<AttemptId>,
    pub connected: bool,
    /// Until when it may come back with what it has in hand, while its connection is lost and nobody ended it.
    pub returns_by: Option<Time>,
    pub dead: bool,
    pub gone_at: Time,
    pub draining: bool,
    /// How it stands to its owner, and when it said so; none while it works as if nobody were there.
    pub owner: Option<(OwnerState, Time)>,
    /// The last change of that which was heard of.
    pub owner_change: u32,
    pub exclusion: Option<Exclusion>,
    /// Times that it failed a task that another could do, since it last did one itself.
    pub blamed: u32,
    /// Exclusions for that.
    pub times_blamed: u32,
    /// Exclusions for faults of its own or its machine's, since it last did a task.
    pub faults: u32,
    /// Versions of the bodies it was sent.
    pub bodies: BTreeMap<(JobId, u32), u32>,
    /// Bodies whose content it holds.
    pub staged: BTreeSet<(JobId, u32, u32)>,
    pub held: BTreeSet<Hash>,
    pub done: u64,
    pub failed: u64,
    pub lost_count: u64,
    pub room_key: Option<Place>,
    pub queue_key: Option<(u32, WorkerIx)>,
    pub pace_key: Option<(i64, WorkerIx)>,
    /// Whether it is one of the faster ones.
    pub class: Class,
    /// Work that it does in a second, in seconds at standard speed.
    pub speed: f64,
    /// Whether a timer is set to look if benchmark tasks are due.
    pub benchmark_set: bool,
    /// Whether it was asked for benchmark tasks and has not said what they found.
    pub benchmark_asked: bool,
    /// Whether that is to be looked at once it has nothing in hand.
    pub benchmark_waits: bool,
    /// When it is to be asked again.
    pub benchmark_again: Duration,
    /// What is known of its link.
    pub link: crate::supervisor::leader::pool::link::LinkState,
}

/// A worker that is given nothing for a while.
#[derive(Debug)]
pub(crate) struct Exclusion {
    /// What it did, as a clause without a subject.
    pub why: String,
    pub until: Time,
}

impl Worker {
    /// Whether it may be given work.
    pub fn usable(&self) -> bool {
        self.reachable()
            && !self.suspect
            && !self.draining
            && self.owner.is_none()
            && self.exclusion.is_none()
            && self.link.kept_out.is_none()
    }

    /// Whether what runs there had better be repeated elsewhere: it is to leave, or its owner stopped it.
    pub fn leaving(&self) -> bool {
        let stopped = |owner: &OwnerState| matches!(owner.stand, Stand::Pause | Stand::Vacate);
        self.draining || self.owner.as_ref().is_some_and(|(owner, _)| stopped(owner))
    }

    /// Whether it can be talked to and shows signs of life.
    pub fn reachable(&self) -> bool {
        self.connected && !self.dead
    }

    /// Whether what it holds is to be counted on: it is there, or away for no longer than `grace`.
    pub fn may_return(&self, now: Time, grace: Duration) -> bool {
        self.reachable() || now.since(self.gone_at) < grace
    }
}
