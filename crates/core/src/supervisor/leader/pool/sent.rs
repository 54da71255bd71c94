//! What a worker was sent of the groups whose tasks it was given.

use hedge_model::JobId;
use std::collections::{BTreeMap, BTreeSet};

/// The bodies that a worker has on this connection.
#[derive(Debug, Default)]
pub(crate) struct SentBodies {
    /// The version of each.
    versions: BTreeMap<(JobId, u32), u32>,
    /// Those whose inputs it holds.
    staged: BTreeSet<(JobId, u32, u32)>,
}

impl SentBodies {
    /// It is to have this version of a group's body; says whether that has to be sent.
    pub fn send(&mut self, job: JobId, group: u32, version: u32) -> bool {
        self.versions.insert((job, group), version) != Some(version)
    }

    /// It started a task of this version of a group's body; says whether it did that for the first time.
    pub fn stage(&mut self, job: JobId, group: u32, version: u32) -> bool {
        self.staged.insert((job, group, version))
    }

    /// It forgets a job.
    pub fn forget(&mut self, id: JobId) {
        self.versions.retain(|(job, _), _| *job != id);
        self.staged.retain(|(job, ..)| *job != id);
    }
}
