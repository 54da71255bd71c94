//! Placement: assigns attempts of ready tasks to workers.
//!
//! An attempt goes to a worker with free resources. Only tasks known to be short are also queued at busy workers,
//! [`QUEUE_TIME`] seconds of work per slot, so that a worker never waits for the network between them.

pub(crate) mod blocked;
pub(crate) mod body;
pub(crate) mod choice;
pub(crate) mod deferral;
pub(crate) mod fit;
mod lanes;
mod large_inputs;
pub(crate) mod own;
pub(crate) mod queue;
pub(crate) mod unplaceable;

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::attempts::active::{Attempt, NewAttempt, Why};
use crate::supervisor::leader::attempts::state::AttemptState;
use crate::supervisor::leader::jobs::group::{OfferChange, OfferTerms};
use crate::supervisor::leader::placement::body::{ReadyBody, body_index};
use crate::supervisor::leader::placement::choice::{AttemptNeeds, NoPlacement, QUEUE_TIME, choose};
use crate::supervisor::leader::placement::deferral::ReservedWorkers;
use crate::supervisor::leader::placement::large_inputs::LargeInputs;
use crate::supervisor::leader::placement::own::OwnInputs;
use crate::supervisor::leader::placement::queue::{Class, Entry, Skip};
use crate::supervisor::leader::timers::Timer;
use crate::supervisor::leader::{Leadership, WorkerIx};
use crate::supervisor::{Action, GrantRequest, send};
use hedge_model::group::Hint;
use hedge_model::msg::{Assignment, OwnWork, ToWorker};
use hedge_model::spec::CriticalPlacement;
use hedge_model::{AttemptId, Checkpoint, FileEntry, JobId, TaskId};
use std::sync::Arc;
use std::time::Duration;

/// Tasks whose attempts take at most this many seconds may be queued at busy workers: a worker with 64 slots may then
/// queue one.
const SHORT: f64 = QUEUE_TIME * 64.0;
/// How long an attempt must have been queued before it is recalled for an idle worker.
const REBALANCE_AFTER: Duration = Duration::from_millis(10);

impl Leadership<'_> {
    /// Places ready tasks until no further offer can be placed in this pass.
    pub(crate) fn schedule(&mut self) {
        if self.leader.fit.is_unchecked() {
            self.find_unplaceable();
        }
        let mut skip = Skip::default();
        let mut reserved = ReservedWorkers::default();
        self.leader.retry_for_yielding();
        while !skip.is_full() {
            let leader = &mut *self.leader;
            let Some((lane, entry)) = leader.next_offer(&skip) else {
                break;
            };
            match self.place(entry, &mut reserved) {
                Ok(()) => {}
                Err(NoPlacement::Deferred) => skip.add(entry),
                Err(NoPlacement::NotThisTask) => {
                    self.stop_yielding_copies(entry, &mut reserved);
                    skip.add(entry);
                }
                Err(NoPlacement::NoFreeSlot) => {
                    self.stop_yielding_copies(entry, &mut reserved);
                    self.leader.ready.set_full(lane);
                }
            }
        }
        self.recheck_deferred(&reserved);
        let leader = &mut *self.leader;
        let idle = !leader.pool.capacity_index().is_empty();
        let queued = leader.pool.queues().last();
        if idle && queued.is_some_and(|(queued, _)| *queued > 0) {
            let at = self.now + REBALANCE_AFTER;
            leader.timers.set_once(at, Timer::Rebalance);
        }
    }

    /// Places one attempt of an offer.
    fn place(&mut self, entry: Entry, reserved: &mut ReservedWorkers) -> Result<(), NoPlacement> {
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return Err(NoPlacement::NotThisTask);
        };
        let (spec, at) = (job.spec.clone(), entry.group as usize);
        let ready = if spec.groups()[at].inputs.is_empty() {
            None
        } else {
            // If an input is unreachable, the group is blocked now and has no offer.
            let Some(ready) = self.body(entry.job, at) else {
                return Ok(());
            };
            Some(ready)
        };
        let learned = &self.state.learned;
        let large = |own: &[FileEntry]| {
            LargeInputs::of(&ready.as_ref()?.body, own, &spec.groups()[at], learned)
        };
        let shared = large(&[]);
        let each = spec.reads_each(at).next().is_some();
        let leader = &mut *self.leader;
        let active_job = &leader.jobs[entry.job];
        let critical = active_job.critical().of_group(at);
        let offers = active_job.group(at);
        let shape = leader.shapes.get(offers.shape());
        let require = spec.qos().critical_placement == CriticalPlacement::Require;
        let queueable_s = (entry.class == Class::Normal)
            .then(|| offers.mean_s())
            .flatten();
        for offset in offers.candidates(entry.class, critical, spec.groups()[at].count()) {
            let task = TaskId {
                job: entry.job,
                number: spec.first(at) + offset,
            };
            let own = each
                .then(|| large(&OwnInputs::of(job, at, offset).files))
                .flatten();
            let raised = shape.raised(job, task.number);
            let needs = AttemptNeeds {
                shape: raised.as_ref().unwrap_or(shape),
                task,
                group: entry.group,
                redundant: entry.class == Class::Copy,
                higher_only: entry.class == Class::Critical && require && leader.has_higher(),
                queueable_s,
                large_inputs: own.as_ref().or(shared.as_ref()),
            };
            match choose(leader, &needs) {
                Ok((worker, why)) => {
                    let free = matches!(why, Why::HigherClass | Why::BestFree);
                    if free && self.view().worth_deferring(entry, worker, reserved) {
                        if let Some(offers) = self.leader.jobs.group_mut(entry.job, at) {
                            offers.note_deferred(self.now);
                        }
                        return Err(NoPlacement::Deferred);
                    }
                    self.assign(entry, task, offset, worker, why);
                    return Ok(());
                }
                // Others of its group need less.
                Err(NoPlacement::NoFreeSlot) if raised.is_some() => {}
                Err(NoPlacement::NoFreeSlot) => return Err(NoPlacement::NoFreeSlot),
                Err(NoPlacement::NotThisTask | NoPlacement::Deferred) => {}
            }
        }
        Err(NoPlacement::NotThisTask)
    }

    /// Assigns an attempt of a task to a worker and hints it to the peer supervisors. Does nothing if inputs are
    /// unreachable.
    pub(crate) fn assign(
        &mut self,
        entry: Entry,
        task: TaskId,
        offset: u32,
        worker: WorkerIx,
        why: Why,
    ) {
        let Some(ready) = self.body(entry.job, entry.group as usize) else {
            return;
        };
        let body = &ready.body;
        let Some(own) = self.own_inputs(task, body) else {
            return;
        };
        let from = own.checkpoint.clone();
        let id = self.add_attempt(entry, task, worker, why, from);
        let redundant = entry.class == Class::Copy;
        let peer = self.leader.pool[worker].peer();
        let seal = self.view().seal(peer, id, redundant);
        self.send_body(worker, &ready);
        let spec = &self.state.jobs[&entry.job].spec;
        let group = entry.group as usize;
        let given = OwnWork {
            values: spec.groups()[group].values(offset),
            inputs: own.files,
            checkpoint: own
                .checkpoint
                .map_or_else(Vec::new, |from| from.files.clone()),
            blobs: None,
            memory: self.leader.tasks.attempt(id).and_then(Attempt::memory),
        };
        let order = Assignment {
            attempt: id,
            group: entry.group,
            version: body.version,
            index: body_index(spec, group, offset),
            own: (given != OwnWork::default()).then(|| Box::new(given)),
            redundant,
            seal,
        };
        self.send_assignment(peer, order, own.blobs);
        let leader = &mut *self.leader;
        leader.pool.reindex(worker);
        if let Some(offers) = leader.jobs.group_mut(entry.job, group) {
            offers.assigned(offset, redundant);
        }
        self.update_task_offers(task);
        self.refresh_offers(entry.job, group);
        self.notify_watchers_soon(entry.job);
        let hint = Hint {
            attempt: id,
            worker: peer,
            redundant,
            class: self.leader.pool[worker].class(),
            since: self.now,
            over: false,
        };
        self.hint(hint);
    }

    /// Sends a worker the body of a group, unless it has this version.
    fn send_body(&mut self, ix: WorkerIx, ready: &ReadyBody) {
        let (job, group, version) = (ready.body.job, ready.body.group, ready.body.version);
        let worker = &mut self.leader.pool[ix];
        if !worker.bodies_mut().send(job, group, version) {
            return;
        }
        let to = worker.peer();
        self.out.push(Action::SendBody {
            to,
            body: ready.body.clone(),
            grant: GrantRequest {
                reader: to,
                blobs: ready.blobs.clone(),
                epoch: self.state.epoch(),
            },
        });
        if let Some(job) = self.leader.jobs.get_mut(job) {
            job.note_involved(ix);
        }
    }

    /// Creates an attempt and adds it to its task, its worker's load and its client's share.
    fn add_attempt(
        &mut self,
        entry: Entry,
        task: TaskId,
        worker: WorkerIx,
        why: Why,
        from: Option<Arc<Checkpoint>>,
    ) -> AttemptId {
        let job = &self.state.jobs[&entry.job];
        let leader = &mut *self.leader;
        let number = leader.tasks.get_or_insert(task).next_number();
        let id = AttemptId {
            task,
            generation: job.tasks[task.number as usize].generation,
            epoch: self.state.epoch(),
            number,
        };
        let class = leader.pool[worker].class();
        self.begin_attempt(NewAttempt {
            id,
            worker,
            redundant: entry.class == Class::Copy,
            state: AttemptState::sent(why == Why::Queued),
            since: self.now,
            why,
            class,
            from,
        });
        id
    }

    /// Withdraws all offers of a group, so that its rank can change.
    pub(crate) fn withdraw_offers(&mut self, id: JobId, group: usize) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let Some(offers) = self.leader.jobs.group_mut(id, group) else {
            return;
        };
        let changes = offers.withdraw_offers(&job.spec.groups()[group]);
        self.change_offers(id, job, group, &changes);
    }

    /// Updates the offers of all groups of a job.
    pub(crate) fn refresh_all_offers(&mut self, id: JobId) {
        let groups = self.leader.jobs.get(id).map_or(0, |job| job.groups().len());
        (0..groups).for_each(|group| self.refresh_offers(id, group));
    }

    /// Updates the offers of a group from the tasks that can start.
    pub(crate) fn refresh_offers(&mut self, id: JobId, group: usize) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let behind_barrier = self.view().behind_recovery_barrier(id);
        let leader = &mut *self.leader;
        let Some(active_job) = leader.jobs.get_mut(id) else {
            return;
        };
        let startable = job.active()
            && !active_job.is_ending()
            && !behind_barrier
            && active_job.group(group).waiting() == 0
            && !job.closed(group)
            && !leader.blocked.lacks_inputs(id, group as u32);
        let critical = active_job.critical().of_group(group);
        let changes = active_job.group_mut(group).refresh_offers(&OfferTerms {
            spec: &job.spec.groups()[group],
            startable,
            critical,
            short_max_s: SHORT,
        });
        self.change_offers(id, job, group, &changes);
    }

    /// Adds offers of a group to the ready queues or removes them.
    fn change_offers(&mut self, id: JobId, job: &Job, at: usize, changes: &[OfferChange]) {
        let leader = &mut *self.leader;
        let Some(rank) = leader.jobs.group(id, at).map(|group| group.rank()) else {
            return;
        };
        let priority = job.spec.groups()[at].priority;
        for &(class, lane, present) in changes {
            let entry = Entry {
                class,
                job: id,
                rank,
                group: at as u32,
            };
            leader.ready.set(priority, job.client, lane, entry, present);
            if present {
                leader.fit.offered(lane, leader.pool.version());
            }
        }
    }

    /// Recalls attempts from the longest queue while idle workers could run them.
    pub(crate) fn rebalance(&mut self) {
        let now = self.now;
        let leader = &mut *self.leader;
        if leader.next_offer(&Skip::default()).is_some() {
            return;
        }
        let idle = leader.pool.capacity_index().len();
        let Some((_, ix)) = leader.pool.queues().last().copied() else {
            return;
        };
        let worker = &leader.pool[ix];
        let movable = |id: &&AttemptId| {
            let attempts = leader.tasks.get(&id.task).map(|known| known.attempts());
            let old = attempts
                .into_iter()
                .flatten()
                .any(|a| a.id() == **id && now.since(a.since()) >= REBALANCE_AFTER);
            let group = |job: &Job| job.spec.group_of(id.task.number);
            let shape = self
                .state
                .jobs
                .get(&id.task.job)
                .and_then(|job| leader.jobs.group(id.task.job, group(job)))
                .map(|offers| leader.shapes.get(offers.shape()));
            old && shape.is_some_and(|shape| leader.has_free_slot(shape))
        };
        let keep = worker.load().queued().len() / (idle + 1);
        for id in worker.load().queued().iter().skip(keep).filter(movable) {
            send(worker.peer(), ToWorker::Return(*id), self.out);
        }
    }
}
