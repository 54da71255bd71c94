//! A job's way: its groups becoming startable, its tasks done or failed, its end.

use super::data::result_content;
use super::live::{AttemptState, LiveJob, Timer};
use super::{Action, Supervisor, send};
use hedge_model::msg::ToWorker;
use hedge_model::record::{JobEnd, Record};
use hedge_model::{AttemptId, Hash, JobId, JobSpec, PeerId, TaskId};
use std::time::Duration;

/// Watchers are told of changes this often at most.
const TELL_EVERY: Duration = Duration::from_millis(100);

impl Supervisor {
    /// Has all results of a job's tasks that are done held by as many supervisors as are to hold them.
    pub(crate) fn want_results(&mut self, id: JobId, out: &mut Vec<Action>) {
        let job = self.state.jobs.get(&id).into_iter();
        let results = job
            .flat_map(|job| result_content(job))
            .map(|(hash, _)| hash);
        for hash in results.collect::<Vec<_>>() {
            self.want_result(id, hash, out);
        }
    }

    fn want_result(&mut self, id: JobId, hash: Hash, out: &mut Vec<Action>) {
        if self.secure(hash) {
            return;
        }
        if let Some(job) = self.live().jobs.get_mut(&id) {
            job.missing_results.insert(hash);
            self.pull(hash, out);
            self.spread(hash, out);
        }
    }

    pub(crate) fn after_task_done(
        &mut self,
        attempt: AttemptId,
        worker: PeerId,
        applied: bool,
        out: &mut Vec<Action>,
    ) {
        let id = attempt.task;
        send(worker, ToWorker::Settled(attempt), out);
        self.detach(attempt);
        if let Some(known) = self.live().tasks.get_mut(&id)
            && known.committing == Some(attempt)
        {
            known.committing = None;
        }
        if !applied {
            self.forget_task_if_over(id);
            return self.settle_wants(id);
        }
        let winner = self.live().by_peer.get(&worker).copied();
        self.praise_and_blame(id, winner);
        self.cancel_attempts(id, out);
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let (spec, group) = (job.spec.clone(), job.spec.group_of(id.number));
        let Some(done) = job.tasks[id.number as usize].done.as_deref() else {
            return;
        };
        let (left, usage) = (done.left().collect::<Vec<_>>(), done.usage);
        let done = job.done_of(group);
        self.note_left(id, &left, winner);
        if let Some(live_job) = self.live().jobs.get_mut(&id.job) {
            let took = usage
                .staging
                .saturating_add(usage.running)
                .as_secs_f64()
                .max(1e-6);
            let mean = &mut live_job.groups[group].mean;
            *mean = Some(mean.map_or(took, |mean| mean * 0.8 + took * 0.2));
            live_job.won_s += took;
            if let Some(kind) = live_job.kind_of.get(group) {
                live_job.kinds[*kind as usize].note(usage.running.as_secs_f64());
            }
        }
        if spec.is_result(group) {
            for (hash, _) in left {
                self.want_result(id.job, hash, out);
            }
        }
        self.settle_wants(id);
        self.refresh_offers(id.job, group);
        for next in spec.waited_by(group) {
            let next = *next as usize;
            if spec.needed(next, group) != done {
                continue;
            }
            if let Some(live_job) = self.live().jobs.get_mut(&id.job) {
                live_job.groups[next].waiting -= 1;
                live_job.groups[next].body = None;
            }
            self.live().starved.remove(&(id.job, next as u32));
            self.refresh_offers(id.job, next);
        }
        self.close_group(id.job, group, out);
        self.refind(id.job);
        self.tell_soon(id.job);
        self.finish_if_done(id.job, out);
    }

    /// Real times have replaced estimates: the critical set and the tasks' turns are found again.
    fn refind(&mut self, id: JobId) {
        let (Some(job), Some(live)) = (self.state.jobs.get(&id), &mut self.live) else {
            return;
        };
        let Some(live_job) = live.jobs.get_mut(&id) else {
            return;
        };
        if job.done < live_job.refind_at || !job.active() {
            return;
        }
        let (spec, learned) = (job.spec.clone(), &self.state.learned);
        live_job.refind_at = refind_at(job.done, spec.task_count());
        if spec.groups().len() == 1 {
            return;
        }
        let critical = super::critical::CriticalSet::find_with(&spec, learned);
        let tails = super::critical::tails(&spec, |at| learned.expect(&spec.groups()[at]).work_s);
        let turns = super::critical::by_level(learned, &spec, &tails);
        if !live_job.tails.is_empty() {
            live_job.tails = tails;
        }
        let changed = critical != live_job.critical;
        live_job.critical = critical;
        let mut moved = Vec::new();
        for (rank, at) in turns.into_iter().enumerate() {
            if changed || live_job.groups[at].rank != rank as u32 {
                moved.push((at, rank as u32));
            }
        }
        for (at, rank) in moved {
            self.withdraw_offers(id, at);
            if let Some(job) = self.live().jobs.get_mut(&id) {
                job.groups[at].rank = rank;
            }
            self.refresh_offers(id, at);
        }
    }

    /// Ends all attempts of a task, wherever they are.
    pub(crate) fn cancel_attempts(&mut self, id: TaskId, out: &mut Vec<Action>) {
        let now = self.now;
        let live = self.live();
        let Some(known) = live.tasks.get_mut(&id) else {
            return;
        };
        let mut dropped = Vec::new();
        for attempt in &mut known.attempts {
            let worker = &live.workers[attempt.worker as usize];
            if !attempt.state.in_hand() {
                dropped.push(attempt.id);
            }
            if worker.connected && attempt.state != AttemptState::Cancelling {
                send(worker.peer, ToWorker::Cancel(attempt.id), out);
            }
            if attempt.state.active() && attempt.state.in_hand() {
                attempt.state = AttemptState::Cancelling;
                let charge = attempt.charge_until(now);
                attempt.stopped.get_or_insert(charge);
            }
        }
        dropped.into_iter().for_each(|attempt| self.detach(attempt));
        self.forget_task_if_over(id);
    }

    pub(crate) fn fail_job(
        &mut self,
        id: JobId,
        task: Option<TaskId>,
        why: String,
        out: &mut Vec<Action>,
    ) {
        let Some(job) = self.live().jobs.get_mut(&id) else {
            return;
        };
        if !job.ending {
            job.ending = true;
            let end = JobEnd::Failed { task, why };
            let stopped = self.stopping_all(id);
            self.append(
                Record::JobEnded {
                    job: id,
                    end,
                    stopped,
                    at: self.now,
                },
                None,
                out,
            );
            let groups = self.live().jobs.get(&id).map_or(0, |job| job.groups.len());
            (0..groups).for_each(|group| self.refresh_offers(id, group));
        }
    }

    /// A task runs again; `lost` is what it left before.
    pub(crate) fn after_outputs_lost(&mut self, id: TaskId, lost: &[Hash]) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let (spec, group) = (job.spec.clone(), job.spec.group_of(id.number));
        let done = job.done_of(group);
        let live = self.live();
        live.losing.remove(&id);
        live.tasks.entry(id).or_default();
        for hash in lost {
            let Some(content) = live.content.get_mut(hash) else {
                continue;
            };
            content.producers.retain(|task| *task != id);
            let made = content.producers.iter().any(|task| task.job == id.job);
            if let Some(live_job) = live.jobs.get_mut(&id.job) {
                live_job.stale.insert(*hash);
                if !made {
                    live_job.missing_results.remove(hash);
                }
            }
        }
        if let Some(live_job) = live.jobs.get_mut(&id.job) {
            for next in spec.waited_by(group) {
                // One less than enough is done: it waits again.
                let again = done + 1 == spec.needed(*next as usize, group);
                let next = &mut live_job.groups[*next as usize];
                next.waiting += u32::from(again);
                next.body = None;
            }
        }
        for next in spec.waited_by(group) {
            self.live().starved.remove(&(id.job, *next));
            self.refresh_offers(id.job, *next as usize);
        }
        self.refresh_offers(id.job, group);
        self.settle_wants(id);
        self.tell_soon(id.job);
    }

    /// The end that was proposed for a job came too late to be true: it goes on.
    pub(crate) fn after_stale_end(&mut self, id: JobId, out: &mut Vec<Action>) {
        let Some(live_job) = self.live().jobs.get_mut(&id) else {
            return;
        };
        live_job.ending = false;
        let groups = live_job.groups.len();
        (0..groups).for_each(|group| self.refresh_offers(id, group));
        self.finish_if_done(id, out);
    }

    /// Enough tasks done and all their results here: the job is done.
    pub(crate) fn finish_if_done(&mut self, id: JobId, out: &mut Vec<Action>) {
        self.finish_with(id, 0, out);
    }

    /// A task's success is on its way through the journal. Where it is the last that its job needs, and what it
    /// left is held already, the job's end goes with it, not after it; should the success turn out to be stale,
    /// then so is the end.
    pub(crate) fn finish_after(
        &mut self,
        last: TaskId,
        left: &[(Hash, u64)],
        out: &mut Vec<Action>,
    ) {
        if left.iter().all(|(hash, _)| self.secure(*hash)) {
            self.finish_with(last.job, 1, out);
        }
    }

    /// Ends a job of which enough is done, `coming` tasks included that are about to be.
    fn finish_with(&mut self, id: JobId, coming: u32, out: &mut Vec<Action>) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let all = job.active() && job.enough_with(coming);
        let ready = |job: &LiveJob| all && !job.ending && job.missing_results.is_empty();
        if !self.live().jobs.get(&id).is_some_and(ready) {
            return;
        }
        // What was held once may have gone with a supervisor's disk.
        self.want_results(id, out);
        if let Some(live_job) = self.live().jobs.get_mut(&id).filter(|job| ready(job)) {
            live_job.ending = true;
            let stopped = self.stopping_all(id);
            self.append(
                Record::JobEnded {
                    job: id,
                    end: JobEnd::Done,
                    stopped,
                    at: self.now,
                },
                None,
                out,
            );
        }
    }

    /// A job has ended; `spec` is its specification before only the outline stayed.
    pub(crate) fn after_job_ended(&mut self, id: JobId, spec: &JobSpec, out: &mut Vec<Action>) {
        let tasks: Vec<TaskId> = self.live_tasks(id).map(|(task, _)| *task).collect();
        for task in tasks {
            self.cancel_attempts(task, out);
            self.settle_wants(task);
        }
        let live = self.live.get_or_insert_default();
        if let Some(job) = live.jobs.get_mut(&id) {
            job.ending = true;
            let groups = job.groups.len();
            (0..groups).for_each(|group| self.refresh_offers(id, group));
        }
        self.tell(id, out);
        let live = self.live.get_or_insert_default();
        let ended = live.jobs.remove(&id);
        let watched = ended.as_ref().is_some_and(|job| !job.kind_of.is_empty());
        live.watched_jobs -= usize::from(watched);
        let (stale, touched) = ended
            .map(|job| (job.stale, job.touched))
            .unwrap_or_default();
        live.starved.retain(|(job, _)| *job != id);
        live.barred.retain(|(job, ..)| *job != id);
        live.losing.retain(|task| task.job != id);
        for ix in touched {
            let worker = &mut live.workers[ix as usize];
            worker.bodies.retain(|(job, _), _| *job != id);
            worker.staged.retain(|(job, _, _)| *job != id);
            if worker.connected {
                send(worker.peer, ToWorker::Forget(id), out);
            }
        }
        self.drop_content(id, spec, stale, out);
        self.live().leaving_due = true;
        self.remove_old_jobs(out);
    }

    /// Watchers of a job hear of a change, soon but not too often.
    pub(crate) fn tell_soon(&mut self, id: JobId) {
        let live = self.live();
        let Some(job) = live.jobs.get_mut(&id) else {
            return;
        };
        if job.watchers.is_empty() || job.tell_set {
            return;
        }
        job.tell_set = true;
        let at = job.told + TELL_EVERY;
        live.set_timer(at, Timer::Tell(id));
    }

    pub(crate) fn tell(&mut self, id: JobId, out: &mut Vec<Action>) {
        let (now, view) = (self.now, self.job_view(id));
        let (Some(view), Some(job)) = (view, self.live().jobs.get_mut(&id)) else {
            return;
        };
        job.told = now;
        job.tell_set = false;
        for (peer, ask) in job.watchers.clone() {
            super::answer(
                peer,
                ask,
                hedge_model::msg::Reply::Job(Box::new(view.clone())),
                out,
            );
        }
    }
}

/// When the critical set is found again: at each twentieth of the job, so that it costs little beside what the
/// tasks themselves do.
pub(super) fn refind_at(done: u32, all: u32) -> u32 {
    done + (all / 20).max(1)
}
