//! The job specification: what a client asks for. [`JobSpec`] is valid by construction: it is made from a
//! [`Draft`] by [`JobSpec::new`], also when it is decoded from the wire, and nowhere else is a job checked. A
//! submission has bounds on its size beside that, see [`JobSpec::check_size`].

use crate::{Data, FileEntry, Hash, Resources};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod addition;
mod axes;
mod checkpoint;
mod each;
mod extension;
mod few;
mod names;
mod needs;
mod network;
mod outline;
pub mod placeholders;
pub mod positional;
mod qos;
mod size;
pub(crate) mod stored;
mod template;
mod validate;
pub use axes::{
    Axis, COMBINATIONS_MAX, Column, PARAMETER_NAME, PARAMETERS_MAX, Texts, is_parameter_name,
};
pub use checkpoint::{
    CHECKPOINT_BYTES, CHECKPOINT_EVERY, CHECKPOINT_EVERY_MIN, CHECKPOINT_FILES_MAX,
    CHECKPOINT_GRACE, CHECKPOINT_GRACE_MAX, CheckpointRule,
};
pub use extension::{Extension, OPEN_GROUPS_MAX};
pub use few::Few;
pub use network::Network;
pub use qos::{CriticalPlacement, MaxFailures, Need, Qos, Redundancy, Unplaceable};
pub use qos::{OPEN_TIMEOUT, OPEN_TIMEOUT_MAX, OPEN_TIMEOUT_MIN};
pub use size::{COMMAND_BYTES_MAX, SPEC_BYTES_MAX, WORD_BYTES_MAX};
use stored::{is_default, packed};
pub use validate::{Place, SpecError, check_path};

/// Most tasks of one job, arrays unfolded: numbers of tasks are 32 bits and the state of each costs memory.
pub const TASKS_MAX: u64 = 10_000_000;
/// Most `[[task]]` tables of one job.
pub const GROUPS_MAX: usize = 100_000;
/// Attempts of a task after the first that fails, where the job does not say: one bad machine and one bad
/// moment are forgiven, a task that cannot succeed ends soon.
pub const RETRIES: u32 = 2;
/// Longest wait before a task that failed is tried again.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Most attempts of one critical task.
pub const COPIES_MAX: u32 = 64;

/// A job as asked for, not checked.
///
/// A field that is added to it, to [`Group`] or to [`Qos`] has a default, as older jobs lack it; see [`positional`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    /// For people; need not be unique.
    pub name: Arc<str>,
    /// How sure the job wants to be of its end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub qos: Qos,
    /// How critical tasks are found.
    #[serde(default, skip_serializing_if = "is_default")]
    pub critical: CriticalRule,
    /// Files that the client brings, shared by the groups that name them by position.
    #[serde(default, skip_serializing_if = "is_default", with = "packed")]
    pub files: Vec<FileEntry>,
    /// The `[[task]]` tables.
    pub groups: Vec<Group>,
    /// What is left of a job that has ended, see [`JobSpec::outline`]: it cannot run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outline: bool,
}

/// How critical tasks are found beside those marked by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CriticalRule {
    /// By what, and how much each counts beside the others; none of it means marks alone.
    pub by: Vec<(Measure, f64)>,
    /// How many at most.
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

/// What makes a task critical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Others cannot start without it.
    Precedence,
    /// It supplies data to others, by their number and its bytes.
    Data,
    /// It is likely to need the most memory.
    Memory,
    /// It is likely to need the most disk.
    Disk,
    /// It is likely to need the most processor time.
    Cpu,
    /// It is likely to move the most data over the network.
    Network,
}

impl Measure {
    /// All of them.
    pub const ALL: [Measure; 6] = [
        Measure::Precedence,
        Measure::Data,
        Measure::Memory,
        Measure::Disk,
        Measure::Cpu,
        Measure::Network,
    ];

    /// The word for it in job files.
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

/// How many tasks are critical at most.
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
    /// Its name, unique in the job.
    pub id: Arc<str>,
    /// First index and the one behind the last, for an array.
    #[serde(default, skip_serializing_if = "is_default")]
    pub array: Option<(u32, u32)>,
    /// How its tasks are executed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// Program and arguments; the worker expands placeholders, see [`placeholders`].
    #[serde(default, skip_serializing_if = "is_default")]
    pub command: Vec<Arc<str>>,
    /// Environment beyond the standard one.
    #[serde(default, skip_serializing_if = "is_default")]
    pub env: Vec<(Arc<str>, Arc<str>)>,
    /// What the program reads on its standard input; nothing otherwise.
    #[serde(default, skip_serializing_if = "is_default", with = "packed")]
    pub stdin: Option<Data>,
    /// Groups that must be done before any of these starts, beside those of `inputs`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deps: Vec<Arc<str>>,
    /// What lies in each task's folder when it starts.
    #[serde(default, skip_serializing_if = "is_default")]
    pub inputs: Vec<Input>,
    /// Files, folders and globs that leave the folder, with placeholders.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outputs: Vec<Arc<str>>,
    /// What each task takes of a worker while it runs; memory and disk are also limits.
    pub resources: Resources,
    /// Labels that a worker must carry.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Higher starts first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Attempts after the first one that fails by the task's own fault; then the task has failed.
    pub retries: u32,
    /// So long after a failure the task is tried again; at once, where it is none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retry_delay: Option<Duration>,
    /// Longest running time of an attempt.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_limit: Option<Duration>,
    /// Marked critical by hand.
    #[serde(default, skip_serializing_if = "is_default")]
    pub critical: bool,
    /// What a task is likely to need.
    #[serde(default, skip_serializing_if = "is_default")]
    pub estimate: Estimate,
    /// Tasks of one kind are expected to behave alike, in this job and in others: what earlier ones took is
    /// the estimate for later ones. The id, where it is not given.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kind: Option<Arc<str>>,
    /// Groups of which less than all must be done before any of these starts; the files of the others are
    /// not there then.
    #[serde(default, skip_serializing_if = "is_default")]
    pub needs: Vec<(Arc<str>, Need)>,
    /// Its parameters: an array from 0 on that has one task for each combination of their values.
    #[serde(default, skip_serializing_if = "is_default")]
    pub axes: Few<Axis>,
    /// Groups of as many tasks, of which each task waits for the one at its own place, beside those of `inputs`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub deps_each: Few<Arc<str>>,
    /// Its outputs are results of the job, although other tasks wait for it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: bool,
    /// How its tasks save how far they are; not at all, where it does not say.
    #[serde(default, skip_serializing_if = "is_default")]
    pub checkpoint: Option<Arc<CheckpointRule>>,
}

impl Group {
    /// A single task that runs `command` on one CPU, with every default.
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
            estimate: Estimate::default(),
            kind: None,
            needs: Vec::new(),
            axes: Few::default(),
            deps_each: Few::default(),
            keep: false,
            checkpoint: None,
        }
    }

    /// Its kind's name.
    pub fn kind(&self) -> &Arc<str> {
        self.kind.as_ref().unwrap_or(&self.id)
    }

    /// Whether its names are compared one by one, and there are many.
    fn is_checked_slowly(&self) -> bool {
        let mut inputs = self.inputs.iter();
        let each = inputs.any(|input| matches!(input, Input::TaskEach(_)));
        (!self.axes.is_empty() || each) && self.count() > 10_000
    }

    /// How many tasks it holds.
    pub fn count(&self) -> u32 {
        self.array.map_or(1, |(from, to)| to.saturating_sub(from))
    }
}

/// What the client brings: these files, and what these groups' programs read on their standard input.
fn input_data<'a>(files: &'a [FileEntry], groups: &'a [Group]) -> impl Iterator<Item = &'a Data> {
    let stdin = groups.iter().filter_map(|group| group.stdin.as_ref());
    files.iter().map(|file| &file.data).chain(stdin)
}

/// The blobs among these, by hash, with their sizes in bytes.
fn blobs_among<'a>(
    data: impl Iterator<Item = &'a Data> + 'a,
) -> impl Iterator<Item = (Hash, u64)> + 'a {
    data.filter_map(|data| Some((data.hash()?, data.size())))
}

/// How a task is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// As a process in a folder of its own.
    #[default]
    Process,
    /// The worker answers at once, without a process: measures the engine itself.
    Noop,
}

impl Runtime {
    /// What each is called in job files, and what it means.
    pub const WORDS: [(&'static str, Runtime, &'static str); 2] = [
        (
            "process",
            Runtime::Process,
            "the command runs as a process in a scratch directory",
        ),
        (
            "noop",
            Runtime::Noop,
            "nothing runs, and the worker reports success at once, to measure the grid itself",
        ),
    ];

    /// Whether it executes the task's command.
    pub fn runs_command(self) -> bool {
        match self {
            Self::Process => true,
            Self::Noop => false,
        }
    }
}

/// One source of a task's input files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Input {
    /// The job's file at this position, the same for each task.
    File(u32),
    /// One of the job's files for each index: the first index gets the file at this position.
    FileEach(u32),
    /// All outputs of this group, which must be done before.
    Task(Arc<str>),
    /// For each task the outputs of the task at its own place in this group, which has as many.
    TaskEach(Arc<str>),
}

impl Input {
    /// The group whose outputs it is.
    pub fn task(&self) -> Option<&Arc<str>> {
        match self {
            Input::Task(id) | Input::TaskEach(id) => Some(id),
            Input::File(_) | Input::FileEach(_) => None,
        }
    }

    /// Whether it is what the task at its own place in the group of this id left.
    pub fn is_each_of(&self, id: &str) -> bool {
        matches!(self, Input::TaskEach(other) if &**other == id)
    }
}

/// What a task is likely to need; used for ordering, never as a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimate {
    /// CPU time.
    pub cpu_time: Option<Duration>,
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Bytes of disk.
    pub disk: Option<u64>,
    /// Bytes that it moves over the network, beside its inputs.
    pub network: Option<u64>,
    /// Bytes that it leaves for others.
    pub output: Option<u64>,
}

/// A checked job, with what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    draft: Draft,
    /// The oldest format of records that has all that it asks for.
    format: u32,
    /// Number of each group's first task.
    firsts: Vec<u32>,
    total: u32,
    /// For each group those that it waits for, ascending, without repetition.
    waits_for: Vec<Vec<u32>>,
    /// For each group those that wait for it, ascending.
    waited_by: Vec<Vec<u32>>,
    /// How many tasks of the second group the first waits for, where not for all.
    relaxed: BTreeMap<(u32, u32), u32>,
    /// The groups of which each task of a group waits for the one at its own place, ascending, where there are some.
    each: BTreeMap<u32, Vec<u32>>,
    /// The position of each group, by id; only of an open job, which is extended by what waits for them.
    names: BTreeMap<Arc<str>, u32>,
}

impl JobSpec {
    /// Checks a draft that is to be submitted; the one place where a job is checked, but for the size of a submission.
    pub fn new(draft: Draft) -> Result<Self, SpecError> {
        let spec = validate::validate(draft)?;
        spec.check_names()?;
        Ok(spec)
    }

    /// Checks the names of its files, once more where it comes from somebody else. Decoding leaves this out: a
    /// journal may hold jobs that were submitted before these checks were made.
    ///
    /// # Errors
    /// Patterns that cannot be read, and files that would lie in the same place.
    pub fn check_names(&self) -> Result<(), SpecError> {
        names::check(&addition::Addition::all_of(self))
    }

    /// Whether [`JobSpec::check_names`] may take more than some milliseconds: it compares names with parameters one by
    /// one.
    pub fn checks_slowly(&self) -> bool {
        self.groups().iter().any(Group::is_checked_slowly)
    }

    /// The job's name.
    pub fn name(&self) -> &str {
        &self.draft.name
    }

    /// Its quality of service.
    pub fn qos(&self) -> &Qos {
        &self.draft.qos
    }

    /// How its critical tasks are found.
    pub fn critical(&self) -> &CriticalRule {
        &self.draft.critical
    }

    /// Whether it is what is left of a job that has ended: it cannot run.
    pub fn is_outline(&self) -> bool {
        self.draft.outline
    }

    /// The files that the client brought.
    pub fn files(&self) -> &[FileEntry] {
        &self.draft.files
    }

    /// What the client brings: its files, and what programs read on their standard input.
    pub fn input_data(&self) -> impl Iterator<Item = &Data> {
        input_data(self.files(), self.groups())
    }

    /// Blobs among [`JobSpec::input_data`], by hash, with their sizes in bytes.
    pub fn input_blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        blobs_among(self.input_data())
    }

    /// The oldest format of records that has all that the job asks for.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Its groups, in the order of the job file.
    pub fn groups(&self) -> &[Group] {
        &self.draft.groups
    }

    /// K: how many tasks it has.
    pub fn task_count(&self) -> u32 {
        self.total
    }

    /// Number of the first task of a group.
    pub fn first(&self, group: usize) -> u32 {
        self.firsts[group]
    }

    /// Numbers of the tasks of a group.
    pub fn numbers(&self, group: usize) -> std::ops::Range<u32> {
        let first = self.firsts[group];
        first..first + self.draft.groups[group].count()
    }

    /// The group of a task; `number` is below [`JobSpec::task_count`].
    pub fn group_of(&self, number: u32) -> usize {
        self.firsts.partition_point(|first| *first <= number) - 1
    }

    /// A task's array index, for an array.
    pub fn index_of(&self, number: u32) -> Option<u32> {
        let group = self.group_of(number);
        self.draft.groups[group]
            .array
            .map(|(from, _)| from + (number - self.firsts[group]))
    }

    /// Positions of the groups that `group` waits for.
    pub fn waits_for(&self, group: usize) -> &[u32] {
        &self.waits_for[group]
    }

    /// Positions of the groups that wait for `group`.
    pub fn waited_by(&self, group: usize) -> &[u32] {
        &self.waited_by[group]
    }

    /// How many tasks of `other`, which `group` waits for, must be done before those of `group` start.
    pub fn needed(&self, group: usize, other: usize) -> u32 {
        let all = self.draft.groups[other].count();
        if self.relaxed.is_empty() {
            return all;
        }
        let key = (group as u32, other as u32);
        self.relaxed.get(&key).copied().unwrap_or(all)
    }

    /// Whether some group starts before all tasks of another that it waits for are done.
    pub fn is_relaxed(&self) -> bool {
        !self.relaxed.is_empty()
    }

    /// How many tasks must be done before the results are compiled.
    pub fn needed_in_all(&self) -> u32 {
        self.qos().need.of(self.total)
    }

    /// Whether the outputs of `group` are results of the job: no other task waits for it, or it says so.
    pub fn is_result(&self, group: usize) -> bool {
        self.waited_by[group].is_empty() || self.draft.groups[group].keep
    }

    /// A task as people name it: `frame.7`, or `sheet`.
    pub fn label(&self, number: u32) -> String {
        let id = &self.draft.groups[self.group_of(number)].id;
        self.index_of(number)
            .map_or_else(|| id.to_string(), |index| format!("{id}.{index}"))
    }

    /// The position of the group with this id.
    pub fn position(&self, id: &str) -> Option<usize> {
        if self.is_open() {
            return self.names.get(id).map(|at| *at as usize);
        }
        self.draft.groups.iter().position(|group| &*group.id == id)
    }

    /// The task that people name `label`, see [`JobSpec::label`].
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
