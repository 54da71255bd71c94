//! Messages between peers. Each frame holds a batch of one of these types.

use crate::capacity::{BenchScores, Hardware};
use crate::owner::OwnerState;
use crate::spec::placeholders::TaskValues;
use crate::spec::{CheckpointRule, Network, Runtime, with_memory};
use crate::tree::MountedTree;
use crate::{
    AttemptId, Checkpoint, CheckpointId, Data, Ending, Epoch, FileEntry, Hash, JobId, PeerAddr,
    PeerId, Resources, Source,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

mod heartbeat;
mod printed;
mod reply;
mod request;
pub use heartbeat::{AttemptHeartbeat, Heartbeat, HeartbeatPlan, Phase, StatusRequest};
pub use printed::{
    Offsets, PIECE_BYTES_MAX, Piece, Pieces, PrintedPart, PrintedRequest, PrintedView, ReadPrinted,
};
pub use reply::{Answer, Extended, GrantedReply, JOBS_MAX, Refusal, RefusalKind, Reply};
pub use request::{
    Ask, Concern, OUTPUT_TASKS_MAX, Request, SharedExtension, SharedSpec, TASK_NAMES_MAX,
};

/// The longest encoded message in bytes. A frame carries at least one message; 64 bytes remain for its header.
pub const MESSAGE_BYTES_MAX: usize = (16 << 20) - 64;

/// The most hashes in one message: 8 MB of them.
pub const HASHES_MAX: usize = 250_000;

/// Returns an upper bound for the bytes that grants for this many blobs take in a message: each blob once, and for
/// each 4,096 of them a signature with its keys.
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
    /// Returns the name of the role.
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

/// The supervisor's reply to a peer that it admits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The leader's epoch. A worker obeys no supervisor with a lower epoch than the highest it has seen.
    pub epoch: Epoch,
    /// How often a worker sends heartbeats.
    pub heartbeat_interval: Duration,
    /// All supervisors of the grid. The peer keeps a connection to each.
    pub supervisors: Vec<PeerAddr>,
    /// The grid's own relays, for peers that cannot be reached directly.
    pub relays: Vec<PeerAddr>,
}

/// What a worker reports about itself in its first message, when it attaches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerInfo {
    /// Host name.
    pub host: Arc<str>,
    /// Process id, for people who inspect the machine.
    pub pid: u32,
    /// The resources that it offers.
    pub resources: Resources,
    /// Labels by name, `arch` and `os` among them.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// The folders that its owner shares with tasks: names, and whether tasks may write there.
    pub shares: Vec<(Arc<str>, bool)>,
    /// The most network access that it gives tasks.
    pub network: Network,
    /// Its id and the addresses at which other peers reach it.
    pub addr: PeerAddr,
    /// Its machine's hardware.
    pub hardware: Hardware,
    /// Blobs that it holds, or the first part of them; [`FromWorker::Holds`] brings the rest.
    pub holds: Vec<Hash>,
    /// Attempts in hand, including those with unsettled reports.
    pub in_hand: Vec<HeldAttempt>,
}

/// An attempt that a worker has in hand, with the proof that it was assigned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAttempt {
    /// The attempt.
    pub attempt: AttemptId,
    /// Whether it is redundant.
    pub redundant: bool,
    /// The seal of its [`Assignment`].
    pub seal: Seal,
}

/// Proves to every supervisor of the grid that one of them assigned an attempt to a worker: the first bytes of a
/// BLAKE3 hash of the ids of both, keyed with a secret that the supervisors share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal(pub [u8; 16]);

/// A message from a supervisor to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// This supervisor leads in this epoch: attach here. The highest epoch counts.
    Lead(Epoch),
    /// All supervisors of the grid. Replaces earlier lists.
    Supervisors(Vec<PeerAddr>),
    /// These peers were revoked: send them nothing and accept nothing from them.
    Revoked(Vec<PeerId>),
    /// What the tasks of one group have in common. Sent before the first of them, and again when the sources of their
    /// inputs changed.
    Body(Arc<GrantedBody>),
    /// Run this attempt.
    Assign(Assignment),
    /// End this attempt, if it is still in hand.
    Cancel(AttemptId),
    /// Return this attempt if it has not started.
    Return(AttemptId),
    /// The report on this attempt is settled: drop it.
    Settled(AttemptId),
    /// The job is over: drop its bodies.
    Forget(JobId),
    /// These blobs are not needed any more.
    Drop(Vec<Hash>),
    /// Take no more attempts, return those that have not started, finish the running ones.
    Drain,
    /// Nothing here is needed any more: exit.
    Leave,
    /// Send heartbeats by this plan from now on.
    Heartbeat(HeartbeatPlan),
    /// Open an idle TCP connection to this port and show this nonce, so that each side notices at once when the
    /// other's process dies.
    Tripwire {
        /// The port, at the address that this connection uses.
        port: u16,
        /// Valid once.
        nonce: [u8; 16],
    },
    /// Run the benchmark kernels once nothing else runs, and report the scores.
    Benchmark,
    /// The grid's relays. Replaces earlier lists.
    Relays(Vec<PeerAddr>),
    /// Measure the link: open a TCP connection to this port, show this nonce, and send up to this many bytes as fast
    /// as possible. Report what arrived meanwhile as [`FromWorker::Probed`].
    Probe {
        /// The port, at the address that this connection uses.
        port: u16,
        /// Valid once.
        nonce: [u8; 16],
        /// The most bytes to send.
        bytes: u64,
        /// The most bytes in flight; 0 leaves it to the system.
        window: u32,
    },
    /// Report what an attempt has printed.
    ReadPrinted(ReadPrinted),
}

/// What the tasks of one group have in common, with resolved inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Body {
    /// The job.
    pub job: JobId,
    /// The group's position in the job.
    pub group: u32,
    /// Increases when the inputs or their sources change.
    pub version: u32,
    /// The group's id, for the task's environment.
    pub id: Arc<str>,
    /// How the tasks are executed.
    pub runtime: Runtime,
    /// Modules that an interpreter imports before the tasks are forked from it.
    pub preload: Vec<Arc<str>>,
    /// Names of the parameters.
    pub parameters: Vec<Arc<str>>,
    /// Program and arguments, with placeholders.
    pub command: Vec<Arc<str>>,
    /// Environment variables.
    pub env: Vec<(Arc<str>, Arc<str>)>,
    /// Standard input.
    pub stdin: Option<Data>,
    /// Files that each task finds in its scratch directory.
    pub inputs: Vec<FileEntry>,
    /// Patterns of the outputs.
    pub outputs: Vec<Arc<str>>,
    /// The most bytes of outputs sent inside one report. Further outputs are blobs.
    pub inline_max: u32,
    /// Bytes kept of the end of each stream that a task prints.
    pub printed_max: u64,
    /// The resources of one task.
    pub resources: Resources,
    /// Longest running time.
    pub time_limit: Option<Duration>,
    /// Shared folders that the tasks use.
    pub shares: Vec<Arc<str>>,
    /// Where the tasks start: one of `shares`, and a path below it; empty for their scratch directories.
    pub cwd: String,
    /// The most network access of the tasks; none if it is what the worker allows.
    pub network: Option<Network>,
    /// How the tasks make checkpoints.
    pub checkpoint: Option<Arc<CheckpointRule>>,
    /// Trees that each task sees.
    pub mounts: Vec<MountedTree>,
    /// Peers that hold blobs of the inputs, most likely source first.
    pub sources: Vec<Source>,
}

impl Body {
    /// Returns what the placeholders stand for in one task.
    pub fn task_values<'a>(&'a self, order: &'a Assignment) -> TaskValues<'a> {
        TaskValues {
            index: order.index,
            names: &self.parameters,
            values: order.values(),
        }
    }

    /// Returns the resources of the attempt that `order` assigns.
    pub fn resources_of<'a>(&'a self, order: &Assignment) -> Cow<'a, Resources> {
        let memory = order.own.as_ref().and_then(|own| own.memory);
        with_memory(&self.resources, memory)
    }

    /// Returns an upper bound for the bytes that it takes in a message, with grants for this many blobs.
    pub fn message_bytes(&self, blobs: usize) -> usize {
        let bytes = postcard::experimental::serialized_size(self).unwrap_or(usize::MAX);
        bytes.saturating_add(grant_bytes(blobs))
    }
}

/// A body, with grants for the blobs of its tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrantedBody {
    /// What the tasks have in common.
    pub body: Arc<Body>,
    /// Signed grants for the blobs of its tasks; opaque.
    pub grants: Grants,
}

impl std::ops::Deref for GrantedBody {
    type Target = Body;

    fn deref(&self) -> &Body {
        &self.body
    }
}

/// Encoded signed grants to read blobs. Only peers that serve blobs decode them.
pub type Grants = Vec<u8>;

/// An attempt to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Its id.
    pub attempt: AttemptId,
    /// Position of the task's group.
    pub group: u32,
    /// The version of the body that it uses.
    pub version: u32,
    /// Array index.
    pub index: Option<u32>,
    /// What it needs besides the body; none if nothing.
    pub own: Option<Box<OwnWork>>,
    /// Whether another attempt of the task was active when it was assigned.
    pub redundant: bool,
    /// Proof that this attempt was assigned to the worker.
    pub seal: Seal,
}

/// What one attempt needs besides what all tasks of its group have in common. It is separate because most tasks need
/// none of it and assignments are moved often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnWork {
    /// Values of the parameters that the body names.
    pub values: Vec<Arc<str>>,
    /// Input files of this index alone.
    pub inputs: Vec<FileEntry>,
    /// Files of the checkpoint from which the attempt continues. They replace inputs with the same names.
    pub checkpoint: Vec<FileEntry>,
    /// The blobs among its own inputs and the checkpoint that the body does not name; none if there are none.
    pub blobs: Option<GrantedBlobs>,
    /// Its memory in bytes, if that is not what the body says.
    pub memory: Option<u64>,
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

/// Blobs that only one task reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedBlobs {
    /// Their hashes.
    pub blobs: Arc<[Hash]>,
    /// Peers that hold some of them, most likely source first.
    pub sources: Vec<Source>,
    /// Signed grants to read them; opaque.
    pub grants: Grants,
}

/// A message from a worker to a supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The first message on each connection.
    Attach(Box<WorkerInfo>),
    /// The attempt's process runs.
    Started(AttemptId),
    /// The attempt is over. Repeated on each new connection until settled.
    Ended(Box<Report>),
    /// The worker drains, because its machine or its owner asked it to: no new tasks.
    Draining,
    /// The scores of the benchmark kernels.
    Benchmarked(BenchScores),
    /// The worker's response to its owner. Sent at once when it changes, and again on each new connection; each
    /// heartbeat repeats it in short.
    Owner(OwnerState),
    /// This many bytes per second arrived from the supervisor during a link measurement; 0 if it failed.
    Probed(u64),
    /// A large transfer from some peer: the worker's link carries at least this rate.
    Fetched {
        /// Bytes received.
        bytes: u64,
        /// The duration.
        took: Duration,
    },
    /// Further blobs that it holds, after [`FromWorker::Attach`].
    Holds(Vec<Hash>),
    /// The attempt's process waits for a job of this grid, or continues. While it waits, its worker counts its
    /// resources as free.
    Waits(AttemptId, Option<JobId>),
    /// What an attempt has printed, as requested.
    Printed(Box<PrintedPart>),
    /// An attempt's newest checkpoint, or why there is none. Repeated on each new connection, and before the
    /// attempt's end.
    Checkpoint(Box<CheckpointReport>),
}

/// A worker's report of an attempt's newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointReport {
    /// Its id.
    pub id: CheckpointId,
    /// The checkpoint, or why it was not saved, as a clause.
    pub saved: Result<Arc<Checkpoint>, String>,
    /// Its age, by the worker's clock.
    pub age: Duration,
}

/// A worker's report of the end of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The attempt.
    pub attempt: AttemptId,
    /// The outcome.
    pub outcome: Outcome,
    /// What it used.
    pub usage: Usage,
    /// What it printed, if anything.
    pub log: Option<Box<Log>>,
}

/// The outcome of an attempt, as its worker reports it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It succeeded and left these files.
    Done(Vec<FileEntry>),
    /// It ended without success.
    Ended(Ending),
    /// It had not started, and the worker returns it.
    Returned,
}

/// What an attempt used. The worker measures the durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Time in the worker's queue.
    pub queued: Duration,
    /// Time to fetch inputs and make the scratch directory.
    pub staging: Duration,
    /// Time from the process's start to its end.
    pub running: Duration,
    /// CPU time of the process and its children.
    pub cpu: Duration,
    /// Peak memory in bytes.
    pub memory_peak: u64,
    /// The part of `running` for which it was paused.
    pub paused: Duration,
    /// Bytes fetched for it from other peers.
    pub moved: u64,
}

/// The printed output of an attempt: the end of each stream, and how long each was.
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
    /// The hashes of the parts that must be fetched.
    pub fn blobs(&self) -> impl Iterator<Item = Hash> + use<> {
        [self.stdout.hash(), self.stderr.hash()]
            .into_iter()
            .flatten()
    }
}
