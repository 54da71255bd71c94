//! The leader: what exists on it alone, and the procedures that need one.
//!
//! A procedure is a method of [`Leadership`], which has the leader's state and reads the durable one; what only
//! reads both is a method of [`LeaderView`].

pub(crate) mod attempts;
pub(crate) mod blobs;
mod events;
pub(crate) mod jobs;
pub(crate) mod placement;
pub(crate) mod pool;
mod recovery;
pub mod redundancy;
pub(crate) mod timers;

use crate::supervisor::contract::Pending;
use crate::supervisor::durable::state::State;
use crate::supervisor::leader::redundancy::Evaluations;
use crate::supervisor::peers::Peers;
use crate::supervisor::{Action, Config, ProposalId};
use attempts::ActiveTask;
use blobs::catalog::BlobCatalog;
use blobs::possession::Possession;
use blobs::replication::GroupMembers;
use blobs::submissions::Submissions;
use hedge_model::record::Record;
use hedge_model::{AttemptId, JobId, PeerId, TaskId, Time};
use jobs::ActiveJob;
use placement::queue::{Lane, Ready, Shapes};
use pool::Pool;
pub(crate) use pool::WorkerIx;
use pool::state::WorkerEvent;
use pool::worker::Worker;
use redundancy::Policy;
use std::collections::{BTreeMap, BTreeSet};
use timers::Timers;

/// What exists on the leader alone and is dropped when it is deposed.
#[derive(Debug, Default)]
pub(crate) struct Leader {
    pub pool: Pool,
    /// Tasks that have or had an attempt and are not done, or are done with attempts left to end.
    pub tasks: BTreeMap<TaskId, ActiveTask>,
    pub jobs: BTreeMap<JobId, ActiveJob>,
    pub ready: Ready,
    /// Groups that could start but for content that is out of reach now.
    pub without_inputs: BTreeSet<(JobId, u32)>,
    /// Groups that a worker is not given for a while, because it could not fetch their inputs or failed after others.
    pub barred: BTreeSet<(JobId, u32, WorkerIx)>,
    pub blobs: BlobCatalog,
    pub submissions: Submissions,
    pub possession: Possession,
    pub timers: Timers,
    /// Workers that drain and are not told to leave yet.
    pub leaving: BTreeSet<WorkerIx>,
    /// Whether one of them may be ready to leave.
    pub leaving_due: bool,
    /// Workers that have more or less in hand than the monitor knows.
    pub attend: BTreeSet<WorkerIx>,
    /// When this leader began.
    pub since: Time,
    /// Workers that may have something of older jobs in hand and have not said so yet.
    pub recovery_barrier: BTreeSet<PeerId>,
    pub shapes: Shapes,
    /// Shapes that some worker could take, by the version of the pool that was looked at.
    pub possible: BTreeMap<u32, u64>,
    /// Shapes that no worker that is here could take.
    pub impossible: BTreeSet<u32>,
    /// Lanes of which it is not known yet whether any worker could take them.
    pub unchecked: BTreeSet<Lane>,
    /// Workers that came, or whose speed changed, since the line between the classes was drawn.
    pub rated: u32,
    /// The slowest step of speed in the higher class; none where all are alike.
    pub higher_line: Option<i64>,
    /// Copies that are stopped as soon as a first attempt wants their place.
    pub yielding: BTreeSet<AttemptId>,
    /// Those of them that were told to stop and have not yet.
    pub making_room: BTreeSet<AttemptId>,
    /// Jobs about which a policy is asked.
    pub watched_jobs: usize,
    /// When the redundancy policies are asked.
    pub evaluations: Evaluations,
    pub group: GroupMembers,
    /// The rate by which links were judged last, bits a second.
    pub min_link: u64,
    /// Ended jobs whose removal is on its way through the journal.
    pub removals: BTreeSet<JobId>,
    /// What is promised once records are committed.
    pub pending: BTreeMap<ProposalId, Pending>,
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
        let proposal = *self.last_proposal;
        if let Some(pending) = pending {
            self.leader.pending.insert(proposal, pending);
        }
        self.out.push(Action::Append { proposal, record });
    }
}

impl Leader {
    /// A leader that begins at `now`.
    pub fn new(now: Time) -> Self {
        Self {
            since: now,
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

    /// Nobody waits for these answers any more.
    pub fn unwatch(&mut self, asks: &[u64]) {
        for job in self.jobs.values_mut() {
            job.watchers.retain(|(_, ask)| !asks.contains(ask));
        }
    }
}
