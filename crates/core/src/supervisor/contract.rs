//! The contract between the supervisor's core and the shell that runs it: events in, proposals and actions out.

use super::{MeasureMost, Measured};
use crate::monitor::{Attention, Finding, Settings as Watch};
use hedge_model::group::{FromLeader, PeerSupervisor, ToLeader};
use hedge_model::msg::{
    Answer, Assignment, Body, FromWorker, GrantedBlobs, GrantedReply, Grants, Reply, Request, Role,
    SharedExtension, SharedSpec, ToWorker,
};
use hedge_model::record::{FORMAT_MAX, Record};
use hedge_model::view::WorkerView;
use hedge_model::{Epoch, FileEntry, Hash, JobId, PeerAddr, PeerId, Source, SubmitKey};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Identifies a proposed record until it is committed.
pub type ProposalId = u64;

/// A supervisor's identity and configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// This supervisor's id and the addresses at which others reach it.
    pub me: PeerAddr,
    /// The settings of the failure detector for workers.
    pub watch: Watch,
    /// How long the leader counts on the blobs of a worker that is gone, and the longest duration of a new leader's
    /// recovery barrier. A longer time waits for machines that do not return, a shorter one repeats tasks needlessly.
    /// 3 s covers a restart of the process.
    pub content_grace: Duration,
    /// The newest record format that this supervisor may write: [`FORMAT_MAX`], or an older one that another version,
    /// which may have to take over again, still reads.
    pub format_max: u32,
    /// How long a failing worker is excluded at first; each further fault doubles it.
    pub exclude_for: Duration,
}

impl Config {
    /// Returns the default configuration of a supervisor that is reached at `me`.
    pub fn new(me: PeerAddr) -> Self {
        Self {
            me,
            watch: Watch::default(),
            content_grace: Duration::from_secs(3),
            format_max: FORMAT_MAX,
            exclude_for: Duration::from_secs(60),
        }
    }
}

/// The sender of a request, with its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A peer, over its connection. Its role as a member decides what it may do; a peer that is no member may do
    /// nothing.
    Peer(PeerId),
    /// A part of the supervisor's own process.
    Here {
        /// The peer that owns the jobs which this part submits.
        peer: PeerId,
        /// The role in which it makes requests.
        role: Role,
    },
}

impl Requester {
    /// Returns the peer that owns the requester's jobs and receives the reply.
    pub fn peer(self) -> PeerId {
        match self {
            Self::Peer(peer) | Self::Here { peer, .. } => peer,
        }
    }
}

impl From<PeerId> for Requester {
    fn from(peer: PeerId) -> Self {
        Self::Peer(peer)
    }
}

/// A submission: a new job, or groups for an open job.
#[derive(Clone, Debug)]
pub enum Offer {
    /// A new job.
    Job(SharedSpec),
    /// Groups for an open job.
    Groups(JobId, SharedExtension),
}

impl Offer {
    /// The blobs among the inputs, by hash, with their sizes in bytes.
    pub fn input_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let (job, groups) = match self {
            Self::Job(spec) => (Some(spec.input_blobs()), None),
            Self::Groups(_, extension) => (None, Some(extension.input_blobs())),
        };
        job.into_iter()
            .flatten()
            .chain(groups.into_iter().flatten())
    }

    /// The length of the encoded submission in bytes.
    pub(crate) fn encoded_bytes(&self) -> usize {
        match self {
            Self::Job(spec) => spec.encoded_bytes(),
            Self::Groups(_, extension) => extension.encoded_bytes(),
        }
    }

    pub(crate) fn format(&self) -> u32 {
        match self {
            Self::Job(spec) => spec.format(),
            Self::Groups(..) => 3,
        }
    }
}

/// An input of the supervisor's state machine.
#[derive(Clone, Debug)]
pub enum Event {
    /// The journal elected this supervisor. The core proposes an epoch and leads once that epoch is committed.
    Lead {
        /// The blobs in this supervisor's own store.
        holds: Vec<Hash>,
        /// Fresh random bytes. They become the secret that the supervisors share, if the grid has none yet.
        secret: [u8; 32],
    },
    /// Another supervisor leads, or no leader is known. The core drops everything that only a leader has.
    Deposed,
    /// The group now consists of these supervisors, this one among them.
    Group(Vec<PeerSupervisor>),
    /// The state of this supervisor's disk has changed: why nothing can be stored on it, as a sentence without a full
    /// stop; none if it can store again.
    Disk(Option<String>),
    /// An admitted peer has connected.
    Linked {
        /// The peer.
        peer: PeerId,
        /// Its role.
        role: Role,
    },
    /// A message from a supervisor that leads, or believes that it does.
    FromLeader {
        /// The sender.
        peer: PeerId,
        /// The message.
        msg: FromLeader,
    },
    /// Another supervisor replies to this one as its leader.
    ToLeader {
        /// The sender.
        peer: PeerId,
        /// The message.
        msg: ToLeader,
    },
    /// A record is committed, proposed by this core or by another leader.
    Committed {
        /// The proposal, if this core made it.
        proposal: Option<ProposalId>,
        /// The record.
        record: Record,
    },
    /// A peer that is not a member yet asks to join and shows the hash of a ticket's secret. Members need no ticket.
    Joining {
        /// The peer.
        peer: PeerId,
        /// The role in which it wants to join.
        role: Role,
        /// The hash of the ticket's secret.
        ticket: Option<Hash>,
    },
    /// A message from a worker.
    FromWorker {
        /// The worker.
        peer: PeerId,
        /// The message.
        msg: FromWorker,
    },
    /// A finding of the monitor about a worker.
    Found(Finding),
    /// A measurement of a worker's link ended, with or without success.
    LinkMeasured {
        /// The worker.
        peer: PeerId,
        /// The result.
        found: Measured,
    },
    /// A client submits a job, or groups for an open job. The shell has decoded the submission.
    Submit {
        /// The sender of the request.
        requester: Requester,
        /// The request id.
        request_id: u64,
        /// The submission key, which makes a repeated submission harmless.
        key: SubmitKey,
        /// The submission.
        offer: Offer,
        /// The peer that serves the inputs for the client. The shell has verified that it serves for this client.
        from: PeerAddr,
        /// Inputs that a client within this process has already put into this supervisor's store.
        held: Vec<Hash>,
    },
    /// Any other request of a client.
    Request {
        /// The sender of the request.
        requester: Requester,
        /// The request id.
        request_id: u64,
        /// The request.
        request: Request,
        /// A fresh random secret, with its hash, if the request asks for a new ticket.
        secret: Option<(Hash, String)>,
    },
    /// A peer's connection has closed.
    Gone {
        /// The peer.
        peer: PeerId,
        /// Whether neither end closed it deliberately: the peer's process may live, and may reconnect.
        silent: bool,
    },
    /// The requests with these ids have no recipient any more.
    RequestsAbandoned(Vec<u64>),
    /// A fetch of a blob into this supervisor's store ended.
    Fetched {
        /// The blob.
        hash: Hash,
        /// The peer that sent the whole blob, or why the fetch failed. None if the store already had the blob, or if
        /// it came in parts from several peers.
        result: Result<Option<PeerId>, FetchFailure>,
    },
    /// A peer was asked to prove that it holds blobs.
    Proved {
        /// The peer.
        holder: PeerId,
        /// For each blob whether the peer proved that it holds it; otherwise why not, as a sentence without a full
        /// stop.
        proofs: Vec<(Hash, Result<(), String>)>,
    },
    /// The deadline that [`super::Supervisor::next_deadline`] returned has passed.
    Tick,
}

/// Why a blob could not be fetched, as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// This machine cannot store it, for example because its disk is full. It says nothing about the sources.
    Here(String),
    /// None of the given sources delivered it.
    Sources(String),
}

/// The output of the state machine for one event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Records to propose to the journal, in this order. Each comes back as [`Event::Committed`].
    pub proposals: VecDeque<Proposal>,
    /// Actions to carry out, in this order, without waiting for the proposals.
    pub actions: Vec<Action>,
}

/// A record to append to the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Its id, one higher than that of the previous proposal.
    pub id: ProposalId,
    /// The record.
    pub record: Record,
}

/// Asks the shell to sign a grant, which lets a peer read blobs. Only the shell has the supervisor's key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// The peer that may read.
    pub reader: PeerId,
    /// The blobs.
    pub blobs: Arc<[Hash]>,
    /// The epoch in which the grant is issued.
    pub epoch: Epoch,
}

/// An assignment without its grant. The grant covers the blobs that the assignment names and the group's body does
/// not.
#[derive(Clone, Debug, PartialEq)]
pub struct UngrantedAssignment {
    /// The assignment.
    pub order: Assignment,
    /// Peers that hold some of the blobs, most likely source first.
    pub sources: Vec<Source>,
    /// The grant to sign.
    pub grant: GrantRequest,
}

impl UngrantedAssignment {
    /// Returns the assignment with the signed grants.
    pub fn with(mut self, grants: Grants) -> Assignment {
        let blobs = GrantedBlobs {
            blobs: self.grant.blobs,
            sources: self.sources,
            grants,
        };
        self.order.own.get_or_insert_default().blobs = Some(blobs);
        self.order
    }
}

/// An action for the shell.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Watch a worker this closely, on the connection over which it attached, or stop watching it.
    Watch {
        /// The worker.
        peer: PeerId,
        /// How closely; none stops the watch.
        attention: Option<Attention>,
    },
    /// Use these settings to watch workers from now on.
    WatchSettings(Watch),
    /// Measure a worker's link, then report [`Event::LinkMeasured`], also if the measurement fails.
    MeasureLink {
        /// The worker.
        peer: PeerId,
        /// The most bytes to send in each direction, in total and in flight.
        most: MeasureMost,
    },
    /// A worker's link carries this many bytes per second in its slower direction. Heartbeats stay within their share
    /// of it.
    LinkRate {
        /// The worker.
        peer: PeerId,
        /// Bytes per second.
        rate: u64,
    },
    /// Send a message to a worker.
    Send {
        /// The worker.
        to: PeerId,
        /// The message.
        msg: ToWorker,
    },
    /// Send a worker what the tasks of a group have in common, with a grant for the blobs in it.
    SendBody {
        /// The worker.
        to: PeerId,
        /// The common part of the group's tasks.
        body: Arc<Body>,
        /// The grant to sign.
        grant: GrantRequest,
    },
    /// Send a worker an assignment, with a grant for the blobs that the group's body does not name.
    SendAssignment {
        /// The worker.
        to: PeerId,
        /// The assignment and the grant to sign.
        order: UngrantedAssignment,
    },
    /// Reply to a client.
    Answer {
        /// The client.
        to: PeerId,
        /// The reply and its request id.
        answer: Answer,
    },
    /// Reply to a client, with a grant for the blobs that the reply names.
    AnswerGranted {
        /// The client.
        to: PeerId,
        /// The request id.
        id: u64,
        /// The reply.
        reply: GrantedReply,
        /// The grant to sign.
        grant: GrantRequest,
    },
    /// Reply to a client with all workers. The shell adds what the monitor, which runs outside this core, knows of
    /// each.
    AnswerWorkers {
        /// The client.
        to: PeerId,
        /// The request id.
        id: u64,
        /// The workers, as this core knows them.
        workers: Vec<(PeerId, WorkerView)>,
    },
    /// Admit a peer, or refuse it.
    Admit {
        /// The peer.
        peer: PeerId,
        /// Why it is refused; none admits it.
        refused: Option<NotAdmitted>,
    },
    /// Fetch a blob into this supervisor's store, then report [`Event::Fetched`].
    Fetch {
        /// The blob.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
        /// Peers that hold it, most likely source first.
        sources: Vec<Source>,
    },
    /// Have a peer prove that it holds blobs of this supervisor's store, then report [`Event::Proved`].
    Prove {
        /// The peer.
        holder: PeerAddr,
        /// The blobs, with their lengths in bytes.
        blobs: Vec<(Hash, u64)>,
    },
    /// These blobs need not stay in this supervisor's store.
    Drop(Vec<Hash>),
    /// Send a client a message that it did not request.
    Tell {
        /// The client, on all its connections.
        to: PeerId,
        /// The message.
        reply: Reply,
    },
    /// Send another supervisor a message as its leader.
    ToSupervisor {
        /// The supervisor.
        to: PeerId,
        /// The message.
        msg: FromLeader,
    },
    /// Send the leader a message.
    ToLeader {
        /// The leader.
        to: PeerId,
        /// The message.
        msg: ToLeader,
    },
    /// Tell the leader which blobs this supervisor's store holds, as [`ToLeader::Holds`].
    TellHoldings {
        /// The leader.
        to: PeerId,
    },
    /// Close all connections of a revoked member, and serve it nothing.
    Expel(PeerId),
}

/// Why a peer is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is not a member and showed no valid ticket.
    Stranger,
    /// Its ticket has expired, is used up or was revoked.
    Expired,
    /// Its ticket, or its membership, is for another role.
    WrongRole,
    /// It was a member and was revoked.
    Revoked,
    /// It is not a member yet, and only the leader knows whether it may join.
    NotLeading,
    /// It is not a member yet and its ticket is valid, but only the leader can admit it. The shell sends it the
    /// addresses of all supervisors.
    Redirected,
}

impl NotAdmitted {
    /// Returns the reason as a clause for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Stranger => "it is no member and showed no valid ticket",
            Self::Expired => "its ticket has expired, is used up or was revoked",
            Self::WrongRole => "its ticket or its membership is for another role",
            Self::Revoked => "its membership was revoked",
            Self::NotLeading | Self::Redirected => "only the leader can let it in",
        }
    }
}

/// What to do once a proposal is committed, mostly which reply to send.
#[derive(Clone, Debug)]
pub(crate) enum Pending {
    Accepted {
        client: PeerId,
        request_id: u64,
        spec: SharedSpec,
    },
    /// Groups for an open job.
    Extended {
        client: PeerId,
        request_id: u64,
        job: JobId,
        key: SubmitKey,
        extension: SharedExtension,
    },
    Joined {
        peer: PeerId,
    },
    Ticket {
        client: PeerId,
        request_id: u64,
        secret: String,
    },
    /// A request that is answered with "done".
    Done {
        client: PeerId,
        request_id: u64,
    },
    /// Do nothing: the client is gone, and a later connection of the same peer starts its request ids anew.
    Abandoned,
    /// The outputs of a successful attempt, to drop if another attempt won.
    Unwanted {
        worker: PeerId,
        outputs: Vec<FileEntry>,
    },
}
