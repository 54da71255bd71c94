//! The attempts of one worker by state, and its free resources. Both are derived from the states of the attempts.

use super::state::{AttemptState, Share};
use hedge_model::{AttemptId, Resources};
use std::collections::{BTreeSet, VecDeque};

/// Tracks the attempts of one worker by state, and its free resources. Only changes of attempt states update it.
#[derive(Debug)]
pub(crate) struct Load {
    free: Resources,
    in_hand: BTreeSet<AttemptId>,
    /// The attempts in hand whose tasks are critical.
    critical: BTreeSet<AttemptId>,
    /// Attempts that wait for resources, in the order in which they will get them.
    queued: VecDeque<AttemptId>,
    /// Attempts that were lost with the worker; it may still return with them.
    lost: BTreeSet<AttemptId>,
    /// Attempts that an earlier leader assigned and that the worker has not reported yet.
    expected: BTreeSet<AttemptId>,
}

impl Load {
    /// Creates the load of a worker that offers these resources and has no attempts.
    pub fn new(offered: Resources) -> Self {
        Self {
            free: offered,
            in_hand: BTreeSet::new(),
            critical: BTreeSet::new(),
            queued: VecDeque::new(),
            lost: BTreeSet::new(),
            expected: BTreeSet::new(),
        }
    }

    pub fn free(&self) -> &Resources {
        &self.free
    }

    pub fn in_hand(&self) -> &BTreeSet<AttemptId> {
        &self.in_hand
    }

    /// Returns whether it has an attempt of a critical task in hand.
    pub fn critical(&self) -> bool {
        !self.critical.is_empty()
    }

    pub fn queued(&self) -> &VecDeque<AttemptId> {
        &self.queued
    }

    pub fn lost(&self) -> &BTreeSet<AttemptId> {
        &self.lost
    }

    pub fn expected(&self) -> &BTreeSet<AttemptId> {
        &self.expected
    }

    /// Sets the resources of a worker that has nothing in hand.
    pub fn offer(&mut self, offered: Resources) {
        self.free = offered;
    }

    /// Applies a change of an attempt from state `old` to `new`; none means that it does not exist. `need` are the
    /// resources of its task, `critical` says whether the task is critical.
    pub(super) fn follow(
        &mut self,
        id: AttemptId,
        old: Option<AttemptState>,
        new: Option<AttemptState>,
        need: &Resources,
        critical: bool,
    ) {
        let share = |state: Option<AttemptState>| state.and_then(AttemptState::share);
        match (share(old), share(new)) {
            (before, after) if before == after => {}
            (before, after) => {
                match before {
                    Some(Share::Held) => self.free.give(need),
                    Some(Share::Queued) => self.leave_queue(id),
                    Some(Share::Freed) | None => {}
                }
                match after {
                    Some(Share::Held) => self.free.take(need),
                    Some(Share::Queued) => self.queued.push_back(id),
                    Some(Share::Freed) | None => {}
                }
            }
        }
        let set = |set: &mut BTreeSet<AttemptId>, present: bool| match present {
            true => set.insert(id),
            false => set.remove(&id),
        };
        let in_hand = new.is_some_and(AttemptState::in_hand);
        if in_hand != old.is_some_and(AttemptState::in_hand) {
            set(&mut self.in_hand, in_hand);
            set(&mut self.critical, in_hand && critical);
        }
        for (state, list) in [
            (AttemptState::Lost, &mut self.lost),
            (AttemptState::Expected, &mut self.expected),
        ] {
            if (old == Some(state)) != (new == Some(state)) {
                set(list, new == Some(state));
            }
        }
    }

    /// Records whether the task of an attempt in hand is critical. Returns whether that changed.
    pub(super) fn set_critical(&mut self, id: AttemptId, critical: bool) -> bool {
        match critical {
            true => self.critical.insert(id),
            false => self.critical.remove(&id),
        }
    }

    fn leave_queue(&mut self, id: AttemptId) {
        match self.queued.front() == Some(&id) {
            true => drop(self.queued.pop_front()),
            false => self.queued.retain(|queued| *queued != id),
        }
    }
}
