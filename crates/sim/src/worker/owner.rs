//! What a virtual worker does about its owner, and what owners do.

use super::Input;
use crate::grid::{Grid, Violation};
use hedge_model::owner::{Activity, Signal};
use std::time::Duration;

impl Grid {
    /// Stops what runs where it is, or lets it go on.
    pub(super) fn pause(&mut self, ix: usize, on: bool) -> Result<(), Violation> {
        let now = self.now;
        if self.workers[ix].paused == on {
            return self.violated(format!("worker {ix} is told twice to pause or go on"));
        }
        let worker = &mut self.workers[ix];
        worker.paused = on;
        let mut again = Vec::new();
        for (id, busy) in &mut worker.busy {
            if !busy.running || busy.ending {
                continue;
            }
            worker.token += 1;
            busy.token = worker.token;
            if on {
                (busy.left, busy.paused_at) = (Some(busy.due.since(now)), now);
            } else if let Some(left) = busy.left.take() {
                busy.paused += now.since(busy.paused_at);
                busy.due = now + left;
                again.push((*id, busy.token, left));
            }
        }
        for (id, token, left) in again {
            self.in_worker_life(ix, left, Input::Ended(id, token));
        }
        Ok(())
    }

    /// Sees to it that the worker hears of its next deadline.
    pub(super) fn set_tick(&mut self, ix: usize) {
        let worker = &mut self.workers[ix];
        let Some(at) = worker.core.next_deadline() else {
            return;
        };
        if worker.tick_at.is_none_or(|set| at < set || set < self.now) {
            worker.tick_at = Some(at);
            self.in_worker_life(ix, at.since(self.now), Input::Tick);
        }
    }

    /// Somebody uses a worker's machine for a while, or begins or ends something that lasts.
    pub(crate) fn owner_acts(&mut self, ix: usize) {
        if self.workers[ix].kind.owner.is_none() || !self.workers[ix].up {
            return;
        }
        let signal = match self.dice.below(5) {
            0 | 1 => return self.owner_works(ix, !self.workers[ix].owner_busy),
            2 => Signal::Locked(true),
            _ => Signal::Seen(Activity::Keyboard),
        };
        self.in_worker_life(ix, Duration::ZERO, Input::Owner(signal));
    }

    /// The owner's programs begin or cease to work.
    pub(crate) fn owner_works(&mut self, ix: usize, on: bool) {
        if std::mem::replace(&mut self.workers[ix].owner_busy, on) != on {
            let signal = Signal::Lasting(Activity::Processes, on);
            self.in_worker_life(ix, Duration::ZERO, Input::Owner(signal));
        }
    }
}
