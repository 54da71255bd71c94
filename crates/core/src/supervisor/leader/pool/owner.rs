//! Workers whose owners came back, or went again.

use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::owner::{OwnerResponse, OwnerState};

impl Leadership<'_> {
    /// A worker says how it stands to its owner, by message or in a heartbeat, whichever comes first. What it runs is wanted
    /// once more elsewhere while its owner keeps it from running, and no more when the owner has gone again: the first
    /// to finish wins.
    pub(crate) fn on_owner(&mut self, ix: WorkerIx, state: OwnerState) {
        let now = self.now;
        let leader = &mut *self.leader;
        let worker = &mut leader.pool[ix];
        if state.change <= worker.owner_change && state.change > 0 {
            return;
        }
        worker.owner_change = state.change;
        worker.owner = (state.response != OwnerResponse::Work).then_some((state, now));
        let in_hand = worker.load.in_hand().clone();
        leader.pool_changed(ix);
        for id in in_hand {
            self.settle_wants(id.task);
            self.tell_soon(id.task.job);
        }
    }
}
