//! What attempts are charged when they are stopped.

use crate::supervisor::leader::attempts::active::Attempt;
use crate::supervisor::leader::{LeaderView, WorkerIx};
use hedge_model::ledger::{Charge, Stopped};
use hedge_model::{AttemptId, JobId, TaskId, Time};
use std::time::Duration;

impl Attempt {
    /// Returns the charge if it is stopped at `now`.
    pub fn charge_until(&self, now: Time) -> Charge {
        Charge {
            class: self.class(),
            occupied: if self.state().holds() {
                now.since(self.since())
            } else {
                Duration::ZERO
            },
            moved: 0,
        }
    }
}

impl LeaderView<'_> {
    /// Returns the attempts of a task that are stopped when it is decided, by `winner` or as failed.
    pub(crate) fn stopped_of_task(&self, task: TaskId, winner: Option<AttemptId>) -> Vec<Stopped> {
        let known = self.leader.tasks.get(&task).into_iter();
        known
            .flat_map(|known| known.attempts())
            .filter(|attempt| Some(attempt.id()) != winner)
            .filter_map(|attempt| self.stop_of(attempt))
            .collect()
    }

    /// Returns the attempts of a job that are stopped if it ends now.
    pub(crate) fn stopped_of_job(&self, job: JobId) -> Vec<Stopped> {
        self.tasks_of(job)
            .flat_map(|(_, known)| known.attempts())
            .filter_map(|attempt| self.stop_of(attempt))
            .collect()
    }

    /// Returns when a worker was last heard; now if its heartbeats are on time.
    pub(crate) fn last_heard(&self, ix: WorkerIx) -> Time {
        let worker = &self.leader.pool[ix];
        worker.state().last_heard().unwrap_or(self.now)
    }

    fn stop_of(&self, attempt: &Attempt) -> Option<Stopped> {
        let leader = self.leader;
        if attempt.state().reported() || !attempt.state().in_hand() {
            return None;
        }
        Some(Stopped {
            attempt: attempt.id(),
            redundant: attempt.redundant(),
            worker: leader.pool[attempt.worker()].peer(),
            charge: attempt
                .state()
                .stopped()
                .unwrap_or_else(|| attempt.charge_until(self.now)),
        })
    }
}
