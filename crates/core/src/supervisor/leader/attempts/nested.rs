//! Attempts that submitted a job and wait for it. Such an attempt releases its resources. Otherwise attempts that
//! wait for jobs could fill all workers, and their jobs would never run.

use crate::supervisor::leader::attempts::state::AttemptEvent;
use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::{AttemptId, JobId};

impl Leadership<'_> {
    /// Handles an attempt that starts or stops waiting for a job. An attempt that stops waiting holds its resources
    /// again only if they are free.
    pub(crate) fn on_waits(&mut self, ix: WorkerIx, id: AttemptId, job: Option<JobId>) {
        let Some(of) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        // A task must not wait for its own job, which would never end.
        let active = |job: &JobId| self.state.jobs.get(job).is_some_and(|job| job.active());
        let job = job.filter(|job| *job != id.task.job && active(job));
        let leader = &mut *self.leader;
        let Some(attempt) = leader.tasks.attempt(id) else {
            return;
        };
        if attempt.worker() != ix || !attempt.state().runs() {
            return;
        }
        let need = attempt.need(&of.spec.groups()[of.spec.group_of(id.task.number)]);
        let room = leader.pool[ix].load().free().covers(&need);
        let event = match job {
            Some(job) => AttemptEvent::Waits(job),
            None => AttemptEvent::GoesOn { room },
        };
        self.transition(id, event);
        self.start_queued(ix);
        let leader = &mut *self.leader;
        leader.pool.reindex(ix);
        leader.retry_lanes(ix);
        self.update_task_offers(id.task);
        self.notify_watchers_soon(id.task.job);
    }
}
