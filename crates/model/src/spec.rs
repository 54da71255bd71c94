//! The job specification: what a client submits. [`JobSpec`] is valid by construction: [`JobSpec::new`] makes it from
//! a [`Draft`], also when it is decoded, and no other code checks a job. Submissions have additional bounds on their
//! size, see [`JobSpec::check_size`].

use crate::{Data, FileEntry, Hash, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod access;
mod addition;
mod axes;
mod checkpoint;
mod each;
mod extension;
mod few;
pub mod kinds;
mod mount;
mod names;
mod needs;
mod network;
mod outline;
pub mod placeholders;
pub mod positional;
mod qos;
mod runtime;
mod size;
pub(crate) mod stored;
mod template;
mod validate;
pub use access::{MEMORY_FACTORS_MAX, SHARES_MAX, is_share_name, with_memory};
pub use axes::{
    Axis, COMBINATIONS_MAX, Column, PARAMETER_NAME, PARAMETERS_MAX, Texts, is_parameter_name,
};
pub use checkpoint::{
    CHECKPOINT_BYTES, CHECKPOINT_EVERY, CHECKPOINT_EVERY_MIN, CHECKPOINT_FILES_MAX,
    CHECKPOINT_GRACE, CHECKPOINT_GRACE_MAX, CheckpointRule,
};
pub use extension::{Extension, OPEN_GROUPS_MAX};
pub use few::{Absent, Few, Rare};
pub use mount::{MOUNTS_LABEL, MOUNTS_MAX, Mount, check_mount_path, covers};
pub use network::Network;
pub use qos::{CriticalPlacement, MaxFailures, Need, Qos, Redundancy, Unplaceable};
pub use qos::{OPEN_TIMEOUT, OPEN_TIMEOUT_MAX, OPEN_TIMEOUT_MIN};
pub use runtime::{PRELOAD_MAX, Runtime};
pub use size::{COMMAND_BYTES_MAX, SPEC_BYTES_MAX, WORD_BYTES_MAX};
use stored::{is_default, packed};
pub use validate::{Place, SpecError, check_path};

/// The most tasks of one job, arrays unfolded. Task numbers have 32 bits, and the state of each task costs memory.
pub const TASKS_MAX: u64 = 10_000_000;
/// The most `[[task]]` tables of one job.
pub const GROUPS_MAX: usize = 100_000;
/// Default for the attempts of a task after the first one that fails. One bad machine and one bad moment do not fail
/// it; a task that cannot succeed fails soon.
pub const RETRIES: u32 = 2;
/// The longest delay before a failed task is retried.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The most attempts of one critical task.
pub const COPIES_MAX: u32 = 64;

/// A submitted job before it is checked.
///
/// A field that is added to it, to [`Group`] or to [`Qos`] needs a default, because older jobs do not have it; see
/// [`positional`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// A name for people; it need not be unique.
    pub name: Arc<str>,
    /// Its quality of service.
    #[serde(default, skip_serializing_if = "is_default")]
    pub qos: Qos,
    /// How its critical tasks are determined.
    #[serde(default, skip_serializing_if = "is_default")]
    pub critical: CriticalRule,
    /// Files that the client provides. Inputs of groups refer to them by position.
    #[serde(default, skip_serializing_if = "is_default", with = "packed")]
    pub files: Vec<FileEntry>,
    /// The `[[task]]` tables.
    pub groups: Vec<Group>,
    /// Whether this is the outline of an ended job, which cannot run; see [`JobSpec::outline`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub outline: bool,
}

/// How critical tasks are determined in addition to those marked by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriticalRule {
    /// The measures with their weights. If it is empty, only marks count.
    pub by: Vec<(Measure, f64)>,
    /// The most tasks that become critical.
    pub top: Top,
}

impl Default for CriticalRule {
    fn default() -> Self {
        Self {
            by: vec![(Measure::Precedence, 1.0)],
            top: Top::Share(0.1),
        }
    }
}

/// A property that makes a task critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Other tasks cannot start before it is done.
    Precedence,
    /// It supplies data to other tasks, by their number and its bytes.
    Data,
    /// It probably needs much memory.
    Memory,
    /// It probably needs much disk.
    Disk,
    /// It probably needs much processor time.
    Cpu,
    /// It probably moves much data over the network.
    Network,
}

impl Measure {
    /// All measures.
    pub const ALL: [Measure; 6] = [
        Measure::Precedence,
        Measure::Data,
        Measure::Memory,
        Measure::Disk,
        Measure::Cpu,
        Measure::Network,
    ];

    /// Returns its name in job files.
    pub fn name(self) -> &'static str {
        match self {
            Measure::Precedence => "precedence",
            Measure::Data => "data",
            Measure::Memory => "memory",
            Measure::Disk => "disk",
            Measure::Cpu => "cpu",
            Measure::Network => "network",
        }
    }
}

/// The most tasks that become critical.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Top {
    /// This share of the job's tasks, `0.0..=1.0`, rounded up.
    Share(f64),
    /// This many.
    Count(u32),
}

/// One `[[task]]` table: one task, or an array of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Its id, unique in the job.
    pub id: Arc<str>,
    /// First index and the one after the last, for an array.
    #[serde(default, skip_serializing_if = "is_default")]
    pub array: Option<(u32, u32)>,
    /// How its tasks are executed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// Program and arguments. The worker expands placeholders, see [`placeholders`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Vec<Arc<str>>,
    /// Environment variables in addition to the standard ones.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Vec<(Arc<str>, Arc<str>)>,
    /// The program's standard input; empty if there is none.
    #[serde(default, skip_serializing_if = "is_default", with = "packed")]
    pub stdin: Option<Data>,
    /// Groups that must be done before any of these tasks starts, in addition to those of `inputs`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deps: Vec<Arc<str>>,
    /// Files in each task's scratch directory when it starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inputs: Vec<Input>,
    /// Output files, directories and globs, with placeholders.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outputs: Vec<Arc<str>>,
    /// The resources that each task holds while it runs. Memory and disk are also limits.
    pub resources: Resources,
    /// Labels that a worker must have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Tasks with a higher priority start first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Attempts after the first one that fails by the task's own fault. After that the task has failed.
    pub retries: u32,
    /// The delay before a failed task is retried; none retries it at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_delay: Option<Duration>,
    /// The longest running time of an attempt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_limit: Option<Duration>,
    /// Whether it is marked critical by hand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub critical: bool,
    /// What each task probably needs.
    #[serde(default, skip_serializing_if = "is_default")]
    pub estimate: Rare<Estimate>,
    /// The kind; if none, the id. Tasks of one kind are expected to behave alike, in this job and in others, so that
    /// the history of earlier ones is the estimate for later ones.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Option<Arc<str>>,
    /// Dependencies with a completion threshold: groups of which only a part must be done before any of these tasks
    /// starts. Files of their unfinished tasks are then missing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub needs: Vec<(Arc<str>, Need)>,
    /// Its parameters. The group is then an array from 0 on with one task for each combination of their values.
    #[serde(default, skip_serializing_if = "is_default")]
    pub axes: Few<Axis>,
    /// Element-wise dependencies in addition to those of `inputs`: groups with as many tasks, of which each task
    /// waits for the one at its own position.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deps_each: Few<Arc<str>>,
    /// Whether its outputs are results of the job even if other tasks depend on it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: bool,
    /// How its tasks make checkpoints; none if they do not.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoint: Option<Arc<CheckpointRule>>,
    /// Modules that an interpreter has imported before attempts are forked from it, of [`Runtime::Python`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub preload: Few<Arc<str>>,
    /// Trees that each task sees, read-only.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mounts: Few<Mount>,
    /// Names of folders of the workers' machines that its tasks use. Only workers that offer all of them run them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shares: Few<Arc<str>>,
    /// Where its tasks start instead of in their scratch directories: one of `shares`, and a path below it. Empty if
    /// they start there.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cwd: Rare<String>,
    /// The network access that its tasks need, and the most that they get; none if they take what their worker allows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network: Option<Network>,
    /// Whether a task that was lost with its worker does not run again, but ends as lost.
    #[serde(default, skip_serializing_if = "is_default")]
    pub once: bool,
    /// Whether its tasks may get redundant attempts; none if so unless they use shared folders. See
    /// [`Group::may_be_copied`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub copied: Option<bool>,
    /// The memory of successive attempts as multiples of that in `resources`, in thousandths: the first for an attempt
    /// before which none reached its memory limit, and so on. The last one repeats.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_memory: Few<u32>,
}

impl Group {
    /// Returns a single task that runs `command` on one CPU, with every default.
    pub fn program(id: &str, command: &[&str]) -> Self {
        Self {
            id: id.into(),
            array: None,
            runtime: Runtime::Process,
            command: command.iter().map(|part| Arc::from(*part)).collect(),
            env: Vec::new(),
            stdin: None,
            deps: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            resources: Resources::cpus(1000),
            labels: Vec::new(),
            priority: 0,
            retries: RETRIES,
            retry_delay: None,
            time_limit: None,
            critical: false,
            estimate: Rare::default(),
            kind: None,
            needs: Vec::new(),
            axes: Few::default(),
            deps_each: Few::default(),
            keep: false,
            checkpoint: None,
            preload: Few::default(),
            mounts: Few::default(),
            shares: Few::default(),
            cwd: Rare::default(),
            network: None,
            once: false,
            copied: None,
            retry_memory: Few::default(),
        }
    }

    /// Returns the name of its kind.
    pub fn kind(&self) -> &Arc<str> {
        self.kind.as_ref().unwrap_or(&self.id)
    }

    /// Returns whether its file names must be compared one by one and there are many of them.
    fn is_checked_slowly(&self) -> bool {
        let mut inputs = self.inputs.iter();
        let each = inputs.any(|input| matches!(input, Input::TaskEach(_)));
        (!self.axes.is_empty() || each) && self.count() > 10_000
    }

    /// Returns its number of tasks.
    pub fn count(&self) -> u32 {
        self.array.map_or(1, |(from, to)| to.saturating_sub(from))
    }
}

/// The content that the client provides: these files, and the standard input of these groups.
fn input_data<'a>(files: &'a [FileEntry], groups: &'a [Group]) -> impl Iterator<Item = &'a Data> {
    let stdin = groups.iter().filter_map(|group| group.stdin.as_ref());
    files.iter().map(|file| &file.data).chain(stdin)
}

/// The blobs among this content, with their sizes in bytes.
fn blobs_among<'a>(
    data: impl Iterator<Item = &'a Data> + 'a,
) -> impl Iterator<Item = (Hash, u64)> + 'a {
    data.filter_map(|data| Some((data.hash()?, data.size())))
}

/// A source of a task's input files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The job's file at this position, for every task.
    File(u32),
    /// One of the job's files for each task: the first task gets the file at this position.
    FileEach(u32),
    /// All outputs of this group, which must be done before.
    Task(Arc<str>),
    /// For each task the outputs of the task at the same position in this group, which has as many tasks.
    TaskEach(Arc<str>),
}

impl Input {
    /// Returns the group whose outputs it is, if any.
    pub fn task(&self) -> Option<&Arc<str>> {
        match self {
            Input::Task(id) | Input::TaskEach(id) => Some(id),
            Input::File(_) | Input::FileEach(_) => None,
        }
    }

    /// Returns whether it is an element-wise input from the group with this id.
    pub fn is_each_of(&self, id: &str) -> bool {
        matches!(self, Input::TaskEach(other) if &**other == id)
    }
}

/// What a task probably needs. It is used for ordering, never as a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// CPU time.
    pub cpu_time: Option<Duration>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of disk.
    pub disk: Option<u64>,
    /// Bytes that it moves over the network in addition to its inputs.
    pub network: Option<u64>,
    /// Bytes of its outputs.
    pub output: Option<u64>,
}

impl Absent for Estimate {
    const ABSENT: &'static Self = &Self {
        cpu_time: None,
        memory: None,
        disk: None,
        network: None,
        output: None,
    };
}

/// A checked job, with data derived from it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    draft: Draft,
    /// The oldest record format that can express it.
    format: u32,
    /// Number of each group's first task.
    firsts: Vec<u32>,
    total: u32,
    /// For each group its dependencies, ascending and distinct.
    waits_for: Vec<Vec<u32>>,
    /// For each group its dependents, ascending.
    waited_by: Vec<Vec<u32>>,
    /// How many tasks of the second group must be done for the first, if not all.
    relaxed: BTreeMap<(u32, u32), u32>,
    /// For each group with element-wise dependencies these dependencies, ascending.
    each: BTreeMap<u32, Vec<u32>>,
    /// The position of each group by id. Only an open job has them, because extensions refer to groups by id.
    names: BTreeMap<Arc<str>, u32>,
}

impl JobSpec {
    /// Checks a draft for submission. Only the size of a submission is checked elsewhere.
    pub fn new(draft: Draft) -> Result<Self, SpecError> {
        let spec = validate::validate(draft)?;
        spec.check_names()?;
        Ok(spec)
    }

    /// Checks the names of its files. Must be called again for a job that came from a peer. Decoding leaves it out,
    /// because a journal may hold jobs that were submitted before these checks existed.
    ///
    /// # Errors
    /// A pattern is not valid, or files would have the same path.
    pub fn check_names(&self) -> Result<(), SpecError> {
        names::check(&addition::Addition::all_of(self))
    }

    /// Returns whether [`JobSpec::check_names`] may take more than some milliseconds, because it compares names with
    /// parameters one by one.
    pub fn checks_slowly(&self) -> bool {
        self.groups().iter().any(Group::is_checked_slowly)
    }

    /// Returns the job's name.
    pub fn name(&self) -> &str {
        &self.draft.name
    }

    /// Returns its quality of service.
    pub fn qos(&self) -> &Qos {
        &self.draft.qos
    }

    /// Returns how its critical tasks are determined.
    pub fn critical(&self) -> &CriticalRule {
        &self.draft.critical
    }

    /// Returns whether this is the outline of an ended job, which cannot run.
    pub fn is_outline(&self) -> bool {
        self.draft.outline
    }

    /// Returns the files that the client provided.
    pub fn files(&self) -> &[FileEntry] {
        &self.draft.files
    }

    /// The content that the client provides: its files, and the standard input of its groups.
    pub fn input_data(&self) -> impl Iterator<Item = &Data> {
        input_data(self.files(), self.groups())
    }

    /// The same of the files and groups from these positions on.
    pub fn input_data_from(&self, file: usize, group: usize) -> impl Iterator<Item = &Data> {
        input_data(&self.files()[file..], &self.groups()[group..])
    }

    /// The blobs among [`JobSpec::input_data`], with their sizes in bytes.
    pub fn input_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        blobs_among(self.input_data())
    }

    /// Returns the oldest record format that can express the job.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Returns its groups, in the order of the job file.
    pub fn groups(&self) -> &[Group] {
        &self.draft.groups
    }

    /// Returns K, its number of tasks.
    pub fn task_count(&self) -> u32 {
        self.total
    }

    /// Returns the number of a group's first task.
    pub fn first(&self, group: usize) -> u32 {
        self.firsts[group]
    }

    /// Returns the numbers of a group's tasks.
    pub fn numbers(&self, group: usize) -> std::ops::Range<u32> {
        let first = self.firsts[group];
        first..first + self.draft.groups[group].count()
    }

    /// Returns the group of a task; `number` must be below [`JobSpec::task_count`].
    pub fn group_of(&self, number: u32) -> usize {
        self.firsts.partition_point(|first| *first <= number) - 1
    }

    /// Returns a task's array index; none if it is not in an array.
    pub fn index_of(&self, number: u32) -> Option<u32> {
        let group = self.group_of(number);
        self.draft.groups[group]
            .array
            .map(|(from, _)| from + (number - self.firsts[group]))
    }

    /// Returns the positions of the groups that `group` depends on.
    pub fn waits_for(&self, group: usize) -> &[u32] {
        &self.waits_for[group]
    }

    /// Returns the positions of the groups that depend on `group`.
    pub fn waited_by(&self, group: usize) -> &[u32] {
        &self.waited_by[group]
    }

    /// Returns how many tasks of `other` must be done before tasks of `group`, which depends on it, start.
    pub fn needed(&self, group: usize, other: usize) -> u32 {
        let all = self.draft.groups[other].count();
        if self.relaxed.is_empty() {
            return all;
        }
        let key = (group as u32, other as u32);
        self.relaxed.get(&key).copied().unwrap_or(all)
    }

    /// Returns whether some dependency has a completion threshold below all tasks.
    pub fn is_relaxed(&self) -> bool {
        !self.relaxed.is_empty()
    }

    /// Returns how many tasks must be done before the job can end.
    pub fn needed_in_all(&self) -> u32 {
        self.qos().need.of(self.total)
    }

    /// Returns whether the outputs of `group` are results of the job: no group depends on it, or it is marked to be
    /// kept.
    pub fn is_result(&self, group: usize) -> bool {
        self.waited_by[group].is_empty() || self.draft.groups[group].keep
    }

    /// Returns a task's label for people: `frame.7`, or `sheet`.
    pub fn label(&self, number: u32) -> String {
        let id = &self.draft.groups[self.group_of(number)].id;
        self.index_of(number)
            .map_or_else(|| id.to_string(), |index| format!("{id}.{index}"))
    }

    /// Returns the position of the group with this id.
    pub fn position(&self, id: &str) -> Option<usize> {
        if self.is_open() {
            return self.names.get(id).map(|at| *at as usize);
        }
        self.draft.groups.iter().position(|group| &*group.id == id)
    }

    /// Returns the task with this label, see [`JobSpec::label`].
    pub fn find(&self, label: &str) -> Option<u32> {
        let position = |id| self.position(id);
        if let Some(group) = position(label) {
            return (self.draft.groups[group].array.is_none()).then(|| self.firsts[group]);
        }
        let (id, index) = label.rsplit_once('.')?;
        let index: u32 = index.parse().ok()?;
        let group = position(id)?;
        let (from, to) = self.draft.groups[group].array?;
        (from..to)
            .contains(&index)
            .then(|| self.firsts[group] + (index - from))
    }
}

impl TryFrom<Draft> for JobSpec {
    type Error = SpecError;

    fn try_from(draft: Draft) -> Result<Self, SpecError> {
        validate::validate(draft)
    }
}

impl From<JobSpec> for Draft {
    fn from(spec: JobSpec) -> Draft {
        spec.draft
    }
}
