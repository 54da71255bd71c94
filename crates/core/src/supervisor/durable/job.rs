//! The durable part of a job and its tasks. Only the functions of this module change them, one for each kind of
//! record.

use crate::supervisor::durable::bounded;
use crate::supervisor::durable::change::Stale;
use crate::supervisor::durable::checkpoints::RecordedCheckpoint;
use crate::supervisor::durable::failures::Failures;
use crate::supervisor::durable::ledger::{Account, used};
use crate::supervisor::durable::open::Growth;
use crate::supervisor::durable::timed;
use hedge_model::capacity::Class;
use hedge_model::ending::Fault;
use hedge_model::ledger::{Charge, Cost, Stopped, Tariff};
use hedge_model::msg::{Log, Usage};
use hedge_model::record::JobEnd;
use hedge_model::view::AttemptCounts;
use hedge_model::{
    AttemptId, Ending, Epoch, FileEntry, Hash, JobSpec, PeerId, SubmitKey, TaskId, Time,
};
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The durable part of a job.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub(crate) client: PeerId,
    pub(crate) key: SubmitKey,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) accepted: Time,
    #[serde(with = "timed::tasks")]
    pub(crate) tasks: Vector<Task>,
    /// For each group, how many of its tasks are not done.
    #[serde(deserialize_with = "bounded::vector")]
    pub(crate) open: Vector<u32>,
    pub(crate) done: u32,
    pub(crate) ended: Option<(JobEnd, Time)>,
    /// Attempts that ended without deciding their task. A lost attempt may still come back and win, or end otherwise;
    /// any other ending is final.
    #[serde(with = "timed::history")]
    pub(crate) history: OrdMap<AttemptId, Arc<EndedAttempt>>,
    pub(crate) counts: AttemptCounts,
    /// CPU time of the attempts with a reported end.
    pub(crate) cpu: Duration,
    /// The cost so far, and the tariff that it is priced by.
    pub(crate) cost: Cost,
    pub(crate) tariff: Arc<Tariff>,
    /// Attempts that were stopped and charged, and have not reported their end yet.
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) stopped: OrdMap<AttemptId, Charge>,
    /// Winning attempts whose outputs were lost.
    #[serde(deserialize_with = "bounded::vector")]
    pub(crate) remade: Vector<(AttemptId, Charge)>,
    /// Total size in bytes of the outputs of done tasks that are results, see [`Job::keeps`].
    pub(crate) result_bytes: u64,
    pub(crate) growth: Growth,
    /// Of an open job the tasks that were done or given up, in that order; one that ran again is there again. Not more
    /// than its tasks and [`Job::remade`] together.
    #[serde(deserialize_with = "bounded::vector")]
    pub(crate) ends: Vector<u32>,
    /// For each group with released tasks, how many there are. Derived from the tasks after a snapshot.
    #[serde(skip)]
    pub(crate) released_of: OrdMap<u32, u32>,
    /// The newest checkpoint of each task that has one.
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) checkpoints: OrdMap<u32, Arc<RecordedCheckpoint>>,
    /// What can no longer be done. Derived from the tasks after a snapshot.
    #[serde(skip)]
    pub(crate) failures: Failures,
}

/// The durable part of a task. It is small, because a job may have millions of tasks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "StoredTask", into = "StoredTask")]
pub struct Task {
    pub(crate) generation: u32,
    /// How many attempts of this generation failed by the task's own fault, together with the marks [`GIVEN_UP`],
    /// [`RELEASED`] and [`LOST`].
    failures: u32,
    done: Option<Arc<Done>>,
}

/// Mark: the task has failed for good.
const GIVEN_UP: u32 = 1 << 31;
/// Mark: the client released the task's outputs, so groups added later do not read them.
const RELEASED: u32 = 1 << 30;
/// Mark: the task has failed for good because it was lost with its worker and may not run again.
const LOST: u32 = 1 << 29;
/// The bits that are not part of the count of failures.
const MARKS: u32 = GIVEN_UP | RELEASED | LOST;

/// The form of a [`Task`] in snapshots.
#[derive(Serialize, Deserialize)]
struct StoredTask {
    generation: u32,
    failures: u32,
    state: StoredState,
}

#[derive(Serialize, Deserialize)]
enum StoredState {
    Open,
    Done(Arc<Done>),
    Failed,
    /// The same three states of released tasks.
    ReleasedOpen,
    ReleasedDone(Arc<Done>),
    ReleasedFailed,
    /// Failed because it was lost with its worker.
    Lost,
    ReleasedLost,
}

impl From<StoredTask> for Task {
    fn from(stored: StoredTask) -> Self {
        let (marks, done) = match stored.state {
            StoredState::Open => (0, None),
            StoredState::Done(done) => (0, Some(done)),
            StoredState::Failed => (GIVEN_UP, None),
            StoredState::ReleasedOpen => (RELEASED, None),
            StoredState::ReleasedDone(done) => (RELEASED, Some(done)),
            StoredState::ReleasedFailed => (RELEASED | GIVEN_UP, None),
            StoredState::Lost => (GIVEN_UP | LOST, None),
            StoredState::ReleasedLost => (RELEASED | GIVEN_UP | LOST, None),
        };
        Self {
            generation: stored.generation,
            failures: (stored.failures & !MARKS) | marks,
            done,
        }
    }
}

impl From<Task> for StoredTask {
    fn from(task: Task) -> Self {
        let lost = task.is_lost();
        Self {
            generation: task.generation,
            failures: task.failures(),
            state: match (task.is_released(), task.has_failed(), task.done) {
                (false, true, None) if lost => StoredState::Lost,
                (true, true, None) if lost => StoredState::ReleasedLost,
                (false, _, Some(done)) => StoredState::Done(done),
                (false, true, None) => StoredState::Failed,
                (false, false, None) => StoredState::Open,
                (true, _, Some(done)) => StoredState::ReleasedDone(done),
                (true, true, None) => StoredState::ReleasedFailed,
                (true, false, None) => StoredState::ReleasedOpen,
            },
        }
    }
}

/// How a task was done: the winning attempt and what it left.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub(crate) attempt: AttemptId,
    pub(crate) redundant: bool,
    pub(crate) worker: PeerId,
    pub(crate) outputs: Arc<[FileEntry]>,
    pub(crate) usage: Usage,
    pub(crate) class: Class,
    pub(crate) log: Option<Box<Log>>,
    /// When the record was made. Only views show it. Snapshots of formats 1 and 2 do not hold it.
    #[serde(skip)]
    pub(crate) at: Option<Time>,
}

/// An attempt that ended without deciding its task.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EndedAttempt {
    pub(crate) attempt: AttemptId,
    pub(crate) redundant: bool,
    pub(crate) worker: PeerId,
    #[serde(with = "hedge_model::ending::recorded")]
    pub(crate) end: Ending,
    pub(crate) usage: Usage,
    pub(crate) log: Option<Box<Log>>,
    pub(crate) charge: Charge,
    /// The account that it was charged to; none if it ended after its job.
    pub(crate) account: Option<Account>,
    /// When the record was made; as in [`Done`].
    #[serde(skip)]
    pub(crate) at: Option<Time>,
}

impl Task {
    /// Returns how the task was done; none if it is not.
    pub fn done(&self) -> Option<&Done> {
        self.done.as_deref()
    }

    /// Sets when it was done, if it is.
    pub(crate) fn set_done_at(&mut self, at: Option<Time>) {
        if let Some(done) = &mut self.done {
            Arc::make_mut(done).at = at;
        }
    }

    /// Returns how many of its attempts failed by its own fault since it was last opened.
    pub fn failures(&self) -> u32 {
        self.failures & !MARKS
    }

    /// Returns whether its outputs are released: groups added later do not read them.
    pub fn is_released(&self) -> bool {
        self.failures & RELEASED != 0
    }

    pub(crate) fn release(&mut self) {
        self.failures |= RELEASED;
    }

    /// Returns whether it has failed for good.
    pub fn has_failed(&self) -> bool {
        self.failures & GIVEN_UP != 0
    }

    /// Returns whether it has failed for good because it was lost with its worker and may not run again.
    pub fn is_lost(&self) -> bool {
        self.failures & LOST != 0
    }

    /// Returns whether it is neither done nor failed.
    pub fn is_open(&self) -> bool {
        self.done.is_none() && !self.has_failed()
    }
}

impl Done {
    /// Returns what the winner is charged.
    pub fn charge(&self) -> Charge {
        used(self.class, &self.usage)
    }

    /// The blobs that the task left, with sizes in bytes.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        left(&self.outputs, self.log.as_deref())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.outputs
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.data.size()))
    }
}

/// The blobs that a task leaves with these outputs and this log, with sizes in bytes: its files, or its printed
/// output if it has no files.
pub(crate) fn left<'a>(
    outputs: &'a [FileEntry],
    log: Option<&'a Log>,
) -> impl Iterator<Item = (Hash, u64)> + 'a {
    let printed = log.filter(|_| outputs.is_empty());
    let printed = printed
        .into_iter()
        .flat_map(|log| [&log.stdout, &log.stderr]);
    let files = outputs.iter().map(|file| &file.data);
    files
        .chain(printed)
        .filter_map(|data| Some((data.hash()?, data.size())))
}

impl Job {
    pub(crate) fn new(
        client: PeerId,
        key: SubmitKey,
        spec: Arc<JobSpec>,
        accepted: Time,
        tariff: Arc<Tariff>,
    ) -> Self {
        let groups = spec.groups().iter();
        Self {
            client,
            key,
            accepted,
            tasks: std::iter::repeat_n(Task::default(), spec.task_count() as usize).collect(),
            open: groups.map(hedge_model::spec::Group::count).collect(),
            done: 0,
            ended: None,
            history: OrdMap::new(),
            counts: AttemptCounts::default(),
            cpu: Duration::ZERO,
            cost: Cost::default(),
            tariff,
            stopped: OrdMap::new(),
            remade: Vector::new(),
            result_bytes: 0,
            growth: Growth::begin(spec.is_open(), accepted),
            ends: Vector::new(),
            released_of: OrdMap::new(),
            checkpoints: OrdMap::new(),
            failures: Failures::default(),
            spec,
        }
    }

    /// Returns whether all tasks of `group` are done.
    pub fn group_done(&self, group: usize) -> bool {
        self.open[group] == 0
    }

    /// The tasks of a group.
    pub(crate) fn tasks_of(&self, group: usize) -> impl ExactSizeIterator<Item = &Task> {
        let numbers = self.spec.numbers(group);
        let tasks = self
            .tasks
            .focus()
            .narrow(numbers.start as usize..numbers.end as usize);
        tasks.into_iter()
    }

    /// Attempts of one task that ended without deciding it, oldest first.
    pub(crate) fn ended_attempts(
        &self,
        task: TaskId,
    ) -> impl DoubleEndedIterator<Item = &EndedAttempt> {
        let attempt = |generation, epoch, number| AttemptId {
            task,
            generation,
            epoch: Epoch(epoch),
            number,
        };
        let all = attempt(0, 0, 0)..=attempt(u32::MAX, u64::MAX, u32::MAX);
        self.history.range(all).map(|(_, ended)| &**ended)
    }

    /// Returns whether the job failed and is kept whole, so that it can be retried.
    pub(crate) fn can_be_retried(&self) -> bool {
        matches!(self.ended, Some((JobEnd::Failed { .. }, _))) && !self.spec.is_outline()
    }

    /// The blobs that a failed job keeps for a retry in addition to its results, checkpoints included; with sizes in
    /// bytes.
    pub(crate) fn kept_to_retry(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let kept = self.can_be_retried().then(|| self.needed_to_go_on());
        kept.into_iter().flatten()
    }

    /// The blobs that the job needs in addition to its results to go on, with sizes in bytes: inputs, checkpoints,
    /// and outputs that unfinished groups read.
    pub(crate) fn needed_to_go_on(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        let read = |group: usize| {
            let mut readers = self.spec.waited_by(group).iter();
            readers.any(|next| !self.group_done(*next as usize))
        };
        let groups = 0..self.spec.groups().len();
        let groups = groups.filter(move |group| read(*group));
        let left = groups
            .flat_map(|group| self.tasks_of(group))
            .filter_map(Task::done)
            .flat_map(|done| done.blobs());
        self.spec
            .input_blobs()
            .chain(self.checkpoint_blobs())
            .chain(left)
    }

    /// Returns whether the job is neither done, failed nor cancelled.
    pub fn active(&self) -> bool {
        self.ended.is_none()
    }

    /// Returns a task of the job; an error if the job has ended or has no such task.
    pub(crate) fn active_task(&mut self, id: TaskId) -> Result<&mut Task, Stale> {
        if !self.active() {
            return Err("the job has ended");
        }
        let task = self.tasks.get_mut(id.number as usize);
        task.ok_or("no such task")
    }

    /// Records that an attempt won its task. Returns the blobs of the task's checkpoint, which is dropped.
    pub(crate) fn succeed(&mut self, done: Done, stopped: &[Stopped]) -> Result<Vec<Hash>, Stale> {
        let id = done.attempt.task;
        let group = self.spec.group_of(id.number);
        let is_result = self.is_result(group);
        let task = self.active_task(id)?;
        if task.done.is_some() {
            return Err("another attempt won");
        }
        if task.has_failed() {
            return Err("the task was given up");
        }
        if task.generation != done.attempt.generation {
            return Err("the attempt is of an earlier generation");
        }
        let keeps = is_result && !task.is_released();
        let known = self.history.get(&done.attempt);
        if known.is_some_and(|ended| ended.end != Ending::Lost) {
            return Err("the attempt has ended");
        }
        match self.history.remove(&done.attempt) {
            Some(back) => {
                if let Some(account) = back.account {
                    self.uncharge(account, back.attempt, &back.charge);
                }
            }
            None => {
                self.counts.total += 1;
                self.counts.redundant += u64::from(done.redundant);
            }
        }
        self.charge(Account::Useful, done.attempt, &done.charge());
        self.cpu = self.cpu.saturating_add(done.usage.cpu);
        if keeps {
            self.result_bytes += done.bytes();
        }
        self.tasks[id.number as usize].done = Some(Arc::new(done));
        self.done += 1;
        self.open[group] -= 1;
        self.stop(stopped);
        self.note_done(id.number);
        self.note_end(id.number);
        Ok(self.drop_checkpoint(id.number))
    }

    /// Records that an attempt ended without deciding its task.
    pub(crate) fn end_attempt(
        &mut self,
        mut ended: EndedAttempt,
    ) -> Result<Arc<EndedAttempt>, Stale> {
        let Some(task) = self.tasks.get_mut(ended.attempt.task.number as usize) else {
            return Err("no such task");
        };
        let won = |done: &Done| done.attempt == ended.attempt;
        if task.done().is_some_and(won) {
            return Err("the attempt won");
        }
        match self.history.get(&ended.attempt) {
            Some(before) if before.end != Ending::Lost || ended.end == Ending::Lost => {
                return Err("the attempt's end is known");
            }
            Some(_) => {}
            None => {
                self.counts.total += 1;
                self.counts.redundant += u64::from(ended.redundant);
            }
        }
        let counts =
            ended.end.fault() == Fault::Task && task.generation == ended.attempt.generation;
        task.failures += u32::from(counts);
        self.counts.ended(&ended.end);
        self.cpu = self.cpu.saturating_add(ended.usage.cpu);
        (ended.charge, ended.account) = self.charge_ended(&ended);
        let ended = Arc::new(ended);
        self.history.insert(ended.attempt, ended.clone());
        Ok(ended)
    }

    /// Opens the next generation of a task because all holders of its outputs are gone. Returns the lost blobs.
    pub(crate) fn lose_outputs(&mut self, id: TaskId, generation: u32) -> Result<Vec<Hash>, Stale> {
        let task = self.active_task(id)?;
        let current = task.generation == generation;
        let Some(done) = task.done.take_if(|_| current) else {
            return Err("the task runs again already");
        };
        task.generation += 1;
        let group = self.spec.group_of(id.number);
        if self.keeps(id.number) {
            self.result_bytes -= done.bytes();
        }
        let (winner, charge) = (done.attempt, done.charge());
        self.uncharge(Account::Useful, winner, &charge);
        self.charge(Account::Lost, winner, &charge);
        self.remade.push_back((winner, charge));
        self.done -= 1;
        self.open[group] += 1;
        self.counts.outputs_lost += 1;
        self.note_open_again();
        Ok(done.blobs().map(|(hash, _)| hash).collect())
    }

    /// Records that a task has failed for good.
    pub(crate) fn fail(
        &mut self,
        id: TaskId,
        generation: u32,
        stopped: &[Stopped],
    ) -> Result<(), Stale> {
        let task = self.active_task(id)?;
        if task.generation != generation || !task.is_open() {
            return Err("the task is not open any more");
        }
        task.failures |= GIVEN_UP;
        if self.may_not_rerun(id.number) {
            self.tasks[id.number as usize].failures |= LOST;
        }
        self.stop(stopped);
        self.note_failed(id.number);
        self.note_end(id.number);
        Ok(())
    }

    /// Opens the next generation of every task that is not done, with no failures counted.
    pub(crate) fn retry(&mut self) -> Result<(), Stale> {
        if !self.can_be_retried() {
            return Err("the job cannot be retried");
        }
        self.ended = None;
        for task in &mut self.tasks {
            if task.done().is_none() {
                *task = Task {
                    generation: task.generation + 1,
                    failures: task.failures & RELEASED,
                    done: None,
                };
            }
        }
        self.failures = Failures::default();
        Ok(())
    }
}
