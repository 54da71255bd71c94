//! What the leader waits for: one table with at most one time for each timer.

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
    pub fn set_by(&mut self, at: Time, timer: Timer) {
        if self.at(timer).is_none_or(|set| set > at) {
            self.set(at, timer);
        }
    }

    pub fn clear(&mut self, timer: Timer) {
        if let Some(old) = self.set.remove(&timer) {
            self.due.remove(&(old, timer));
        }
    }

    /// What a timer is set to.
    pub fn at(&self, timer: Timer) -> Option<Time> {
        self.set.get(&timer).copied()
    }

    /// The timer that is due next, and when.
    pub fn next(&self) -> Option<(Time, Timer)> {
        self.due.first().copied()
    }

    /// Takes out the next timer if it is due by now.
    pub fn take_due(&mut self, now: Time) -> Option<Timer> {
        let (_, timer) = self.next().filter(|(at, _)| *at <= now)?;
        self.clear(timer);
        Some(timer)
    }
}

/// What a timer is for; its key in [`Timers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A worker has been gone for so long that its content counts as lost.
    ContentLost(WorkerIx),
    /// A worker that was excluded gets another chance.
    Readmit(WorkerIx),
    /// A worker that was asked what an attempt has printed is late.
    Readings,
    /// Watchers of a job are due for news.
    NotifyWatchers(JobId),
    /// A task that failed is tried again.
    Retry(TaskId),
    /// The critical set and the order of a job that grew are found again.
    Recompute(JobId),
    /// The client of an open job is looked for.
    Client(JobId),
    /// The end of an attempt waits for its last checkpoint.
    Checkpoint(TaskId),
    /// Queued attempts may be moved to idle workers.
    Rebalance,
    /// Try a failed pull again.
    Fetch(Hash),
    /// Ask a client again to prove that it holds its inputs.
    Prove(PeerId),
    /// A worker may be given a group again that it was not given for a while.
    Unbar(JobId, u32, WorkerIx),
    /// Workers that held content when this leader began have had their time to come.
    RecoveryOver,
    /// A worker that an earlier leader gave something has had its time to come.
    Expected(WorkerIx),
    /// A worker whose connection was lost has had its time to come back.
    Returns(WorkerIx),
    /// Offer content to peer supervisors again.
    Replicate(Hash),
    /// Look for ended jobs that are not to be kept any longer.
    Retention,
    /// The redundancy policies are asked again.
    Evaluate,
    /// Tasks that wait for faster workers are looked at again.
    Deferred,
    /// A worker may be asked for benchmark tasks.
    Benchmark(WorkerIx),
    /// A worker's link is to be measured again, or its word on a measurement is late.
    Link(WorkerIx),
}

impl Timer {
    /// What is waited for, for logs and for people who ask.
    pub fn why(self) -> &'static str {
        match self {
            Timer::ContentLost(_) => "content of a lost worker",
            Timer::Readmit(_) => "a worker that is excluded",
            Timer::Readings => "what an attempt has printed",
            Timer::NotifyWatchers(_) => "news for a watching client",
            Timer::Retry(_) => "a task to be tried again",
            Timer::Recompute(_) => "the critical tasks of a job that grew",
            Timer::Client(_) => "the client of an open job",
            Timer::Checkpoint(_) => "the last checkpoint of an attempt",
            Timer::Rebalance => "queued attempts",
            Timer::Fetch(_) => "a transfer to repeat",
            Timer::Prove(_) => "a proof of possession to repeat",
            Timer::Unbar(..) => "a worker that could not run a group's tasks",
            Timer::RecoveryOver => "holders of content that have not come yet",
            Timer::Expected(_) => "a worker that the last leader gave something",
            Timer::Returns(_) => "a worker whose connection was lost",
            Timer::Replicate(_) => "content that other supervisors are to hold",
            Timer::Retention => "ended jobs that are kept long enough",
            Timer::Deferred => "faster workers that tasks wait for",
            Timer::Evaluate => "copies that may pay",
            Timer::Benchmark(_) => "benchmark tasks",
            Timer::Link(_) => "a link to be measured",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_timer_has_one_time() {
        let mut timers = Timers::default();
        timers.set(Time(5), Timer::Evaluate);
        timers.set_once(Time(3), Timer::Evaluate);
        timers.set_by(Time(7), Timer::Evaluate);
        assert_eq!(timers.next(), Some((Time(5), Timer::Evaluate)));
        timers.set_by(Time(4), Timer::Evaluate);
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
