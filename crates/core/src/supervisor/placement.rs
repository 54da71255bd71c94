//! Which worker gets which attempt.
//!
//! An attempt is placed where its resources are free. Only tasks that are known to be short are sent ahead to
//! busy workers, as many as fill [`QUEUE_TIME`], so that a worker never waits for the network between them.

use super::live::{Attempt, AttemptState, Live, Timer, Why, WorkerIx};
use super::ready::{Class, Entry};
use super::{Action, Supervisor, send};
use hedge_model::msg::{Assignment, Body, ToWorker};
use hedge_model::spec::{Group, Input, Unplaceable};
use hedge_model::{AttemptId, Data, FileEntry, JobId, TaskId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// Work sent ahead to a busy worker, per place that it has: many round trips of a local network.
const QUEUE_TIME: f64 = 0.005;
/// Most attempts sent ahead per place.
const QUEUE_MAX: f64 = 256.0;
/// Queued for longer than this while others are idle, an attempt is asked back.
const REBALANCE_AFTER: Duration = Duration::from_millis(10);
/// Offers that find no worker, after which one pass ends: bounds the work of a pass over a full pool.
const MISSES_MAX: usize = 32;
/// Tasks of one group that are tried for a worker before the next group's turn.
const TRIES_MAX: usize = 4;

impl Supervisor {
    /// Places what can be placed.
    pub(crate) fn schedule(&mut self, out: &mut Vec<Action>) {
        let mut missed = BTreeSet::new();
        while missed.len() < MISSES_MAX {
            let live = self.live();
            if live.queues.is_empty() {
                break;
            }
            let Some(entry) = live.ready.first(&missed) else {
                break;
            };
            if !self.place(entry, out) {
                missed.insert(entry);
                self.explain_miss(entry, out);
            }
        }
        let live = self.live();
        let idle = !live.room.is_empty() && live.ready.is_empty();
        if idle && !live.rebalancing && live.queues.last().is_some_and(|(queued, _)| *queued > 0) {
            live.rebalancing = true;
            let at = self.now + REBALANCE_AFTER;
            self.live().set_timer(at, Timer::Rebalance);
        }
    }

    /// Places one attempt of an offer; says whether it could.
    fn place(&mut self, entry: Entry, out: &mut Vec<Action>) -> bool {
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return false;
        };
        let (spec, critical) = (
            job.spec.clone(),
            job.critical.of_group(entry.group as usize),
        );
        let group = &spec.groups()[entry.group as usize];
        let Some(live) = &self.live else { return false };
        let offers = &live.jobs[&entry.job].groups[entry.group as usize];
        let candidates: Vec<u32> = match entry.class {
            Class::Copy => offers.copies.iter().copied().take(TRIES_MAX).collect(),
            Class::Critical => offers
                .again
                .range(..critical)
                .copied()
                .take(TRIES_MAX)
                .collect(),
            Class::Normal => offers
                .again
                .range(critical..)
                .copied()
                .take(TRIES_MAX)
                .collect(),
        };
        let fresh = match entry.class {
            Class::Copy => None,
            Class::Critical => (offers.fresh < critical).then_some(offers.fresh),
            Class::Normal => {
                (offers.fresh >= critical && offers.fresh < group.count()).then_some(offers.fresh)
            }
        };
        for offset in candidates.into_iter().chain(fresh) {
            let task = TaskId {
                job: entry.job,
                number: spec.first(entry.group as usize) + offset,
            };
            let ahead = (entry.class == Class::Normal)
                .then_some(offers.mean)
                .flatten();
            if let Some((worker, why)) =
                choose(live, group, task, entry.class == Class::Copy, ahead)
            {
                return self.assign(entry, task, offset, worker, why, out);
            }
        }
        false
    }

    fn assign(
        &mut self,
        entry: Entry,
        task: TaskId,
        offset: u32,
        worker: WorkerIx,
        why: Why,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(body) = self.body(entry.job, entry.group as usize, out) else {
            return true;
        };
        let (now, epoch) = (self.now, self.state.epoch());
        let job = &self.state.jobs[&entry.job];
        let (client, generation) = (job.client, job.tasks[task.number as usize].generation);
        let own_inputs = own_inputs(&job.spec, entry.group as usize, offset);
        let live = self.live.get_or_insert_default();
        let known = live.tasks.entry(task).or_default();
        known.last_number += 1;
        let id = AttemptId {
            task,
            generation,
            epoch,
            number: known.last_number,
        };
        let queued = why == Why::Queued;
        let state = if queued {
            AttemptState::Queued
        } else {
            AttemptState::Assigned
        };
        let redundant = entry.class == Class::Copy;
        let attempt = Attempt {
            id,
            worker,
            redundant,
            state,
            holds: !queued,
            reported: false,
            since: now,
            why,
        };
        known.attempts.push(attempt);
        let place = &mut live.workers[worker as usize];
        place.in_hand.insert(id);
        if queued {
            place.queued.push_back(id);
        } else {
            place.free.take(&body.resources);
        }
        live.ready.took(client, body.resources.cpus_milli);
        if place.bodies.insert((entry.job, entry.group), body.version) != Some(body.version) {
            send(place.peer, ToWorker::Body(body.clone()), out);
        }
        let index = body_index(
            &self.state.jobs[&entry.job].spec,
            entry.group as usize,
            offset,
        );
        let order = Assignment {
            attempt: id,
            group: entry.group,
            version: body.version,
            index,
            own_inputs,
        };
        send(place.peer, ToWorker::Assign(order), out);
        live.reindex(worker);
        if let Some(job) = live.jobs.get_mut(&entry.job) {
            let offers = &mut job.groups[entry.group as usize];
            if offset == offers.fresh {
                offers.fresh += 1;
            }
        }
        self.settle_wants(task);
        self.tell_soon(entry.job);
        true
    }

    /// The body of a group's tasks, built with current holders where it is not at hand. None, and the group
    /// is set aside as starved, where content is out of reach.
    fn body(&mut self, id: JobId, group: usize, out: &mut Vec<Action>) -> Option<Arc<Body>> {
        let live = self.live.as_ref()?;
        if let Some(body) = &live.jobs.get(&id)?.groups[group].body {
            return Some(body.clone());
        }
        let job = self.state.jobs.get(&id)?;
        let spec = &job.spec.groups()[group];
        let inputs = shared_inputs(job, spec);
        let each = spec.inputs.iter().filter_map(|input| match input {
            Input::FileEach(first) => {
                Some(&job.spec.files()[*first as usize..][..spec.count() as usize])
            }
            _ => None,
        });
        let own = each.flatten().filter_map(|file| file.data.hash());
        let shared = inputs
            .iter()
            .map(|file| &file.data)
            .chain(&spec.stdin)
            .filter_map(Data::hash);
        let mut blobs: Vec<_> = shared.chain(own).collect();
        blobs.sort_unstable();
        blobs.dedup();
        let missing: Vec<_> = blobs
            .iter()
            .copied()
            .filter(|hash| !self.within_reach(*hash))
            .collect();
        if !missing.is_empty() {
            let live = self.live();
            live.starved.insert((id, group as u32));
            self.refresh_offers(id, group);
            missing
                .into_iter()
                .for_each(|hash| self.lose_if_gone(hash, out));
            return None;
        }
        let body = Body {
            job: id,
            group: group as u32,
            version: live.jobs[&id].groups[group].version + 1,
            id: spec.id.clone(),
            runtime: spec.runtime,
            command: spec.command.clone(),
            env: spec.env.clone(),
            stdin: spec.stdin.clone(),
            inputs,
            outputs: spec.outputs.clone(),
            resources: spec.resources.clone(),
            time_limit: spec.time_limit,
            sources: self.sources(&blobs),
            blobs,
            grant: Vec::new(),
        };
        let body = Arc::new(body);
        let offers = &mut self.live().jobs.get_mut(&id)?.groups[group];
        offers.version = body.version;
        offers.body = Some(body.clone());
        Some(body)
    }

    /// Brings a group's offers in line with what it has to offer.
    pub(crate) fn refresh_offers(&mut self, id: JobId, group: usize) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let critical = job.critical.of_group(group);
        let spec = &job.spec.groups()[group];
        let Some(live) = &mut self.live else { return };
        let Some(live_job) = live.jobs.get_mut(&id) else {
            return;
        };
        let startable = job.active()
            && !live_job.ending
            && live_job.groups[group].waiting == 0
            && !live.starved.contains(&(id, group as u32));
        let offers = &mut live_job.groups[group];
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
                let entry = Entry {
                    class,
                    job: id,
                    group: group as u32,
                };
                live.ready.set(spec.priority, job.client, entry, present);
            }
        }
    }

    /// Asks back attempts that wait in a queue while other workers are idle.
    pub(crate) fn rebalance(&mut self, out: &mut Vec<Action>) {
        let now = self.now;
        let live = self.live();
        live.rebalancing = false;
        if !live.ready.is_empty() {
            return;
        }
        let idle = live.room.len();
        let Some((_, ix)) = live.queues.last().copied() else {
            return;
        };
        let worker = &live.workers[ix as usize];
        let old = |id: &&AttemptId| {
            let attempt = live
                .tasks
                .get(&id.task)
                .and_then(|t| t.attempts.iter().find(|a| a.id == **id));
            attempt.is_some_and(|attempt| now.since(attempt.since) >= REBALANCE_AFTER)
        };
        let keep = worker.queued.len() / (idle + 1);
        for id in worker.queued.iter().skip(keep).filter(old) {
            send(worker.peer, ToWorker::Return(*id), out);
        }
    }

    /// Notes why nothing could be placed, where no worker that is here ever could; fails the job if it asked.
    fn explain_miss(&mut self, entry: Entry, out: &mut Vec<Action>) {
        let Some(job) = self.state.jobs.get(&entry.job) else {
            return;
        };
        let spec = job.spec.clone();
        let group = &spec.groups()[entry.group as usize];
        let live = self.live();
        let version = live.pool_version;
        let Some(live_job) = live.jobs.get(&entry.job) else {
            return;
        };
        let noted = &live_job.groups[entry.group as usize].unplaceable;
        if noted.as_ref().is_some_and(|(at, _)| *at == version) {
            return;
        }
        let why = unplaceable(live, group);
        let fail = why.is_some() && spec.qos().unplaceable == Unplaceable::Fail;
        let text = why.clone().unwrap_or_default();
        if let Some(live_job) = live.jobs.get_mut(&entry.job) {
            live_job.groups[entry.group as usize].unplaceable = Some((version, text));
        }
        if let (true, Some(why)) = (fail, why) {
            let task = TaskId {
                job: entry.job,
                number: spec.first(entry.group as usize),
            };
            self.fail_job(entry.job, Some(task), why, out);
        } else {
            self.tell_soon(entry.job);
        }
    }
}

/// Why no worker that is here could ever run a task of `group`; nothing where one could.
fn unplaceable(live: &Live, group: &Group) -> Option<String> {
    let here: Vec<_> = live
        .workers
        .iter()
        .filter(|worker| worker.connected)
        .collect();
    if here.is_empty()
        || here
            .iter()
            .any(|w| fits(&w.info.labels, group) && w.info.resources.covers(&group.resources))
    {
        return None;
    }
    if let Some((name, value)) = group
        .labels
        .iter()
        .find(|label| !here.iter().any(|worker| worker.info.labels.contains(label)))
    {
        return Some(format!(
            "task {:?} needs a worker labelled {name} = {value:?}, and none is",
            group.id
        ));
    }
    let (name, need) = here.iter().find_map(|worker| {
        worker
            .info
            .resources
            .missing(&group.resources)
            .map(|(name, need, _)| (name, need))
    })?;
    let have = here.iter().map(|worker| match name {
        "cpus" => worker.info.resources.cpus_milli,
        "memory" => worker.info.resources.memory,
        "disk" => worker.info.resources.disk,
        other => worker.info.resources.named(other),
    });
    let show = |amount| hedge_model::resources::show_amount(name, amount);
    Some(format!(
        "task {:?} asks for {name} {}, and the most that any worker has is {}",
        group.id,
        show(need),
        show(have.max().unwrap_or(0))
    ))
}

fn fits(labels: &[(Arc<str>, Arc<str>)], group: &Group) -> bool {
    group.labels.iter().all(|label| labels.contains(label))
}

/// The worker for the next attempt of a task, and why it. `ahead` is the usual time of its tasks, where it
/// may also wait in a queue.
fn choose(
    live: &Live,
    group: &Group,
    task: TaskId,
    copy: bool,
    ahead: Option<f64>,
) -> Option<(WorkerIx, Why)> {
    let known = live.tasks.get(&task);
    let busy = |ix: WorkerIx| {
        known.is_some_and(|known| {
            known
                .attempts
                .iter()
                .any(|a| a.worker == ix && a.state != AttemptState::Lost)
        })
    };
    let avoid = known.map_or(&[][..], |known| &known.avoid);
    let able = |ix: WorkerIx| {
        let worker = &live.workers[ix as usize];
        fits(&worker.info.labels, group) && worker.info.resources.covers(&group.resources)
    };
    let free = |ix: WorkerIx| {
        live.workers[ix as usize].free.covers(&group.resources) && able(ix) && !busy(ix)
    };
    let room = || {
        let enough = move |cpus: u64| cpus >= group.resources.cpus_milli;
        live.room
            .iter()
            .take_while(move |(cpus, _, _)| enough(cpus.0))
            .map(|(_, _, ix)| *ix)
    };
    let first = if group.resources.cpus_milli == 0 {
        live.queues
            .iter()
            .map(|(_, ix)| *ix)
            .find(|ix| !avoid.contains(ix) && free(*ix))
    } else {
        room().find(|ix| !avoid.contains(ix) && free(*ix))
    };
    if let Some(ix) = first {
        return Some((ix, if copy { Why::Elsewhere } else { Why::MostRoom }));
    }
    if !avoid.is_empty() {
        let others = live
            .queues
            .iter()
            .any(|(_, ix)| !avoid.contains(ix) && able(*ix));
        return if others {
            None
        } else {
            room().find(|ix| free(*ix)).map(|ix| (ix, Why::AgainThere))
        };
    }
    let places = |ix: WorkerIx| {
        let all = live.workers[ix as usize].info.resources.cpus_milli;
        (all / group.resources.cpus_milli.max(1)).clamp(1, 1024)
    };
    let per_place = (QUEUE_TIME / ahead?).clamp(0.0, QUEUE_MAX);
    live.queues
        .iter()
        .take(TRIES_MAX)
        .find(|(queued, ix)| {
            let worker = &live.workers[*ix as usize];
            f64::from(*queued) < (per_place * places(*ix) as f64).floor()
                && able(*ix)
                && !worker.free.covers(&group.resources)
                && !busy(*ix)
        })
        .map(|(_, ix)| (*ix, Why::Queued))
}

fn shared_inputs(job: &super::durable::Job, group: &Group) -> Vec<FileEntry> {
    let mut files = Vec::new();
    for input in &group.inputs {
        match input {
            Input::File(at) => files.push(job.spec.files()[*at as usize].clone()),
            Input::FileEach(_) => {}
            Input::Task(name) => {
                let Some(from) = job.spec.groups().iter().position(|other| other.id == *name)
                else {
                    continue;
                };
                let first = job.spec.first(from) as usize;
                let tasks = &job.tasks[first..first + job.spec.groups()[from].count() as usize];
                files.extend(
                    tasks
                        .iter()
                        .filter_map(|task| task.done.as_ref())
                        .flat_map(|done| done.outputs.iter().cloned()),
                );
            }
        }
    }
    files
}

fn own_inputs(spec: &hedge_model::JobSpec, group: usize, offset: u32) -> Vec<FileEntry> {
    let inputs = spec.groups()[group].inputs.iter();
    inputs
        .filter_map(|input| match input {
            Input::FileEach(first) => Some(spec.files()[(first + offset) as usize].clone()),
            _ => None,
        })
        .collect()
}

fn body_index(spec: &hedge_model::JobSpec, group: usize, offset: u32) -> Option<u32> {
    spec.groups()[group].array.map(|(from, _)| from + offset)
}
