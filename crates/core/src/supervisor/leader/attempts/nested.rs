//! Attempts that submitted a job and wait for it. The job needs room to run: without the part of a worker that such
//! an attempt gives back, tasks that wait for jobs could fill all workers and wait for ever.

use crate::supervisor::leader::attempts::state::AttemptEvent;
use crate::supervisor::leader::{Leadership, WorkerIx};
use hedge_model::{AttemptId, JobId};

impl Leadership<'_> {
    /// An attempt waits for a job, or gets on. It takes its part of the worker again only where that is free.
    pub(crate) fn on_waits(&mut self, ix: WorkerIx, id: AttemptId, job: Option<JobId>) {
        let Some(of) = self.state.jobs.get(&id.task.job) else {
            return;
        };
        let need = &of.spec.groups()[of.spec.group_of(id.task.number)].resources;
        // A task that waits for its own job waits for ever.
        let active = |job: &JobId| self.state.jobs.get(job).is_some_and(|job| job.active());
        let job = job.filter(|job| *job != id.task.job && active(job));
        let leader = &mut *self.leader;
        let Some(attempt) = leader.tasks.attempt(id) else {
            return;
        };
        if attempt.worker() != ix || !attempt.state().runs() {
            return;
        }
        let room = leader.pool[ix].load().free().covers(need);
        let event = match job {
            Some(job) => AttemptEvent::Waits(job),
            None => AttemptEvent::GoesOn { room },
        };
        self.transition(id, event);
        self.start_queued(ix);
        let leader = &mut *self.leader;
        leader.pool.reindex(ix);
        leader.unblock(ix);
        self.update_task_offers(id.task);
        self.notify_watchers_soon(id.task.job);
    }
}
