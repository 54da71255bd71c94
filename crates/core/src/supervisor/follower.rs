//! What a supervisor knows and does while it does not lead: it remembers the leader's assignment hints and
//! replicates the blobs that the leader names.

use crate::supervisor::durable::change::Change;
use crate::supervisor::durable::state::State;
use crate::supervisor::{Action, Event, FetchFailure, ProposalId, answer, not_leading};
use hedge_model::group::{Hint, ToLeader};
use hedge_model::msg::Reply;
use hedge_model::{AttemptId, Epoch, Hash, JobId, PeerId, Source, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// Hints remembered; beyond, those of the newest assignments are not, and their tasks may start again.
const HINTS_MAX: usize = 4_000_000;

/// The state of a supervisor that does not lead.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The highest epoch of a leader that this core has heard of, and whose it is.
    pub led_by: Epoch,
    pub leader: Option<PeerId>,
    pub hints: Hints,
    /// Blobs that are on their way into the own store for a leader.
    fetching: BTreeSet<Hash>,
    /// The epoch that this core proposed in order to lead.
    pub candidacy: Option<Candidacy>,
}

/// A proposed epoch, with whose commit this core leads.
#[derive(Debug)]
pub(crate) struct Candidacy {
    pub proposal: ProposalId,
    /// The blobs in the own store.
    pub holds: Vec<Hash>,
    /// The secret that supervisors share, where the grid has none yet.
    pub secret: [u8; 32],
}

impl Follower {
    /// Takes an event that only concerns a leader, apart from blobs that a leader wanted replicated here.
    pub fn on_event(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Submit {
                requester,
                request_id,
                ..
            }
            | Event::Request {
                requester,
                request_id,
                ..
            } => {
                answer(requester.peer(), request_id, Reply::No(not_leading()), out);
            }
            Event::Fetched { hash, result } => self.on_fetched(hash, result, out),
            _ => {}
        }
    }

    /// Fetches a blob, because a leader wants it replicated here.
    pub fn fetch(&mut self, hash: Hash, size: u64, sources: Vec<Source>, out: &mut Vec<Action>) {
        self.fetching.insert(hash);
        out.push(Action::Fetch {
            hash,
            size,
            sources,
        });
    }

    /// A pull has ended. Its leader, or the one that has taken over since, is told of every blob that this
    /// supervisor holds.
    fn on_fetched(
        &mut self,
        hash: Hash,
        result: Result<Option<PeerId>, FetchFailure>,
        out: &mut Vec<Action>,
    ) {
        let asked = self.fetching.remove(&hash);
        let Some(to) = self.leader else { return };
        let msg = match result {
            Ok(_) => ToLeader::Held(hash),
            Err(FetchFailure::Here(why) | FetchFailure::Sources(why)) if asked => {
                ToLeader::NotHeld(hash, why)
            }
            Err(_) => return,
        };
        out.push(Action::ToLeader { to, msg });
    }
}

/// Assignments that are active, as the leader told of them; they are not durable.
#[derive(Debug, Default)]
pub(crate) struct Hints(BTreeMap<AttemptId, Hint>);

impl Hints {
    /// Takes over what the leader tells of its assignments.
    pub fn take(&mut self, hints: Vec<Hint>, state: &State) {
        for hint in hints {
            if hint.over || state.is_over(hint.attempt) {
                self.0.remove(&hint.attempt);
            } else if self.0.len() < HINTS_MAX {
                self.supersede(&hint);
                self.0.insert(hint.attempt, hint);
            }
        }
    }

    /// A worker is given a task again only by a leader that knows it to have no earlier attempt of it.
    fn supersede(&mut self, hint: &Hint) {
        let task = hint.attempt.task;
        let known = self.0.range(attempts_of(task..=task));
        let earlier =
            |(id, other): &(&AttemptId, &Hint)| other.worker == hint.worker && **id != hint.attempt;
        let before: Vec<AttemptId> = known.filter(earlier).map(|(id, _)| *id).collect();
        for id in before {
            self.0.remove(&id);
        }
    }

    /// Drops hints that a change made pointless.
    pub fn forget(&mut self, change: &Change) {
        if self.0.is_empty() {
            return;
        }
        let range = match change {
            Change::Succeeded(it) => attempts_of(it.attempt.task..=it.attempt.task),
            Change::Ended { attempt, .. } => *attempt..=*attempt,
            Change::JobEnded { job, .. } => attempts_of(job.tasks()),
            _ => return,
        };
        let over: Vec<AttemptId> = self.0.range(range).map(|(id, _)| *id).collect();
        for id in over {
            self.0.remove(&id);
        }
    }

    /// Drops hints that are pointless in a state that was restored.
    pub fn forget_over(&mut self, state: &State) {
        self.0.retain(|attempt, _| !state.is_over(*attempt));
    }

    /// The hints on tasks of one job.
    pub fn of_job(&self, job: JobId) -> impl Iterator<Item = &Hint> {
        self.0.range(attempts_of(job.tasks())).map(|(_, hint)| hint)
    }
}

impl State {
    /// Whether the journal says that an attempt cannot decide its task any more. Hints come faster than
    /// records: an attempt of a job that is not known yet, or of groups that an open job does not have yet, is not over.
    pub(crate) fn is_over(&self, attempt: AttemptId) -> bool {
        let TaskId { job, number } = attempt.task;
        let Some(job) = self.jobs.get(&job) else {
            return job.0 <= self.last_job;
        };
        let settled = match job.tasks.get(number as usize) {
            Some(task) => {
                let now = task.generation == attempt.generation;
                task.generation > attempt.generation || (now && !task.is_open())
            }
            None => !job.is_open(),
        };
        settled || !job.active() || job.history.contains_key(&attempt)
    }
}

fn attempts_of(tasks: RangeInclusive<TaskId>) -> RangeInclusive<AttemptId> {
    let attempt = |task, generation, epoch, number| AttemptId {
        task,
        generation,
        epoch: Epoch(epoch),
        number,
    };
    attempt(*tasks.start(), 0, 0, 0)..=attempt(*tasks.end(), u32::MAX, u64::MAX, u32::MAX)
}
