//! The interface of redundancy policies: what a policy sees and what it may order.
//!
//! A policy is evaluated when workers are idle that no ready task can use: after any change, and again when it asked
//! for that. Its view has the running tasks, with estimates, and the workers. It orders copies and never stops an
//! attempt: a straggler races with its copy. It decides neither on first attempts nor on the copies of critical tasks
//! that a job asks for in advance.

use crate::supervisor::CriticalSet;
use crate::supervisor::durable::beliefs::Beliefs;
use hedge_model::spec::Redundancy;
use hedge_model::{JobId, JobSpec, PeerId, TaskId, Time};
use smallvec::SmallVec;
use std::fmt;
use std::time::Duration;

/// Decides which running task gets one more attempt, and on which worker.
///
/// The same views in the same order must give the same orders: no clock, no system randomness, no iteration in an
/// order that could differ.
pub trait Policy: fmt::Debug + Send {
    /// Adds the copies to start now to `orders`, the most useful first. An order that cannot be carried out is
    /// skipped, for example because the worker has no free slot or runs the task already. Returns when to evaluate
    /// the policy again even if nothing happens until then; none means only after the next change.
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration>;

    /// Returns running tasks that are to get one more attempt as soon as a worker is free, ahead of tasks that wait for
    /// one. Asked instead of [`Self::decide`] while several jobs keep all workers busy. `waiting_jobs` have tasks that could
    /// start if a worker were free; they are counted up to a thousand.
    fn ahead(&mut self, view: &View<'_>, waiting_jobs: usize) -> Vec<TaskId> {
        let _ = (view, waiting_jobs);
        Vec::new()
    }
}

/// An order to start one more attempt of a running task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyOrder {
    /// The task.
    pub task: TaskId,
    /// The index of the worker in [`View::workers`].
    pub worker: usize,
    /// Whether the copy is cancelled as soon as a first attempt needs its slot.
    pub yields: bool,
    /// The value of the copy in the policy's own unit, to explain the order.
    pub worth: f64,
}

/// Everything that a policy sees.
#[derive(Debug)]
pub struct View<'a> {
    /// The current time.
    pub now: Time,
    /// Active jobs with running tasks that the policy decides for, oldest first.
    pub jobs: Vec<SeenJob<'a>>,
    /// Workers that have free slots or run a task of these jobs.
    pub workers: Vec<SeenWorker>,
    /// Work of all workers per second, in seconds at standard speed, with one task on each.
    pub pool_speed: f64,
    /// The model of execution times, learned from all attempts that ended.
    pub beliefs: Beliefs,
}

/// A job as a policy sees it.
#[derive(Debug)]
pub struct SeenJob<'a> {
    /// Its id.
    pub id: JobId,
    /// Its specification.
    pub spec: &'a JobSpec,
    /// The redundancy that it asks for.
    pub redundancy: Redundancy,
    /// By which factor saved time is worth more than usual; 1 unless a deadline is at risk.
    pub urgency: f64,
    /// Its critical set.
    pub critical: &'a CriticalSet,
    /// Time since it was accepted, in seconds.
    pub elapsed_s: f64,
    /// Tasks that are not done.
    pub open: u32,
    /// Work of the tasks that have no attempt yet, in seconds at standard speed.
    pub unstarted_s: f64,
    /// Its critical path from beginning to end, in seconds at standard speed.
    pub path_s: f64,
    /// Its tasks with an attempt that may still succeed, by number.
    pub running: Vec<SeenTask>,
    /// Worker time of its attempts that won, in seconds.
    pub success_s: f64,
    /// Its kinds of tasks, for policies that compare siblings.
    pub kinds: &'a [Kind],
}

/// Tasks of one job that are likely to take similar times: those of one group, or of groups with the same `kind`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    /// The number of tasks.
    pub total: u32,
    /// How many of them are done.
    pub done: u32,
    /// Times that staging and running of the tasks that are done took, in seconds, ascending; a sample if there are
    /// more than [`TIMES_MAX`]. [`SeenAttempt::elapsed_s`] of an attempt that is not queued compares with them.
    pub times_s: Vec<f64>,
}

/// Times kept per kind: enough for a 99th percentile.
pub const TIMES_MAX: usize = 1024;

impl Kind {
    /// Adds the time of one more task that is done.
    pub fn note(&mut self, took_s: f64) {
        self.done += 1;
        let at = self.times_s.partition_point(|other| *other < took_s);
        if self.times_s.len() < TIMES_MAX {
            return self.times_s.insert(at, took_s);
        }
        // It replaces another time: only the times between the two move.
        let out = self.done as usize * 7919 % TIMES_MAX;
        let at = if at > out {
            self.times_s.copy_within(out + 1..at, out);
            at - 1
        } else {
            self.times_s.copy_within(at..out, at + 1);
            at
        };
        self.times_s[at] = took_s;
    }

    /// Returns the time that this share of the tasks did not exceed; none if no task is done.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.times_s.len().checked_sub(1)?;
        let at = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        self.times_s.get(at).copied()
    }
}

/// A running task as a policy sees it.
#[derive(Clone, Debug)]
pub struct SeenTask {
    /// Its id.
    pub id: TaskId,
    /// The index of its group.
    pub group: usize,
    /// The index of its kind in [`SeenJob::kinds`]; tasks of one kind are siblings.
    pub kind: usize,
    /// Whether it is in the critical set.
    pub critical: bool,
    /// Expected time at standard speed without straggling, in seconds.
    pub work_s: f64,
    /// Uncertainty of that: the standard deviation of the logarithm of actual over expected time.
    pub spread: f64,
    /// CPUs that tasks of its kind keep busy on average; none if too little is known.
    pub cpus_busy: Option<f64>,
    /// Whether it saves checkpoints.
    pub saves: bool,
    /// The share of its work that is done where a new attempt would begin: that of its newest checkpoint.
    pub saved: f64,
    /// Bottom level: the critical path from its end to the job's end at standard speed, in seconds; 0 for a last
    /// task.
    pub tail_s: f64,
    /// Its attempts that may still succeed, oldest first.
    pub attempts: SmallVec<[SeenAttempt; 3]>,
    /// Workers on which it failed, by index in [`View::workers`].
    pub avoid: SmallVec<[usize; 2]>,
    /// It gets no copy: it reports that it waits for something, as a copy would too, or its group rules copies out.
    pub waits: bool,
}

/// An attempt as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct SeenAttempt {
    /// The index of its worker in [`View::workers`].
    pub worker: usize,
    /// Time since it was assigned or left its worker's queue, in seconds.
    pub elapsed_s: f64,
    /// Whether it is a redundant attempt.
    pub redundant: bool,
    /// Whether it is queued at its worker.
    pub queued: bool,
    /// The share of its task's work that was done when it began: that of the checkpoint from which it resumed.
    pub begun_at: f64,
    /// Its first and its last report of progress.
    pub reports: Option<[ProgressReport; 2]>,
}

/// What an attempt reported of its progress at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProgressReport {
    /// When, in seconds on the scale of [`SeenAttempt::elapsed_s`].
    pub at_s: f64,
    /// The share of its task's work that was done, if its program says so.
    pub done: Option<f64>,
    /// CPU time that it had used, in seconds.
    pub cpu_s: f64,
}

/// A worker as a policy sees it.
#[derive(Clone, Debug)]
pub struct SeenWorker {
    /// Its key.
    pub peer: PeerId,
    /// Its number among all workers that this leader has seen.
    pub number: u32,
    /// Work that it does per second, in seconds at standard speed.
    pub speed: f64,
    /// Attempts that it has in hand.
    pub in_hand: u32,
    /// Thousandths of CPUs that are free for copies; 0 if it may not be given work.
    pub free_milli: u64,
    /// How often it is lost, per second.
    pub loss_per_s: f64,
    /// Whether attempts there may be lost: it drains, its owner keeps them from running, or it is suspected or
    /// unreachable.
    pub suspected: bool,
}

impl View<'_> {
    /// Returns whether a worker could run a copy of a task, as far as the view shows: it has a free slot, has
    /// neither an attempt nor a failure of the task, and the task does not wait.
    pub fn may_run(&self, job: &SeenJob<'_>, task: &SeenTask, worker: usize) -> bool {
        let need = job.spec.groups()[task.group].resources.cpus_milli;
        let seen = &self.workers[worker];
        seen.free_milli >= need.max(1)
            && !task.waits
            && !task.attempts.iter().any(|attempt| attempt.worker == worker)
            && !task.avoid.contains(&worker)
    }

    /// Returns the workers with CPUs free, fastest first.
    pub fn idle(&self) -> Vec<usize> {
        let mut idle: Vec<usize> = (0..self.workers.len())
            .filter(|at| self.workers[*at].free_milli > 0 && !self.workers[*at].suspected)
            .collect();
        idle.sort_by(|a, b| {
            let speed = |at: &usize| self.workers[*at].speed;
            speed(b).total_cmp(&speed(a)).then(a.cmp(b))
        });
        idle
    }

    /// Returns the speed of the fastest worker in the view.
    pub fn fastest(&self) -> f64 {
        let speeds = self.workers.iter().map(|worker| worker.speed);
        let fastest = speeds.fold(0.0, f64::max);
        if fastest > 0.0 { fastest } else { 1.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_sample_stays_ordered_and_gives_one_up_for_each() {
        let mut kind = Kind::default();
        let mut seed = 1_u64;
        for _ in 0..3 * TIMES_MAX {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let time = (seed >> 40) as f64;
            let (before, at) = (
                kind.times_s.clone(),
                (kind.done as usize + 1) * 7919 % TIMES_MAX,
            );
            kind.note(time);
            let mut expected = before;
            if expected.len() >= TIMES_MAX {
                expected.remove(at);
            }
            let place = expected.partition_point(|other| *other < time);
            expected.insert(place, time);
            assert_eq!(kind.times_s, expected);
        }
    }
}
