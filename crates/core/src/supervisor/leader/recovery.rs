//! The recovery barrier. A leader that received no hints from its predecessor, as after the restart of a single
//! supervisor, learns from the workers what they run. It starts no task that may run somewhere until all known
//! workers have reported or had time to.

use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::msg::Role;
use hedge_model::{Epoch, JobId, PeerId, Time};
use std::collections::BTreeSet;

/// When this leader began, and the workers that it waits for.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    since: Time,
    /// Workers that may have attempts of older jobs in hand and have not reported yet.
    barrier: BTreeSet<PeerId>,
}

impl Recovery {
    /// Creates the state of a leader that begins at `since` and waits for no worker.
    pub fn new(since: Time) -> Self {
        let barrier = BTreeSet::new();
        Self { since, barrier }
    }

    /// When this leader began.
    pub fn since(&self) -> Time {
        self.since
    }
}

impl Leadership<'_> {
    /// Raises the recovery barrier for all workers in the durable state, unless this leader has its predecessor's
    /// hints.
    pub(crate) fn await_workers(&mut self, led_by: Epoch) {
        let epoch = self.state.epoch();
        if epoch == Epoch(1) || led_by.0 + 1 >= epoch.0 {
            return;
        }
        let members = self.state.members.iter();
        let workers = members.filter(|(_, member)| member.role == Role::Worker);
        let workers = workers.map(|(peer, _)| *peer).collect();
        self.leader.recovery.barrier = workers;
    }

    /// Records that a worker has reported what it has in hand, or never will.
    pub(crate) fn note_reported(&mut self, worker: PeerId) {
        let barrier = &mut self.leader.recovery.barrier;
        if barrier.remove(&worker) && barrier.is_empty() {
            self.offer_all();
        }
    }

    /// Lifts the barrier for workers that have not connected in time.
    pub(crate) fn lift_recovery_barrier(&mut self) {
        if !std::mem::take(&mut self.leader.recovery.barrier).is_empty() {
            self.offer_all();
        }
    }

    fn offer_all(&mut self) {
        let jobs: Vec<JobId> = self.leader.jobs.iter().map(|(id, _)| id).collect();
        jobs.into_iter()
            .for_each(|job| self.refresh_all_offers(job));
    }
}

impl LeaderView<'_> {
    /// Returns whether a job's tasks may run on workers that have not reported yet.
    pub(crate) fn behind_recovery_barrier(&self, id: JobId) -> bool {
        let job = self.state.jobs.get(&id);
        let recovery = &self.leader.recovery;
        !recovery.barrier.is_empty() && job.is_some_and(|job| job.accepted <= recovery.since)
    }
}
