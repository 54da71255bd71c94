//! Tracks how workers respond to the activity of their machines' owners.

use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::Time;
use hedge_model::owner::{OwnerResponse, OwnerState};

/// A worker's response to its owner's activity.
#[derive(Debug, Default)]
pub(crate) struct OwnerStanding {
    /// The response and when it was reported; none while the worker runs without restriction.
    response: Option<(OwnerState, Time)>,
    /// The number of the last change that was received.
    change: u32,
}

impl OwnerStanding {
    /// The response and when it was reported; none while the worker runs without restriction.
    pub fn response(&self) -> Option<&(OwnerState, Time)> {
        self.response.as_ref()
    }

    /// Returns whether the worker vacates: it gives up its attempts for its owner.
    pub fn vacates(&self) -> bool {
        let response = self.response().map(|(owner, _)| owner.response);
        response == Some(OwnerResponse::Vacate)
    }

    /// Returns whether its attempts do not run now because of its owner.
    pub fn stops(&self) -> bool {
        let stops = |owner: &OwnerState| {
            matches!(owner.response, OwnerResponse::Pause | OwnerResponse::Vacate)
        };
        self.response().is_some_and(|(owner, _)| stops(owner))
    }

    /// Stores a response. Returns false if it is not newer than the stored one.
    fn update(&mut self, state: OwnerState, now: Time) -> bool {
        if state.change <= self.change && state.change > 0 {
            return false;
        }
        self.change = state.change;
        self.response = (state.response != OwnerResponse::Work).then_some((state, now));
        true
    }
}

impl Leadership<'_> {
    /// Handles a worker's response to its owner, which comes in a message or a heartbeat, whichever is first. While
    /// the owner keeps attempts from running, each of their tasks wants one more attempt elsewhere, and no longer
    /// once the owner has left. The first to succeed wins.
    pub(crate) fn on_owner(&mut self, ix: WorkerIx, state: OwnerState) {
        let now = self.now;
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        if !worker.owner_mut().update(state, now) {
            return;
        }
        let in_hand = worker.load().in_hand().clone();
        leader.pool_changed(ix);
        for id in in_hand {
            self.update_task_offers(id.task);
            self.notify_watchers_soon(id.task.job);
        }
    }
}
