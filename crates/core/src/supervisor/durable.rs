//! What survives: the state that changes only when a record is committed, in log order, on every supervisor
//! alike. [`State::apply`] is first-wins: a late record changes nothing, and its verdict says so.

use super::critical::CriticalSet;
use super::ledger::{Account, used};
use hedge_model::capacity::Class;
use hedge_model::ledger::{Charge, Cost, Stopped, Tariff};
use hedge_model::msg::{Log, Role, Usage};
use hedge_model::record::{End, JobEnd, Record, Ticket};
use hedge_model::view::AttemptCounts;
use hedge_model::{
    AttemptId, Epoch, FileEntry, Hash, JobId, JobSpec, PeerId, SubmitKey, TaskId, Time,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a committed record did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It changed the state.
    Applied,
    /// The job of this submission, new or from an earlier record of the same key.
    Job(JobId),
    /// It came too late and changed nothing.
    Stale(&'static str),
}

/// The durable state of a grid.
#[derive(Clone, Debug, Default)]
pub struct State {
    pub(crate) epoch: Epoch,
    pub(crate) now: Time,
    pub(crate) jobs: BTreeMap<JobId, Job>,
    pub(crate) keys: BTreeMap<(PeerId, SubmitKey), JobId>,
    pub(crate) members: BTreeMap<PeerId, Member>,
    pub(crate) tickets: BTreeMap<Hash, Ticket>,
    /// The tariff of jobs that are accepted from now on.
    pub(crate) tariff: Arc<Tariff>,
}

/// A peer that was let in.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// As what.
    pub role: Role,
}

/// A job, as far as it is durable.
#[derive(Clone, Debug)]
pub struct Job {
    pub(crate) client: PeerId,
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) critical: CriticalSet,
    pub(crate) accepted: Time,
    pub(crate) tasks: Vec<Task>,
    /// For each group how many of its tasks are not done.
    pub(crate) open: Vec<u32>,
    pub(crate) done: u32,
    pub(crate) ended: Option<(JobEnd, Time)>,
    /// Attempts that ended without deciding their task. One that was given up may still come back and win,
    /// or end otherwise; any other end is final.
    pub(crate) history: BTreeMap<AttemptId, EndedAttempt>,
    pub(crate) counts: AttemptCounts,
    pub(crate) cpu: Duration,
    /// What it costs, and by which tariff.
    pub(crate) cost: Cost,
    pub(crate) tariff: Arc<Tariff>,
    /// Attempts that were stopped and charged, and whose end is not heard of yet.
    pub(crate) stopped: BTreeMap<AttemptId, Charge>,
    /// Winners whose outputs were lost.
    pub(crate) remade: Vec<(AttemptId, Charge)>,
    /// Bytes that the tasks left which are done and which no other waits for.
    pub(crate) result_bytes: u64,
}

/// A task, as far as it is durable. Small: a job may have millions.
#[derive(Clone, Debug, Default)]
pub struct Task {
    pub(crate) generation: u32,
    pub(crate) failures: u32,
    pub(crate) done: Option<Box<Done>>,
}

/// How a task was done.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
pub struct EndedAttempt {
    pub(crate) attempt: AttemptId,
    pub(crate) redundant: bool,
    pub(crate) worker: PeerId,
    pub(crate) end: End,
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

    fn bytes(&self) -> u64 {
        self.outputs
            .iter()
            .fold(0, |sum, file| sum.saturating_add(file.data.size()))
    }
}

impl Job {
    /// Whether all tasks of `group` are done.
    pub fn group_done(&self, group: usize) -> bool {
        self.open[group] == 0
    }

    /// The tasks of a group.
    pub(crate) fn tasks_of(&self, group: usize) -> &[Task] {
        let numbers = self.spec.numbers(group);
        &self.tasks[numbers.start as usize..numbers.end as usize]
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
        self.history.range(all).map(|(_, ended)| ended)
    }

    /// Whether the job is neither done, failed nor cancelled.
    pub fn active(&self) -> bool {
        self.ended.is_none()
    }
}

impl State {
    /// Applies one committed record. The same records in the same order give the same state everywhere.
    pub fn apply(&mut self, record: &Record) -> Verdict {
        match record {
            Record::Epoch { epoch, at } => {
                if *epoch <= self.epoch {
                    return Verdict::Stale("a later epoch has begun");
                }
                self.epoch = *epoch;
                self.now = self.now.max(*at);
                Verdict::Applied
            }
            Record::TicketMade(ticket) => {
                self.tickets.insert(ticket.hash, ticket.clone());
                Verdict::Applied
            }
            Record::MemberJoined {
                peer,
                role,
                ticket,
                at,
            } => self.join(*peer, *role, *ticket, *at),
            Record::JobAccepted {
                key,
                client,
                spec,
                at,
            } => self.accept(*key, *client, spec, *at),
            Record::TaskDone { .. } | Record::AttemptEnded { .. } => self.apply_end(record),
            Record::OutputsLost {
                task,
                generation,
                at,
            } => self.outputs_lost(*task, *generation, *at),
            Record::JobEnded {
                job,
                end,
                stopped,
                at,
            } => self.job_ended(*job, end, stopped, *at),
            Record::Benchmarked { .. } => Verdict::Applied,
        }
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

    pub(crate) fn task(&self, task: TaskId) -> Option<&Task> {
        self.jobs.get(&task.job)?.tasks.get(task.number as usize)
    }

    /// Whether an attempt may still decide its task.
    pub(crate) fn wants(&self, attempt: AttemptId) -> bool {
        let active = |job: &Job| job.active();
        self.jobs.get(&attempt.task.job).is_some_and(active)
            && self
                .task(attempt.task)
                .is_some_and(|task| task.done.is_none() && task.generation == attempt.generation)
    }

    fn join(&mut self, peer: PeerId, role: Role, ticket: Hash, at: Time) -> Verdict {
        if self.members.contains_key(&peer) {
            return Verdict::Stale("the peer is a member");
        }
        let Some(known) = self.tickets.get_mut(&ticket) else {
            return Verdict::Stale("the ticket is not known");
        };
        if let Some(uses) = &mut known.uses {
            if *uses == 0 {
                return Verdict::Stale("the ticket is used up");
            }
            *uses -= 1;
        }
        self.now = self.now.max(at);
        self.members.insert(peer, Member { role });
        Verdict::Applied
    }

    fn accept(&mut self, key: SubmitKey, client: PeerId, spec: &Arc<JobSpec>, at: Time) -> Verdict {
        if let Some(job) = self.keys.get(&(client, key)) {
            return Verdict::Job(*job);
        }
        self.now = self.now.max(at);
        let id = JobId(self.jobs.last_key_value().map_or(1, |(last, _)| last.0 + 1));
        let job = Job {
            client,
            critical: CriticalSet::find(spec),
            accepted: at,
            tasks: vec![Task::default(); spec.task_count() as usize],
            open: spec
                .groups()
                .iter()
                .map(hedge_model::spec::Group::count)
                .collect(),
            done: 0,
            ended: None,
            history: BTreeMap::new(),
            counts: AttemptCounts::default(),
            cpu: Duration::ZERO,
            cost: Cost::default(),
            tariff: self.tariff.clone(),
            stopped: BTreeMap::new(),
            remade: Vec::new(),
            result_bytes: 0,
            spec: spec.clone(),
        };
        self.keys.insert((client, key), id);
        self.jobs.insert(id, job);
        Verdict::Job(id)
    }

    /// An attempt ended, deciding its task or not.
    fn apply_end(&mut self, record: &Record) -> Verdict {
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
                self.task_done(done, stopped)
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
                self.attempt_ended(EndedAttempt {
                    attempt: *attempt,
                    redundant: *redundant,
                    worker: *worker,
                    end: end.clone(),
                    usage: *usage,
                    log: log.clone(),
                    charge: *charge,
                    account: None,
                })
            }
            _ => Verdict::Stale("not the end of an attempt"),
        }
    }

    fn job_ended(&mut self, job: JobId, end: &JobEnd, stopped: &[Stopped], at: Time) -> Verdict {
        match self.jobs.get_mut(&job) {
            Some(job) if *end == JobEnd::Done && job.done != job.spec.task_count() => {
                Verdict::Stale("not all of its tasks are done any more")
            }
            Some(job) if job.active() => {
                job.stop(stopped);
                job.ended = Some((end.clone(), at));
                self.now = self.now.max(at);
                Verdict::Applied
            }
            _ => Verdict::Stale("the job has ended"),
        }
    }

    fn task_done(&mut self, done: Done, stopped: &[Stopped]) -> Verdict {
        let id = done.attempt.task;
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return Verdict::Stale("no such job");
        };
        if !job.active() {
            return Verdict::Stale("the job has ended");
        }
        let Some(task) = job.tasks.get_mut(id.number as usize) else {
            return Verdict::Stale("no such task");
        };
        if task.done.is_some() {
            return Verdict::Stale("another attempt won");
        }
        if task.generation != done.attempt.generation {
            return Verdict::Stale("the attempt is of an earlier generation");
        }
        let known = job.history.get(&done.attempt);
        if known.is_some_and(|ended| ended.end != End::Lost) {
            return Verdict::Stale("the attempt has ended");
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
        job.tasks[id.number as usize].done = Some(Box::new(done));
        job.done += 1;
        job.open[group] -= 1;
        job.stop(stopped);
        Verdict::Applied
    }

    fn attempt_ended(&mut self, mut ended: EndedAttempt) -> Verdict {
        let id = ended.attempt.task;
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return Verdict::Stale("no such job");
        };
        let Some(task) = job.tasks.get_mut(id.number as usize) else {
            return Verdict::Stale("no such task");
        };
        let won = |done: &Done| done.attempt == ended.attempt;
        if task.done.as_deref().is_some_and(won) {
            return Verdict::Stale("the attempt won");
        }
        match job.history.get(&ended.attempt) {
            Some(before) if before.end != End::Lost || ended.end == End::Lost => {
                return Verdict::Stale("the attempt's end is known");
            }
            Some(_) => {}
            None => {
                job.counts.total += 1;
                job.counts.redundant += u64::from(ended.redundant);
            }
        }
        let counts =
            matches!(ended.end, End::Failed(_)) && task.generation == ended.attempt.generation;
        task.failures += u32::from(counts);
        match ended.end {
            End::Failed(_) => job.counts.failed += 1,
            End::Cancelled => job.counts.cancelled += 1,
            End::Unstaged(_) => {}
            End::Lost => job.counts.lost += 1,
        }
        (ended.charge, ended.account) = job.charge_ended(&ended);
        job.history.insert(ended.attempt, ended);
        Verdict::Applied
    }

    fn outputs_lost(&mut self, id: TaskId, generation: u32, at: Time) -> Verdict {
        let Some(job) = self.jobs.get_mut(&id.job) else {
            return Verdict::Stale("no such job");
        };
        if !job.active() {
            return Verdict::Stale("the job has ended");
        }
        let Some(task) = job.tasks.get_mut(id.number as usize) else {
            return Verdict::Stale("no such task");
        };
        let Some(done) = task.done.take_if(|_| task.generation == generation) else {
            return Verdict::Stale("the task runs again already");
        };
        let group = job.spec.group_of(id.number);
        if job.spec.is_result(group) {
            job.result_bytes -= done.bytes();
        }
        task.generation += 1;
        let (winner, charge) = (done.attempt, done.charge());
        job.uncharge(Account::Useful, winner, &charge);
        job.charge(Account::Lost, winner, &charge);
        job.remade.push((winner, charge));
        job.done -= 1;
        job.open[group] += 1;
        job.counts.outputs_lost += 1;
        self.now = self.now.max(at);
        Verdict::Applied
    }
}
