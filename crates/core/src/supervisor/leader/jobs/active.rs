//! The leader's state of the jobs that have not ended. Every change of it goes through the methods here.

use crate::supervisor::durable::job::Job;
use crate::supervisor::leader::WorkerIx;
use crate::supervisor::leader::jobs::critical::CriticalSet;
use crate::supervisor::leader::jobs::group::ActiveGroup;
use crate::supervisor::leader::jobs::open::Releases;
use crate::supervisor::leader::jobs::policy_inputs::PolicyInputs;
use crate::supervisor::leader::jobs::quota::QuotaUse;
use crate::supervisor::leader::placement::body::ReadyBody;
use hedge_model::spec::Extension;
use hedge_model::{Hash, JobId, PeerId, Time};
use imbl::OrdMap;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::sync::Arc;

/// The jobs that have not ended, by id.
#[derive(Debug, Default)]
pub(crate) struct ActiveJobs {
    jobs: BTreeMap<JobId, ActiveJob>,
    /// What the jobs of each client count towards its quotas.
    quota_use: BTreeMap<PeerId, QuotaUse>,
    /// Jobs that may await results: every job that does, and some that no longer do.
    awaiting: BTreeSet<JobId>,
}

/// The leader's state of one job that has not ended.
#[derive(Debug)]
pub(crate) struct ActiveJob {
    groups: Vec<ActiveGroup>,
    watchers: Vec<(PeerId, u64)>,
    awaited_ends: Vec<AwaitedEnds>,
    notified_at: Time,
    ending: bool,
    awaited_results: BTreeSet<Hash>,
    stale: BTreeSet<Hash>,
    involved: BTreeSet<WorkerIx>,
    critical: CriticalSet,
    /// Recompute the critical set when this many tasks are done.
    next_recompute: u32,
    policy_inputs: Option<PolicyInputs>,
    success_s: f64,
    client: PeerId,
    quota_use: QuotaUse,
    client_seen: Time,
    releases: Releases,
}

/// Requests for the ends of one job's tasks that wait, at most: those of clients that are gone stay until the next end.
const ENDS_AWAITED_MAX: usize = 256;

/// A request that waits for the next end of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AwaitedEnds {
    pub peer: PeerId,
    pub request_id: u64,
    /// How many ends its client knows.
    pub after: u64,
}

/// What remains to be cleaned up after a job has ended.
pub(crate) struct EndedJob {
    /// Outputs of lost generations.
    pub stale: BTreeSet<Hash>,
    /// Workers that have or had attempts or task bodies of the job, and are told of its end.
    pub involved: BTreeSet<WorkerIx>,
    /// Whether a policy decided for the job.
    pub watched: bool,
}

impl ActiveJobs {
    pub fn get(&self, id: JobId) -> Option<&ActiveJob> {
        self.jobs.get(&id)
    }

    pub fn get_mut(&mut self, id: JobId) -> Option<&mut ActiveJob> {
        self.jobs.get_mut(&id)
    }

    /// Returns a group of a job; none if the job has ended.
    pub fn group(&self, id: JobId, group: usize) -> Option<&ActiveGroup> {
        Some(self.jobs.get(&id)?.group(group))
    }

    /// Returns a group of a job for changes; none if the job has ended.
    pub fn group_mut(&mut self, id: JobId, group: usize) -> Option<&mut ActiveGroup> {
        Some(self.jobs.get_mut(&id)?.group_mut(group))
    }

    pub fn contains(&self, id: JobId) -> bool {
        self.jobs.contains_key(&id)
    }

    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = (JobId, &ActiveJob)> {
        self.jobs.iter().map(|(id, job)| (*id, job))
    }

    /// Updates what the redundancy policies need to know about some jobs, from their durable state.
    pub fn update_policy_inputs(&mut self, ids: &[JobId], jobs: &OrdMap<JobId, Arc<Job>>) {
        for id in ids {
            if let Some((active_job, job)) = self.jobs.get_mut(id).zip(jobs.get(id)) {
                active_job.update_policy_inputs(job);
            }
        }
    }

    /// Returns how many jobs that a policy decides for have tasks that could start, `at_most` of them.
    pub fn count_waiting(&mut self, at_most: usize, jobs: &OrdMap<JobId, Arc<Job>>) -> usize {
        let waiting = self.jobs.iter_mut().filter_map(|(id, active_job)| {
            active_job.update_policy_inputs(jobs.get(id)?);
            let ready = active_job.policy_inputs()?.ready() > 0;
            (ready && !active_job.is_ending()).then_some(())
        });
        waiting.take(at_most).count()
    }

    /// Drops the cached task bodies that `stale` selects. They are built again when needed.
    pub fn drop_bodies(&mut self, stale: impl Fn(&ReadyBody) -> bool) {
        for group in self.jobs.values_mut().flat_map(|job| &mut job.groups) {
            group.drop_body_if(&stale);
        }
    }

    /// Adds a job.
    pub fn begin(&mut self, id: JobId, job: ActiveJob) {
        let total = self.quota_use.entry(job.client).or_default();
        *total = total.plus(job.quota_use);
        self.jobs.insert(id, job);
    }

    /// Appends the groups that an extension added to a job, and `more` to what it counts. Does not recompute the critical
    /// set and the bottom levels.
    pub fn grow(
        &mut self,
        id: JobId,
        groups: Vec<ActiveGroup>,
        extension: &Extension,
        more: QuotaUse,
    ) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.grow(groups, extension);
        job.quota_use = job.quota_use.plus(more);
        let total = self.quota_use.entry(job.client).or_default();
        *total = total.plus(more);
    }

    /// Removes a job that has ended.
    pub fn end(&mut self, id: JobId) -> Option<EndedJob> {
        let job = self.jobs.remove(&id)?;
        self.awaiting.remove(&id);
        if let Some(total) = self.quota_use.get_mut(&job.client) {
            *total = total.minus(job.quota_use);
            if total.jobs == 0 {
                self.quota_use.remove(&job.client);
            }
        }
        Some(EndedJob {
            stale: job.stale,
            involved: job.involved,
            watched: job.policy_inputs.is_some(),
        })
    }

    /// Returns what the jobs of each client count towards its quotas.
    pub fn quota_use(&self) -> &BTreeMap<PeerId, QuotaUse> {
        &self.quota_use
    }

    /// Records that too few supervisors hold a result of a job. Returns false if the job has ended.
    pub fn await_result(&mut self, id: JobId, hash: Hash) -> bool {
        let Some(job) = self.jobs.get_mut(&id) else {
            return false;
        };
        job.awaited_results.insert(hash);
        self.awaiting.insert(id);
        true
    }

    /// Records that enough supervisors hold a result. Returns the jobs that awaited it.
    pub fn note_replicated(&mut self, hash: Hash) -> Vec<JobId> {
        let (jobs, mut found) = (&mut self.jobs, Vec::new());
        self.awaiting.retain(|id| {
            let Some(job) = jobs.get_mut(id) else {
                return false;
            };
            if job.awaited_results.remove(&hash) {
                found.push(*id);
            }
            !job.awaited_results.is_empty()
        });
        found
    }

    /// Returns whether a job may await results by the index of those that do.
    pub fn may_await(&self, id: JobId) -> bool {
        self.awaiting.contains(&id)
    }

    /// Removes the watchers that `gone` selects by peer and request number.
    pub fn unwatch(&mut self, gone: impl Fn(PeerId, u64) -> bool) {
        for job in self.jobs.values_mut() {
            job.watchers
                .retain(|(peer, request_id)| !gone(*peer, *request_id));
            job.awaited_ends
                .retain(|awaited| !gone(awaited.peer, awaited.request_id));
        }
    }
}

/// Indexing panics for a job that has ended.
impl Index<JobId> for ActiveJobs {
    type Output = ActiveJob;

    fn index(&self, id: JobId) -> &ActiveJob {
        &self.jobs[&id]
    }
}

impl ActiveJob {
    /// Creates a job without watchers. The critical set is recomputed when `next_recompute` tasks are done.
    pub fn new(
        groups: Vec<ActiveGroup>,
        critical: CriticalSet,
        next_recompute: u32,
        policy_inputs: Option<PolicyInputs>,
        client: PeerId,
        quota_use: QuotaUse,
    ) -> Self {
        Self {
            groups,
            critical,
            next_recompute,
            policy_inputs,
            client,
            quota_use,
            client_seen: Time(0),
            releases: Releases::default(),
            watchers: Vec::new(),
            awaited_ends: Vec::new(),
            notified_at: Time(0),
            ending: false,
            awaited_results: BTreeSet::new(),
            stale: BTreeSet::new(),
            involved: BTreeSet::new(),
            success_s: 0.0,
        }
    }

    pub fn groups(&self) -> &[ActiveGroup] {
        &self.groups
    }

    pub fn groups_mut(&mut self) -> &mut [ActiveGroup] {
        &mut self.groups
    }

    pub fn group(&self, at: usize) -> &ActiveGroup {
        &self.groups[at]
    }

    /// Returns a group for changes. The policy's figures of it are updated before the next evaluation.
    pub fn group_mut(&mut self, at: usize) -> &mut ActiveGroup {
        if let Some(inputs) = &mut self.policy_inputs {
            inputs.note_changed(at);
        }
        &mut self.groups[at]
    }

    /// Returns the current critical set.
    pub fn critical(&self) -> &CriticalSet {
        &self.critical
    }

    /// Returns whether to recompute the critical set now that `done` of `all` tasks are done. The next time is after
    /// a further twentieth of the tasks, so that the cost stays small beside the tasks themselves.
    pub fn recompute_due(&mut self, done: u32, all: u32) -> bool {
        let due = done >= self.next_recompute;
        if due {
            self.next_recompute = next_recompute(done, all);
        }
        due
    }

    /// Stores the recomputed critical set and bottom levels. Returns whether the set changed.
    pub fn set_critical(&mut self, critical: CriticalSet, b_levels: Vec<f64>) -> bool {
        if let Some(inputs) = &mut self.policy_inputs {
            inputs.set_b_levels(b_levels);
        }
        let changed = critical != self.critical;
        self.critical = critical;
        changed
    }

    /// Returns the inputs of the redundancy policy, if one decides for this job.
    pub fn policy_inputs(&self) -> Option<&PolicyInputs> {
        self.policy_inputs.as_ref()
    }

    /// Updates the policy's figures of the groups that have changed. `job` is the durable state of this one.
    pub fn update_policy_inputs(&mut self, job: &Job) {
        if let Some(inputs) = &mut self.policy_inputs {
            inputs.update(job, &self.groups);
        }
    }

    /// Records that an attempt of a group won after `took_s` seconds of staging and running.
    pub fn note_success(&mut self, group: usize, took_s: f64) {
        self.groups[group].note_time(took_s);
        self.success_s += took_s;
        if let Some(inputs) = &mut self.policy_inputs {
            inputs.note_success(group, took_s);
        }
    }

    /// Worker time of the attempts that won, in seconds.
    pub fn success_s(&self) -> f64 {
        self.success_s
    }

    /// What the job counts towards its client's quotas.
    pub fn quota_use(&self) -> QuotaUse {
        self.quota_use
    }

    fn grow(&mut self, groups: Vec<ActiveGroup>, extension: &Extension) {
        for group in &extension.groups {
            self.critical.add(group);
            if let Some(inputs) = &mut self.policy_inputs {
                inputs.add(group);
            }
        }
        self.groups.extend(groups);
    }

    /// When the leader last heard from the client of an open job.
    pub fn client_seen(&self) -> Time {
        self.client_seen
    }

    pub fn see_client(&mut self, at: Time) {
        self.client_seen = at;
    }

    /// Released tasks whose outputs are not dropped yet.
    pub fn releases(&self) -> &Releases {
        &self.releases
    }

    pub fn releases_mut(&mut self) -> &mut Releases {
        &mut self.releases
    }

    /// Removes the results that `forget` selects from those that are awaited.
    pub fn stop_awaiting(&mut self, forget: impl Fn(Hash) -> bool) {
        self.awaited_results.retain(|hash| !forget(*hash));
    }

    /// Returns whether the end of the job has been proposed.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Marks the end of the job as proposed. Returns false if it was already.
    pub fn begin_end(&mut self) -> bool {
        !std::mem::replace(&mut self.ending, true)
    }

    /// Clears the mark of [`Self::begin_end`], because the proposed end was stale when it was committed.
    pub fn withdraw_end(&mut self) {
        self.ending = false;
    }

    /// Results that too few supervisors hold.
    pub fn awaited_results(&self) -> &BTreeSet<Hash> {
        &self.awaited_results
    }

    /// Records an output of a lost generation: running attempts may still read the copies that remain. `wanted` says
    /// that another task produced the same blob.
    pub fn note_stale(&mut self, hash: Hash, wanted: bool) {
        self.stale.insert(hash);
        if !wanted {
            self.awaited_results.remove(&hash);
        }
    }

    /// Records that a worker has attempts or task bodies of the job.
    pub fn note_involved(&mut self, ix: WorkerIx) {
        self.involved.insert(ix);
    }

    /// The clients that watch the job, each with the number of its request.
    pub fn watchers(&self) -> &[(PeerId, u64)] {
        &self.watchers
    }

    pub fn watch(&mut self, peer: PeerId, request_id: u64) {
        self.watchers.push((peer, request_id));
    }

    /// Requests that wait for the next end of a task.
    pub fn awaited_ends(&self) -> &[AwaitedEnds] {
        &self.awaited_ends
    }

    /// Adds a request; where there are too many, gives the one that has waited for longest, which is to be answered.
    pub fn await_ends(&mut self, awaited: AwaitedEnds) -> Option<AwaitedEnds> {
        let full = self.awaited_ends.len() >= ENDS_AWAITED_MAX;
        let longest = full.then(|| self.awaited_ends.remove(0));
        self.awaited_ends.push(awaited);
        longest
    }

    /// All of them, which are answered now.
    pub fn take_awaited_ends(&mut self) -> Vec<AwaitedEnds> {
        std::mem::take(&mut self.awaited_ends)
    }

    /// When the watchers were last notified.
    pub fn notified_at(&self) -> Time {
        self.notified_at
    }

    pub fn note_notified(&mut self, now: Time) {
        self.notified_at = now;
    }
}

/// Returns how many tasks must be done before the critical set is recomputed, given that `done` of `all` are.
pub(crate) fn next_recompute(done: u32, all: u32) -> u32 {
    done + (all / 20).max(1)
}
