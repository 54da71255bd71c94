//! The leader: what exists on it alone, and the procedures that need one.
//!
//! A procedure is a method of [`Leadership`], which has the leader's state and reads the durable one; what only
//! reads both is a method of [`LeaderView`].

pub(crate) mod attempts;
pub(crate) mod blobs;
mod events;
pub(crate) mod jobs;
mod pending_proposals;
pub(crate) mod placement;
pub(crate) mod pool;
pub(crate) mod readings;
mod recovery;
pub mod redundancy;
pub(crate) mod timers;

use crate::supervisor::contract::Pending;
use crate::supervisor::durable::state::State;
use crate::supervisor::peers::Peers;
use crate::supervisor::{Action, Config, Proposal, ProposalId};
use attempts::active::ActiveTasks;
use attempts::checkpoints::Checkpoints;
use blobs::catalog::BlobCatalog;
use blobs::possession::Possession;
use blobs::replication::GroupMembers;
use blobs::submissions::Submissions;
use hedge_model::record::Record;
use hedge_model::{PeerId, Time};
use jobs::active::ActiveJobs;
use jobs::retention::Removals;
use pending_proposals::PendingProposals;
use placement::blocked::BlockedGroups;
use placement::fit::ShapeFit;
use placement::queue::{Ready, Shapes};
use pool::Pool;
pub(crate) use pool::WorkerIx;
use pool::attention::ChangedAttention;
use pool::capacity::SpeedClasses;
use pool::departure::Leaving;
use pool::link::RequestedRate;
use pool::state::WorkerEvent;
use pool::worker::Worker;
use readings::Readings;
use recovery::Recovery;
use redundancy::{Evaluations, Policy, YieldingCopies};
use std::collections::VecDeque;
use timers::Timers;

/// What exists on the leader alone and is dropped when it is deposed: its parts, each of which only its own module
/// changes, by methods that keep what holds of it.
#[derive(Debug, Default)]
pub(crate) struct Leader {
    pub pool: Pool,
    pub tasks: ActiveTasks,
    pub checkpoints: Checkpoints,
    pub jobs: ActiveJobs,
    pub ready: Ready,
    pub blocked: BlockedGroups,
    pub shapes: Shapes,
    pub fit: ShapeFit,
    pub blobs: BlobCatalog,
    pub submissions: Submissions,
    pub possession: Possession,
    pub group: GroupMembers,
    pub timers: Timers,
    pub readings: Readings,
    pub leaving: Leaving,
    pub attention: ChangedAttention,
    pub recovery: Recovery,
    pub classes: SpeedClasses,
    pub asked_rate: RequestedRate,
    pub yielding: YieldingCopies,
    pub evaluations: Evaluations,
    pub removals: Removals,
    pub pending_proposals: PendingProposals,
}

/// The leader during one event: its own state, to be changed, and what it reads and writes to beside that.
/// Durable state changes by committed records alone.
pub(crate) struct Leadership<'a> {
    pub now: Time,
    pub config: &'a Config,
    pub state: &'a State,
    pub peers: &'a Peers,
    /// Why nothing can be stored here now; none where it can.
    pub disk_fault: Option<&'a str>,
    pub policy: &'a mut Option<Box<dyn Policy>>,
    pub last_proposal: &'a mut ProposalId,
    pub leader: &'a mut Leader,
    pub proposals: &'a mut VecDeque<Proposal>,
    pub out: &'a mut Vec<Action>,
}

/// What the leader knows, to be read.
#[derive(Clone, Copy)]
pub(crate) struct LeaderView<'a> {
    pub now: Time,
    pub config: &'a Config,
    pub state: &'a State,
    pub peers: &'a Peers,
    pub disk_fault: Option<&'a str>,
    pub policy: Option<&'a dyn Policy>,
    pub leader: &'a Leader,
}

impl Leadership<'_> {
    /// The same to be read.
    pub fn view(&self) -> LeaderView<'_> {
        LeaderView {
            now: self.now,
            config: self.config,
            state: self.state,
            peers: self.peers,
            disk_fault: self.disk_fault,
            policy: self.policy.as_deref(),
            leader: self.leader,
        }
    }

    /// Proposes a record, and remembers what is promised once it is committed.
    pub fn append(&mut self, record: Record, pending: Option<Pending>) {
        if pending.is_none() && record.format() > self.state.format() {
            // It only makes later decisions better; the group does without until it is upgraded.
            return;
        }
        *self.last_proposal += 1;
        let id = *self.last_proposal;
        if let Some(pending) = pending {
            self.leader.pending_proposals.make(id, pending);
        }
        self.proposals.push_back(Proposal { id, record });
    }
}

impl Leader {
    /// A leader that begins at `now`.
    pub fn new(now: Time) -> Self {
        Self {
            recovery: Recovery::new(now),
            ..Self::default()
        }
    }

    pub fn worker(&self, peer: PeerId) -> Option<&Worker> {
        self.pool.find(peer).map(|ix| &self.pool[ix])
    }

    /// The only place that changes whether a worker is there.
    pub fn transition(&mut self, ix: WorkerIx, event: WorkerEvent) {
        if self.pool[ix].transition(event) {
            self.pool_changed(ix);
        }
    }
}
