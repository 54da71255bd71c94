//! Workers whose owners came back, or went again.

use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::Time;
use hedge_model::owner::{OwnerResponse, OwnerState};

/// How a worker stands to its owner.
#[derive(Debug, Default)]
pub(crate) struct OwnerStanding {
    /// What it does for the owner, and when it said so; none while it works as if nobody were there.
    response: Option<(OwnerState, Time)>,
    /// The last change of that which was heard of.
    change: u32,
}

impl OwnerStanding {
    /// What it does for its owner, and when it said so; none while it works as if nobody were there.
    pub fn response(&self) -> Option<&(OwnerState, Time)> {
        self.response.as_ref()
    }

    /// Whether it gives up what it runs for its owner.
    pub fn vacates(&self) -> bool {
        let response = self.response().map(|(owner, _)| owner.response);
        response == Some(OwnerResponse::Vacate)
    }

    /// Whether its owner keeps what it runs from running.
    pub fn stops(&self) -> bool {
        let stops = |owner: &OwnerState| {
            matches!(owner.response, OwnerResponse::Pause | OwnerResponse::Vacate)
        };
        self.response().is_some_and(|(owner, _)| stops(owner))
    }

    /// It says how it stands; says whether that was not heard before.
    fn hear(&mut self, state: OwnerState, now: Time) -> bool {
        if state.change <= self.change && state.change > 0 {
            return false;
        }
        self.change = state.change;
        self.response = (state.response != OwnerResponse::Work).then_some((state, now));
        true
    }
}

impl Leadership<'_> {
    /// A worker says how it stands to its owner, by message or in a heartbeat, whichever comes first. What it runs is wanted
    /// once more elsewhere while its owner keeps it from running, and no more when the owner has gone again: the first
    /// to finish wins.
    pub(crate) fn on_owner(&mut self, ix: WorkerIx, state: OwnerState) {
        let now = self.now;
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        if !worker.owner_mut().hear(state, now) {
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
