//! The leader's timers: one table with at most one time for each timer.

use crate::supervisor::leader::WorkerIx;
use hedge_model::{Hash, JobId, PeerId, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The timers that are set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeSet<(Time, Timer)>,
    set: BTreeMap<Timer, Time>,
}

impl Timers {
    /// Sets a timer to this time, whatever it was set to.
    pub fn set(&mut self, at: Time, timer: Timer) {
        if let Some(old) = self.set.insert(timer, at) {
            self.due.remove(&(old, timer));
        }
        self.due.insert((at, timer));
    }

    /// Sets a timer unless it is set.
    pub fn set_once(&mut self, at: Time, timer: Timer) {
        if !self.set.contains_key(&timer) {
            self.set(at, timer);
        }
    }

    /// Sets a timer unless it is set to this time or an earlier one.
    pub fn set_no_later(&mut self, at: Time, timer: Timer) {
        if self.at(timer).is_none_or(|set| set > at) {
            self.set(at, timer);
        }
    }

    pub fn clear(&mut self, timer: Timer) {
        if let Some(old) = self.set.remove(&timer) {
            self.due.remove(&(old, timer));
        }
    }

    /// The time to which a timer is set.
    pub fn at(&self, timer: Timer) -> Option<Time> {
        self.set.get(&timer).copied()
    }

    /// The timer that is due next, and when.
    pub fn next(&self) -> Option<(Time, Timer)> {
        self.due.first().copied()
    }

    /// Clears and returns the next timer if it is due.
    pub fn take_due(&mut self, now: Time) -> Option<Timer> {
        let (_, timer) = self.next().filter(|(at, _)| *at <= now)?;
        self.clear(timer);
        Some(timer)
    }
}

/// What a timer is for; its key in [`Timers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Count the blobs of a worker that has been gone too long as lost.
    ContentLost(WorkerIx),
    /// End the exclusion of a worker.
    Readmit(WorkerIx),
    /// Tell clients that a worker did not answer a reading in time.
    Readings,
    /// Notify the watchers of a job.
    NotifyWatchers(JobId),
    /// Answer clients that wait for ends of a job's tasks.
    Ends(JobId),
    /// Retry a task that failed.
    Retry(TaskId),
    /// Recompute the critical set and the ranks of a job that was extended.
    Recompute(JobId),
    /// Check for the client of an open job.
    Client(JobId),
    /// Record the end of an attempt without waiting further for its last checkpoint.
    Checkpoint(TaskId),
    /// Recall queued attempts for idle workers.
    Rebalance,
    /// Retry a failed transfer.
    Fetch(Hash),
    /// Request a proof of possession from a client again.
    Prove(PeerId),
    /// End the exclusion of a worker from a group.
    ReadmitToGroup(JobId, u32, WorkerIx),
    /// Lift the recovery barrier, and count blobs as lost whose holders have not connected.
    RecoveryOver,
    /// Mark the attempts of a worker that an earlier leader used and that has not connected as lost.
    Expected(WorkerIx),
    /// Mark a worker that has not reconnected as lost.
    Returns(WorkerIx),
    /// Offer a blob to peer supervisors again.
    Replicate(Hash),
    /// Remove ended jobs that exceed the retention limits.
    Retention,
    /// Evaluate the redundancy policies.
    Evaluate,
    /// Check deferred tasks again. Nothing else is to be done: each event places what can be placed.
    Deferred,
    /// Ask a worker for benchmark tasks, if they are due.
    Benchmark(WorkerIx),
    /// Probe a worker's link again, or evaluate a probe without the worker's result.
    Link(WorkerIx),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_has_one_time() {
        let mut timers = Timers::default();
        timers.set(Time(5), Timer::Evaluate);
        timers.set_once(Time(3), Timer::Evaluate);
        timers.set_no_later(Time(7), Timer::Evaluate);
        assert_eq!(timers.next(), Some((Time(5), Timer::Evaluate)));
        timers.set_no_later(Time(4), Timer::Evaluate);
        timers.set(Time(4), Timer::Deferred);
        assert_eq!(timers.at(Timer::Evaluate), Some(Time(4)));
        assert_eq!(timers.take_due(Time(3)), None);
        timers.set(Time(9), Timer::Deferred);
        assert_eq!(timers.take_due(Time(4)), Some(Timer::Evaluate));
        assert_eq!(timers.take_due(Time(8)), None);
        timers.clear(Timer::Deferred);
        assert_eq!((timers.next(), timers.at(Timer::Evaluate)), (None, None));
    }
}
