//! Messages between peers. Each frame holds a batch of one of these types.

use crate::capacity::{BenchScores, Hardware};
use crate::owner::OwnerState;
use crate::spec::placeholders::TaskValues;
use crate::spec::{CheckpointRule, Extension, Runtime};
use crate::view::{
    AttemptsView, ExplainView, GroupsView, JobView, LogView, MemberView, ResultsView, SettingView,
    TasksView, TicketView, WorkerView,
};
use crate::{
    AttemptId, Checkpoint, CheckpointId, Data, Ending, Epoch, FileEntry, Hash, InputServer, JobId,
    JobSpec, PeerAddr, PeerId, Resources, Source,
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

mod heartbeat;
mod printed;
mod request;
pub use heartbeat::{AttemptHeartbeat, Heartbeat, HeartbeatPlan, Phase, StatusRequest};
pub use printed::{
    Offsets, PIECE_BYTES_MAX, Piece, Pieces, PrintedPart, PrintedRequest, PrintedView, ReadPrinted,
};
pub use request::{Concern, OUTPUT_TASKS_MAX, RELEASES_MAX, Request};

/// Longest message in bytes, encoded. A frame carries at least one message, and 64 bytes are left for its header.
pub const MESSAGE_BYTES_MAX: usize = (16 << 20) - 64;

/// Hashes in one message, at most: 8 MB of them.
pub const HASHES_MAX: usize = 250_000;

/// Bytes that signed leave to read so many blobs takes in a message, at most: each blob once, and for each 4,096 of
/// them a signature with its keys.
pub fn grant_bytes(blobs: usize) -> usize {
    blobs.saturating_mul(33) + (blobs / 4096 + 1) * 256
}

/// What a peer is in the grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Submits jobs.
    Client,
    /// Accepts jobs and assigns their tasks.
    Supervisor,
    /// A client that may see and change everything in the grid.
    Admin,
    /// Carries packets between peers that cannot reach each other directly.
    Relay,
}

impl Role {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Role::Worker => "worker",
            Role::Client => "client",
            Role::Supervisor => "supervisor",
            Role::Admin => "admin",
            Role::Relay => "relay",
        }
    }
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What the supervisor answers to a peer that it lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The leader's epoch. A worker obeys nobody whose epoch is below the highest it has seen.
    pub epoch: Epoch,
    /// How often a worker sends heartbeats.
    pub heartbeat_interval: Duration,
    /// All supervisors of the grid, to keep a connection to each.
    pub supervisors: Vec<PeerAddr>,
    /// The grid's own relays, for peers that cannot be reached directly.
    pub relays: Vec<PeerAddr>,
}

/// What a worker says of itself when it attaches, first of all messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Host name.
    pub host: Arc<str>,
    /// Process id, for people who look at the machine.
    pub pid: u32,
    /// What it offers.
    pub resources: Resources,
    /// Labels by name, `arch` and `os` among them.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Where other peers reach it.
    pub addr: PeerAddr,
    /// What its machine is made of.
    pub hardware: Hardware,
    /// Content that it holds, or the first part of it; [`FromWorker::Holds`] brings the rest.
    pub holds: Vec<Hash>,
    /// Attempts that it has in hand, those included whose report is not settled.
    pub in_hand: Vec<HeldAttempt>,
}

/// An attempt that a worker has in hand, and the proof that it was given it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAttempt {
    /// Which.
    pub attempt: AttemptId,
    /// Whether it is a redundant one.
    pub redundant: bool,
    /// As in its [`Assignment`].
    pub seal: Seal,
}

/// Proves to every supervisor of the grid that one of them gave an attempt to a worker: the first bytes of a
/// BLAKE3 hash, keyed with a secret that the supervisors share, of both their names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(pub [u8; 16]);

/// From the supervisor to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// This supervisor leads, in this epoch: attach here. The highest epoch counts.
    Lead(Epoch),
    /// All supervisors of the grid; replaces what was said before.
    Supervisors(Vec<PeerAddr>),
    /// These peers are members no more: nothing is given to them or taken from them.
    Revoked(Vec<PeerId>),
    /// What the tasks of one group are; sent before the first of them, and again when their inputs moved.
    Body(Arc<GrantedBody>),
    /// Run this.
    Assign(Assignment),
    /// End this, if it is still in hand.
    Cancel(AttemptId),
    /// Give this back if it has not started.
    Return(AttemptId),
    /// The report on this attempt is dealt with: drop it.
    Settled(AttemptId),
    /// The job is over: drop its bodies.
    Forget(JobId),
    /// This content is not needed any more.
    Drop(Vec<Hash>),
    /// Take no more, give back what has not started, finish what is running.
    Drain,
    /// Nothing here is needed any more: go.
    Leave,
    /// Heartbeat like this from now on.
    Heartbeat(HeartbeatPlan),
    /// Open an idle TCP connection to this port of mine and show it this, so that each of us notices at once
    /// when the other's process dies.
    Tripwire {
        /// The port, at whatever address this connection goes to.
        port: u16,
        /// Valid once.
        nonce: [u8; 16],
    },
    /// Run the benchmark tasks once nothing else runs, and say what they found.
    Benchmark,
    /// The grid's relays; replaces what was said before.
    Relays(Vec<PeerAddr>),
    /// Open a TCP connection to this port of mine, show it this, and send as fast as the link carries, so much at
    /// most; what arrived meanwhile is told as [`FromWorker::Probed`].
    Probe {
        /// The port, at whatever address this connection goes to.
        port: u16,
        /// Valid once.
        nonce: [u8; 16],
        /// Bytes to send at most.
        bytes: u64,
        /// Bytes on their way at once at most; 0 leaves it to the system.
        window: u32,
    },
    /// Say what an attempt has printed.
    ReadPrinted(ReadPrinted),
}

/// What the tasks of one group have in common, inputs resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The job.
    pub job: JobId,
    /// Position of the group in the job.
    pub group: u32,
    /// Grows when the inputs changed.
    pub version: u32,
    /// The group's id, for the task's environment.
    pub id: Arc<str>,
    /// How to execute.
    pub runtime: Runtime,
    /// Names of the tasks' parameters.
    pub parameters: Vec<Arc<str>>,
    /// Program and arguments, with placeholders.
    pub command: Vec<Arc<str>>,
    /// Environment.
    pub env: Vec<(Arc<str>, Arc<str>)>,
    /// Standard input.
    pub stdin: Option<Data>,
    /// Files that each task finds in its folder.
    pub inputs: Vec<FileEntry>,
    /// Patterns of what leaves the folder.
    pub outputs: Vec<Arc<str>>,
    /// Bytes of outputs that may travel inside one report; the rest goes by its hash.
    pub inline_max: u32,
    /// Bytes that are kept of the end of each stream that a task prints.
    pub printed_max: u64,
    /// What a task takes.
    pub resources: Resources,
    /// Longest running time.
    pub time_limit: Option<Duration>,
    /// How each task saves how far it is.
    pub checkpoint: Option<Arc<CheckpointRule>>,
    /// Peers that hold blobs of the inputs, likeliest first.
    pub sources: Vec<Source>,
}

impl Body {
    /// What the placeholders stand for in one task.
    pub fn task_values<'a>(&'a self, order: &'a Assignment) -> TaskValues<'a> {
        TaskValues {
            index: order.index,
            names: &self.parameters,
            values: order.values(),
        }
    }

    /// Bytes that it takes in a message, with the grants for so many blobs.
    pub fn message_bytes(&self, blobs: usize) -> usize {
        let bytes = postcard::experimental::serialized_size(self).unwrap_or(usize::MAX);
        bytes.saturating_add(grant_bytes(blobs))
    }
}

/// A body, with leave to read the blobs of its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantedBody {
    /// What the tasks have in common.
    pub body: Arc<Body>,
    /// Signed leave to read the blobs of its tasks; opaque.
    pub grants: Grants,
}

impl std::ops::Deref for GrantedBody {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.body
    }
}

/// Signed leave to read blobs, as it travels in messages. Only peers that serve blobs look into it.
pub type Grants = Vec<u8>;

/// A reply that goes out with leave to read the blobs that it names.
#[derive(Clone, Debug, PartialEq)]
pub enum GrantedReply {
    /// Where results are.
    Results(Box<ResultsView>),
    /// What a task printed.
    Log(Box<LogView>),
    /// What an attempt printed that is over.
    Printed {
        /// Its output.
        log: Box<LogView>,
        /// As in [`PrintedView::Over`].
        last: bool,
    },
}

impl GrantedReply {
    /// The reply with these grants.
    pub fn with(self, grants: Grants) -> Reply {
        match self {
            Self::Results(view) => Reply::Results(view, grants),
            Self::Log(view) => Reply::Log(view, grants),
            Self::Printed { log, last } => Reply::Printed(PrintedView::Over { log, grants, last }),
        }
    }
}

/// One attempt to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its name.
    pub attempt: AttemptId,
    /// Position of the task's group.
    pub group: u32,
    /// The version of the body that it uses.
    pub version: u32,
    /// Array index.
    pub index: Option<u32>,
    /// What it is given beside the body; none where that is nothing.
    pub own: Option<Box<OwnWork>>,
    /// Whether another attempt of the task was meant to run already.
    pub redundant: bool,
    /// Proof that the worker was given this attempt.
    pub seal: Seal,
}

/// What one attempt is given beside what its task has in common with others. Kept apart because most tasks have nothing
/// of it, and assignments are moved often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnWork {
    /// Values of the parameters that the body names.
    pub values: Vec<Arc<str>>,
    /// Files for this index alone.
    pub inputs: Vec<FileEntry>,
    /// Files of the checkpoint that the attempt goes on from; they take the place of inputs of the same names.
    pub checkpoint: Vec<FileEntry>,
    /// Blobs among its own files and the checkpoint's that the body does not name; none where there is none.
    pub blobs: Option<GrantedBlobs>,
}

impl Assignment {
    /// See [`OwnWork::values`].
    pub fn values(&self) -> &[Arc<str>] {
        self.own.as_ref().map_or(&[], |own| &own.values)
    }

    /// See [`OwnWork::inputs`].
    pub fn own_inputs(&self) -> &[FileEntry] {
        self.own.as_ref().map_or(&[], |own| &own.inputs)
    }

    /// See [`OwnWork::checkpoint`].
    pub fn checkpoint(&self) -> &[FileEntry] {
        self.own.as_ref().map_or(&[], |own| &own.checkpoint)
    }

    /// See [`OwnWork::blobs`].
    pub fn own_blobs(&self) -> Option<&GrantedBlobs> {
        self.own.as_ref()?.blobs.as_ref()
    }
}

/// Blobs that one task alone reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedBlobs {
    /// Their names.
    pub blobs: Arc<[Hash]>,
    /// Peers that hold some of them, likeliest first.
    pub sources: Vec<Source>,
    /// Signed leave to read them; opaque.
    pub grants: Grants,
}

/// From a worker to the supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// First message on each connection.
    Attach(Box<WorkerInfo>),
    /// The attempt's process runs.
    Started(AttemptId),
    /// The attempt is over; repeated on each new connection until settled.
    Ended(Box<Report>),
    /// Its owner or its machine wants it to stop: no new tasks.
    Draining,
    /// What the benchmark tasks found.
    Benchmarked(BenchScores),
    /// Its owner came, or went: said at once, again on each new connection, and in each heartbeat.
    Owner(OwnerState),
    /// So many bytes a second arrived from the supervisor while the link was measured; 0 where it could not be.
    Probed(u64),
    /// A large transfer came from some peer: its link carries as much at least.
    Fetched {
        /// Received.
        bytes: u64,
        /// In this time.
        took: Duration,
    },
    /// More content that it holds, after [`FromWorker::Attach`].
    Holds(Vec<Hash>),
    /// The attempt's process says that it waits for a job of this grid, or that it gets on. While it waits, its
    /// worker counts its resources as free.
    Waits(AttemptId, Option<JobId>),
    /// What an attempt has printed, as it was asked for.
    Printed(Box<PrintedPart>),
    /// An attempt's newest checkpoint, or why there is none; said again on each new connection, and before the
    /// attempt's end.
    Checkpoint(Box<CheckpointReport>),
}

/// What a worker says of an attempt's newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// Its name.
    pub id: CheckpointId,
    /// What it holds; else why it was not saved, a clause.
    pub saved: Result<Arc<Checkpoint>, String>,
    /// How old it is, by the worker's clock.
    pub age: Duration,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub attempt: AttemptId,
    /// How.
    pub outcome: Outcome,
    /// What it took.
    pub usage: Usage,
    /// What it printed, if anything.
    pub log: Option<Box<Log>>,
}

/// What became of an attempt, in the worker's report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It succeeded and left these files.
    Done(Vec<FileEntry>),
    /// It ended without success.
    Ended(Ending),
    /// It had not started and is given back.
    Returned,
}

/// What an attempt took. Durations are measured by the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// In the worker's queue.
    pub queued: Duration,
    /// Fetching inputs and making the folder.
    pub staging: Duration,
    /// From the process's start to its end.
    pub running: Duration,
    /// CPU time of the process and its children.
    pub cpu: Duration,
    /// Most memory in use, bytes.
    pub memory_peak: u64,
    /// Of `running`, the time for which it was paused.
    pub paused: Duration,
    /// Bytes fetched for it from other peers.
    pub moved: u64,
}

/// What an attempt printed: the tails, and how much it was in all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// End of the standard output.
    pub stdout: Data,
    /// End of the standard error.
    pub stderr: Data,
    /// Bytes written to standard output in all.
    pub stdout_total: u64,
    /// Bytes written to standard error in all.
    pub stderr_total: u64,
}

impl Log {
    /// The parts that are to be fetched by their hash.
    pub fn blobs(&self) -> impl Iterator<Item = Hash> + use<> {
        [self.stdout.hash(), self.stderr.hash()]
            .into_iter()
            .flatten()
    }
}

/// A client's question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Chosen by the client; the answer repeats it.
    pub id: u64,
    /// What it wants.
    pub request: Request,
}

/// Jobs in one answer, at most: with the longest names and reasons, they fit into one message.
pub const JOBS_MAX: usize = 1000;

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The question's id.
    pub id: u64,
    /// The answer.
    pub reply: Reply,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The job is accepted and the grid holds its inputs.
    Accepted(JobId),
    /// Jobs, by their number; [`JOBS_MAX`] at most. Empty behind the last.
    Jobs(Vec<JobView>),
    /// One job; the last of a watch has ended.
    Job(Box<JobView>),
    /// Done as asked.
    Ok,
    /// Where results are, and leave to read them.
    Results(Box<ResultsView>, Grants),
    /// What a task printed, and leave to read it.
    Log(Box<LogView>, Grants),
    /// Why.
    Explain(Box<ExplainView>),
    /// Workers.
    Workers(Vec<WorkerView>),
    /// A ticket's secret, for the client's node to wrap.
    Ticket(String),
    /// Members.
    Members(Vec<MemberView>),
    /// Settings.
    Settings(Vec<SettingView>),
    /// Unasked, with the id 0: this supervisor leads, in this epoch. Questions that are open elsewhere are
    /// to be asked here again.
    Lead(Epoch),
    /// Unasked, with the id 0: all supervisors of the grid.
    Supervisors(Vec<PeerAddr>),
    /// It cannot be done.
    No(Refusal),
    /// Unasked, with the id 0: the grid's relays.
    Relays(Vec<PeerAddr>),
    /// Tickets.
    Tickets(Vec<TicketView>),
    /// Tasks of a job.
    Tasks(Box<TasksView>),
    /// What an attempt of a task has printed so far.
    Printed(PrintedView),
    /// Groups of a job.
    Groups(Box<GroupsView>),
    /// Attempts of a job's tasks.
    Attempts(Box<AttemptsView>),
    /// Groups are part of an open job, and the grid holds their inputs.
    Extended(Extended),
}

/// The tasks that an extension brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// The job.
    pub job: JobId,
    /// The number of the first.
    pub first: u32,
    /// How many they are; those of each group follow each other.
    pub tasks: u32,
}

/// Why something asked for cannot be done; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// What kind, which decides the exit code.
    pub kind: RefusalKind,
    /// A sentence: what happened and what to do.
    pub why: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The request is wrong in itself.
    Bad,
    /// There is no such thing.
    Unknown,
    /// This peer may not.
    NotAllowed,
    /// Not now; try again.
    Busy,
    /// Another supervisor leads: ask there.
    NotLeading,
}

/// A job decoded from [`Request::Submit`].
pub type SharedSpec = Arc<JobSpec>;

/// Groups decoded from [`Request::Extend`].
pub type SharedExtension = Arc<Extension>;
