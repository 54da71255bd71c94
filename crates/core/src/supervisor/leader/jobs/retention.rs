//! Removes ended jobs by age and by size.

use crate::supervisor::leader::Leadership;
use hedge_model::JobId;
use hedge_model::record::Record;
use std::collections::BTreeSet;
use std::time::Duration;

/// Interval between checks of the age of ended jobs.
pub(crate) const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// Removals in the journal at once. Further ones follow when these are committed.
const REMOVALS_MAX: usize = 1000;
/// Minimum age of an ended job before it is removed for its size: its client needs time to fetch the results.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// Ended jobs whose removal is proposed but not committed.
#[derive(Debug, Default)]
pub(crate) struct Removals(BTreeSet<JobId>);

impl Removals {
    fn is_full(&self) -> bool {
        self.0.len() >= REMOVALS_MAX
    }

    /// Records a proposed removal. Returns false if it was recorded before.
    fn begin(&mut self, job: JobId) -> bool {
        self.0.insert(job)
    }

    /// Records that a removal is committed.
    pub fn end(&mut self, job: JobId) {
        self.0.remove(&job);
    }
}

impl Leadership<'_> {
    /// Removes the oldest ended jobs that exceed the retention limits for age or size. The job that ended last is
    /// never removed for its size.
    pub(crate) fn remove_old_jobs(&mut self) {
        let settings = self.state.settings();
        let ended = &self.state.ended;
        let leader = &mut *self.leader;
        let mut left = ended.total;
        let mut old = Vec::new();
        for (count, ((at, id), size)) in ended.order.iter().enumerate() {
            let age = self.now.since(*at);
            let last = count + 1 == ended.order.len();
            let large =
                left.memory > settings.keep_jobs_memory || left.disk > settings.keep_jobs_bytes;
            let by_size = large && age >= FETCH_TIME && !last;
            let by_age = age >= settings.keep_jobs_for;
            if !(by_age || by_size) || leader.removals.is_full() {
                break;
            }
            left = left.minus(*size);
            if leader.removals.begin(*id) {
                old.push(*id);
            }
        }
        for job in old {
            self.append(Record::JobForgotten { job, at: self.now }, None);
        }
    }
}
