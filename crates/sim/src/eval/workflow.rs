//! A workflow to evaluate schedulers on: tasks with recorded times and what they wait for.

use super::running::CHECKPOINT_FILE;
use super::wfformat;
use crate::Error;
use hedge_model::JobSpec;
use hedge_model::spec::{CheckpointRule, CriticalRule, Draft, Estimate, Group, Input, Qos};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Shortest time of a task, seconds: recorded zeros would make ratios meaningless.
pub const WORK_MIN: f64 = 0.001;
/// Time of a task of a job file that says none, seconds.
const WORK_UNKNOWN: f64 = 1.0;

/// A job file of more tasks or dependencies is refused: a comparison of it would take days and all memory.
const TASKS_MAX: u32 = 200_000;
const EDGES_MAX: u64 = 20_000_000;

/// One task.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Its name, unique in the workflow.
    pub id: Arc<str>,
    /// The program that it runs: what tasks of the same kind have in common.
    pub kind: Arc<str>,
    /// Seconds that it takes at standard speed; at least [`WORK_MIN`].
    pub work: f64,
    /// Positions of the tasks that it waits for.
    pub parents: Vec<u32>,
    /// Positions of the tasks that wait for it.
    pub children: Vec<u32>,
    /// The blobs that it reads, by position in [`Workflow::blobs`].
    pub inputs: Vec<u32>,
    /// The blobs that it leaves.
    pub outputs: Vec<u32>,
    /// Most memory that it uses, bytes; 0 where unknown.
    pub memory: u64,
    /// Whether it is marked critical.
    pub critical: bool,
    /// Seconds between its checkpoints; none if it saves none.
    pub saves_s: Option<f64>,
}

/// Tasks in an order in which each stands behind all that it waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Workflow {
    /// For people.
    pub name: String,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// Sizes in bytes of the data that tasks read and leave.
    pub blobs: Vec<u64>,
    /// How critical tasks are found beside those marked.
    pub rule: CriticalRule,
}

impl Workflow {
    /// The same under another name, like that of its file.
    pub fn named(self, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..self
        }
    }

    /// Reads WfFormat, schema 1.5 or 1.6.
    pub fn from_wfformat(json: &str) -> Result<Self, Error> {
        wfformat::read(json)
    }

    /// The same with tasks that save no checkpoints.
    pub fn without_checkpoints(&self) -> Self {
        let mut without = self.clone();
        without
            .tasks
            .iter_mut()
            .for_each(|task| task.saves_s = None);
        without
    }

    /// Takes a job's tasks, arrays unfolded; their times are the job's estimates.
    pub fn from_spec(spec: &JobSpec) -> Result<Self, Error> {
        let count = |at: usize| u64::from(spec.groups()[at].count());
        let edges = (0..spec.groups().len()).map(|at| {
            let before = spec.waits_for(at).iter().map(|other| *other as usize);
            let each = |other: usize| match spec.is_each(at, other) {
                true => count(at),
                false => count(other) * count(at),
            };
            before.map(each).sum::<u64>()
        });
        let edges: u64 = edges.sum();
        if spec.task_count() > TASKS_MAX || edges > EDGES_MAX {
            return Err(Error::Workflow(format!(
                "{} tasks with {edges} dependencies are too many to compare; `hedge-lab sim scale` runs big arrays",
                spec.task_count()
            )));
        }
        let mut tasks = Vec::new();
        let (data, blobs) = SpecBlobs::of(spec);
        for (at, group) in spec.groups().iter().enumerate() {
            let work = group.estimate.cpu_time.map(|time| time.as_secs_f64());
            let before = spec.waits_for(at).iter().map(|other| *other as usize);
            let (each, whole): (Vec<usize>, Vec<usize>) =
                before.partition(|other| spec.is_each(at, *other));
            let whole: Vec<u32> = whole
                .into_iter()
                .flat_map(|other| spec.numbers(other))
                .collect();
            for number in spec.numbers(at) {
                let offset = number - spec.first(at);
                let mut parents: Vec<u32> = each
                    .iter()
                    .map(|other| spec.first(*other) + offset)
                    .collect();
                parents.extend(&whole);
                tasks.push(Task {
                    id: spec.label(number).into(),
                    kind: group.kind().clone(),
                    work: work.unwrap_or(WORK_UNKNOWN),
                    parents,
                    children: Vec::new(),
                    inputs: data.inputs(spec, at, offset),
                    outputs: data.outputs(number),
                    memory: group.estimate.memory.unwrap_or(0),
                    critical: group.critical,
                    saves_s: group
                        .checkpoint
                        .as_ref()
                        .map(|rule| rule.every.as_secs_f64()),
                });
            }
        }
        let rule = spec.critical().clone();
        Ok(Self {
            rule,
            ..Self::new(spec.name().to_owned(), tasks, blobs)?
        })
    }

    /// Orders tasks, fills in their children and refuses circles. Parents are positions in `tasks`.
    pub fn new(name: String, tasks: Vec<Task>, blobs: Vec<u64>) -> Result<Self, Error> {
        if tasks.is_empty() {
            return Err(Error::Workflow("it has no tasks".into()));
        }
        let count = tasks.len();
        let mut children: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (at, task) in (0..).zip(&tasks) {
            for parent in &task.parents {
                children[*parent as usize].push(at);
            }
        }
        let mut open: Vec<usize> = tasks.iter().map(|task| task.parents.len()).collect();
        let mut order: Vec<usize> = (0..count).filter(|at| open[*at] == 0).collect();
        let mut next = 0;
        while let Some(at) = order.get(next).copied() {
            next += 1;
            for child in &children[at] {
                open[*child as usize] -= 1;
                if open[*child as usize] == 0 {
                    order.push(*child as usize);
                }
            }
        }
        if order.len() < count {
            let stuck = (0..count).find(|at| open[*at] > 0).unwrap_or(0);
            let id = &tasks[stuck].id;
            return Err(Error::Workflow(format!("task {id:?} waits for itself")));
        }
        let mut place = vec![0; count];
        for (new, old) in (0..).zip(&order) {
            place[*old] = new;
        }
        let moved = |list: &[u32]| list.iter().map(|at| place[*at as usize]).collect();
        let tasks = order
            .iter()
            .map(|at| Task {
                work: tasks[*at].work.max(WORK_MIN),
                parents: moved(&tasks[*at].parents),
                children: moved(&children[*at]),
                ..tasks[*at].clone()
            })
            .collect();
        Ok(Self {
            name,
            tasks,
            blobs,
            rule: CriticalRule::default(),
        })
    }

    /// For each task the seconds from its start to the workflow's end along the longest path, where task
    /// `t` takes `time(t)`.
    pub fn bottom_levels(&self, time: impl Fn(usize) -> f64) -> Vec<f64> {
        let mut levels = vec![0.0f64; self.tasks.len()];
        for at in (0..self.tasks.len()).rev() {
            let after = self.tasks[at].children.iter();
            let longest = after.map(|child| levels[*child as usize]);
            levels[at] = time(at) + longest.fold(0.0, f64::max);
        }
        levels
    }

    /// Returns how many bytes some blobs have together.
    pub fn bytes(&self, blobs: &[u32]) -> u64 {
        let sizes = blobs.iter().map(|blob| self.blobs[*blob as usize]);
        sizes.fold(0, u64::saturating_add)
    }

    /// How many kinds of tasks it has.
    pub fn kinds(&self) -> usize {
        let kinds: BTreeSet<&str> = self.tasks.iter().map(|task| &*task.kind).collect();
        kinds.len()
    }

    /// Seconds of the longest path at standard speed.
    pub fn longest_path(&self) -> f64 {
        let levels = self.bottom_levels(|at| self.tasks[at].work);
        levels.into_iter().fold(0.0, f64::max)
    }

    /// The workflow as a job, each task a group of its own in the workflow's order, with this estimate of
    /// each task's time. Groups are named by position: others name tasks as no job may.
    pub fn to_job(
        &self,
        qos: Qos,
        saves: impl Fn(usize) -> bool,
        estimate: impl Fn(usize) -> f64,
    ) -> Result<JobSpec, Error> {
        let checkpoint = Arc::new(CheckpointRule::of(&[CHECKPOINT_FILE]));
        let groups = self.tasks.iter().enumerate().map(|(at, task)| {
            let output_bytes = self.bytes(&task.outputs);
            let deps = task.parents.iter();
            Group {
                deps: deps.map(|parent| format!("t{parent}").into()).collect(),
                estimate: Estimate {
                    cpu_time: Some(Duration::from_secs_f64(estimate(at).max(WORK_MIN))),
                    memory: (task.memory > 0).then_some(task.memory),
                    disk: (output_bytes > 0).then_some(output_bytes),
                    output: (output_bytes > 0).then_some(output_bytes),
                    ..Estimate::default()
                }
                .into(),
                kind: Some(task.kind.clone()),
                critical: task.critical,
                checkpoint: saves(at).then(|| checkpoint.clone()),
                ..Group::program(&format!("t{at}"), &[&task.kind])
            }
        });
        let draft = Draft {
            name: self.name.as_str().into(),
            qos,
            critical: self.rule.clone(),
            files: Vec::new(),
            groups: groups.collect(),
            outline: false,
        };
        JobSpec::new(draft).map_err(|error| Error::Workflow(error.to_string()))
    }
}

/// The blobs of a job: its files, then what each task with an estimate of its output leaves.
struct SpecBlobs {
    files: u32,
    /// The blob of each task that leaves one.
    left: Vec<Option<u32>>,
    /// Groups by their ids.
    groups: BTreeMap<Arc<str>, usize>,
}

impl SpecBlobs {
    /// Returns them with their sizes.
    fn of(spec: &JobSpec) -> (Self, Vec<u64>) {
        let files = spec.files().iter().map(|file| file.data.size());
        let mut blobs: Vec<u64> = files.collect();
        let files = blobs.len() as u32;
        let mut left = Vec::new();
        for group in spec.groups() {
            let bytes = group.estimate.output.or(group.estimate.disk);
            let bytes = bytes.filter(|bytes| *bytes > 0);
            for _ in 0..group.count() {
                left.push(bytes.map(|_| blobs.len() as u32));
                blobs.extend(bytes);
            }
        }
        let ids = spec.groups().iter().map(|group| group.id.clone());
        let groups = ids.zip(0..).collect();
        let found = Self {
            files,
            left,
            groups,
        };
        (found, blobs)
    }

    fn outputs(&self, number: u32) -> Vec<u32> {
        self.left[number as usize].into_iter().collect()
    }

    /// What the task at `offset` of a group reads.
    fn inputs(&self, spec: &JobSpec, group: usize, offset: u32) -> Vec<u32> {
        let whole = |id: &str| {
            let at = self.groups.get(id);
            at.map(|at| spec.numbers(*at)).unwrap_or_default()
        };
        let mut blobs = Vec::new();
        for input in &spec.groups()[group].inputs {
            match input {
                Input::File(at) => blobs.extend((*at < self.files).then_some(*at)),
                Input::FileEach(at) => {
                    let at = at + offset;
                    blobs.extend((at < self.files).then_some(at));
                }
                Input::Task(id) => {
                    blobs.extend(whole(id).filter_map(|number| self.left[number as usize]));
                }
                Input::TaskEach(id) => {
                    blobs.extend(
                        whole(id)
                            .nth(offset as usize)
                            .and_then(|number| self.left[number as usize]),
                    );
                }
            }
        }
        blobs
    }
}
