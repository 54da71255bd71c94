//! The supervisor's state machine: jobs, workers and attempts in; assignments, records and replies out.
//!
//! [`State`] is durable and changes only by committed records. Everything else belongs to the supervisor's role and
//! is dropped when the role changes. This file dispatches events; what only a leader does belongs into `leader`.

mod api;
mod check;
mod contract;
mod disk;
mod durable;
mod follower;
mod leader;
mod peers;

pub use contract::{
    Action, Config, Effects, Event, FetchFailure, GrantRequest, NotAdmitted, Offer, Proposal,
    ProposalId, Requester, UngrantedAssignment,
};
pub use durable::change::{Added, Change, Success};
pub use durable::learned::Learned;
pub use durable::state::State;
pub use leader::jobs::critical::CriticalSet;
pub use leader::pool::link::{MeasureMost, Measured};
pub use leader::redundancy;

use crate::monitor::{Finding, Found, Settings as Watch};
use follower::{Candidacy, Follower};
use hedge_model::group::{FromLeader, LeaderSays, PeerSupervisor, ToLeader};
use hedge_model::ledger::Cost;
use hedge_model::msg::{
    self, Answer, FromWorker, HASHES_MAX, Refusal, RefusalKind, Reply, Request, ToWorker,
};
use hedge_model::record::Record;
use hedge_model::view::{JobView, WorkerView};
use hedge_model::{Epoch, Hash, JobId, PeerAddr, PeerId, TaskId, Time};
use leader::{Leader, LeaderView, Leadership};
use peers::Peers;

/// Prefixes of the names of settings that configure the failure detector.
const WATCHING: [&str; 6] = [
    "watch_",
    "heartbeats_",
    "suspect_",
    "dead_",
    "progress_",
    "stall_",
];

/// A supervisor: its durable state and its role.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    state: State,
    role: Role,
    peers: Peers,
    now: Time,
    last_proposal: ProposalId,
    /// A redundancy policy that replaces the ones that jobs ask for.
    policy: Option<Box<dyn redundancy::Policy>>,
    /// Why this supervisor cannot store anything now; none if it can.
    disk_fault: Option<String>,
}

/// The role of a supervisor. Only a leader decides on workers, attempts and blobs.
#[derive(Debug)]
enum Role {
    Follower(Follower),
    Leader(Box<Leader>),
}

impl Supervisor {
    /// Creates a supervisor with this durable state. It does not lead yet.
    pub fn new(config: Config, state: State) -> Self {
        let now = state.recorded_time();
        let mut supervisor = Self {
            config,
            state,
            role: Role::Follower(Follower::default()),
            peers: Peers::default(),
            now,
            last_proposal: 0,
            policy: None,
            disk_fault: None,
        };
        supervisor.apply_settings(&mut Effects::default());
        supervisor
    }

    /// Replaces the durable state by that of a snapshot, which must be newer than everything that was committed here.
    /// Must not be called on a leader.
    pub fn restore(&mut self, state: State) {
        self.now = self.now.max(state.recorded_time());
        self.state = state;
        if let Role::Follower(follower) = &mut self.role {
            follower.hints.forget_over(&self.state);
        }
        self.apply_settings(&mut Effects::default());
    }

    /// Handles one event at `now` and adds the resulting proposals and actions to `out`.
    pub fn handle(&mut self, now: Time, event: Event, out: &mut Effects) {
        self.now = self.now.max(now);
        let news = !matches!(
            event,
            Event::Found(Finding {
                what: Found::Progress(..),
                ..
            }) | Event::FromWorker {
                msg: FromWorker::Printed(_) | FromWorker::Checkpoint(_),
                ..
            } | Event::Committed {
                record: Record::Checkpointed { .. },
                ..
            } | Event::Request {
                request: Request::Printed(_),
                ..
            }
        );
        match event {
            Event::Lead { holds, secret } => {
                self.step_down(out);
                self.begin_epoch(holds, secret, out);
            }
            Event::Deposed => match &mut self.role {
                Role::Follower(follower) => follower.candidacy = None,
                Role::Leader(_) => self.step_down(out),
            },
            Event::Group(group) => self.on_group(group, out),
            Event::Disk(fault) => self.on_disk(fault, out),
            Event::Linked { peer, role } => {
                self.peers.linked.insert(peer, role);
                if let Some(mut leadership) = self.leadership(out) {
                    leadership.announce_leadership(peer, role);
                }
            }
            Event::FromLeader { peer, msg } => self.on_from_leader(peer, msg, out),
            Event::Committed { proposal, record } => self.on_committed(proposal, record, out),
            Event::Joining { peer, role, ticket } => self.on_joining(peer, role, ticket, out),
            Event::Gone { peer, silent } => {
                self.peers.linked.remove(&peer);
                if let Some(mut leadership) = self.leadership(out) {
                    leadership.on_gone(peer, silent);
                }
            }
            event => match &mut self.role {
                Role::Follower(follower) => follower.on_event(event, &mut out.actions),
                Role::Leader(_) => {
                    if let Some(mut leadership) = self.leadership(out) {
                        leadership.on_event(event);
                    }
                }
            },
        }
        if let Some(mut leadership) = self.leadership(out) {
            leadership.update_after_event(news);
        }
    }

    /// Returns when [`Event::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Time> {
        match &self.role {
            Role::Follower(_) => None,
            Role::Leader(leader) => leader.timers.next().map(|(at, _)| at),
        }
    }

    /// Returns the durable state.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Returns whether this supervisor leads.
    pub fn is_live(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Returns how many proposals that a reply or another effect waits for are not committed yet.
    pub fn promised(&self) -> usize {
        self.view()
            .map_or(0, |view| view.leader.pending_proposals.len())
    }

    /// Returns the settings of the failure detector.
    pub fn watch(&self) -> Watch {
        self.config.watch
    }

    /// Returns whether the ticket whose secret has this hash admits peers of this role.
    pub fn is_ticket_valid(&self, ticket: Hash, role: msg::Role) -> bool {
        self.state.invitation(self.now, ticket, role).is_ok()
    }

    /// Returns the addresses of all supervisors of the grid.
    pub fn supervisors(&self) -> Vec<PeerAddr> {
        self.peers.supervisors(&self.config.me)
    }

    /// Returns a view of a job; none if it is unknown or this supervisor does not lead.
    pub fn job_view(&self, id: JobId) -> Option<JobView> {
        self.view()?.job_view(id)
    }

    /// Returns views of all workers; none if this supervisor does not lead.
    pub fn worker_views(&self) -> Vec<WorkerView> {
        let workers = self.view().map(|view| view.worker_views());
        let workers = workers.into_iter().flatten();
        workers.map(|(_, view)| view).collect()
    }

    /// Tasks that have an attempt in hand at a worker, and whether another attempt of each may succeed elsewhere; none while
    /// this core does not lead.
    pub fn tasks_at(&self, worker: PeerId) -> Vec<(TaskId, bool)> {
        let Role::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let Some(ix) = leader.pool.find(worker) else {
            return Vec::new();
        };
        let elsewhere = |id: &TaskId| {
            let attempts = leader.tasks.get(id).map_or(&[][..], |task| task.attempts());
            let mut others = attempts.iter().filter(|attempt| attempt.worker() != ix);
            others.any(|attempt| attempt.state().active())
        };
        let in_hand = leader.pool[ix].load().in_hand().iter();
        in_hand.map(|id| (id.task, elsewhere(&id.task))).collect()
    }

    /// Returns a job's critical set as known now; none if this supervisor does not lead.
    pub fn critical_set(&self, id: JobId) -> Option<CriticalSet> {
        let job = self.state.jobs.get(&id)?;
        Some(self.view()?.critical(id, job).into_owned())
    }

    /// Returns what a job has cost so far. The cost is final once the job has ended.
    pub fn cost(&self, job: JobId) -> Option<Cost> {
        self.state.jobs.get(&job).map(|job| job.cost)
    }

    /// Makes `policy` decide on redundancy for all jobs, whatever they ask for. Comparisons of baselines use it. Must
    /// be called before this supervisor leads.
    pub fn set_policy(&mut self, policy: Box<dyn redundancy::Policy>) {
        self.policy = Some(policy);
    }

    /// The leader's procedures; none if this supervisor does not lead.
    fn leadership<'a>(&'a mut self, out: &'a mut Effects) -> Option<Leadership<'a>> {
        match &mut self.role {
            Role::Follower(_) => None,
            Role::Leader(leader) => Some(Leadership {
                now: self.now,
                config: &self.config,
                state: &self.state,
                peers: &self.peers,
                disk_fault: self.disk_fault.as_deref(),
                policy: &mut self.policy,
                last_proposal: &mut self.last_proposal,
                leader,
                proposals: &mut out.proposals,
                out: &mut out.actions,
            }),
        }
    }

    /// Read access to the leader's state; none if this supervisor does not lead.
    fn view(&self) -> Option<LeaderView<'_>> {
        match &self.role {
            Role::Follower(_) => None,
            Role::Leader(leader) => Some(LeaderView {
                now: self.now,
                config: &self.config,
                state: &self.state,
                peers: &self.peers,
                disk_fault: self.disk_fault.as_deref(),
                policy: self.policy.as_deref(),
                leader,
            }),
        }
    }

    fn begin_epoch(&mut self, holds: Vec<Hash>, secret: [u8; 32], out: &mut Effects) {
        self.last_proposal += 1;
        let proposal = self.last_proposal;
        out.proposals.push_back(Proposal {
            id: proposal,
            record: Record::Epoch {
                epoch: Epoch(self.state.epoch().0 + 1),
                at: self.now,
                secret,
            },
        });
        if let Role::Follower(follower) = &mut self.role {
            follower.candidacy = Some(Candidacy {
                proposal,
                holds,
                secret,
            });
        }
    }

    fn on_committed(&mut self, proposal: Option<ProposalId>, record: Record, out: &mut Effects) {
        let change = self.state.apply(&record);
        if let Role::Follower(follower) = &mut self.role {
            follower.hints.forget(&change);
        }
        match &change {
            Change::Revoked(peer) => {
                out.actions.push(Action::Expel(*peer));
                self.peers.linked.remove(peer);
            }
            Change::Settings => self.apply_settings(out),
            Change::Epoch => match self.candidacy(proposal) {
                Some(candidacy) => self.go_live(candidacy, out),
                // Another supervisor leads, and this core did not know. It must not send messages with that epoch.
                None => self.step_down(out),
            },
            Change::Stale(_) => {
                if let Some(candidacy) = self.candidacy(proposal) {
                    // Another supervisor's epoch was committed first: propose a higher one.
                    self.begin_epoch(candidacy.holds, candidacy.secret, out);
                }
            }
            _ => {}
        }
        if let Some(mut leadership) = self.leadership(out) {
            leadership.on_committed(proposal, change);
        }
    }

    /// Takes this core's candidacy, if `proposal` decides it.
    fn candidacy(&mut self, proposal: Option<ProposalId>) -> Option<Candidacy> {
        match &mut self.role {
            Role::Follower(follower) => {
                let this = |candidacy: &mut Candidacy| Some(candidacy.proposal) == proposal;
                follower.candidacy.take_if(this)
            }
            Role::Leader(_) => None,
        }
    }

    /// Drops everything that only a leader has. Clients with pending requests must ask another supervisor.
    fn step_down(&mut self, out: &mut Effects) {
        if let Some(mut leadership) = self.leadership(out) {
            leadership.step_down();
            self.role = Role::Follower(Follower::default());
        }
    }

    fn go_live(&mut self, candidacy: Candidacy, out: &mut Effects) {
        let leader = Role::Leader(Box::new(Leader::new(self.now)));
        if let Role::Follower(follower) = std::mem::replace(&mut self.role, leader)
            && let Some(mut leadership) = self.leadership(out)
        {
            leadership.begin(&follower, candidacy.holds);
        }
    }

    /// Records that the group's supervisors have changed, and tells all connected peers.
    fn on_group(&mut self, group: Vec<PeerSupervisor>, out: &mut Effects) {
        self.peers.group = group;
        let all = self.supervisors();
        let actions = &mut out.actions;
        for (peer, role) in &self.peers.linked {
            match role {
                msg::Role::Worker => send(*peer, ToWorker::Supervisors(all.clone()), actions),
                msg::Role::Client | msg::Role::Admin | msg::Role::Relay => {
                    actions.push(Action::Tell {
                        to: *peer,
                        reply: Reply::Supervisors(all.clone()),
                    })
                }
                msg::Role::Supervisor => {}
            }
        }
        if let Some(mut leadership) = self.leadership(out) {
            leadership.on_group();
        }
    }

    /// Obeys the leader with the highest epoch seen, and ignores any other.
    fn on_from_leader(&mut self, peer: PeerId, msg: FromLeader, out: &mut Effects) {
        let FromLeader { epoch, what } = msg;
        let outdated = match &self.role {
            Role::Follower(follower) => epoch < follower.led_by || epoch < self.state.epoch(),
            Role::Leader(_) => epoch <= self.state.epoch(),
        };
        if outdated {
            return;
        }
        // If this core leads, another supervisor has taken over without its knowledge.
        self.step_down(out);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        (follower.led_by, follower.leader) = (epoch, Some(peer));
        match what {
            LeaderSays::Lead => {
                out.actions.push(Action::TellHoldings { to: peer });
                self.report_disk_fault(peer, out);
            }
            LeaderSays::Hints(hints) => follower.hints.add(hints, &self.state),
            LeaderSays::Hold {
                hash,
                size,
                sources,
            } => follower.fetch(hash, size, sources, &mut out.actions),
            LeaderSays::Drop(hashes) => {
                out.actions.push(Action::Drop(hashes.clone()));
                let msg = ToLeader::Dropped(hashes);
                out.actions.push(Action::ToLeader { to: peer, msg });
            }
        }
    }

    /// Decides whether a peer that asks to connect is admitted.
    fn on_joining(
        &mut self,
        peer: PeerId,
        role: msg::Role,
        ticket: Option<Hash>,
        out: &mut Effects,
    ) {
        let admission = self.state.admission(self.now, peer, role, ticket);
        let refused = match (admission, self.leadership(out)) {
            (Ok(Some(ticket)), Some(mut leadership)) => {
                return leadership.admit(peer, role, ticket);
            }
            (Ok(Some(_)), None) => Some(NotAdmitted::Redirected),
            (Ok(None), _) => None,
            // Only the leader is sure to know the newest tickets.
            (Err(NotAdmitted::Stranger), None) => Some(NotAdmitted::NotLeading),
            (Err(refused), _) => Some(refused),
        };
        out.actions.push(Action::Admit { peer, refused });
    }

    /// Applies the grid's settings to everything that derives from them.
    fn apply_settings(&mut self, out: &mut Effects) {
        if let Some(mut leadership) = self.leadership(out) {
            leadership.follow_min_link();
        }
        let settings = self.state.settings();
        let changed = settings.changed();
        if changed.contains_key("content_grace") {
            self.config.content_grace = settings.content_grace;
        }
        let watching = |name: &str| WATCHING.iter().any(|word| name.starts_with(word));
        if changed.keys().any(|name| watching(name)) {
            let watch = Watch::of(settings);
            if std::mem::replace(&mut self.config.watch, watch) != watch {
                out.actions.push(Action::WatchSettings(watch));
            }
        }
    }
}

pub(crate) fn not_leading() -> Refusal {
    Refusal {
        kind: RefusalKind::NotLeading,
        why: "this supervisor does not lead; ask the one that does, or again in a moment".into(),
    }
}

pub(crate) fn answer(to: PeerId, id: u64, reply: Reply, out: &mut Vec<Action>) {
    out.push(Action::Answer {
        to,
        answer: Answer { id, reply },
    });
}

pub(crate) fn send(to: PeerId, msg: ToWorker, out: &mut Vec<Action>) {
    out.push(Action::Send { to, msg });
}

/// Tells a worker to drop blobs, in messages of bounded length.
pub(crate) fn send_drop(to: PeerId, hashes: &[Hash], out: &mut Vec<Action>) {
    for part in hashes.chunks(HASHES_MAX) {
        send(to, ToWorker::Drop(part.to_vec()), out);
    }
}
