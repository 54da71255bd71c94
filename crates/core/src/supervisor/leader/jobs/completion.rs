//! How a job progresses: a task's success makes dependent groups startable, a lost output runs a task again, and
//! enough successes end the job. Watchers of the job are notified here too.

use crate::supervisor::leader::Leadership;
use crate::supervisor::leader::attempts::active::Verdict;
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::blobs::transfers::result_content;
use crate::supervisor::leader::jobs::active::ActiveJob;
use crate::supervisor::leader::jobs::critical::{self, CriticalSet};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::{answer, send};
use hedge_model::msg::ToWorker;
use hedge_model::record::{JobEnd, Record};
use hedge_model::{AttemptId, Hash, JobId, JobSpec, PeerId, TaskId};
use std::time::Duration;

/// Minimum interval between two notifications of a job's watchers; they are told its end at once.
const NOTIFY_EVERY: Duration = Duration::from_millis(100);

impl Leadership<'_> {
    /// Replicates the results of all tasks of a job that are done.
    pub(crate) fn replicate_results(&mut self, id: JobId) {
        let job = self.state.jobs.get(&id).into_iter();
        let results = job
            .flat_map(|job| result_content(job))
            .map(|(hash, _)| hash);
        for hash in results.collect::<Vec<_>>() {
            self.replicate_result(id, hash);
        }
    }

    fn replicate_result(&mut self, id: JobId, hash: Hash) {
        if self.view().is_replicated(hash) {
            return;
        }
        if self.leader.jobs.await_result(id, hash) {
            self.fetch(hash);
            self.replicate(hash);
        }
    }

    /// Handles a committed success: ends the attempt, cancels its siblings, records the outputs, and makes dependents
    /// startable. `applied` is false if the record changed nothing: see `Success::won`.
    pub(crate) fn after_task_done(&mut self, attempt: AttemptId, worker: PeerId, applied: bool) {
        let id = attempt.task;
        send(worker, ToWorker::Settled(attempt), self.out);
        self.detach(attempt);
        if let Some(known) = self.leader.tasks.get_mut(&id) {
            known.committed(Verdict::Done(attempt));
        }
        if !applied {
            self.forget_task_if_over(id);
            return self.update_task_offers(id);
        }
        let winner = self.leader.pool.find(worker);
        self.count_failures_of_others(id, winner);
        self.cancel_attempts(id);
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let (spec, group) = (job.spec.clone(), job.spec.group_of(id.number));
        let task = &job.tasks[id.number as usize];
        let Some(done) = task.done() else {
            return;
        };
        let (outputs, usage) = (done.blobs().collect::<Vec<_>>(), done.usage);
        let keeps = job.is_result(group) && !task.is_released();
        let done = job.done_of(group);
        self.note_outputs(id, &outputs, winner);
        if let Some(active_job) = self.leader.jobs.get_mut(id.job) {
            let took = usage.staging.saturating_add(usage.running);
            let took_s = took.as_secs_f64().max(1e-6);
            active_job.note_success(group, took_s);
        }
        if keeps {
            for (hash, _) in outputs {
                self.replicate_result(id.job, hash);
            }
        }
        self.update_task_offers(id);
        self.refresh_offers(id.job, group);
        for next in spec.waited_by(group) {
            let next = *next as usize;
            if spec.is_each(next, group) || spec.needed(next, group) != done {
                continue;
            }
            if let Some(next) = self.leader.jobs.group_mut(id.job, next) {
                next.dependency_met();
            }
            self.leader.blocked.recheck_inputs(id.job, next as u32);
            self.refresh_offers(id.job, next);
        }
        if spec.has_each() {
            self.update_element_readers(id);
            self.release_consumed(id);
        }
        self.release_behind(id);
        self.close_group(id.job, group);
        self.recompute_if_due(id.job);
        self.notify_of_ends_soon(id.job);
        self.notify_watchers_soon(id.job);
        self.finish_if_done(id.job);
    }

    /// Recomputes the critical set and the ranks of a job once enough tasks are done since the last time: measured
    /// times have replaced estimates.
    fn recompute_if_due(&mut self, id: JobId) {
        let job = self.state.jobs.get(&id);
        let (Some(job), Some(active_job)) = (job, self.leader.jobs.get_mut(id)) else {
            return;
        };
        if !job.active() || !active_job.recompute_due(job.done, job.spec.task_count()) {
            return;
        }
        if job.spec.groups().len() > 1 {
            self.recompute_critical_set(id);
        }
    }

    /// Recomputes the critical set and the ranks of a job's groups, and reorders their offers.
    pub(crate) fn recompute_critical_set(&mut self, id: JobId) {
        let job = self.state.jobs.get(&id);
        let (Some(job), Some(active_job)) = (job, self.leader.jobs.get_mut(id)) else {
            return;
        };
        if !job.active() {
            return;
        }
        let (spec, learned) = (job.spec.clone(), &self.state.learned);
        let found = CriticalSet::find_with(&spec, learned);
        let b_levels = critical::b_levels(&spec, |at| learned.expect(&spec.groups()[at]).work_s);
        let ranks = critical::ranks(learned, &spec, &b_levels);
        let changed = active_job.set_critical(found, b_levels);
        if changed {
            let tasks = self.mark_critical(id);
            tasks
                .into_iter()
                .for_each(|task| self.update_task_offers(task));
        }
        let Some(active_job) = self.leader.jobs.get(id) else {
            return;
        };
        let groups = active_job.groups().iter().zip(ranks).enumerate();
        let moved = groups.filter(|(_, (group, rank))| changed || group.rank() != *rank);
        let moved: Vec<(usize, u32)> = moved.map(|(at, (_, rank))| (at, rank)).collect();
        for (at, rank) in moved {
            self.withdraw_offers(id, at);
            if let Some(group) = self.leader.jobs.group_mut(id, at) {
                group.set_rank(rank);
            }
            self.refresh_offers(id, at);
        }
    }

    /// Cancels all attempts of a task, on whichever worker they are.
    pub(crate) fn cancel_attempts(&mut self, id: TaskId) {
        let Some(known) = self.leader.tasks.get(&id) else {
            return;
        };
        let attempts: Vec<_> = known
            .attempts()
            .iter()
            .map(|of| (of.id(), of.state()))
            .collect();
        for (attempt, state) in &attempts {
            match state {
                AttemptState::InHand { .. } if state.active() => self.cancel_attempt(*attempt),
                AttemptState::InHand { .. } => {}
                AttemptState::Expected | AttemptState::Lost => self.send_cancel(*attempt),
            }
        }
        let dropped = attempts.iter().filter(|(_, state)| !state.in_hand());
        dropped.for_each(|(attempt, _)| self.detach(*attempt));
        self.forget_task_if_over(id);
    }

    /// Proposes the end of a job as failed, unless its end is proposed already.
    pub(crate) fn fail_job(&mut self, id: JobId, task: Option<TaskId>, why: String) {
        let job = self.leader.jobs.get_mut(id);
        if job.is_some_and(ActiveJob::begin_end) {
            self.append_end(id, JobEnd::Failed { task, why });
            self.refresh_all_offers(id);
        }
    }

    fn append_end(&mut self, job: JobId, end: JobEnd) {
        let record = Record::JobEnded {
            job,
            end,
            stopped: self.view().stopped_of_job(job),
            at: self.now,
        };
        self.append(record, None);
    }

    /// Runs a task again after its committed outputs `lost` were lost. Groups that depend on it wait again if too few
    /// tasks are done now.
    pub(crate) fn after_outputs_lost(&mut self, id: TaskId, lost: &[Hash]) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let (spec, group) = (job.spec.clone(), job.spec.group_of(id.number));
        let done = job.done_of(group);
        let leader = &mut *self.leader;
        leader.blobs.end_loss(id);
        leader.tasks.get_or_insert(id);
        for hash in lost {
            let Some(made) = leader.blobs.remove_producer(*hash, id) else {
                continue;
            };
            if let Some(active_job) = leader.jobs.get_mut(id.job) {
                active_job.note_stale(*hash, made);
            }
        }
        if let Some(active_job) = leader.jobs.get_mut(id.job) {
            let whole = |next: &&u32| !spec.is_each(**next as usize, group);
            for next in spec.waited_by(group).iter().filter(whole) {
                // One task fewer than needed is done, so the dependent group waits again.
                let again = done + 1 == spec.needed(*next as usize, group);
                active_job.group_mut(*next as usize).dependency_lost(again);
            }
        }
        for next in spec.waited_by(group) {
            self.leader.blocked.recheck_inputs(id.job, *next);
            self.refresh_offers(id.job, *next as usize);
        }
        self.refresh_offers(id.job, group);
        self.reclaim_consumed(id);
        self.reclaim_released(id);
        self.update_element_readers(id);
        self.update_task_offers(id);
        self.notify_watchers_soon(id.job);
    }

    /// Continues a job whose proposed end was stale when it was committed.
    pub(crate) fn after_stale_end(&mut self, id: JobId) {
        let Some(active_job) = self.leader.jobs.get_mut(id) else {
            return;
        };
        active_job.withdraw_end();
        self.refresh_all_offers(id);
        self.finish_if_done(id);
    }

    /// Proposes the end of a job: done, if enough tasks are done and enough supervisors hold all results; failed, if no
    /// task can make progress any more.
    pub(crate) fn finish_if_done(&mut self, id: JobId) {
        self.finish_counting(id, 0);
    }

    /// Ends a job together with the success that was just proposed for task `last`, if no other task is missing and
    /// its `outputs` are already replicated. Both records are then in one flush. If the success turns out to be
    /// stale, the end is void too.
    pub(crate) fn finish_with_success(&mut self, last: TaskId, outputs: &[(Hash, u64)]) {
        if outputs
            .iter()
            .all(|(hash, _)| self.view().is_replicated(*hash))
        {
            self.finish_counting(last.job, 1);
        }
    }

    /// Ends a job if enough tasks are done, including `coming` successes that are proposed but not committed, or if
    /// no task can make progress any more.
    fn finish_counting(&mut self, id: JobId, coming: u32) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let enough = job.active() && job.threshold_met_with(coming);
        if !enough && self.view().is_stuck(id) {
            return self.fail_for_tasks(id);
        }
        let ready =
            |job: &ActiveJob| enough && !job.is_ending() && job.awaited_results().is_empty();
        if !self.leader.jobs.get(id).is_some_and(ready) {
            return;
        }
        // A supervisor may have lost its disk since the results were replicated.
        self.replicate_results(id);
        if let Some(active_job) = self.leader.jobs.get_mut(id).filter(|job| ready(job)) {
            active_job.begin_end();
            self.append_end(id, JobEnd::Done);
        }
    }

    /// Cleans up after a job that has ended. `spec` is the full specification, of which the durable state may keep
    /// only an outline; `checkpoints` are the blobs of its checkpoints.
    pub(crate) fn after_job_ended(&mut self, id: JobId, spec: &JobSpec, checkpoints: Vec<Hash>) {
        self.end_checkpoints_of(id);
        let tasks: Vec<TaskId> = self.view().tasks_of(id).map(|(task, _)| task).collect();
        for task in tasks {
            self.cancel_attempts(task);
            self.update_task_offers(task);
        }
        if let Some(job) = self.leader.jobs.get_mut(id) {
            job.begin_end();
            self.refresh_all_offers(id);
        }
        self.notify_watchers(id);
        self.notify_of_ends(id);
        let leader = &mut *self.leader;
        let ended = leader.jobs.end(id);
        leader.timers.clear(Timer::Client(id));
        leader.timers.clear(Timer::Recompute(id));
        if ended.as_ref().is_some_and(|job| job.watched) {
            leader.evaluations.job_ends();
        }
        let (mut stale, involved) = ended
            .map(|job| (job.stale, job.involved))
            .unwrap_or_default();
        leader.blocked.forget(id);
        leader.blobs.forget_losses(id);
        for ix in involved {
            let worker = &mut leader.pool[ix];
            worker.bodies_mut().forget(id);
            if worker.state().connected() {
                send(worker.peer(), ToWorker::Forget(id), self.out);
            }
        }
        stale.extend(checkpoints);
        self.drop_content(id, spec, stale);
        self.leader.leaving.recheck();
        self.remove_old_jobs();
    }

    /// Schedules a notification of a job's watchers, at most one per [`NOTIFY_EVERY`].
    pub(crate) fn notify_watchers_soon(&mut self, id: JobId) {
        let leader = &mut *self.leader;
        let Some(job) = leader.jobs.get(id) else {
            return;
        };
        if job.watchers().is_empty() {
            return;
        }
        let at = job.notified_at() + NOTIFY_EVERY;
        leader.timers.set_once(at, Timer::NotifyWatchers(id));
    }

    pub(crate) fn notify_watchers(&mut self, id: JobId) {
        self.leader.timers.clear(Timer::NotifyWatchers(id));
        let watched = self.leader.jobs.get(id);
        if watched.is_none_or(|job| job.watchers().is_empty()) {
            return;
        }
        if self.state.jobs.get(&id).is_some_and(|job| job.active()) {
            self.refresh_forecast();
        }
        let (now, view) = (self.now, self.view().job_view(id));
        let (Some(view), Some(job)) = (view, self.leader.jobs.get_mut(id)) else {
            return;
        };
        job.note_notified(now);
        for &(peer, request_id) in job.watchers() {
            answer(
                peer,
                request_id,
                hedge_model::msg::Reply::Job(Box::new(view.clone())),
                self.out,
            );
        }
    }

    /// Cancels the unfinished tasks of a group if all groups that wait for it have enough.
    pub(crate) fn close_group(&mut self, id: JobId, group: usize) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        if !job.closed(group) {
            return;
        }
        let known = self.leader.tasks.range(id, job.spec.numbers(group));
        let known = known.map(|(task, _)| task);
        let open = known.filter(|task| job.tasks[task.number as usize].is_open());
        for task in open.collect::<Vec<_>>() {
            self.cancel_attempts(task);
            self.update_task_offers(task);
        }
        self.refresh_offers(id, group);
    }
}
