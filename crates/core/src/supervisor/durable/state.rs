//! The durable state. It changes only when a record is committed, in log order, in the same way on every supervisor.
//! In [`State::apply`] the first record wins: a late one changes nothing, and the returned [`Change`] says so.

use crate::supervisor::durable::bounded;
use crate::supervisor::durable::change::{Change, Stale, Success, printed};
use crate::supervisor::durable::checkpoints::RecordedCheckpoint;
use crate::supervisor::durable::job::{Done, EndedAttempt, Job, Task};
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::durable::retention::Ended;
use crate::supervisor::durable::submitted::Submitted;
use hedge_model::ledger::Stopped;
use hedge_model::msg::Role;
use hedge_model::record::{FORMAT_MIN, Record, Ticket};
use hedge_model::{
    AttemptId, Ending, Epoch, Hash, JobId, JobSpec, PeerId, Settings, SubmitKey, TaskId, Time,
};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The durable state of a grid. A clone is cheap, whatever its size: it shares all data that does not change later,
/// so that a snapshot can be written while the supervisor continues.
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
    /// Derived from the jobs after a snapshot.
    #[serde(skip)]
    pub(crate) ended: Ended,
}

/// A peer that has joined.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Member {
    /// Its role.
    pub role: Role,
    /// When it joined.
    pub joined: Time,
    /// The ticket with which it joined; none if a snapshot of the first format was read.
    pub ticket: Option<Hash>,
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
            Record::OutputsLost { .. }
            | Record::TaskFailed { .. }
            | Record::Checkpointed { .. }
            | Record::JobEnded { .. }
            | Record::JobRetried { .. }
            | Record::JobForgotten { .. } => {
                self.apply_to_job(record).unwrap_or_else(Change::Stale)
            }
            Record::GroupsAdded { .. }
            | Record::ClientSeen { .. }
            | Record::OutputsReleased { .. }
            | Record::JobClosed { .. } => self.apply_to_open(record),
            Record::Benchmarked { peer, scores, at } => {
                self.learned.benchmarked(*peer, *scores, *at);
                Change::Benchmarked(*peer)
            }
            of_grid => self.apply_to_grid(of_grid).unwrap_or_else(Change::Stale),
        }
    }

    /// Applies a record about the grid itself: epochs, tickets, members, settings, formats.
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
                Ok(Change::Format)
            }
            _ => Err("not a record of the grid itself"),
        }
    }

    /// Returns whether the grid's first leader leads. It makes the group write the newest format that it knows.
    pub(crate) fn begins(&self) -> bool {
        self.epoch == Epoch(1)
    }

    /// Returns the format in which records are written.
    pub fn format(&self) -> u32 {
        self.format.max(FORMAT_MIN)
    }

    /// Returns the grid's settings.
    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Returns the current epoch.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Returns the id of the job that was accepted last; 0 if none was.
    pub fn last_job(&self) -> JobId {
        JobId(self.last_job)
    }

    /// Returns the last recorded time.
    pub fn recorded_time(&self) -> Time {
        self.now
    }

    /// Returns a member's role; none if the peer is not a member.
    pub fn member(&self, peer: PeerId) -> Option<Role> {
        self.members.get(&peer).map(|member| member.role)
    }

    /// Returns whether a peer was a member and was revoked.
    pub fn is_revoked(&self, peer: PeerId) -> bool {
        self.revoked.contains_key(&peer)
    }

    /// All revoked peers.
    pub fn revoked(&self) -> impl Iterator<Item = PeerId> {
        self.revoked.keys().copied()
    }

    pub(crate) fn task(&self, task: TaskId) -> Option<&Task> {
        self.jobs.get(&task.job)?.tasks.get(task.number as usize)
    }

    /// Returns whether an attempt may still decide its task.
    pub(crate) fn wants(&self, attempt: AttemptId) -> bool {
        let open = |job: &Arc<Job>| {
            let ended = job.history.get(&attempt);
            job.active() && ended.is_none_or(|ended| ended.end == Ending::Lost)
        };
        self.jobs.get(&attempt.task.job).is_some_and(open)
            && self
                .task(attempt.task)
                .is_some_and(|task| task.is_open() && task.generation == attempt.generation)
    }

    fn revoke(&mut self, peer: PeerId, at: Time) -> Result<(), Stale> {
        if self.revoked.contains_key(&peer) {
            return Err("the peer was revoked before");
        }
        // The supervisor that founded the grid is not in `members`, but can be revoked.
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
        let job = Job::new(client, key, spec.clone(), at, self.settings.tariff.clone());
        self.keys.insert((client, key), Submitted::new(id, spec));
        self.jobs.insert(id, Arc::new(job));
        id
    }

    /// Applies the end of an attempt.
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
                    at: Some(*at),
                };
                self.apply_success(done, stopped, record)
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
                    at: Some(*at),
                });
                if known.is_ok() && *end == Ending::Lost {
                    self.learned.lost(*worker, charge.occupied.as_secs_f64());
                }
                Change::Ended {
                    attempt: *attempt,
                    worker: *worker,
                    end: end.clone(),
                    printed: printed(log.as_deref()),
                    checkpoint: known.unwrap_or_default(),
                }
            }
            _ => Change::Stale("not the end of an attempt"),
        }
    }

    fn apply_success(&mut self, done: Done, stopped: &[Stopped], record: &Record) -> Change {
        let success = Success {
            attempt: done.attempt,
            worker: done.worker,
            won: false,
            timed: !done.usage.running.is_zero(),
            outputs: done.outputs.clone(),
            printed: printed(done.log.as_deref()),
            checkpoint: Vec::new(),
        };
        let Ok(checkpoint) = self.task_done(done, stopped) else {
            return Change::Succeeded(success);
        };
        self.learn_success(record);
        Change::Succeeded(Success {
            won: true,
            checkpoint,
            ..success
        })
    }

    fn task_done(&mut self, done: Done, stopped: &[Stopped]) -> Result<Vec<Hash>, Stale> {
        if self.revoked.contains_key(&done.worker) {
            return Err("its worker was revoked");
        }
        self.known_job(done.attempt.task.job)?
            .succeed(done, stopped)
    }

    /// Returns the blobs of a checkpoint that is dropped because of it.
    fn attempt_ended(&mut self, ended: EndedAttempt) -> Result<Vec<Hash>, Stale> {
        let id = ended.attempt.task.job;
        let job = self.known_job(id)?;
        let ended = job.end_attempt(ended)?;
        let dropped = job.distrust_checkpoint(&ended);
        self.retire_late(id, &ended);
        Ok(dropped)
    }

    fn known_job(&mut self, id: JobId) -> Result<&mut Job, Stale> {
        self.job_mut(id).ok_or("no such job")
    }

    /// Applies a record about one task or one whole job.
    fn apply_to_job(&mut self, record: &Record) -> Result<Change, Stale> {
        match record {
            Record::OutputsLost {
                task,
                generation,
                at,
            } => {
                let left = self.known_job(task.job)?.lose_outputs(*task, *generation)?;
                self.now = self.now.max(*at);
                Ok(Change::OutputsLost { task: *task, left })
            }
            Record::TaskFailed {
                task,
                generation,
                stopped,
                at,
            } => {
                let job = self.known_job(task.job)?;
                job.fail(*task, *generation, stopped)?;
                self.now = self.now.max(*at);
                Ok(Change::TaskFailed(*task))
            }
            Record::Checkpointed {
                checkpoint,
                worker,
                made,
                at,
            } => {
                if self.revoked.contains_key(worker) {
                    return Err("its worker was revoked");
                }
                let task = checkpoint.id.attempt.task;
                let dropped = self
                    .known_job(task.job)?
                    .note_checkpoint(RecordedCheckpoint {
                        checkpoint: checkpoint.clone(),
                        worker: *worker,
                        made: *made,
                    })?;
                self.now = self.now.max(*at);
                Ok(Change::Checkpointed { task, dropped })
            }
            Record::JobEnded {
                job,
                end,
                stopped,
                at,
            } => Ok(match self.job_ended(*job, end, stopped, *at) {
                Ok((spec, checkpoints)) => Change::JobEnded {
                    job: *job,
                    spec,
                    checkpoints,
                },
                Err(_) => Change::JobNotEnded(*job),
            }),
            Record::JobRetried { job, at } => {
                self.retry(*job, *at)?;
                Ok(Change::JobRetried(*job))
            }
            Record::JobForgotten { job, at } => Ok(Change::JobForgotten {
                job: *job,
                known: self.forget(*job, *at),
            }),
            _ => Err("not a record of a job"),
        }
    }
}
