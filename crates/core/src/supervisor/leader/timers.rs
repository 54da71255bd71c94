//! What the leader waits for.

use crate::supervisor::leader::WorkerIx;
use hedge_model::{Hash, JobId};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A worker has been gone for so long that its content counts as lost.
    ContentLost(WorkerIx),
    /// A worker that was excluded gets another chance.
    Readmit(WorkerIx),
    /// Watchers of a job are due for news.
    Tell(JobId),
    /// Queued attempts may be moved to idle workers.
    Rebalance,
    /// Try a failed pull again.
    Pull(Hash),
    /// A worker may be given a group again that it was not given for a while.
    Unbar(JobId, u32, WorkerIx),
    /// Workers that held content when this leader began have had their time to come.
    Settled,
    /// A worker that an earlier leader gave something has had its time to come.
    Expected(WorkerIx),
    /// A worker whose connection was lost has had its time to come back.
    Returns(WorkerIx),
    /// Offer content to colleagues again.
    Spread(Hash),
    /// Look for ended jobs that are not to be kept any longer.
    Retention,
    /// The redundancy policies are asked again.
    Look,
    /// Tasks that wait for faster workers are looked at again.
    Later,
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
            Timer::Tell(_) => "news for a watching client",
            Timer::Rebalance => "queued attempts",
            Timer::Pull(_) => "a transfer to repeat",
            Timer::Unbar(..) => "a worker that could not run a group's tasks",
            Timer::Settled => "holders of content that have not come yet",
            Timer::Expected(_) => "a worker that the last leader gave something",
            Timer::Returns(_) => "a worker whose connection was lost",
            Timer::Spread(_) => "content that other supervisors are to hold",
            Timer::Retention => "ended jobs that are kept long enough",
            Timer::Later => "faster workers that tasks wait for",
            Timer::Look => "copies that may pay",
            Timer::Benchmark(_) => "benchmark tasks",
            Timer::Link(_) => "a link to be measured",
        }
    }
}
