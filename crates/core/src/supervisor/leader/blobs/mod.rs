//! Blobs: who holds each, what is fetched and replicated, and what is dropped.

pub(crate) mod possession;
pub(crate) mod replication;
pub(crate) mod retention;
pub(crate) mod submissions;
pub(crate) mod transfers;

use crate::supervisor::leader::WorkerIx;
use hedge_model::{JobId, TaskId};
use smallvec::SmallVec;

/// Where some content is.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub size: u64,
    pub own: bool,
    /// A worker could not fetch it; whether its holders give it is being tried.
    pub suspected: bool,
    pub workers: SmallVec<[WorkerIx; 2]>,
    /// Tasks whose output it is.
    pub producers: SmallVec<[TaskId; 1]>,
    /// Jobs whose input it is.
    pub jobs: SmallVec<[JobId; 1]>,
    /// Submissions on their way whose input it is.
    pub claims: u32,
    /// Jobs whose result it is once they have ended, or that printed it; one for each time.
    pub kept: SmallVec<[JobId; 1]>,
    /// Which peer supervisors hold it, one bit for the position of each.
    pub kept_at: u8,
    /// Which peer supervisors were asked to hold it and have not answered.
    pub offered_to: u8,
    /// Which peer supervisors could not take it.
    pub refused_by: u8,
}

/// Content on its way into this supervisor's own store.
#[derive(Debug)]
pub(crate) struct Pull {
    pub failures: u8,
    /// Why this supervisor could not store it when it tried last.
    pub fault: Option<String>,
    /// Asked for and not answered, or waiting to be asked for again.
    pub under_way: bool,
}

impl Content {
    /// Whether a job that has not ended, or is about to begin, may need it, or it is to be kept and is not
    /// here yet.
    pub fn in_use(&self) -> bool {
        let wanted = !self.kept.is_empty() && !self.own;
        wanted || !self.producers.is_empty() || !self.jobs.is_empty() || self.claims > 0
    }

    /// Whether more than one supervisor is to hold it, as far as this one has it: all that this one fetches,
    /// it fetches to keep.
    pub fn to_be_kept(&self) -> bool {
        !self.kept.is_empty() || self.in_use()
    }
}
