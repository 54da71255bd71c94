//! A leader that was told nothing by the one before it, as after a restart of a supervisor that is alone: what its
//! workers run it hears from themselves. What may run somewhere does not start again until they have had their time.

use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::msg::Role;
use hedge_model::{Epoch, JobId, PeerId, Time};
use std::collections::BTreeSet;

/// When this leader began, and which workers it waits for since.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    since: Time,
    /// Workers that may have something of older jobs in hand and have not said so yet.
    barrier: BTreeSet<PeerId>,
}

impl Recovery {
    /// Of a leader that begins at `since`, and waits for nobody.
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
    /// Begins to wait for the workers that the journal knows, if nobody told this leader what they were given.
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

    /// A worker has said what it has in hand, or never will.
    pub(crate) fn note_reported(&mut self, worker: PeerId) {
        let barrier = &mut self.leader.recovery.barrier;
        if barrier.remove(&worker) && barrier.is_empty() {
            self.offer_all();
        }
    }

    /// Workers that have not come by now had their time.
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
    /// Whether tasks of a job may run where this leader has not heard of it yet.
    pub(crate) fn behind_recovery_barrier(&self, id: JobId) -> bool {
        let job = self.state.jobs.get(&id);
        let recovery = &self.leader.recovery;
        !recovery.barrier.is_empty() && job.is_some_and(|job| job.accepted <= recovery.since)
    }
}
