//! The leader: its own state and its procedures.
//!
//! A procedure is a method of [`Leadership`], which changes the leader's state and reads the durable state. A method
//! that only reads both belongs to [`LeaderView`].

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
use jobs::forecast::Forecast;
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

/// State that exists on the leader only and is dropped when it loses leadership. Each part is changed only by the
/// methods of its own module, which keep its invariants.
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
    pub forecast: Forecast,
    pub removals: Removals,
    pub pending_proposals: PendingProposals,
}

/// The leader during one event: its state, the durable state, and the proposals and actions that result. Only
/// committed records change the durable state.
pub(crate) struct Leadership<'a> {
    pub now: Time,
    pub config: &'a Config,
    pub state: &'a State,
    pub peers: &'a Peers,
    /// Why this machine cannot store anything now.
    pub disk_fault: Option<&'a str>,
    pub policy: &'a mut Option<Box<dyn Policy>>,
    pub last_proposal: &'a mut ProposalId,
    pub leader: &'a mut Leader,
    pub proposals: &'a mut VecDeque<Proposal>,
    pub out: &'a mut Vec<Action>,
}

/// A read-only view of the leader's state and the durable state.
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
    /// Renews the forecast of when jobs end, unless it is new enough.
    pub fn refresh_forecast(&mut self) {
        if !self.leader.forecast.is_fresh(self.now) {
            self.leader.forecast = Forecast::of(&self.view());
        }
    }

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

    /// Proposes a record. `pending` says what to answer once it is committed.
    pub fn append(&mut self, record: Record, pending: Option<Pending>) {
        if pending.is_none() && record.format() > self.state.format() {
            // Such a record only improves later decisions. Supervisors that write an older format do without it.
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
    /// Creates the state of a leader that begins at `now`.
    pub fn new(now: Time) -> Self {
        Self {
            recovery: Recovery::new(now),
            ..Self::default()
        }
    }

    pub fn worker(&self, peer: PeerId) -> Option<&Worker> {
        self.pool.find(peer).map(|ix| &self.pool[ix])
    }

    /// Changes the connection state of a worker; no other function does.
    pub fn transition(&mut self, ix: WorkerIx, event: WorkerEvent) {
        if self.pool[ix].transition(event) {
            self.pool_changed(ix);
        }
    }
}
