//! The role of a supervisor that does not lead: it remembers the leader's assignment hints and replicates the blobs
//! that the leader names.

use crate::supervisor::durable::change::Change;
use crate::supervisor::durable::state::State;
use crate::supervisor::{Action, Event, FetchFailure, ProposalId, answer, not_leading};
use hedge_model::group::{Hint, ToLeader};
use hedge_model::msg::Reply;
use hedge_model::{AttemptId, Epoch, Hash, JobId, PeerId, Source, TaskId};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

/// The maximum number of hints. Further hints are dropped, so that a new leader may start their tasks again.
const HINTS_MAX: usize = 4_000_000;

/// The state of a supervisor that does not lead.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    /// The highest epoch that this core has heard a leader claim, and that leader.
    pub led_by: Epoch,
    pub leader: Option<PeerId>,
    pub hints: Hints,
    /// Blobs that this supervisor is fetching for a leader.
    fetching: BTreeSet<Hash>,
    /// The epoch that this core has proposed, if it is about to lead.
    pub candidacy: Option<Candidacy>,
}

/// A proposed epoch. Once it is committed, this core leads.
#[derive(Debug)]
pub(crate) struct Candidacy {
    pub proposal: ProposalId,
    /// The blobs in this supervisor's store.
    pub holds: Vec<Hash>,
    /// The secret that the supervisors share, if the grid has none yet.
    pub secret: [u8; 32],
}

impl Follower {
    /// Handles an event that concerns only a leader: refuses requests, and reports the end of a fetch that a leader
    /// asked for.
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

    /// Fetches a blob that a leader wants replicated here.
    pub fn fetch(&mut self, hash: Hash, size: u64, sources: Vec<Source>, out: &mut Vec<Action>) {
        self.fetching.insert(hash);
        out.push(Action::Fetch {
            hash,
            size,
            sources,
        });
    }

    /// Tells the leader that a fetch has ended. The present leader hears of every blob that this supervisor holds,
    /// even if an earlier leader asked for it.
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

/// The leader's hints about active assignments. They are not durable.
#[derive(Debug, Default)]
pub(crate) struct Hints(BTreeMap<AttemptId, Hint>);

impl Hints {
    /// Stores the leader's hints, and drops those of attempts that are over.
    pub fn add(&mut self, hints: Vec<Hint>, state: &State) {
        for hint in hints {
            if hint.over || state.is_over(hint.attempt) {
                self.0.remove(&hint.attempt);
            } else if self.0.len() < HINTS_MAX {
                self.supersede(&hint);
                self.0.insert(hint.attempt, hint);
            }
        }
    }

    /// Drops hints about earlier attempts of a task at the same worker: the leader assigns a task to a worker again
    /// only if it knows that the worker has no earlier attempt of it.
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

    /// Drops the hints that a change made obsolete.
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

    /// Drops the hints that a restored state made obsolete.
    pub fn forget_over(&mut self, state: &State) {
        self.0.retain(|attempt, _| !state.is_over(*attempt));
    }

    /// The hints about tasks of one job.
    pub fn of_job(&self, job: JobId) -> impl Iterator<Item = &Hint> {
        self.0.range(attempts_of(job.tasks())).map(|(_, hint)| hint)
    }
}

impl State {
    /// Returns whether an attempt can no longer decide its task, as far as the journal says. Hints arrive before
    /// records, so an attempt of an unknown job, or of groups that an open job does not have yet, is not over.
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
