//! Tracks which bodies of groups a worker was sent.

use hedge_model::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// The bodies that a worker received on this connection.
#[derive(Debug, Default)]
pub(crate) struct SentBodies {
    /// The version of each.
    versions: BTreeMap<(JobId, u32), u32>,
    /// Those whose inputs it holds.
    staged: BTreeSet<(JobId, u32, u32)>,
}

impl SentBodies {
    /// Records that a worker needs this version of a group's body. Returns whether it has to be sent.
    pub fn send(&mut self, job: JobId, group: u32, version: u32) -> bool {
        self.versions.insert((job, group), version) != Some(version)
    }

    /// Records that a worker started a task of this version of a group's body. Returns whether it is the first.
    pub fn stage(&mut self, job: JobId, group: u32, version: u32) -> bool {
        self.staged.insert((job, group, version))
    }

    /// Removes the bodies of a job that the worker is told to forget.
    pub fn forget(&mut self, id: JobId) {
        self.versions.retain(|(job, _), _| *job != id);
        self.staged.retain(|(job, ..)| *job != id);
    }
}
