//! Open jobs on the leader: extensions, released outputs, and clients that disappear.

use crate::supervisor::durable::change::Added;
use crate::supervisor::leader::Leadership;
use crate::supervisor::leader::jobs::activation::start_group;
use crate::supervisor::leader::jobs::critical::rank;
use crate::supervisor::leader::jobs::quota::QuotaUse;
use crate::supervisor::leader::timers::Timer;
use hedge_model::msg::SharedExtension;
use hedge_model::record::{ClosedBy, Record};
use hedge_model::{Hash, JobId, PeerId, TaskId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Delay per group of the job before the critical set and the ranks are recomputed after an extension. Recomputing
/// takes about a hundredth of it.
const RECOMPUTE_AFTER: Duration = Duration::from_micros(50);
/// How often the leader checks for the client of an open job within its `open_timeout`.
const CLIENT_CHECKS: u32 = 10;
/// A new leader gives the clients of open jobs at least this long to connect, or `open_timeout` if that is shorter.
const RETURN_TIME: Duration = Duration::from_secs(60);

/// Released tasks whose outputs are not dropped yet, because tasks of the job may still read them; by group.
#[derive(Debug, Default)]
pub(crate) struct Releases(BTreeMap<u32, BTreeSet<u32>>);

impl Releases {
    pub fn insert(&mut self, group: usize, number: u32) {
        self.0.entry(group as u32).or_default().insert(number);
    }

    fn remove(&mut self, group: usize, number: u32) {
        let group = group as u32;
        if let Some(of) = self.0.get_mut(&group) {
            of.remove(&number);
            if of.is_empty() {
                self.0.remove(&group);
            }
        }
    }

    fn of(&self, group: usize) -> impl Iterator<Item = u32> + '_ {
        let of = self.0.get(&(group as u32));
        of.into_iter().flatten().copied()
    }
}

/// Returns when the client of an open job was last present, as far as a new leader can know.
fn first_seen(seen: Time, timeout: Duration, now: Time) -> Time {
    // The previous leader may have heard from the client later than it recorded.
    let late = seen + timeout / CLIENT_CHECKS;
    late.max(now - timeout.saturating_sub(RETURN_TIME)).min(now)
}

impl Leadership<'_> {
    /// Starts the checks for the client of an open job.
    pub(crate) fn watch_client(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let timeout = job.spec.qos().open_timeout;
        let (Some(seen), Some(timeout)) = (job.client_seen(), timeout) else {
            return;
        };
        let leader = &mut *self.leader;
        if let Some(active_job) = leader.jobs.get_mut(id) {
            active_job.see_client(first_seen(seen, timeout, self.now));
            let at = self.now + timeout / CLIENT_CHECKS;
            leader.timers.set(at, Timer::Client(id));
        }
    }

    /// Adds the groups of a committed extension. `added` is none if the extension was not applied.
    pub(crate) fn after_extended(
        &mut self,
        id: JobId,
        extension: &SharedExtension,
        added: Option<Added>,
    ) {
        let Some((job, added)) = self.state.jobs.get(&id).zip(added) else {
            return;
        };
        let (spec, learned) = (job.spec.clone(), &self.state.learned);
        let leader = &mut *self.leader;
        if !leader.jobs.contains(id) {
            return;
        }
        let mut groups = Vec::with_capacity(extension.groups.len());
        for (at, group) in spec.groups().iter().enumerate().skip(added.first_group) {
            let mut active_group = start_group(job, at);
            active_group.set_shape(leader.shapes.number(group));
            active_group.set_rank(rank(learned.expect(group).work_s));
            groups.push(active_group);
        }
        let more = QuotaUse::of_added(&spec, extension, added);
        leader.jobs.grow(id, groups, extension, more);
        for data in spec.input_data_from(added.first_file, added.first_group) {
            if let Some(hash) = data.hash() {
                leader.blobs.add_reader(hash, data.size(), id);
            }
        }
        let groups = spec.groups().len();
        let at = self.now + RECOMPUTE_AFTER * groups as u32;
        leader.timers.set_once(at, Timer::Recompute(id));
        (added.first_group..groups).for_each(|group| self.refresh_offers(id, group));
        self.notify_watchers_soon(id);
    }

    /// Completes the closing of a job: outputs that are no longer results are not awaited, and the job ends once its
    /// tasks have.
    pub(crate) fn after_job_closed(&mut self, id: JobId) {
        self.leader.timers.clear(Timer::Client(id));
        let Some(active_job) = self.leader.jobs.get_mut(id) else {
            return;
        };
        active_job.stop_awaiting(|_| true);
        let groups = active_job.groups().len();
        self.replicate_results(id);
        (0..groups).for_each(|group| self.close_group(id, group));
        self.notify_watchers_soon(id);
        self.finish_if_done(id);
    }

    /// Stops awaiting the outputs of tasks that were released, and drops those that no task reads.
    pub(crate) fn after_released(&mut self, id: JobId, tasks: &[u32]) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        if let Some(active_job) = self.leader.jobs.get_mut(id) {
            let mut released = BTreeSet::new();
            for number in tasks {
                let group = job.spec.group_of(*number);
                active_job.releases_mut().insert(group, *number);
                let done = job.tasks[*number as usize].done().into_iter();
                released.extend(done.flat_map(|done| done.blobs()).map(|(hash, _)| hash));
            }
            active_job.stop_awaiting(|hash| released.contains(&hash));
        }
        self.drop_released(id, tasks.to_vec());
    }

    /// Drops released inputs and outputs of a task that is done, unless another task will read them.
    pub(crate) fn release_behind(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let Some(active_job) = self.leader.jobs.get(id.job) else {
            return;
        };
        let releases = active_job.releases();
        if releases.0.is_empty() {
            return;
        }
        let group = job.spec.group_of(id.number);
        let read = job.spec.waits_for(group).iter().map(|at| *at as usize);
        let read = read.filter(|at| job.group_done(group) || job.spec.is_each(group, *at));
        let all = read.chain([group]);
        let tasks = all.flat_map(|at| releases.of(at)).collect();
        self.drop_released(id.job, tasks);
    }

    /// Drops the outputs of these released tasks, except those that a task will still read.
    fn drop_released(&mut self, id: JobId, tasks: Vec<u32>) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let mut dropped = Vec::new();
        for number in tasks {
            let group = job.spec.group_of(number);
            let Some(done) = job.tasks[number as usize].done() else {
                continue;
            };
            if !job.outputs_unneeded(group, number - job.spec.first(group)) {
                continue;
            }
            if let Some(active_job) = self.leader.jobs.get_mut(id) {
                active_job.releases_mut().remove(group, number);
            }
            for (hash, _) in done.blobs() {
                let producer = TaskId { job: id, number };
                self.leader.blobs.remove_producer(hash, producer);
                dropped.push(hash);
            }
        }
        if !dropped.is_empty() {
            self.drop_unused(dropped);
        }
    }

    /// Prepares for a task to run again. If the task is released, its outputs must be dropped again later. Released
    /// outputs that it reads are needed again, and may still exist.
    pub(crate) fn reclaim_released(&mut self, id: TaskId) {
        let Some(job) = self.state.jobs.get(&id.job) else {
            return;
        };
        let spec = &job.spec;
        let group = spec.group_of(id.number);
        if job.tasks[id.number as usize].is_released()
            && let Some(active_job) = self.leader.jobs.get_mut(id.job)
        {
            active_job.releases_mut().insert(group, id.number);
        }
        let read = spec.waits_for(group).iter().map(|at| *at as usize);
        let read = read.filter(|at| job.released_of(*at) > 0 && spec.reads(group, *at));
        let mut again: Vec<(TaskId, Vec<(Hash, u64)>)> = Vec::new();
        for (at, number) in read.flat_map(|at| spec.numbers(at).map(move |number| (at, number))) {
            let task = &job.tasks[number as usize];
            if let (true, Some(done)) = (task.is_released(), task.done()) {
                let producer = TaskId {
                    job: id.job,
                    number,
                };
                again.push((producer, done.blobs().collect()));
                if let Some(active_job) = self.leader.jobs.get_mut(id.job) {
                    active_job.releases_mut().insert(at, number);
                }
            }
        }
        for (producer, blobs) in again {
            self.note_outputs(producer, &blobs, None);
        }
    }

    /// Records that the client of a job is present, if `peer` is that client.
    pub(crate) fn note_client(&mut self, id: JobId, peer: PeerId) {
        let is_client = self
            .state
            .jobs
            .get(&id)
            .is_some_and(|job| job.client == peer);
        if let Some(active_job) = self.leader.jobs.get_mut(id).filter(|_| is_client) {
            active_job.see_client(self.now);
        }
    }

    /// Records whether the client of an open job is present, and closes the job if the client has been gone for its
    /// `open_timeout`.
    pub(crate) fn check_client(&mut self, id: JobId) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        let Some(active_job) = self.leader.jobs.get_mut(id) else {
            return;
        };
        let (Some(recorded), Some(timeout)) = (job.client_seen(), job.spec.qos().open_timeout)
        else {
            return;
        };
        let watchers = active_job.watchers().iter().map(|(peer, _)| *peer);
        let ends = active_job.awaited_ends().iter().map(|awaited| awaited.peer);
        if watchers.chain(ends).any(|peer| peer == job.client) {
            active_job.see_client(self.now);
        }
        let seen = active_job.client_seen();
        self.leader
            .timers
            .set(self.now + timeout / CLIENT_CHECKS, Timer::Client(id));
        let (job, at) = (id, self.now);
        if self.now.since(seen) >= timeout {
            let by = ClosedBy::Timeout;
            self.append(Record::JobClosed { job, by, at }, None);
        } else if seen > recorded {
            self.append(Record::ClientSeen { job, at: seen }, None);
        }
    }
}
