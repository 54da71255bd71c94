//! Views of the grid for people and programs, computed from the core's state. Field names are stable and carry their
//! unit; `--json` prints these types.

use crate::ending::Fault;
use crate::msg::Log;
use crate::{AttemptId, Ending, FileEntry, Hash, JobId, PeerId, Source};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

mod checkpoint;
mod ends;
mod open;
mod output;
mod worker;
pub use checkpoint::CheckpointView;
pub use ends::{ENDS_LISTED_MAX, EndKind, EndedTask, EndsView};
pub use open::OpenView;
pub use output::{FileLine, OutputEnd, OutputPart, OutputView};
pub use worker::{LinkView, OwnerView, WorkerView};

/// A job's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum JobState {
    /// Accepted, not ended, and none of its tasks has an attempt.
    Waiting,
    /// Accepted, not ended, and tasks of it have attempts.
    Running,
    /// All tasks done, results held.
    Done,
    /// Given up.
    Failed,
    /// Ended by its client.
    Cancelled,
}

impl JobState {
    /// Returns whether the job is done, failed or cancelled.
    pub fn ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A job in figures.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct JobView {
    /// Its number.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub state: JobState,
    /// Why it failed.
    pub why: Option<String>,
    /// K: all its tasks.
    pub tasks: u32,
    /// How many of them must be done before the job is.
    pub needed: u32,
    /// N: the critical ones.
    pub critical: u32,
    /// Done.
    pub done: u32,
    /// Having an attempt assigned, not done.
    pub running: u32,
    /// Startable, waiting for a worker.
    pub ready: u32,
    /// Waiting for others.
    pub waiting: u32,
    /// Given up: their retries are used up, or nobody has their inputs.
    pub failed: u32,
    /// Lost with their worker, and `rerun = false` keeps them from running again.
    pub lost: u32,
    /// Not done, and never will be: enough is done without them, too much failed of what they wait for, or the job has
    /// ended.
    pub skipped: u32,
    /// Attempts made so far.
    pub attempts: AttemptCounts,
    /// From acceptance to now, or to the end.
    pub elapsed_ms: f64,
    /// CPU time of all attempts whose end was reported.
    pub cpu_ms: f64,
    /// Why tasks that could start do not run, at most five reasons; while other tasks run, only reasons that do
    /// not end by themselves.
    pub waits: Vec<String>,
    /// Bytes of results held for the client.
    pub result_bytes: u64,
    /// What it costs; final once it has ended.
    pub cost: CostView,
    /// How its budget stands, where it has one.
    pub budget: Option<BudgetView>,
    /// How its deadline stands, where it has one.
    pub deadline: Option<DeadlineView>,
    /// The share of its tasks that is done, those that run counted by what they say of themselves.
    pub progress: f64,
    /// The estimated time remaining, while it runs and where what is known supports an estimate.
    pub left_ms: Option<f64>,
    /// The lower bound of an interval that holds the time remaining in about four of five cases.
    pub left_low_ms: Option<f64>,
    /// The upper bound of that interval.
    pub left_high_ms: Option<f64>,
    /// The client that submitted it.
    pub owner: String,
    /// From acceptance to now.
    pub age_ms: f64,
    /// How it stands as an open job; nothing for one that has all its tasks from the start.
    pub open: Option<OpenView>,
}

/// How a job's budget stands, in millionths of the currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct BudgetView {
    /// What the job is to cost at most.
    pub limit_micro: u64,
    /// What it has cost, attempts that run included.
    pub spent_micro: u64,
    /// Whether that is more than the limit; first attempts go on then.
    pub exceeded: bool,
}

/// How a job's deadline stands.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct DeadlineView {
    /// The time that it was given, from its acceptance.
    pub finish_by_ms: f64,
    /// What is left of it.
    pub left_ms: f64,
    /// The estimated chance that it ends in time, while it runs and where what is known supports an estimate.
    pub chance: Option<f64>,
    /// The chance that was asked for.
    pub confidence: f64,
    /// Whether the chance is known and below that.
    pub at_risk: bool,
    /// Whether it has passed, or the job ended after it.
    pub missed: bool,
}

/// What a job costs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CostView {
    /// The name of the currency.
    pub currency: String,
    /// Attempts that won.
    pub useful: crate::ledger::Part,
    /// Attempts that were stopped or too late because another won, or enough was done.
    pub redundant: crate::ledger::Part,
    /// Attempts that failed or were lost, and winners whose outputs were lost.
    pub lost: crate::ledger::Part,
    /// All three, in millionths of the currency.
    pub total_micro: u64,
    /// What the client pays of it.
    pub billed_micro: u64,
}

/// Attempts of a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AttemptCounts {
    /// Assigned in all.
    pub total: u64,
    /// Of these, redundant ones.
    pub redundant: u64,
    /// Ended by a failure.
    pub failed: u64,
    /// Lost with their worker.
    pub lost: u64,
    /// Cancelled because another won or the job ended.
    pub cancelled: u64,
    /// Outputs that were lost and made again.
    pub outputs_lost: u64,
}

impl AttemptCounts {
    /// Counts an attempt that ended without success.
    pub fn ended(&mut self, end: &Ending) {
        match (end.fault(), end) {
            (Fault::Task, _) => self.failed += 1,
            (Fault::Worker | Fault::Input, _) => {}
            (Fault::Nobody, Ending::Cancelled) => self.cancelled += 1,
            (Fault::Nobody, _) => self.lost += 1,
        }
    }
}

/// Why a job or task is where it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ExplainView {
    /// The job.
    pub job: JobView,
    /// Each critical task and its reason, at most 1,000.
    pub critical: Vec<CriticalView>,
    /// The tasks asked for; without one, those that hold the job up or were not done when it ended, at most 20.
    pub tasks: Vec<TaskView>,
}

/// A critical task and why it is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct CriticalView {
    /// The task.
    pub task: String,
    /// Why.
    pub reason: String,
}

/// One task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskView {
    /// As people name it.
    pub task: String,
    /// Its number.
    pub number: u32,
    /// `waiting`, `ready`, `running`, `done`, `failed`, `lost`, `skipped`.
    pub state: String,
    /// Why it is in this state.
    pub why: String,
    /// Whether it is critical.
    pub critical: bool,
    /// Grows when its outputs were lost.
    pub generation: u32,
    /// How often it failed.
    pub failures: u32,
    /// Its attempts, oldest first.
    pub attempts: Vec<AttemptView>,
    /// What it left, once done: the paths of the first 1,000 files.
    pub outputs: Vec<String>,
    /// The checkpoint that its next attempt goes on from.
    pub checkpoint: Option<CheckpointView>,
    /// Why its last checkpoint was not saved, a clause.
    pub checkpoint_fault: Option<String>,
    /// The values of its parameters, each to 200 bytes at most; none once its job has ended and is not retried.
    pub parameters: BTreeMap<String, String>,
    /// The memory limit of its next attempt in bytes, if `retry_memory` has changed it.
    pub memory_raised: Option<u64>,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AttemptView {
    /// Its name.
    pub attempt: String,
    /// Where.
    pub worker: String,
    /// `primary` or `redundant`.
    pub kind: String,
    /// `queued`, `assigned`, `running`, `stalled`, `won`, `failed`, `moved` (its worker's fault, or inputs that it could
    /// not fetch), `lost`, `cancelled`.
    pub state: String,
    /// Why it ran there, or how it ended.
    pub why: String,
    /// For how long it ran; while it runs, since it was given its part of the worker; of a lost attempt, for how
    /// long it held that.
    pub running_ms: Option<f64>,
    /// How far it is, while it runs and anything was heard of it.
    pub progress: Option<ProgressView>,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct ProgressView {
    /// The share of its work that is done, where it says so.
    pub share: Option<f64>,
    /// CPU time used so far.
    pub cpu_ms: f64,
    /// Bytes written so far.
    pub written_bytes: u64,
    /// It waits for something and says so, or is paused.
    pub waits: bool,
}

/// One page of a job's results, with the peers that hold them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultsView {
    /// The job.
    pub job: JobId,
    /// Its files, in the order of their tasks.
    pub files: Vec<ResultFile>,
    /// Where the next page begins, if there is one.
    pub next: Option<u64>,
    /// On the first page: labels of tasks that should have left results and did not, at most [`MISSING_MAX`].
    pub missing: Vec<String>,
    /// On the first page: how many such tasks there are.
    pub missing_count: u32,
    /// Peers that hold the results, most likely source first.
    pub sources: Vec<Source>,
}

/// The most labels of tasks without results that are listed.
pub const MISSING_MAX: usize = 1000;

/// One file of a job's results, with its origin.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultFile {
    /// The label of its task.
    pub task: String,
    /// The attempt that made it.
    pub attempt: AttemptId,
    /// The worker that ran the attempt.
    pub worker: PeerId,
    /// BLAKE3 hash of its content.
    pub hash: Hash,
    /// Its path and content.
    pub file: FileEntry,
}

/// The printed output of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogView {
    /// The task.
    pub task: String,
    /// The worker that ran the attempt.
    pub worker: Option<PeerId>,
    /// How it ended, as a clause.
    pub end: String,
    /// The output.
    pub log: Option<Log>,
    /// Peers that hold its blobs, most likely source first.
    pub sources: Vec<Source>,
    /// The attempt.
    pub attempt: Option<AttemptId>,
    /// The exit status of its program, if it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended its program.
    pub signal: Option<i32>,
}

/// Which tasks of a job are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub enum TaskFilter {
    /// All of them.
    #[default]
    All,
    /// Those that failed at least once or were lost, and are not done.
    Failed,
    /// Those that have an attempt and are not done.
    Running,
    /// Those that have no attempt and are not done.
    Waiting,
    /// Those that are done.
    Done,
}

/// Some tasks of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TasksView {
    /// The job.
    pub job: JobId,
    /// Tasks, by their number; [`TASKS_LISTED_MAX`] at most.
    pub tasks: Vec<TaskLine>,
    /// The number of the task at which the list goes on, if it does.
    pub next: Option<u32>,
}

/// The most tasks in one reply.
pub const TASKS_LISTED_MAX: usize = 1000;

/// A task in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TaskLine {
    /// As people name it.
    pub task: String,
    /// Its number.
    pub number: u32,
    /// As in [`TaskView::state`].
    pub state: String,
    /// Why it is in this state.
    pub why: String,
    /// How often it failed.
    pub failures: u32,
    /// Attempts made so far.
    pub attempts: u32,
    /// Where its attempt runs, or the last one ran.
    pub worker: Option<String>,
    /// For how long that attempt ran.
    pub running_ms: Option<f64>,
    /// The exit status of its program, where it ended by itself.
    pub exit_code: Option<i32>,
    /// The signal that ended its program.
    pub signal: Option<i32>,
    /// As in [`TaskView::parameters`].
    pub parameters: BTreeMap<String, String>,
}

/// Some attempts of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AttemptsView {
    /// The job.
    pub job: JobId,
    /// Attempts, by the numbers of their tasks; about [`ATTEMPTS_LISTED_MAX`] at most.
    pub attempts: Vec<AttemptLine>,
    /// The number of the task at which the list goes on, if it does.
    pub next: Option<u32>,
    /// From the job's acceptance to now, or to its end.
    pub now_ms: f64,
}

/// The most attempts in one reply, except that all attempts of the last task are included.
pub const ATTEMPTS_LISTED_MAX: usize = 5000;

/// An attempt in one line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct AttemptLine {
    /// The label of its task.
    pub task: String,
    /// Its name.
    pub attempt: String,
    /// The beginning of its worker's id.
    pub worker: String,
    /// Whether another attempt of the task was meant to run already.
    pub redundant: bool,
    /// As in [`AttemptView::state`].
    pub state: String,
    /// When it began, from the job's acceptance; not known of what a snapshot of an earlier format holds.
    pub start_ms: Option<f64>,
    /// When it ended, if it has.
    pub end_ms: Option<f64>,
}

/// Some groups of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupsView {
    /// The job.
    pub job: JobId,
    /// Groups, in the order of the job file; [`GROUPS_LISTED_MAX`] at most.
    pub groups: Vec<GroupLine>,
    /// The position at which the list goes on, if it does.
    pub next: Option<u32>,
}

/// The most groups in one reply.
pub const GROUPS_LISTED_MAX: usize = 1000;

/// A group of tasks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GroupLine {
    /// Its position in the job.
    pub group: u32,
    /// Its id in the job file.
    pub id: String,
    /// The number of its first task.
    pub first: u32,
    /// Its tasks.
    pub tasks: u32,
    /// Done.
    pub done: u32,
    /// Having an attempt, not done.
    pub running: u32,
    /// Given up.
    pub failed: u32,
    /// Redundant attempts that may still succeed.
    pub copies: u32,
    /// Critical tasks: its first ones.
    pub critical: u32,
    /// Positions of the groups that it waits for.
    pub waits_for: Vec<u32>,
    /// Positions of those of them whose task at the same place each of its tasks waits for.
    pub each: Vec<u32>,
    /// What a task is expected to take, seconds at standard speed.
    pub expected_s: f64,
    /// The longest path from the end of one of its tasks to the job's end, seconds at standard speed.
    pub tail_s: f64,
}

/// A peer that was let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct MemberView {
    /// Who.
    pub peer: String,
    /// As what.
    pub role: String,
    /// When it joined, in seconds of Unix time.
    pub joined_unix_s: u64,
    /// Whether it is connected to the leader now.
    pub connected: bool,
    /// Its place among the supervisors, for a supervisor: `leader`, `voter` or `learner`.
    pub place: Option<String>,
    /// Why a supervisor cannot store anything now, as where its disk is full.
    pub disk_fault: Option<String>,
    /// The id of the ticket by which it joined, where that is known.
    pub ticket: Option<String>,
}

/// A ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TicketView {
    /// Its id, the hash of its secret, which lets nobody in.
    pub ticket: String,
    /// What its holders become.
    pub role: String,
    /// `valid`, `expired`, `used up` or `revoked`.
    pub state: String,
    /// End of validity, in seconds of Unix time.
    pub expires_unix_s: Option<u64>,
    /// How many more peers it lets in, where that is limited.
    pub uses_left: Option<u32>,
    /// Members that joined by it.
    pub members: u32,
}

/// A setting of the grid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct SettingView {
    /// Its name.
    pub name: String,
    /// Its value, as text.
    pub value: String,
    /// Its value where nobody has set it.
    pub default: String,
    /// What it does.
    pub what: String,
}
