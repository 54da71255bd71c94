//! Adds an accepted job to the jobs that the leader works on.

use crate::supervisor::durable::job::{Job, Task};
use crate::supervisor::durable::state::State;
use crate::supervisor::follower::Hints;
use crate::supervisor::leader::Leadership;
use crate::supervisor::leader::jobs::active::{ActiveJob, next_recompute};
use crate::supervisor::leader::jobs::critical;
use crate::supervisor::leader::jobs::group::ActiveGroup;
use crate::supervisor::leader::jobs::policy_inputs::PolicyInputs;
use crate::supervisor::leader::jobs::quota::QuotaUse;
use hedge_model::{JobId, TaskId};

impl Leadership<'_> {
    /// Starts work on a job that has not ended. `hints` are its running attempts that the previous leader announced.
    pub(crate) fn activate(&mut self, id: JobId, hints: &Hints) {
        let Some(job) = self.state.jobs.get(&id) else {
            return;
        };
        if !job.active() || self.leader.jobs.contains(id) {
            return;
        }
        let spec = job.spec.clone();
        let done: Vec<(TaskId, Vec<_>)> = (0..)
            .zip(&job.tasks)
            .filter_map(|(number, task)| Some((number, task.done()?)))
            .filter(|(number, _)| !outputs_unneeded(job, *number))
            .map(|(number, done)| (TaskId { job: id, number }, done.blobs().collect()))
            .collect();
        let unread = (0..).zip(&job.tasks).filter(|(_, task)| task.is_released());
        let unread = unread.map(|(number, _)| number);
        let unread: Vec<u32> = match job.released_of.is_empty() {
            true => Vec::new(),
            false => unread
                .filter(|number| !outputs_unneeded(job, *number))
                .collect(),
        };
        let watched = self.view().watches(&spec);
        let mut active_job = start_job(self.state, job, watched);
        let leader = &mut *self.leader;
        if watched {
            leader.evaluations.job_begins();
        }
        for (active_group, group) in active_job.groups_mut().iter_mut().zip(spec.groups()) {
            active_group.set_shape(leader.shapes.number(group));
        }
        for number in unread {
            let releases = active_job.releases_mut();
            releases.insert(spec.group_of(number), number);
        }
        leader.jobs.begin(id, active_job);
        for (hash, size) in spec.input_blobs() {
            leader.blobs.add_reader(hash, size, id);
        }
        done.into_iter()
            .for_each(|(task, blobs)| self.note_outputs(task, &blobs, None));
        self.watch_client(id);
        self.expect_checkpoints(id);
        self.replicate_results(id);
        self.restore_hinted(id, hints);
        self.fail_stranded(id);
        self.refresh_all_offers(id);
        self.finish_if_done(id);
    }
}

/// Builds the leader's state of a job from its durable state and from statistics of earlier tasks. If `watched`, it
/// includes the inputs of the redundancy policy.
fn start_job(state: &State, job: &Job, watched: bool) -> ActiveJob {
    let (spec, learned) = (&job.spec, &state.learned);
    let mut groups: Vec<ActiveGroup> = (0..spec.groups().len())
        .map(|group| start_group(job, group))
        .collect();
    let b_levels = critical::b_levels(spec, |at| learned.expect(&spec.groups()[at]).work_s);
    let ranks = critical::ranks(learned, spec, &b_levels);
    for (group, rank) in groups.iter_mut().zip(ranks) {
        group.set_rank(rank);
    }
    let policy_inputs = watched.then(|| PolicyInputs::new(spec, b_levels));
    let critical = critical::CriticalSet::find_with(spec, learned);
    let next_recompute = next_recompute(job.done, spec.task_count());
    ActiveJob::new(
        groups,
        critical,
        next_recompute,
        policy_inputs,
        job.client,
        QuotaUse::of(spec),
    )
}

/// Returns whether no task or client will read a task's outputs any more.
fn outputs_unneeded(job: &Job, number: u32) -> bool {
    if !job.spec.has_each() && job.released_of.is_empty() {
        return false;
    }
    let group = job.spec.group_of(number);
    job.outputs_unneeded(group, number - job.spec.first(group))
}

/// Builds a group's state: which of its tasks still have to run, and how many groups it waits for as a whole.
pub(crate) fn start_group(job: &Job, group: usize) -> ActiveGroup {
    let tasks: Vec<&Task> = job.tasks_of(group).collect();
    let untouched = |task: &Task| task.is_open() && task.generation == 0 && task.failures() == 0;
    let involved = tasks.iter().rposition(|task| !untouched(task));
    let fresh = match job.spec.each(group).is_empty() {
        true => involved.map_or(0, |at| at as u32 + 1),
        false => tasks.len() as u32,
    };
    let again = (0..fresh)
        .filter(|offset| tasks[*offset as usize].is_open())
        .filter(|offset| job.element_ready(group, *offset))
        .collect();
    ActiveGroup::new(job.waiting_groups(group), fresh, again)
}
