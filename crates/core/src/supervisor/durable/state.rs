//! What survives: the state that changes only when a record is committed, in log order, on every supervisor
//! alike. [`State::apply`] is first-wins: a late record changes nothing, and the [`Change`] says so.

use crate::supervisor::durable::bounded;
use crate::supervisor::durable::change::{Change, Stale, Success, printed};
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::durable::ledger::{Account, used};
use crate::supervisor::durable::retention::Ended;
use crate::supervisor::durable::submitted::Submitted;
use hedge_model::capacity::Class;
use hedge_model::ending::Fault;
use hedge_model::ledger::{Charge, Cost, Stopped, Tariff};
use hedge_model::msg::{Log, Role, Usage};
use hedge_model::record::{FORMAT_MIN, JobEnd, Record, Ticket};
use hedge_model::view::AttemptCounts;
use hedge_model::{
    AttemptId, Ending, Epoch, FileEntry, Hash, JobId, JobSpec, PeerId, Settings, SubmitKey, TaskId,
    Time,
};
use imbl::{OrdMap, Vector};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The durable state of a grid. A clone is cheap, whatever it holds: the copy shares all that does not change
/// after, so that a snapshot can be written while the supervisor works on.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    pub(crate) epoch: Epoch,
    pub(crate) now: Time,
    pub(crate) secret: Option<[u8; 32]>,
    pub(crate) format: u32,
    pub(crate) last_job: u64,
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) jobs: OrdMap<JobId, Arc<Job>>,
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) keys: OrdMap<(PeerId, SubmitKey), Submitted>,
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) members: OrdMap<PeerId, Member>,
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) revoked: OrdMap<PeerId, Time>,
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) tickets: OrdMap<Hash, Ticket>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) learned: Learned,
    /// Found again from the jobs after a snapshot.
    #[serde(skip)]
    pub(crate) ended: Ended,
}

/// A peer that was let in.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Member {
    /// As what.
    pub role: Role,
    /// When.
    pub joined: Time,
    /// By which ticket; nothing where a format of snapshots was read that does not say so.
    pub ticket: Option<Hash>,
}

/// A job, as far as it is durable.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub(crate) client: PeerId,
    pub(crate) key: SubmitKey,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) accepted: Time,
    #[serde(deserialize_with = "bounded::vector")]
    pub(crate) tasks: Vector<Task>,
    /// For each group how many of its tasks are not done.
    #[serde(deserialize_with = "bounded::vector")]
    pub(crate) open: Vector<u32>,
    pub(crate) done: u32,
    pub(crate) ended: Option<(JobEnd, Time)>,
    /// Attempts that ended without deciding their task. One that was given up may still come back and win,
    /// or end otherwise; any other end is final.
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) history: OrdMap<AttemptId, Arc<EndedAttempt>>,
    pub(crate) counts: AttemptCounts,
    /// CPU time of attempts whose end was reported.
    pub(crate) cpu: Duration,
    /// What it costs, and by which tariff.
    pub(crate) cost: Cost,
    pub(crate) tariff: Arc<Tariff>,
    /// Attempts that were stopped and charged, and whose end is not heard of yet.
    #[serde(deserialize_with = "bounded::map")]
    pub(crate) stopped: OrdMap<AttemptId, Charge>,
    /// Winners whose outputs were lost.
    #[serde(deserialize_with = "bounded::vector")]
    pub(crate) remade: Vector<(AttemptId, Charge)>,
    /// Bytes that the tasks left which are done and which no other waits for.
    pub(crate) result_bytes: u64,
}

/// A task, as far as it is durable. Small: a job may have millions.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Task {
    pub(crate) generation: u32,
    pub(crate) failures: u32,
    pub(crate) done: Option<Arc<Done>>,
}

/// How a task was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    pub(crate) attempt: AttemptId,
    pub(crate) redundant: bool,
    pub(crate) worker: PeerId,
    pub(crate) outputs: Arc<[FileEntry]>,
    pub(crate) usage: Usage,
    pub(crate) class: Class,
    pub(crate) log: Option<Box<Log>>,
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
    /// The part of the cost that it is in; none where it ended after its job.
    pub(crate) account: Option<Account>,
}

impl Done {
    /// What the winner is charged.
    pub fn charge(&self) -> Charge {
        used(self.class, &self.usage)
    }

    /// Content that the task left, by hash, with sizes in bytes.
    pub(crate) fn left(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        left(&self.outputs, self.log.as_deref())
    }

    fn bytes(&self) -> u64 {
        self.outputs
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.data.size()))
    }
}

/// Content that a task leaves with these outputs and this log, by hash, with sizes in bytes: its files, or what it
/// printed where it has none.
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
    /// Whether all tasks of `group` are done.
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

    /// Whether the job is neither done, failed nor cancelled.
    pub fn active(&self) -> bool {
        self.ended.is_none()
    }
}

impl State {
    /// Applies one committed record. The same records in the same order give the same state everywhere.
    pub fn apply(&mut self, record: &Record) -> Change {
        match record {
            Record::TaskDone { .. } | Record::AttemptEnded { .. } => self.apply_end(record),
            Record::JobAccepted {
                key,
                client,
                spec,
                at,
            }
            | Record::JobAcceptedNamed {
                key,
                client,
                spec,
                at,
            } => Change::Accepted {
                job: self.accept(*key, *client, spec, *at),
                spec: spec.clone(),
            },
            Record::OutputsLost {
                task,
                generation,
                at,
            } => match self.outputs_lost(*task, *generation, *at) {
                Ok(left) => Change::OutputsLost { task: *task, left },
                Err(stale) => Change::Stale(stale),
            },
            Record::JobEnded {
                job,
                end,
                stopped,
                at,
            } => match self.job_ended(*job, end, stopped, *at) {
                Ok(spec) => Change::JobEnded { job: *job, spec },
                Err(_) => Change::JobNotEnded(*job),
            },
            Record::JobForgotten { job, at } => Change::JobForgotten {
                job: *job,
                known: self.forget(*job, *at),
            },
            Record::Benchmarked { peer, scores, at } => {
                self.learned.benchmarked(*peer, *scores, *at);
                Change::Benchmarked(*peer)
            }
            of_grid => self.apply_to_grid(of_grid).unwrap_or_else(Change::Stale),
        }
    }

    /// Applies a record that is about the grid itself: who leads, who is in, and how it is set.
    fn apply_to_grid(&mut self, record: &Record) -> Result<Change, Stale> {
        match record {
            Record::Epoch { epoch, at, secret } => {
                if *epoch <= self.epoch {
                    return Err("a later epoch has begun");
                }
                self.observe_gap(*at);
                self.epoch = *epoch;
                self.secret.get_or_insert(*secret);
                self.now = self.now.max(*at);
                Ok(Change::Epoch)
            }
            Record::TicketMade(ticket) => {
                self.note_ticket(ticket);
                Ok(Change::Noted)
            }
            Record::MemberJoined {
                peer,
                role,
                ticket,
                at,
            } => self
                .join(*peer, *role, *ticket, *at)
                .map(|()| Change::Noted),
            Record::MemberRevoked { peer, at } => {
                self.revoke(*peer, *at).map(|()| Change::Revoked(*peer))
            }
            Record::Set { name, value, at } => {
                self.now = self.now.max(*at);
                Arc::make_mut(&mut self.settings).apply(name, value);
                Ok(Change::Settings)
            }
            Record::Format { level, at } => {
                if *level <= self.format() {
                    return Err("the format is at least as new");
                }
                self.now = self.now.max(*at);
                self.format = *level;
                Ok(Change::Noted)
            }
            _ => Err("not a record of the grid itself"),
        }
    }

    /// The format in which records are to be written.
    pub fn format(&self) -> u32 {
        self.format.max(FORMAT_MIN)
    }

    /// The grid's settings.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// The current epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last recorded time.
    pub fn recorded_time(&self) -> Time {
        self.now
    }

    /// A member's role.
    pub fn member(&self, peer: PeerId) -> Option<Role> {
        self.members.get(&peer).map(|member| member.role)
    }

    /// Whether a peer was a member and was revoked.
    pub fn is_revoked(&self, peer: PeerId) -> bool {
        self.revoked.contains_key(&peer)
    }

    /// All peers that were members and were revoked.
    pub fn revoked(&self) -> impl Iterator<Item = PeerId> {
        self.revoked.keys().copied()
    }

    pub(crate) fn task(&self, task: TaskId) -> Option<&Task> {
        self.jobs.get(&task.job)?.tasks.get(task.number as usize)
    }

    /// Whether an attempt may still decide its task.
    pub(crate) fn wants(&self, attempt: AttemptId) -> bool {
        let open = |job: &Arc<Job>| {
            let ended = job.history.get(&attempt);
            job.active() && ended.is_none_or(|ended| ended.end == Ending::Lost)
        };
        self.jobs.get(&attempt.task.job).is_some_and(open)
            && self
                .task(attempt.task)
                .is_some_and(|task| task.done.is_none() && task.generation == attempt.generation)
    }

    fn revoke(&mut self, peer: PeerId, at: Time) -> Result<(), Stale> {
        if self.revoked.contains_key(&peer) {
            return Err("the peer was revoked before");
        }
        // The supervisor that founded the grid joined nobody.
        self.members.remove(&peer);
        self.now = self.now.max(at);
        self.revoked.insert(peer, at);
        Ok(())
    }

    pub(crate) fn job_mut(&mut self, id: JobId) -> Option<&mut Job> {
        self.jobs.get_mut(&id).map(Arc::make_mut)
    }

    fn accept(&mut self, key: SubmitKey, client: PeerId, spec: &Arc<JobSpec>, at: Time) -> JobId {
        if let Some(known) = self.keys.get(&(client, key)) {
            return known.job;
        }
        self.now = self.now.max(at);
        self.last_job += 1;
        let id = JobId(self.last_job);
        let job = Job {
            client,
            key,
            accepted: at,
            tasks: std::iter::repeat_n(Task::default(), spec.task_count() as usize).collect(),
            open: spec
                .groups()
                .iter()
                .map(hedge_model::spec::Group::count)
                .collect(),
            done: 0,
            ended: None,
            history: OrdMap::new(),
            counts: AttemptCounts::default(),
            cpu: Duration::ZERO,
            cost: Cost::default(),
            tariff: self.settings.tariff.clone(),
            stopped: OrdMap::new(),
            remade: Vector::new(),
            result_bytes: 0,
            spec: spec.clone(),
        };
        self.keys.insert((client, key), Submitted::new(id, spec));
        self.jobs.insert(id, Arc::new(job));
        id
    }

    /// An attempt ended, deciding its task or not.
    fn apply_end(&mut self, record: &Record) -> Change {
        match record {
            Record::TaskDone {
                attempt,
                redundant,
                worker,
                outputs,
                usage,
                class,
                stopped,
                log,
                at,
            } => {
                self.now = self.now.max(*at);
                let done = Done {
                    class: *class,
                    attempt: *attempt,
                    redundant: *redundant,
                    worker: *worker,
                    outputs: outputs.clone(),
                    usage: *usage,
                    log: log.clone(),
                };
                let won = self.task_done(done, stopped).is_ok();
                if won {
                    self.learn_success(record);
                }
                Change::Succeeded(Success {
                    attempt: *attempt,
                    worker: *worker,
                    won,
                    timed: !usage.running.is_zero(),
                    outputs: outputs.clone(),
                    printed: printed(log.as_deref()),
                })
            }
            Record::AttemptEnded {
                attempt,
                redundant,
                worker,
                end,
                usage,
                charge,
                log,
                at,
            } => {
                self.now = self.now.max(*at);
                let known = self.attempt_ended(EndedAttempt {
                    attempt: *attempt,
                    redundant: *redundant,
                    worker: *worker,
                    end: end.clone(),
                    usage: *usage,
                    log: log.clone(),
                    charge: *charge,
                    account: None,
                });
                if known.is_ok() && *end == Ending::Lost {
                    self.learned.lost(*worker, charge.occupied.as_secs_f64());
                }
                Change::Ended {
                    attempt: *attempt,
                    worker: *worker,
                    end: end.clone(),
                    printed: printed(log.as_deref()),
                }
            }
            _ => Change::Stale("not the end of an attempt"),
        }
    }

    fn task_done(&mut self, done: Done, stopped: &[Stopped]) -> Result<(), Stale> {
        if self.revoked.contains_key(&done.worker) {
            return Err("its worker was revoked");
        }
        let id = done.attempt.task;
        let Some(job) = self.job_mut(id.job) else {
            return Err("no such job");
        };
        if !job.active() {
            return Err("the job has ended");
        }
        let Some(task) = job.tasks.get_mut(id.number as usize) else {
            return Err("no such task");
        };
        if task.done.is_some() {
            return Err("another attempt won");
        }
        if task.generation != done.attempt.generation {
            return Err("the attempt is of an earlier generation");
        }
        let known = job.history.get(&done.attempt);
        if known.is_some_and(|ended| ended.end != Ending::Lost) {
            return Err("the attempt has ended");
        }
        match job.history.remove(&done.attempt) {
            Some(back) => {
                if let Some(account) = back.account {
                    job.uncharge(account, back.attempt, &back.charge);
                }
            }
            None => {
                job.counts.total += 1;
                job.counts.redundant += u64::from(done.redundant);
            }
        }
        job.charge(Account::Useful, done.attempt, &done.charge());
        job.cpu = job.cpu.saturating_add(done.usage.cpu);
        let group = job.spec.group_of(id.number);
        if job.spec.is_result(group) {
            job.result_bytes += done.bytes();
        }
        job.tasks[id.number as usize].done = Some(Arc::new(done));
        job.done += 1;
        job.open[group] -= 1;
        job.stop(stopped);
        Ok(())
    }

    fn attempt_ended(&mut self, mut ended: EndedAttempt) -> Result<(), Stale> {
        let id = ended.attempt.task;
        let Some(job) = self.job_mut(id.job) else {
            return Err("no such job");
        };
        let Some(task) = job.tasks.get_mut(id.number as usize) else {
            return Err("no such task");
        };
        let won = |done: &Done| done.attempt == ended.attempt;
        if task.done.as_deref().is_some_and(won) {
            return Err("the attempt won");
        }
        match job.history.get(&ended.attempt) {
            Some(before) if before.end != Ending::Lost || ended.end == Ending::Lost => {
                return Err("the attempt's end is known");
            }
            Some(_) => {}
            None => {
                job.counts.total += 1;
                job.counts.redundant += u64::from(ended.redundant);
            }
        }
        let counts =
            ended.end.fault() == Fault::Task && task.generation == ended.attempt.generation;
        task.failures += u32::from(counts);
        job.counts.ended(&ended.end);
        job.cpu = job.cpu.saturating_add(ended.usage.cpu);
        (ended.charge, ended.account) = job.charge_ended(&ended);
        let ended = Arc::new(ended);
        job.history.insert(ended.attempt, ended.clone());
        self.retire_late(id.job, &ended);
        Ok(())
    }

    fn outputs_lost(&mut self, id: TaskId, generation: u32, at: Time) -> Result<Vec<Hash>, Stale> {
        let Some(job) = self.job_mut(id.job) else {
            return Err("no such job");
        };
        if !job.active() {
            return Err("the job has ended");
        }
        let Some(task) = job.tasks.get_mut(id.number as usize) else {
            return Err("no such task");
        };
        let current = task.generation == generation;
        let Some(done) = task.done.take_if(|_| current) else {
            return Err("the task runs again already");
        };
        let group = job.spec.group_of(id.number);
        if job.spec.is_result(group) {
            job.result_bytes -= done.bytes();
        }
        task.generation += 1;
        let (winner, charge) = (done.attempt, done.charge());
        job.uncharge(Account::Useful, winner, &charge);
        job.charge(Account::Lost, winner, &charge);
        job.remade.push_back((winner, charge));
        job.done -= 1;
        job.open[group] += 1;
        job.counts.outputs_lost += 1;
        self.now = self.now.max(at);
        Ok(done.left().map(|(hash, _)| hash).collect())
    }
}
