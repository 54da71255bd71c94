//! Which ended jobs are removed, by age and by size.

use crate::supervisor::leader::Leadership;
use hedge_model::JobId;
use hedge_model::record::Record;
use std::collections::BTreeSet;
use std::time::Duration;

/// How often ended jobs are checked for their age.
pub(crate) const RETENTION_EVERY: Duration = Duration::from_secs(10);
/// Removals on their way through the journal at once; further ones follow when these are committed.
const REMOVALS_MAX: usize = 1000;
/// An ended job is not removed for its size sooner than this: its client needs the time to fetch the results.
const FETCH_TIME: Duration = Duration::from_secs(600);

/// Ended jobs whose removal is on its way through the journal.
#[derive(Debug, Default)]
pub(crate) struct Removals(BTreeSet<JobId>);

impl Removals {
    fn is_full(&self) -> bool {
        self.0.len() >= REMOVALS_MAX
    }

    /// A removal is proposed; says whether it was not before.
    fn begin(&mut self, job: JobId) -> bool {
        self.0.insert(job)
    }

    /// A removal is committed.
    pub fn end(&mut self, job: JobId) {
        self.0.remove(&job);
    }
}

impl Leadership<'_> {
    /// Removes ended jobs beyond what is kept, by age and by size, the oldest first. The job that ended last stays
    /// whatever its size.
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
