//! Which worker gets which attempt.
//!
//! An attempt is placed where its resources are free. Only tasks that are known to be short are sent ahead to
//! busy workers, as many as fill `QUEUE_TIME`, so that a worker never waits for the network between them.

use super::body::{body_index, own_inputs};
use super::choose::{Inputs, Miss, QUEUE_TIME, Want, choose, unplaceable};
use super::later::Promised;
use super::live::{Attempt, AttemptState, LiveGroup, Timer, Why, WorkerIx};
use super::ready::{Class, Entry, Lane, Skip};
use super::{Action, Supervisor, send};
use crate::monitor::Progress;
use hedge_model::group::Hint;
use hedge_model::msg::{Assignment, ToWorker};
use hedge_model::spec::{CriticalPlacement, Unplaceable};
use hedge_model::{AttemptId, JobId, Resources, TaskId};
use std::time::Duration;

/// Tasks whose attempts take at most so many seconds may be sent ahead: those of which a worker with 64
/// places can be given one more.
const SHORT: f64 = QUEUE_TIME * 64.0;
/// Queued for longer than this while others are idle, an attempt is asked back.
const REBALANCE_AFTER: Duration = Duration::from_millis(10);

impl Supervisor {
    /// Places what can be placed.
    pub(crate) fn schedule(&mut self, out: &mut Vec<Action>) {
        if !self.live().unchecked.is_empty() {
            self.find_unplaceable(out);
        }
        let mut missed = Skip::default();
        let mut promised = Promised::default();
        self.live().reconsider_yielding();
        while !missed.is_full() {
            let live = self.live();
            let Some((lane, entry)) = live.next_offer(&missed) else {
                break;
            };
            match self.place(entry, &mut promised, out) {
                Ok(()) => {}
                Err(Miss::Later) => missed.add(entry),
                Err(Miss::Task) => {
                    self.make_room(entry, out);
                    missed.add(entry);
                }
                Err(Miss::Room) => {
                    self.make_room(entry, out);
                    self.live().ready.block(lane);
                }
            }
        }
        self.look_later(&promised);
        let live = self.live();
        let idle = !live.room.is_empty();
        if idle && !live.rebalancing && live.queues.last().is_some_and(|(queued, _)| *queued > 0) {
            live.rebalancing = true;
            let at = self.now + REBALANCE_AFTER;
            self.live().set_timer(at, Timer::Rebalance);
        }
    }

    /// Places one attempt of an offer.
    fn place(
        &mut self,
        entry: Entry,
        promised: &mut Promised,
        out: &mut Vec<Action>,
    ) -> Result<(), Miss> {
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return Err(Miss::Task);
        };
        let (spec, at) = (job.spec.clone(), entry.group as usize);
        let data = if spec.groups()[at].inputs.is_empty() {
            None
        } else {
            // Where content is out of reach the group is set aside, and nothing is to be placed.
            let Some(body) = self.body(entry.job, at, out) else {
                return Ok(());
            };
            Inputs::large(&body, &spec.groups()[at], &self.state.learned)
        };
        let Some(live) = &self.live else {
            return Err(Miss::Task);
        };
        let critical = live.jobs[&entry.job].critical.of_group(at);
        let offers = &live.jobs[&entry.job].groups[at];
        let shape = live.shapes.get(offers.shape);
        let require = spec.qos().critical_placement == CriticalPlacement::Require;
        let ahead = (entry.class == Class::Normal)
            .then_some(offers.mean)
            .flatten();
        for offset in offers.candidates(entry.class, critical, spec.groups()[at].count()) {
            let task = TaskId {
                job: entry.job,
                number: spec.first(at) + offset,
            };
            let want = Want {
                shape,
                task,
                group: entry.group,
                copy: entry.class == Class::Copy,
                higher: entry.class == Class::Critical && require && live.has_higher(),
                ahead,
                data: data.as_ref(),
            };
            match choose(live, &want) {
                Ok((worker, why)) => {
                    let free = matches!(why, Why::Faster | Why::MostRoom);
                    if free && self.better_later(entry, worker, promised) {
                        let now = self.now;
                        let live_job = self.live().jobs.get_mut(&entry.job);
                        let offers = live_job.map(|job| &mut job.groups[at]);
                        offers.map(|offers| offers.held.get_or_insert(now));
                        return Err(Miss::Later);
                    }
                    self.assign(entry, task, offset, worker, why, out);
                    return Ok(());
                }
                Err(Miss::Room) => return Err(Miss::Room),
                Err(Miss::Task | Miss::Later) => {}
            }
        }
        Err(Miss::Task)
    }

    pub(crate) fn assign(
        &mut self,
        entry: Entry,
        task: TaskId,
        offset: u32,
        worker: WorkerIx,
        why: Why,
        out: &mut Vec<Action>,
    ) {
        let Some(body) = self.body(entry.job, entry.group as usize, out) else {
            return;
        };
        let id = self.add_attempt(entry, task, worker, why, &body.resources);
        let redundant = entry.class == Class::Copy;
        let peer = self.live().workers[worker as usize].peer;
        let seal = self.seal(peer, id, redundant);
        let live = self.live.get_or_insert_default();
        let place = &mut live.workers[worker as usize];
        if place.bodies.insert((entry.job, entry.group), body.version) != Some(body.version) {
            send(place.peer, ToWorker::Body(body.clone()), out);
            if let Some(job) = live.jobs.get_mut(&entry.job) {
                job.touched.insert(worker);
            }
        }
        let spec = &self.state.jobs[&entry.job].spec;
        let group = entry.group as usize;
        let order = Assignment {
            attempt: id,
            group: entry.group,
            version: body.version,
            index: body_index(spec, group, offset),
            own_inputs: own_inputs(spec, group, offset),
            redundant,
            seal,
        };
        send(peer, ToWorker::Assign(order), out);
        live.reindex(worker);
        if let Some(job) = live.jobs.get_mut(&entry.job) {
            let offers = &mut job.groups[entry.group as usize];
            if offset == offers.fresh {
                offers.fresh += 1;
            }
            if !redundant {
                offers.held = None;
            }
        }
        self.settle_wants(task);
        self.refresh_offers(entry.job, entry.group as usize);
        self.tell_soon(entry.job);
        let hint = Hint {
            attempt: id,
            worker: peer,
            redundant,
            class: self.live().workers[worker as usize].class,
            since: self.now,
            over: false,
        };
        self.hint(hint, out);
    }

    /// Names an attempt, notes it with its task and takes its part of the worker and the pool.
    fn add_attempt(
        &mut self,
        entry: Entry,
        task: TaskId,
        worker: WorkerIx,
        why: Why,
        need: &Resources,
    ) -> AttemptId {
        let job = &self.state.jobs[&entry.job];
        let live = self.live.get_or_insert_default();
        let known = live.tasks.entry(task).or_default();
        known.last_number += 1;
        let id = AttemptId {
            task,
            generation: job.tasks[task.number as usize].generation,
            epoch: self.state.epoch(),
            number: known.last_number,
        };
        let queued = why == Why::Queued;
        known.attempts.push(Attempt {
            id,
            worker,
            redundant: entry.class == Class::Copy,
            state: if queued {
                AttemptState::Queued
            } else {
                AttemptState::Assigned
            },
            holds: !queued,
            reported: false,
            since: self.now,
            why,
            class: live.workers[worker as usize].class,
            stopped: None,
            progress: Progress::default(),
            stalled: None,
        });
        let place = &mut live.workers[worker as usize];
        place.in_hand.insert(id);
        if job.critical.contains(&job.spec, task.number) {
            place.critical.insert(id);
        }
        live.attend.insert(worker);
        if queued {
            place.queued.push_back(id);
        } else {
            place.free.take(need);
        }
        live.ready.took(job.client, need.cpus_milli);
        id
    }

    /// Takes back all that a group offers, so that its turn can change.
    pub(crate) fn withdraw_offers(&mut self, id: JobId, group: usize) {
        let (Some(job), Some(live)) = (self.state.jobs.get(&id), &mut self.live) else {
            return;
        };
        let Some(offers) = live.jobs.get_mut(&id).map(|job| &mut job.groups[group]) else {
            return;
        };
        let spec = &job.spec.groups()[group];
        for class in [Class::Copy, Class::Critical, Class::Normal] {
            if offers.offered & (1 << class as u8) == 0 {
                continue;
            }
            let lane = Lane {
                short: class == Class::Normal && offers.short,
                cpus_milli: spec.resources.cpus_milli,
                shape: offers.shape,
            };
            let entry = Entry {
                class,
                job: id,
                rank: offers.rank,
                group: group as u32,
            };
            live.ready
                .set(spec.priority, job.client, lane, entry, false);
        }
        offers.offered = 0;
    }

    /// Brings a group's offers in line with what it has to offer.
    pub(crate) fn refresh_offers(&mut self, id: JobId, group: usize) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let unheard = self.may_run_unheard(id);
        let spec = &job.spec.groups()[group];
        let Some(live) = &mut self.live else { return };
        let Some(live_job) = live.jobs.get_mut(&id) else {
            return;
        };
        let critical = live_job.critical.of_group(group);
        let startable = job.active()
            && !live_job.ending
            && !unheard
            && live_job.groups[group].waiting == 0
            && !job.closed(group)
            && !live.starved.contains(&(id, group as u32));
        let offers = &mut live_job.groups[group];
        let cpus_milli = spec.resources.cpus_milli;
        let lane = |offers: &LiveGroup, class| Lane {
            short: class == Class::Normal && offers.short,
            cpus_milli,
            shape: offers.shape,
        };
        let rank = offers.rank;
        let entry = |class| Entry {
            class,
            job: id,
            rank,
            group: group as u32,
        };
        let short = offers.mean.is_some_and(|mean| mean <= SHORT);
        if short != offers.short {
            let normal = (lane(offers, Class::Normal), entry(Class::Normal));
            live.ready
                .set(spec.priority, job.client, normal.0, normal.1, false);
            offers.offered &= !(1 << Class::Normal as u8);
            offers.short = short;
        }
        let critical_left =
            offers.again.range(..critical).next().is_some() || offers.fresh < critical;
        let normal_left = offers.again.range(critical..).next().is_some()
            || (offers.fresh >= critical && offers.fresh < spec.count());
        for (class, present) in [
            (Class::Critical, critical_left),
            (Class::Copy, !offers.copies.is_empty()),
            (Class::Normal, normal_left),
        ] {
            let present = present && startable;
            let bit = 1 << class as u8;
            if (offers.offered & bit != 0) != present {
                offers.offered ^= bit;
                let lane = lane(offers, class);
                live.ready
                    .set(spec.priority, job.client, lane, entry(class), present);
                if present && live.possible.get(&lane.shape) != Some(&live.pool_version) {
                    live.unchecked.insert(lane);
                }
            }
        }
    }

    /// Asks back attempts that wait in a queue while other workers are idle that could have them.
    pub(crate) fn rebalance(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let live = self.live.get_or_insert_default();
        live.rebalancing = false;
        if live.next_offer(&Skip::default()).is_some() {
            return;
        }
        let idle = live.room.len();
        let Some((_, ix)) = live.queues.last().copied() else {
            return;
        };
        let worker = &live.workers[ix as usize];
        let movable = |id: &&AttemptId| {
            let attempts = live.tasks.get(&id.task).map(|known| &known.attempts);
            let old = attempts
                .into_iter()
                .flatten()
                .any(|a| a.id == **id && now.since(a.since) >= REBALANCE_AFTER);
            let group = |job: &super::durable::Job| job.spec.group_of(id.task.number);
            let shape = self
                .state
                .jobs
                .get(&id.task.job)
                .zip(live.jobs.get(&id.task.job))
                .map(|(job, live_job)| live.shapes.get(live_job.groups[group(job)].shape));
            old && shape.is_some_and(|shape| live.has_room(shape))
        };
        let keep = worker.queued.len() / (idle + 1);
        for id in worker.queued.iter().skip(keep).filter(movable) {
            send(worker.peer, ToWorker::Return(*id), out);
        }
    }

    /// Looks at what is newly offered, or offered to a pool that has changed: where no worker that is here
    /// could ever take it, jobs that asked for that fail.
    fn find_unplaceable(&mut self, out: &mut Vec<Action>) {
        let live = self.live();
        for lane in std::mem::take(&mut live.unchecked) {
            let live = self.live();
            let shape = live.shapes.get(lane.shape);
            if unplaceable(live, shape, "").is_none() {
                live.impossible.remove(&lane.shape);
                live.possible.insert(lane.shape, live.pool_version);
                continue;
            }
            live.impossible.insert(lane.shape);
            let entries: Vec<Entry> = live.ready.in_lane(lane).collect();
            for Entry { job: id, group, .. } in entries {
                self.tell_soon(id);
                self.fail_if_unplaceable(id, group as usize, out);
            }
        }
    }

    fn fail_if_unplaceable(&mut self, id: JobId, group: usize, out: &mut Vec<Action>) {
        let (Some(job), Some(live)) = (self.state.jobs.get(&id), &self.live) else {
            return;
        };
        // Workers that the last leader had come one by one.
        let coming =
            job.accepted < live.since && self.now.since(live.since) < self.config.content_grace;
        if job.spec.qos().unplaceable != Unplaceable::Fail || coming {
            return;
        }
        let number = job.spec.first(group);
        let shape = live.shapes.get(live.jobs[&id].groups[group].shape);
        if let Some(why) = unplaceable(live, shape, &job.spec.groups()[group].id) {
            self.fail_job(id, Some(TaskId { job: id, number }), why, out);
        }
    }
}
