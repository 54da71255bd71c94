//! What a supervisor is told and what it wants done: the whole contract between the core and what runs it.

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

/// Names one appended record until it is committed.
pub type ProposalId = u64;

/// What a supervisor is and how it behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Itself, and where others reach it.
    pub me: PeerAddr,
    /// How workers are watched.
    pub watch: Watch,
    /// How long content of a worker that is gone is still counted on. It trades needless repetition of
    /// tasks against waiting for a machine that does not come back; 3 s is a restart of the process.
    pub content_grace: Duration,
    /// The newest format of records that it may write: [`FORMAT_MAX`], or an older one that another version,
    /// which may have to take over again, still reads.
    pub format_max: u32,
    /// How long a worker that keeps failing is given nothing, at first; doubles each time.
    pub exclude_for: Duration,
}

impl Config {
    /// The defaults for a supervisor reached at `me`.
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

/// Who makes a request, and as what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A peer over its connection. The member's role decides what it may do; a peer that is no member may do nothing.
    Peer(PeerId),
    /// A part of the supervisor's own process.
    Here {
        /// As whom: its jobs are this peer's.
        peer: PeerId,
        /// In which role.
        role: Role,
    },
}

impl Requester {
    /// Whose jobs it may see, and who gets the reply.
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

/// What a client wants to be run.
#[derive(Clone, Debug)]
pub enum Offer {
    /// A job.
    Job(SharedSpec),
    /// Groups for an open job.
    Groups(JobId, SharedExtension),
}

impl Offer {
    /// Blobs among the inputs, by hash, with their sizes in bytes.
    pub fn input_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let (job, groups) = match self {
            Self::Job(spec) => (Some(spec.input_blobs()), None),
            Self::Groups(_, extension) => (None, Some(extension.input_blobs())),
        };
        job.into_iter()
            .flatten()
            .chain(groups.into_iter().flatten())
    }

    /// Its length in bytes, encoded.
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

/// What happens to a supervisor.
#[derive(Clone, Debug)]
pub enum Event {
    /// This core is to lead: it begins an epoch and leads once that is committed.
    Lead {
        /// Content in its own store.
        holds: Vec<Hash>,
        /// Fresh random bytes: the secret that supervisors share, where the grid has none yet.
        secret: [u8; 32],
    },
    /// Another leads, or nobody known; everything that only a leader has is dropped.
    Deposed,
    /// The supervisors of the group are these, this one among them.
    Group(Vec<PeerSupervisor>),
    /// Why nothing can be stored on this supervisor's disk from now on, a sentence without a full stop; none where it
    /// can be.
    Disk(Option<String>),
    /// A peer that was let in has a connection.
    Linked {
        /// Who.
        peer: PeerId,
        /// As what.
        role: Role,
    },
    /// A supervisor that leads, or believes so, says something.
    FromLeader {
        /// Who.
        peer: PeerId,
        /// What.
        msg: FromLeader,
    },
    /// Another supervisor answers to what this one said as the leader.
    ToLeader {
        /// Who.
        peer: PeerId,
        /// What.
        msg: ToLeader,
    },
    /// A record is committed; proposed here, or by another leader.
    Committed {
        /// The proposal, if it was made by this core.
        proposal: Option<ProposalId>,
        /// The record.
        record: Record,
    },
    /// A peer that is no member yet shows a ticket's secret, by its hash. A member is let in without.
    Joining {
        /// Who.
        peer: PeerId,
        /// As what.
        role: Role,
        /// The hash of the secret it showed.
        ticket: Option<Hash>,
    },
    /// A worker's message.
    FromWorker {
        /// Whose.
        peer: PeerId,
        /// What.
        msg: FromWorker,
    },
    /// What the monitor found out.
    Found(Finding),
    /// A worker's link was measured, or could not be.
    LinkMeasured {
        /// Whose.
        peer: PeerId,
        /// What was found.
        found: Measured,
    },
    /// A client wants a job done, or groups added to an open one; what it submits is decoded.
    Submit {
        /// Who.
        requester: Requester,
        /// The question's id.
        request_id: u64,
        /// The submission.
        key: SubmitKey,
        /// What.
        offer: Offer,
        /// Where the client serves the inputs: a peer of which it is known that it serves for this client.
        from: PeerAddr,
        /// Inputs that are in the own store because a client within this process put them there.
        held: Vec<Hash>,
    },
    /// A client asks for anything else.
    Request {
        /// Who.
        requester: Requester,
        /// The question's id.
        request_id: u64,
        /// The question.
        request: Request,
        /// A fresh random secret for a new ticket, where the question is for one.
        secret: Option<(Hash, String)>,
    },
    /// A peer's connection is closed.
    Gone {
        /// Whose.
        peer: PeerId,
        /// Nobody ended it: the process at its other end may live, and connect again.
        silent: bool,
    },
    /// Nobody waits for the answers to these questions any more.
    RequestsAbandoned(Vec<u64>),
    /// A pull of content into the own store ended.
    Fetched {
        /// Which.
        hash: Hash,
        /// Which peer sent all of it, or how it failed. None where it was here already, or came in parts.
        result: Result<Option<PeerId>, FetchFailure>,
    },
    /// A peer was asked to prove that it holds blobs.
    Proved {
        /// Who.
        holder: PeerId,
        /// For each blob whether the peer has proven that it holds it; else why not, a sentence without a full stop.
        proofs: Vec<(Hash, Result<(), String>)>,
    },
    /// The deadline of [`super::Supervisor::next_deadline`] is reached.
    Tick,
}

/// Why content could not be pulled, a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// This machine cannot keep it, like a full disk: says nothing of those who hold it.
    Here(String),
    /// Nobody who was named gave it.
    Sources(String),
}

/// What an event leads to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// Records to be made durable in this order; each then comes back as [`Event::Committed`].
    pub proposals: VecDeque<Proposal>,
    /// What is to be done, in this order, without waiting for the records.
    pub actions: Vec<Action>,
}

/// A record to be made durable.
#[derive(Clone, Debug, PartialEq)]
pub struct Proposal {
    /// Its name; each is larger by one than the one before it.
    pub id: ProposalId,
    /// The record.
    pub record: Record,
}

/// Leave for a peer to read blobs, which only the supervisor's key can sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// Who may read.
    pub reader: PeerId,
    /// What.
    pub blobs: Arc<[Hash]>,
    /// The epoch in which it is given.
    pub epoch: Epoch,
}

/// An assignment whose worker is to have leave to read the blobs that its body does not name.
#[derive(Clone, Debug, PartialEq)]
pub struct UngrantedAssignment {
    /// The assignment.
    pub order: Assignment,
    /// Peers that hold some of the blobs, likeliest first.
    pub sources: Vec<Source>,
    /// What the worker may read.
    pub grant: GrantRequest,
}

impl UngrantedAssignment {
    /// The assignment with these grants.
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

/// What a supervisor wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Watch a worker, on the connection over which it attached, this closely; or no more.
    Watch {
        /// Whom.
        peer: PeerId,
        /// How closely; none ends it.
        attention: Option<Attention>,
    },
    /// Watch workers like this from now on.
    WatchSettings(Watch),
    /// Measure the link of a worker, sending so many bytes each way at most, then say [`Event::LinkMeasured`], also
    /// where it cannot be measured.
    MeasureLink {
        /// Whose.
        peer: PeerId,
        /// What it may take.
        most: MeasureMost,
    },
    /// So many bytes a second a worker's link carries in its slower direction: heartbeats keep to their share.
    LinkRate {
        /// Whose.
        peer: PeerId,
        /// Bytes a second.
        rate: u64,
    },
    /// Tell a worker.
    Send {
        /// Whom.
        to: PeerId,
        /// What.
        msg: ToWorker,
    },
    /// Tell a worker what the tasks of a group have in common, with leave to read their blobs.
    SendBody {
        /// Whom.
        to: PeerId,
        /// What.
        body: Arc<Body>,
        /// What it may read.
        grant: GrantRequest,
    },
    /// Give a worker an attempt, with leave to read the blobs that its body does not name.
    SendAssignment {
        /// Whom.
        to: PeerId,
        /// What, and what it may read.
        order: UngrantedAssignment,
    },
    /// Answer a client.
    Answer {
        /// Whom.
        to: PeerId,
        /// What.
        answer: Answer,
    },
    /// Answer a client, with leave to read the blobs that the answer names.
    AnswerGranted {
        /// Whom.
        to: PeerId,
        /// The question's id.
        id: u64,
        /// What.
        reply: GrantedReply,
        /// What it may read.
        grant: GrantRequest,
    },
    /// Answer a client with all workers. The monitor runs beside this core: what it knows of each worker is to go with
    /// the answer.
    AnswerWorkers {
        /// Whom.
        to: PeerId,
        /// The question's id.
        id: u64,
        /// The workers, as this core knows them.
        workers: Vec<(PeerId, WorkerView)>,
    },
    /// Let a peer in, or refuse it.
    Admit {
        /// Whom.
        peer: PeerId,
        /// Nothing, or why not.
        refused: Option<NotAdmitted>,
    },
    /// Fetch content into the own store, then say [`Event::Fetched`].
    Fetch {
        /// Which.
        hash: Hash,
        /// Its length in bytes.
        size: u64,
        /// Who holds it, likeliest first.
        sources: Vec<Source>,
    },
    /// Have a peer prove that it holds blobs of the own store, then say [`Event::Proved`].
    Prove {
        /// Who.
        holder: PeerAddr,
        /// Which, with their lengths in bytes.
        blobs: Vec<(Hash, u64)>,
    },
    /// Content that the own store need not keep.
    Drop(Vec<Hash>),
    /// Tell a client something that it did not ask for.
    Tell {
        /// Whom, on all its connections.
        to: PeerId,
        /// What.
        reply: Reply,
    },
    /// Tell another supervisor something, as its leader.
    ToSupervisor {
        /// Whom.
        to: PeerId,
        /// What.
        msg: FromLeader,
    },
    /// Answer the leader.
    ToLeader {
        /// Whom.
        to: PeerId,
        /// What.
        msg: ToLeader,
    },
    /// Tell the leader what content the own store holds, as [`ToLeader::Holds`].
    TellHoldings {
        /// Whom.
        to: PeerId,
    },
    /// End all connections of a peer that is a member no more, and serve it nothing.
    Expel(PeerId),
}

/// Why a peer is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It is no member and showed no valid ticket.
    Stranger,
    /// Its ticket was valid once.
    Expired,
    /// Its ticket, or its membership, is for another role.
    WrongRole,
    /// It was a member and was revoked.
    Revoked,
    /// It is no member yet, and only the leader can say whether it may come in.
    NotLeading,
    /// It is no member yet and its ticket is valid, but only the leader can let it in: it is told who the
    /// supervisors are.
    Redirected,
}

impl NotAdmitted {
    /// For people.
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

/// What is to be said once a proposal is committed.
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
    /// Anything that is answered with "done".
    Done {
        client: PeerId,
        request_id: u64,
    },
    /// Nothing: the client is gone, and a later connection of the same peer counts its questions anew.
    Abandoned,
    /// What an attempt left that did not win.
    Unwanted {
        worker: PeerId,
        outputs: Vec<FileEntry>,
    },
}
