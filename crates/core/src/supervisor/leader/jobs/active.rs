//! The jobs that have not ended, as the leader works on them.

use crate::supervisor::leader::WorkerIx;
use crate::supervisor::leader::jobs::critical::CriticalSet;
use crate::supervisor::leader::jobs::group::ActiveGroup;
use crate::supervisor::leader::jobs::open::Releases;
use crate::supervisor::leader::jobs::size::Size;
use crate::supervisor::leader::placement::body::ReadyBody;
use crate::supervisor::leader::redundancy::Kind;
use hedge_model::spec::{Extension, Group};
use hedge_model::{Hash, JobId, JobSpec, PeerId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::sync::Arc;

/// The jobs that have not ended.
#[derive(Debug, Default)]
pub(crate) struct ActiveJobs {
    jobs: BTreeMap<JobId, ActiveJob>,
}

/// A job that has not ended, as the leader works on it.
#[derive(Debug)]
pub(crate) struct ActiveJob {
    groups: Vec<ActiveGroup>,
    watchers: Vec<(PeerId, u64)>,
    notified_at: Time,
    ending: bool,
    awaited_results: BTreeSet<Hash>,
    stale: BTreeSet<Hash>,
    involved: BTreeSet<WorkerIx>,
    critical: CriticalSet,
    /// The critical set is found again when so many tasks are done.
    next_recompute: u32,
    policy_inputs: Option<PolicyInputs>,
    success_s: f64,
    size: Size,
    client_seen: Time,
    releases: Releases,
}

/// What a policy on redundancy asks about a job.
#[derive(Debug, Default)]
pub(crate) struct PolicyInputs {
    /// Kinds of its tasks.
    pub kinds: Vec<Kind>,
    /// For each group the place of its kind.
    pub kind_of: Vec<u32>,
    /// For each group the bottom level behind its tasks, seconds at standard speed.
    pub b_levels: Vec<f64>,
    places: BTreeMap<Arc<str>, u32>,
}

impl PolicyInputs {
    pub fn new(spec: &JobSpec, b_levels: Vec<f64>) -> Self {
        let mut inputs = Self::default();
        spec.groups().iter().for_each(|group| inputs.add(group));
        Self { b_levels, ..inputs }
    }

    /// The job has one more group, of which the bottom level is not known yet.
    fn add(&mut self, group: &Group) {
        let kinds = &mut self.kinds;
        let place = *self.places.entry(group.kind().clone()).or_insert_with(|| {
            kinds.push(Kind::default());
            kinds.len() as u32 - 1
        });
        kinds[place as usize].total += group.count();
        self.kind_of.push(place);
        self.b_levels.push(0.0);
    }
}

/// What a job leaves behind that has ended.
pub(crate) struct EndedJob {
    /// Outputs of generations that were lost.
    pub stale: BTreeSet<Hash>,
    /// Workers that have or had something of it.
    pub involved: BTreeSet<WorkerIx>,
    /// Whether a policy was asked about it.
    pub watched: bool,
}

impl ActiveJobs {
    pub fn get(&self, id: JobId) -> Option<&ActiveJob> {
        self.jobs.get(&id)
    }

    pub fn get_mut(&mut self, id: JobId) -> Option<&mut ActiveJob> {
        self.jobs.get_mut(&id)
    }

    /// A group of a job, where the job has not ended.
    pub fn group(&self, id: JobId, group: usize) -> Option<&ActiveGroup> {
        Some(self.jobs.get(&id)?.group(group))
    }

    /// A group of a job, to be changed, where the job has not ended.
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

    /// Bodies of which `stale` holds are built again.
    pub fn drop_bodies(&mut self, stale: impl Fn(&ReadyBody) -> bool) {
        for group in self.jobs.values_mut().flat_map(|job| &mut job.groups) {
            group.drop_body_if(&stale);
        }
    }

    /// A job begins.
    pub fn begin(&mut self, id: JobId, job: ActiveJob) {
        self.jobs.insert(id, job);
    }

    /// A job has ended.
    pub fn end(&mut self, id: JobId) -> Option<EndedJob> {
        self.jobs.remove(&id).map(|job| EndedJob {
            stale: job.stale,
            involved: job.involved,
            watched: job.policy_inputs.is_some(),
        })
    }

    /// A result is held by as many supervisors as are to hold it; returns the jobs that missed it.
    pub fn note_replicated(&mut self, hash: Hash) -> Vec<JobId> {
        let missed =
            |(id, job): (&JobId, &mut ActiveJob)| job.awaited_results.remove(&hash).then_some(*id);
        self.jobs.iter_mut().filter_map(missed).collect()
    }

    /// Those of whom `gone` holds wait for no answers any more.
    pub fn unwatch(&mut self, gone: impl Fn(PeerId, u64) -> bool) {
        for job in self.jobs.values_mut() {
            job.watchers
                .retain(|(peer, request_id)| !gone(*peer, *request_id));
        }
    }
}

/// A job that is known not to have ended.
impl Index<JobId> for ActiveJobs {
    type Output = ActiveJob;

    fn index(&self, id: JobId) -> &ActiveJob {
        &self.jobs[&id]
    }
}

impl ActiveJob {
    /// A job of which nobody has been told; the critical set is found again when `next_recompute` tasks are done.
    pub fn new(
        groups: Vec<ActiveGroup>,
        critical: CriticalSet,
        next_recompute: u32,
        policy_inputs: Option<PolicyInputs>,
        size: Size,
    ) -> Self {
        Self {
            groups,
            critical,
            next_recompute,
            policy_inputs,
            size,
            client_seen: Time(0),
            releases: Releases::default(),
            watchers: Vec::new(),
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

    pub fn group_mut(&mut self, at: usize) -> &mut ActiveGroup {
        &mut self.groups[at]
    }

    /// Its critical set, as it is known now.
    pub fn critical(&self) -> &CriticalSet {
        &self.critical
    }

    /// Whether the critical set is to be found again now that `done` of `all` tasks are done; it then is not again
    /// before the next twentieth of them, so that it costs little beside what the tasks do.
    pub fn recompute_due(&mut self, done: u32, all: u32) -> bool {
        let due = done >= self.next_recompute;
        if due {
            self.next_recompute = next_recompute(done, all);
        }
        due
    }

    /// The critical set and the longest ways to the end were found again; says whether the set is another.
    pub fn set_critical(&mut self, critical: CriticalSet, b_levels: Vec<f64>) -> bool {
        if let Some(inputs) = &mut self.policy_inputs {
            inputs.b_levels = b_levels;
        }
        let changed = critical != self.critical;
        self.critical = critical;
        changed
    }

    /// What a policy asks about it, where one is asked.
    pub fn policy_inputs(&self) -> Option<&PolicyInputs> {
        self.policy_inputs.as_ref()
    }

    /// An attempt of a group has won after so many seconds, `running_s` of which its program ran.
    pub fn note_success(&mut self, group: usize, took_s: f64, running_s: f64) {
        self.groups[group].note_time(took_s);
        self.success_s += took_s;
        if let Some(inputs) = &mut self.policy_inputs {
            let kind = inputs.kind_of[group];
            inputs.kinds[kind as usize].note(running_s);
        }
    }

    /// Worker time of attempts that won, seconds.
    pub fn success_s(&self) -> f64 {
        self.success_s
    }

    /// What of it counts towards the limits of its client.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Groups are added, which `extension` brought. The critical set and the bottom levels are not found again by that.
    pub fn grow(&mut self, added: Vec<ActiveGroup>, extension: &Extension) {
        for group in &extension.groups {
            self.critical.add(group);
            if let Some(inputs) = &mut self.policy_inputs {
                inputs.add(group);
            }
        }
        self.groups.extend(added);
        self.size.add(extension);
    }

    /// When the client of an open job was last there.
    pub fn client_seen(&self) -> Time {
        self.client_seen
    }

    pub fn see_client(&mut self, at: Time) {
        self.client_seen = at;
    }

    /// Released tasks whose outputs are still read.
    pub fn releases(&self) -> &Releases {
        &self.releases
    }

    pub fn releases_mut(&mut self) -> &mut Releases {
        &mut self.releases
    }

    /// These results are not missed any more.
    pub fn stop_awaiting(&mut self, forget: impl Fn(Hash) -> bool) {
        self.awaited_results.retain(|hash| !forget(*hash));
    }

    /// Whether its end is proposed.
    pub fn is_ending(&self) -> bool {
        self.ending
    }

    /// Its end is proposed; false where it was already.
    pub fn begin_end(&mut self) -> bool {
        !std::mem::replace(&mut self.ending, true)
    }

    /// The end that was proposed came too late to be true.
    pub fn withdraw_end(&mut self) {
        self.ending = false;
    }

    /// Results that too few supervisors hold.
    pub fn awaited_results(&self) -> &BTreeSet<Hash> {
        &self.awaited_results
    }

    /// Too few supervisors hold a result.
    pub fn await_result(&mut self, hash: Hash) {
        self.awaited_results.insert(hash);
    }

    /// An output of a generation that was lost: attempts that run may still read what is left of it. `wanted` says that
    /// another task left the same.
    pub fn note_stale(&mut self, hash: Hash, wanted: bool) {
        self.stale.insert(hash);
        if !wanted {
            self.awaited_results.remove(&hash);
        }
    }

    /// A worker has something of it.
    pub fn note_involved(&mut self, ix: WorkerIx) {
        self.involved.insert(ix);
    }

    /// The clients that watch it, each with the number of its request.
    pub fn watchers(&self) -> &[(PeerId, u64)] {
        &self.watchers
    }

    pub fn watch(&mut self, peer: PeerId, request_id: u64) {
        self.watchers.push((peer, request_id));
    }

    /// When its watchers were told last.
    pub fn notified_at(&self) -> Time {
        self.notified_at
    }

    pub fn note_notified(&mut self, now: Time) {
        self.notified_at = now;
    }
}

/// When the critical set of a job is found again of which `done` of `all` tasks are done.
pub(crate) fn next_recompute(done: u32, all: u32) -> u32 {
    done + (all / 20).max(1)
}
