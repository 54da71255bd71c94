//! Evaluates the redundancy policies: when, with which view, and how their orders are carried out.

use super::{
    CopyOrder, Policy, ProgressReport, SHIPPED, SeenAttempt, SeenJob, SeenTask, SeenWorker,
    Shipped, View,
};
use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::learned::{KindHistory, Learned};
use crate::supervisor::leader::attempts::active::{Attempt, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::jobs::active::ActiveJob;
use crate::supervisor::leader::jobs::policy_inputs::PolicyInputs;
use crate::supervisor::leader::jobs::progress::{begun_at, share_in};
use crate::supervisor::leader::placement::deferral::ReservedWorkers;
use crate::supervisor::leader::placement::queue::{Class, Entry};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leader, LeaderView, Leadership, WorkerIx};
use hedge_model::spec::Redundancy;
use hedge_model::{AttemptId, JobId, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Minimum interval between policy evaluations.
const GAP_MIN: Duration = Duration::from_millis(1);
/// Minimum interval per attempt, worker or job in the view, so that evaluations take at most a few percent of a busy
/// supervisor's time.
const GAP_EACH: Duration = Duration::from_micros(10);
/// Waiting jobs are counted up to this number, so that thousands of them make an evaluation no longer.
const WAITING_JOBS_MAX: usize = 1_000;
/// The interval is also at least this part (1/10) of the time after which a policy asked to be evaluated again, up to
/// [`GAP_EACH_MAX`] per attempt or worker: the view changes little until then.
const GAP_SHARE: u32 = 10;
const GAP_EACH_MAX: Duration = Duration::from_micros(100);

/// When to evaluate the policies.
#[derive(Debug, Default)]
pub(crate) struct Evaluations {
    /// Earliest time of the next evaluation.
    next: Time,
    /// Whether something happened since the last evaluation.
    due: bool,
    /// Number of jobs that a policy decides for.
    jobs: usize,
    /// Tasks that a policy wants to get one more attempt ahead of tasks that wait.
    ahead: BTreeSet<TaskId>,
}

/// Redundant attempts that are cancelled as soon as a first attempt needs their slot.
#[derive(Debug, Default)]
pub(crate) struct YieldingCopies {
    copies: BTreeSet<AttemptId>,
    /// Those that were told to stop and have not stopped yet.
    stopping: BTreeSet<AttemptId>,
}

impl YieldingCopies {
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// Updates the state of an attempt: whether it may still succeed, and whether its worker has it.
    pub fn follow(&mut self, id: AttemptId, active: bool, in_hand: bool) {
        if !self.copies.is_empty() && !active {
            self.copies.remove(&id);
        }
        if !self.stopping.is_empty() && !in_hand {
            self.stopping.remove(&id);
        }
    }
}

impl Evaluations {
    /// Requests an evaluation if `changed` says that the last event may lead to other decisions.
    pub fn changed(&mut self, changed: bool) {
        self.due |= changed;
    }

    /// Counts a job that a policy decides for.
    pub fn job_begins(&mut self) {
        self.jobs += 1;
    }

    /// Removes such a job from the count.
    pub fn job_ends(&mut self) {
        self.jobs -= 1;
    }

    /// Returns whether a policy wants a task to get one more attempt ahead of tasks that wait.
    pub fn is_ahead(&self, task: TaskId) -> bool {
        self.ahead.contains(&task)
    }

    /// Requests an evaluation because the timer fired.
    pub fn timer_fired(&mut self) {
        self.due = true;
    }
}

impl Leadership<'_> {
    /// Evaluates the policies and starts the copies that they order, if something changed and workers are idle. While
    /// several jobs keep all workers busy, a policy may instead want copies ahead of tasks that wait.
    pub(crate) fn evaluate_policies(&mut self) {
        let now = self.now;
        let leader = &mut *self.leader;
        let busy = leader.pool.capacity_index().is_empty();
        let jobs = leader.evaluations.jobs;
        if !leader.evaluations.due || jobs == 0 || (busy && jobs < 2) {
            return;
        }
        if now < leader.evaluations.next {
            let at = leader.evaluations.next;
            return leader.evaluate_at(at);
        }
        leader.evaluations.due = false;
        let going_on = |id: &JobId| leader.jobs.get(*id).is_some_and(|job| !job.is_ending());
        let running: Vec<JobId> = leader.tasks.jobs().filter(going_on).collect();
        let durable = &self.state.jobs;
        leader.jobs.update_policy_inputs(&running, durable);
        let waiting = match busy {
            true => leader.jobs.count_waiting(WAITING_JOBS_MAX, durable),
            false => 0,
        };
        let mut again: Option<Duration> = None;
        let mut seen = 0;
        let mut ahead = BTreeSet::new();
        for mut policy in self.policies(&running) {
            let Some(view) = self.view().policy_view(&policy, &running) else {
                self.return_policy(policy);
                continue;
            };
            let attempts: usize = view.jobs.iter().map(|job| job.running.len()).sum();
            seen += attempts + view.workers.len();
            let mut orders = Vec::new();
            let mut next = None;
            if busy {
                ahead.extend(policy.policy.ahead(&view, waiting));
            } else {
                next = policy.policy.decide(&view, &mut orders);
            }
            let workers: Vec<WorkerIx> = view.workers.iter().map(|worker| worker.number).collect();
            self.return_policy(policy);
            for order in orders {
                self.start_copy(&workers, order);
            }
            again = [again, next].into_iter().flatten().min();
        }
        self.set_ahead(ahead);
        let leader = &mut *self.leader;
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let for_jobs = GAP_EACH.saturating_mul(count(jobs.min(WAITING_JOBS_MAX)));
        if seen == 0 && for_jobs < GAP_MIN {
            return;
        }
        let seen = count(seen);
        let little = again.map_or(Duration::ZERO, |again| again / GAP_SHARE);
        let gap = little.min(GAP_EACH_MAX.saturating_mul(seen));
        let gap = gap
            .max(GAP_EACH.saturating_mul(seen) + for_jobs)
            .max(GAP_MIN);
        leader.evaluations.next = now + gap;
        if let Some(after) = again {
            let at = now + after.max(gap);
            leader.evaluate_at(at);
        }
    }

    /// Sets which tasks get one more attempt ahead of tasks that wait.
    fn set_ahead(&mut self, ahead: BTreeSet<TaskId>) {
        let before = std::mem::replace(&mut self.leader.evaluations.ahead, ahead);
        let ahead = &self.leader.evaluations.ahead;
        let changed: Vec<TaskId> = before.symmetric_difference(ahead).copied().collect();
        changed
            .into_iter()
            .for_each(|task| self.update_task_offers(task));
    }

    /// Carries out one order of a policy, if it is possible.
    fn start_copy(&mut self, workers: &[WorkerIx], order: CopyOrder) {
        let task = order.task;
        let (Some(ix), Some(job)) = (
            workers.get(order.worker).copied(),
            self.state.jobs.get(&task.job),
        ) else {
            return;
        };
        if task.number >= job.spec.task_count() {
            return;
        }
        let group = job.spec.group_of(task.number);
        let offset = task.number - job.spec.first(group);
        if !job.active() || !job.spec.groups()[group].may_be_copied() {
            return;
        }
        let leader = &*self.leader;
        let (Some(known), Some(active_job)) = (leader.tasks.get(&task), leader.jobs.get(task.job))
        else {
            return;
        };
        let shape = leader.shapes.get(active_job.group(group).shape());
        let raised = shape.raised(job, task.number);
        let shape = raised.as_ref().unwrap_or(shape);
        let worker = &leader.pool[ix];
        let there =
            |attempt: &Attempt| attempt.worker() == ix && attempt.state() != AttemptState::Lost;
        if active_job.is_ending()
            || known.committing().is_some()
            || known.active() == 0
            || known.waits_for().is_some()
            || known.attempts().iter().any(there)
            || known.avoid().contains(&ix)
            || leader.blocked.excludes(task.job, group as u32, ix)
            || !worker.usable()
            || !worker.load().free().covers(&shape.resources)
            || !shape.fits(worker.info())
        {
            return;
        }
        let entry = Entry {
            class: Class::Copy,
            job: task.job,
            rank: active_job.group(group).rank(),
            group: group as u32,
        };
        let next = known.next_policy_copy(self.now);
        if next > self.now {
            return self.leader.evaluate_at(next);
        }
        self.assign(entry, task, offset, ix, Why::Policy);
        let leader = &mut *self.leader;
        let Some(known) = leader.tasks.get_mut(&task) else {
            return;
        };
        let started = |copy: &&Attempt| copy.worker() == ix && copy.why() == Why::Policy;
        let Some(id) = known.attempts().last().filter(started).map(Attempt::id) else {
            return;
        };
        known.note_policy_copy(self.now);
        if order.yields {
            leader.yielding.copies.insert(id);
        }
    }

    /// Cancels as many yielding copies as an offer needs that could not be placed, those on the fastest workers first.
    /// An offer that would rather wait for a faster worker than start in the place of a copy leaves that copy alone:
    /// the policy would fill the place again.
    pub(crate) fn stop_yielding_copies(&mut self, entry: Entry, reserved: &mut ReservedWorkers) {
        let leader = &mut *self.leader;
        if leader.yielding.is_empty() || entry.class == Class::Copy {
            return;
        }
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return;
        };
        let at = entry.group as usize;
        let offers = leader.jobs[entry.job].group(at);
        let wanted = offers.remaining(job.spec.groups()[at].count()) as usize;
        let shape = offers.shape();
        if leader.yielding.stopping.len() >= wanted {
            return;
        }
        for id in leader.yielding_by_speed() {
            if self.leader.yielding.stopping.len() >= wanted {
                break;
            }
            let leader = &mut *self.leader;
            let known = leader.tasks.get(&id.task);
            let known = known.filter(|known| known.alive() > 1);
            let attempt = known.and_then(|known| known.attempts().iter().find(|of| of.id() == id));
            let Some(attempt) = attempt.filter(|attempt| attempt.state().alive()) else {
                // It is the task's only live attempt now and no longer yields.
                leader.yielding.copies.remove(&id);
                continue;
            };
            let ix = attempt.worker();
            let worker = &leader.pool[ix];
            let shape = leader.shapes.get(shape);
            if !worker.usable() || !shape.fits(worker.info()) {
                continue;
            }
            if self.view().worth_deferring(entry, ix, reserved) {
                if let Some(offers) = self.leader.jobs.group_mut(entry.job, at) {
                    offers.note_deferred(self.now);
                }
                break;
            }
            self.cancel_attempt(id);
            self.leader.yielding.stopping.insert(id);
        }
    }

    /// Returns the policies of these jobs, each to be handed back with [`Self::return_policy`].
    fn policies(&mut self, running: &[JobId]) -> Vec<BorrowedPolicy> {
        if let Some(policy) = self.policy.take() {
            return vec![BorrowedPolicy { only: None, policy }];
        }
        let active = running.iter().filter_map(|id| self.state.jobs.get(id));
        let wanted: Vec<Redundancy> = active.map(|job| job.spec.qos().redundancy).collect();
        let borrowed = |shipped: &Shipped| {
            let policy = shipped
                .policy
                .filter(|_| wanted.contains(&shipped.redundancy))?;
            Some(BorrowedPolicy {
                only: Some(shipped.redundancy),
                policy: policy(),
            })
        };
        SHIPPED.iter().filter_map(borrowed).collect()
    }

    fn return_policy(&mut self, borrowed: BorrowedPolicy) {
        if borrowed.only.is_none() {
            *self.policy = Some(borrowed.policy);
        }
    }
}

impl<'a> LeaderView<'a> {
    /// Returns the view for a policy, of those of the `running` jobs that it decides for; none if they have no running
    /// tasks.
    fn policy_view(&self, borrowed: &BorrowedPolicy, running: &[JobId]) -> Option<View<'a>> {
        let leader = self.leader;
        let attempts = leader.tasks.iter().flat_map(|(_, task)| task.attempts());
        let running_s = attempts.filter(|attempt| attempt.state().holds());
        let running_s = running_s.map(|attempt| self.now.since(attempt.since()).as_secs_f64());
        let mut seen = Seen {
            view: *self,
            leader,
            learned: &self.state.learned,
            running_s: running_s.sum(),
            now: self.now,
            places: BTreeMap::new(),
            workers: Vec::new(),
        };
        let mut jobs = Vec::new();
        for id in running.iter().copied() {
            let active = self.state.jobs.get(&id).filter(|job| job.active());
            let Some((job, active_job)) = active.zip(leader.jobs.get(id)) else {
                continue;
            };
            let kind = job.spec.qos().redundancy;
            let Some(inputs) = active_job.policy_inputs() else {
                continue;
            };
            let other = borrowed.only.is_some_and(|only| only != kind);
            if other || self.over_budget(id, job) {
                continue;
            }
            let urgency = self.urgency(id, job);
            let running = seen.running(id, active_job, inputs, job);
            jobs.push(SeenJob {
                id,
                spec: &job.spec,
                redundancy: kind,
                urgency,
                critical: active_job.critical(),
                elapsed_s: self.now.since(job.accepted).as_secs_f64(),
                open: job.spec.task_count() - job.done,
                path_s: inputs.path_s(&self.state.learned, &job.spec),
                unstarted_s: inputs.unstarted_s(&self.state.learned, &job.spec),
                running,
                success_s: active_job.success_s(),
                kinds: inputs.kinds(),
            });
        }
        if jobs.iter().all(|job| job.running.is_empty()) {
            return None;
        }
        for ix in leader.pool.capacity_index().iter() {
            seen.place(ix);
        }
        Some(View {
            now: self.now,
            jobs,
            workers: seen.workers,
            pool_speed: self.pool_speed(),
            beliefs: self.state.learned.beliefs(),
        })
    }

    fn pool_speed(&self) -> f64 {
        let usable = self.leader.pool.iter().filter(|worker| worker.usable());
        usable.map(|worker| worker.speed()).sum()
    }

    /// Returns the share of a task's work that is done where its next attempt begins.
    fn saved(&self, task: TaskId) -> f64 {
        share_in(self.usable_checkpoint(task))
    }

    /// Returns by which factor saved time is worth more to a job than usual: 1 without a deadline or if the required
    /// confidence of meeting it is reached, otherwise up to 8, the higher the less likely it is met.
    fn urgency(&self, id: JobId, job: &Job) -> f64 {
        let qos = job.spec.qos();
        let Some(by) = qos.finish_by else {
            return 1.0;
        };
        let remaining_s = (job.accepted + by).since(self.now).as_secs_f64();
        let chance = self.chance(id, job, remaining_s);
        // If the deadline cannot be met any more, more copies do not help.
        if chance >= qos.confidence || chance < 1e-3 {
            return 1.0;
        }
        (qos.confidence / chance).clamp(2.0, 8.0)
    }
}

/// A policy, and the jobs that it decides for: all, or those with this redundancy.
struct BorrowedPolicy {
    only: Option<Redundancy>,
    policy: Box<dyn Policy>,
}

/// Builds a view.
struct Seen<'a> {
    view: LeaderView<'a>,
    leader: &'a Leader,
    learned: &'a Learned,
    /// Total time that the attempts which hold resources have run, in seconds.
    running_s: f64,
    now: Time,
    places: BTreeMap<WorkerIx, usize>,
    workers: Vec<SeenWorker>,
}

impl Seen<'_> {
    /// Returns the index of a worker in the view, and adds it if necessary.
    fn place(&mut self, ix: WorkerIx) -> usize {
        if let Some(at) = self.places.get(&ix) {
            return *at;
        }
        let worker = &self.leader.pool[ix];
        self.workers.push(SeenWorker {
            peer: worker.peer(),
            number: ix,
            speed: worker.speed(),
            in_hand: worker.load().in_hand().len() as u32,
            free_milli: if worker.usable() {
                worker.load().free().cpus_milli
            } else {
                0
            },
            loss_per_s: self.learned.loss_per_s(worker.peer(), self.running_s),
            suspected: worker.leaving()
                || worker.state().suspected()
                || !worker.state().reachable(),
        });
        self.places.insert(ix, self.workers.len() - 1);
        self.workers.len() - 1
    }

    fn running(
        &mut self,
        id: JobId,
        active_job: &ActiveJob,
        inputs: &PolicyInputs,
        job: &Job,
    ) -> Vec<SeenTask> {
        let leader = self.leader;
        let mut running = Vec::new();
        for (task, known) in leader.tasks.of_job(id) {
            if known.committing().is_some() || known.alive() == 0 {
                continue;
            }
            let group = job.spec.group_of(task.number);
            let active = known.attempts().iter().filter(|a| a.state().alive());
            let attempts = active
                .map(|attempt| SeenAttempt {
                    worker: self.place(attempt.worker()),
                    elapsed_s: self.now.since(attempt.since()).as_secs_f64(),
                    redundant: attempt.redundant(),
                    queued: attempt.state().queued(),
                    begun_at: begun_at(attempt),
                    reports: reports(attempt),
                })
                .collect();
            let spec = &job.spec.groups()[group];
            let expected = self.learned.expect(spec);
            let avoid = known.avoid().iter().map(|ix| self.place(*ix)).collect();
            // An attempt stopped by its worker's owner waits, but a copy would not.
            let waits = |attempt: &Attempt| {
                attempt.progress().waits && !leader.pool[attempt.worker()].leaving()
            };
            let waits = known
                .attempts()
                .iter()
                .any(|attempt| attempt.state().alive() && waits(attempt));
            let waits = waits || !job.spec.groups()[group].may_be_copied();
            running.push(SeenTask {
                id: task,
                group,
                kind: inputs.kind_of(group),
                critical: active_job.critical().contains(&job.spec, task.number),
                work_s: expected.work_s,
                spread: expected.spread,
                cpus_busy: self.learned.kind(spec).and_then(KindHistory::cpus_busy),
                saves: spec.checkpoint.is_some(),
                saved: self.view.saved(task),
                tail_s: inputs.b_level(group),
                attempts,
                avoid,
                waits,
            });
        }
        running
    }
}

/// Returns an attempt's first and last report of progress, with times from its beginning.
fn reports(attempt: &Attempt) -> Option<[ProgressReport; 2]> {
    let heard = attempt.heard()?;
    let all = [heard.first, (heard.last, attempt.progress())];
    Some(all.map(|(at, progress)| ProgressReport {
        at_s: at.since(attempt.since()).as_secs_f64(),
        done: progress.permille.map(|of| f64::from(of) / 1e3),
        cpu_s: progress.cpu.as_secs_f64(),
    }))
}

impl Leader {
    /// Offers all lanes again if there are yielding copies, whose slots they could use.
    pub fn retry_for_yielding(&mut self) {
        if !self.yielding.is_empty() {
            self.ready.retry(|_| true);
        }
    }

    /// Returns the yielding copies, those on the fastest workers first.
    fn yielding_by_speed(&self) -> Vec<AttemptId> {
        let speed = |id: &AttemptId| {
            let attempt = self.tasks.attempt(*id);
            attempt.map_or(0.0, |attempt| self.pool[attempt.worker()].speed())
        };
        let copies = self.yielding.copies.iter();
        let mut copies: Vec<(f64, AttemptId)> = copies.map(|id| (speed(id), *id)).collect();
        copies.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        copies.into_iter().map(|(_, id)| id).collect()
    }

    /// Schedules an evaluation at `at` or earlier.
    fn evaluate_at(&mut self, at: Time) {
        self.timers.set_no_later(at, Timer::Evaluate);
    }
}
