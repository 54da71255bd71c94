//! Asks the policies: when, with what view, and what becomes of their orders.

use super::{
    CopyOrder, Policy, SHIPPED, SeenAttempt, SeenJob, SeenTask, SeenWorker, Shipped, View,
};
use crate::supervisor::durable::job::Job;
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::leader::attempts::active::{ActiveTask, Attempt, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::jobs::active::{ActiveJob, PolicyInputs};
use crate::supervisor::leader::placement::queue::{Class, Entry};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leader, LeaderView, Leadership, WorkerIx};
use hedge_model::spec::Redundancy;
use hedge_model::{AttemptId, JobId, JobSpec, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Policies are not asked again sooner, however much happens.
const GAP_MIN: Duration = Duration::from_millis(1);
/// And for each attempt or worker they saw so much later, so that looking takes a few percent of a busy
/// supervisor's time at most.
const GAP_EACH: Duration = Duration::from_micros(10);
/// Nor sooner than this part of the time after which a policy wants to be asked again, as far as so many times as
/// much for each attempt or worker allow: what it sees changes by little until then.
const GAP_SHARE: u32 = 10;
const GAP_EACH_MAX: Duration = Duration::from_micros(100);

/// When the policies are asked.
#[derive(Debug, Default)]
pub(crate) struct Evaluations {
    /// Not before.
    next: Time,
    /// Something happened since they were asked.
    due: bool,
    /// Jobs about which a policy is asked.
    jobs: usize,
}

/// Copies that are stopped as soon as a first attempt wants their place.
#[derive(Debug, Default)]
pub(crate) struct YieldingCopies {
    copies: BTreeSet<AttemptId>,
    /// Those of them that were told to stop and have not yet.
    stopping: BTreeSet<AttemptId>,
}

impl YieldingCopies {
    pub fn is_empty(&self) -> bool {
        self.copies.is_empty()
    }

    /// An attempt stands otherwise: whether it may still succeed, and whether its worker has it.
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
    /// Something happened, or `changed` says that it changes nothing.
    pub fn changed(&mut self, changed: bool) {
        self.due |= changed;
    }

    /// A job begins about which a policy is asked.
    pub fn job_begins(&mut self) {
        self.jobs += 1;
    }

    /// Such a job ends.
    pub fn job_ends(&mut self) {
        self.jobs -= 1;
    }

    /// The timer that was set is due.
    pub fn timer_fired(&mut self) {
        self.due = true;
    }
}

impl Leadership<'_> {
    /// Asks the policies for copies, if anything changed and machines are idle.
    pub(crate) fn evaluate_policies(&mut self) {
        let now = self.now;
        let leader = &mut *self.leader;
        if !leader.evaluations.due
            || leader.pool.capacity_index().is_empty()
            || leader.evaluations.jobs == 0
        {
            return;
        }
        if now < leader.evaluations.next {
            let at = leader.evaluations.next;
            return leader.evaluate_at(at);
        }
        leader.evaluations.due = false;
        let mut again: Option<Duration> = None;
        let mut seen = 0;
        for mut policy in self.policies() {
            let Some(view) = self.view().policy_view(&policy) else {
                self.return_policy(policy);
                continue;
            };
            let attempts: usize = view.jobs.iter().map(|job| job.running.len()).sum();
            seen += attempts + view.workers.len();
            let mut orders = Vec::new();
            let next = policy.policy.decide(&view, &mut orders);
            let workers: Vec<WorkerIx> = view.workers.iter().map(|worker| worker.number).collect();
            self.return_policy(policy);
            for order in orders {
                self.start_copy(&workers, order);
            }
            again = [again, next].into_iter().flatten().min();
        }
        if seen == 0 {
            return;
        }
        let seen = u32::try_from(seen).unwrap_or(u32::MAX);
        let little = again.map_or(Duration::ZERO, |again| again / GAP_SHARE);
        let gap = little.min(GAP_EACH_MAX * seen);
        let gap = gap.max(GAP_EACH * seen).max(GAP_MIN);
        let leader = &mut *self.leader;
        leader.evaluations.next = now + gap;
        if let Some(after) = again {
            let at = now + after.max(gap);
            leader.evaluate_at(at);
        }
    }

    /// Carries out one order of a policy, if it can be.
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
        let need = &job.spec.groups()[group].resources;
        if !job.active() {
            return;
        }
        let leader = &*self.leader;
        let (Some(known), Some(active_job)) = (leader.tasks.get(&task), leader.jobs.get(task.job))
        else {
            return;
        };
        let shape = leader.shapes.get(active_job.group(group).shape());
        let worker = &leader.pool[ix];
        let there =
            |attempt: &Attempt| attempt.worker() == ix && attempt.state() != AttemptState::Lost;
        if active_job.is_ending()
            || known.committing().is_some()
            || known.active() == 0
            || known.waits_for().is_some()
            || known.attempts().iter().any(there)
            || known.avoid().contains(&ix)
            || leader.blocked.is_barred(task.job, group as u32, ix)
            || !worker.usable()
            || !worker.load().free().covers(need)
            || !shape.fits(&worker.info().resources, &worker.info().labels)
        {
            return;
        }
        let entry = Entry {
            class: Class::Copy,
            job: task.job,
            rank: active_job.group(group).rank(),
            group: group as u32,
        };
        self.assign(entry, task, offset, ix, Why::Policy);
        let leader = &mut *self.leader;
        let last = leader
            .tasks
            .get(&task)
            .and_then(|known| known.attempts().last());
        if let Some(copy) = last.filter(|copy| copy.worker() == ix && order.yields) {
            let id = copy.id();
            leader.yielding.copies.insert(id);
        }
    }

    /// Attempts of an offer found no place: copies that yield are stopped, as many as it needs.
    pub(crate) fn stop_yielding_copies(&mut self, entry: Entry) {
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
        for id in leader.yielding.copies.clone() {
            if self.leader.yielding.stopping.len() >= wanted {
                break;
            }
            let leader = &mut *self.leader;
            let known = leader.tasks.get(&id.task);
            let known = known.filter(|known| known.alive() > 1);
            let attempt = known.and_then(|known| known.attempts().iter().find(|of| of.id() == id));
            let Some(attempt) = attempt.filter(|attempt| attempt.state().alive()) else {
                // Alone by now, it is what its task has.
                leader.yielding.copies.remove(&id);
                continue;
            };
            let worker = &leader.pool[attempt.worker()];
            let shape = leader.shapes.get(shape);
            if worker.usable() && shape.fits(&worker.info().resources, &worker.info().labels) {
                self.cancel_attempt(id);
                self.leader.yielding.stopping.insert(id);
            }
        }
    }

    fn policies(&mut self) -> Vec<BorrowedPolicy> {
        if let Some(policy) = self.policy.take() {
            return vec![BorrowedPolicy { only: None, policy }];
        }
        let active = self.leader.jobs.iter().filter(|(_, job)| !job.is_ending());
        let active = active.filter_map(|(id, _)| self.state.jobs.get(&id));
        let wanted: Vec<Redundancy> = active.map(|job| job.spec.qos().redundancy).collect();
        let asked = |shipped: &Shipped| {
            let policy = shipped
                .asked
                .filter(|_| wanted.contains(&shipped.redundancy))?;
            Some(BorrowedPolicy {
                only: Some(shipped.redundancy),
                policy: policy(),
            })
        };
        SHIPPED.iter().filter_map(asked).collect()
    }

    fn return_policy(&mut self, asked: BorrowedPolicy) {
        if asked.only.is_none() {
            *self.policy = Some(asked.policy);
        }
    }
}

impl<'a> LeaderView<'a> {
    /// What a policy sees; nothing where it decides for no job that runs.
    fn policy_view(&self, asked: &BorrowedPolicy) -> Option<View<'a>> {
        let leader = self.leader;
        let attempts = leader.tasks.values().flat_map(ActiveTask::attempts);
        let running_s = attempts.filter(|attempt| attempt.state().holds());
        let running_s = running_s.map(|attempt| self.now.since(attempt.since()).as_secs_f64());
        let mut seen = Seen {
            leader,
            learned: &self.state.learned,
            running_s: running_s.sum(),
            now: self.now,
            places: BTreeMap::new(),
            workers: Vec::new(),
        };
        let mut jobs = Vec::new();
        for (id, active_job) in leader.jobs.iter() {
            let Some(job) = self.state.jobs.get(&id).filter(|job| job.active()) else {
                continue;
            };
            let kind = job.spec.qos().redundancy;
            let Some(inputs) = active_job.policy_inputs() else {
                continue;
            };
            if active_job.is_ending() || asked.only.is_some_and(|only| only != kind) {
                continue;
            }
            if self.over_budget(id, job) {
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
                ready: ready(&job.spec, active_job),
                open: job.spec.task_count() - job.done,
                path_s: longest_path(&self.state.learned, &job.spec, inputs),
                unstarted_s: unstarted(&self.state.learned, job, active_job),
                running,
                success_s: active_job.success_s(),
                kinds: &inputs.kinds,
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
            pool_speed: leader
                .pool
                .iter()
                .filter(|worker| worker.usable())
                .map(|worker| worker.speed())
                .sum(),
            beliefs: self.state.learned.beliefs(),
        })
    }

    /// How much more than usual time saved is worth to a job: 1 without a deadline or where it will be met
    /// with the confidence asked for, up to 8 the less likely that is.
    fn urgency(&self, id: JobId, job: &Job) -> f64 {
        let qos = job.spec.qos();
        let Some(by) = qos.finish_by else {
            return 1.0;
        };
        let remaining_s = (job.accepted + by).since(self.now).as_secs_f64();
        let chance = self.chance(id, job, remaining_s);
        // Where it cannot be met any more, more copies buy nothing that was asked for.
        if chance >= qos.confidence || chance < 1e-3 {
            return 1.0;
        }
        (qos.confidence / chance).clamp(2.0, 8.0)
    }
}

/// A policy, and the jobs that it is asked for: all, or those that want this redundancy.
struct BorrowedPolicy {
    only: Option<Redundancy>,
    policy: Box<dyn Policy>,
}

/// Gathers a view.
struct Seen<'a> {
    leader: &'a Leader,
    learned: &'a Learned,
    /// Seconds that all attempts in hand have run.
    running_s: f64,
    now: Time,
    places: BTreeMap<WorkerIx, usize>,
    workers: Vec<SeenWorker>,
}

impl Seen<'_> {
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
        for (task, known) in leader.tasks.range(id.tasks()) {
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
                    progress: attempt.progress().permille.map(|of| f64::from(of) / 1000.0),
                })
                .collect();
            let expected = self.learned.expect(&job.spec.groups()[group]);
            let barred = known.avoid().iter().map(|ix| self.place(*ix)).collect();
            // One that its worker's owner stopped waits for him, and no copy would.
            let waits = |attempt: &Attempt| {
                attempt.progress().waits && !leader.pool[attempt.worker()].leaving()
            };
            let waits = known
                .attempts()
                .iter()
                .any(|attempt| attempt.state().alive() && waits(attempt));
            running.push(SeenTask {
                id: *task,
                group,
                kind: inputs.kind_of[group] as usize,
                critical: active_job.critical().contains(&job.spec, task.number),
                work_s: expected.work_s,
                spread: expected.spread,
                tail_s: inputs.b_levels[group],
                attempts,
                barred,
                waits,
            });
        }
        running
    }
}

fn ready(spec: &JobSpec, active_job: &ActiveJob) -> u32 {
    let groups = active_job.groups().iter().zip(spec.groups());
    groups
        .filter(|(group, _)| group.waiting() == 0)
        .map(|(group, spec)| group.remaining(spec.count()))
        .sum()
}

fn unstarted(learned: &Learned, job: &Job, active_job: &ActiveJob) -> f64 {
    let spec = &job.spec;
    let groups = active_job.groups().iter().enumerate();
    groups
        .map(|(at, group)| {
            let left = group.remaining(spec.groups()[at].count()) + job.waiting_elements(at);
            if left == 0 {
                return 0.0;
            }
            f64::from(left) * learned.expect(&spec.groups()[at]).work_s
        })
        .sum()
}

fn longest_path(learned: &Learned, spec: &JobSpec, inputs: &PolicyInputs) -> f64 {
    let b_levels = inputs.b_levels.iter().zip(spec.groups());
    let paths = b_levels.map(|(tail, group)| tail + learned.expect(group).work_s);
    paths.fold(0.0, f64::max)
}

impl Leader {
    /// Lanes that are blocked may have room where copies yield.
    pub fn unblock_yielding(&mut self) {
        if !self.yielding.is_empty() {
            self.ready.unblock(|_| true);
        }
    }

    /// The policies are asked at `at`, or earlier.
    fn evaluate_at(&mut self, at: Time) {
        self.timers.set_by(at, Timer::Evaluate);
    }
}
