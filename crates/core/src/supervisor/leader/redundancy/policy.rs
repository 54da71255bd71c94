//! The interface through which redundancy is decided: what a policy sees and what it may order.
//!
//! A policy is asked when machines are idle that no ready task can use, after anything changed and again when
//! it asked for that. It sees the tasks that run, with estimates, and the workers; it orders copies. It never
//! stops an attempt: a slow one races with its copy. First attempts are none of its business, and neither are
//! the copies of critical tasks that a job asks for in advance.

use crate::supervisor::CriticalSet;
use crate::supervisor::durable::beliefs::Beliefs;
use hedge_model::spec::Redundancy;
use hedge_model::{JobId, JobSpec, PeerId, TaskId, Time};
use smallvec::SmallVec;
use std::fmt;
use std::time::Duration;

/// Decides which running task gets one more attempt, and where.
///
/// The same views in the same order must give the same orders: no clock, no randomness of the system, no
/// iteration in an order that could differ.
pub trait Policy: fmt::Debug + Send {
    /// Evaluations at what runs and adds the copies to start now to `orders`, most wanted first. An order that
    /// cannot be carried out (no room, the worker has the task already) is passed over. Returns when to be
    /// asked again even if nothing happens until then; without, only after the next change.
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration>;

    /// Whether critical tasks of `job` also get the copies that the job asks for in advance, before any task
    /// is slow. Shipped policies follow the job; baselines that stand alone say no.
    fn in_advance(&self, job: &JobSpec, group: usize) -> bool {
        let _ = (job, group);
        false
    }
}

/// One more attempt of a task that has one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CopyOrder {
    /// Of which task.
    pub task: TaskId,
    /// Where: the position of the worker in [`View::workers`].
    pub worker: usize,
    /// Whether it is stopped the instant a first attempt is ready that wants its place.
    pub yields: bool,
    /// How strongly it is wanted, for those who ask why; the policy's own unit.
    pub worth: f64,
}

/// All that a policy sees.
#[derive(Debug)]
pub struct View<'a> {
    /// Now.
    pub now: Time,
    /// Active jobs that the policy decides for, oldest first.
    pub jobs: Vec<SeenJob<'a>>,
    /// Workers that have room or run a task of these jobs.
    pub workers: Vec<SeenWorker>,
    /// Work that all workers together do in a second, in seconds at standard speed and one task each.
    pub pool_speed: f64,
    /// What is believed of how executions go, learned from all that ended.
    pub beliefs: Beliefs,
}

/// A job as a policy sees it.
#[derive(Debug)]
pub struct SeenJob<'a> {
    /// Its number.
    pub id: JobId,
    /// What was asked for.
    pub spec: &'a JobSpec,
    /// The redundancy that it asked for.
    pub redundancy: Redundancy,
    /// How much more than usual time saved is worth to it; 1 where nothing presses.
    pub urgency: f64,
    /// Its critical set.
    pub critical: &'a CriticalSet,
    /// Time since it was accepted.
    pub elapsed_s: f64,
    /// Tasks that have no attempt and could have one.
    pub ready: u32,
    /// Tasks not done.
    pub open: u32,
    /// Work of tasks that have no attempt yet, in seconds at standard speed.
    pub unstarted_s: f64,
    /// Its longest path from beginning to end, in seconds at standard speed.
    pub path_s: f64,
    /// Its tasks that have an attempt which may still succeed, by number.
    pub running: Vec<SeenTask>,
    /// Worker time of its attempts that ended and won, in seconds.
    pub success_s: f64,
    /// Its kinds of tasks: for rules that compare siblings.
    pub kinds: &'a [Kind],
}

/// Tasks of one job that are likely to behave alike: those of one group, or of groups with the same `kind`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kind {
    /// How many there are.
    pub total: u32,
    /// How many of these are done.
    pub done: u32,
    /// Running times of done ones in seconds, ascending; at most [`TIMES_MAX`], a fair sample beyond.
    pub times_s: Vec<f64>,
}

/// Running times kept of one kind: enough for a 99th percentile.
pub const TIMES_MAX: usize = 1024;

impl Kind {
    /// Notes that one more is done.
    pub fn note(&mut self, running_s: f64) {
        self.done += 1;
        let at = self.times_s.partition_point(|other| *other < running_s);
        if self.times_s.len() < TIMES_MAX {
            return self.times_s.insert(at, running_s);
        }
        // It takes the place of another one: only those between the two move.
        let out = self.done as usize * 7919 % TIMES_MAX;
        let at = if at > out {
            self.times_s.copy_within(out + 1..at, out);
            at - 1
        } else {
            self.times_s.copy_within(at..out, at + 1);
            at
        };
        self.times_s[at] = running_s;
    }

    /// The running time that this share of the done ones did not exceed; none are known where nothing is done.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let last = self.times_s.len().checked_sub(1)?;
        let at = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        self.times_s.get(at).copied()
    }
}

/// A running task as a policy sees it.
#[derive(Clone, Debug)]
pub struct SeenTask {
    /// Which.
    pub id: TaskId,
    /// The position of its group.
    pub group: usize,
    /// Its kind: index into [`SeenJob::kinds`]; tasks of one kind are siblings.
    pub kind: usize,
    /// Whether it is in the critical set.
    pub critical: bool,
    /// What it is expected to take at standard speed without straggling, in seconds.
    pub work_s: f64,
    /// How sure that is: the standard deviation of the logarithm of true over expected.
    pub spread: f64,
    /// The longest way from its end to the job's end at standard speed, in seconds; 0 for a last task.
    pub tail_s: f64,
    /// Its attempts that may still succeed, oldest first.
    pub attempts: SmallVec<[SeenAttempt; 3]>,
    /// Workers that are not to have it, by their position in [`View::workers`].
    pub barred: SmallVec<[usize; 2]>,
    /// It says that it waits for something, as a copy would too.
    pub waits: bool,
}

/// An attempt as a policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct SeenAttempt {
    /// Its worker's position in [`View::workers`].
    pub worker: usize,
    /// Since it was assigned or, where that is known, since it started; in seconds.
    pub elapsed_s: f64,
    /// Whether it is a copy.
    pub redundant: bool,
    /// Whether it waits in its worker's queue.
    pub queued: bool,
    /// What it says of itself, `0.0..=1.0`.
    pub progress: Option<f64>,
}

/// A worker as a policy sees it.
#[derive(Clone, Debug)]
pub struct SeenWorker {
    /// Who.
    pub peer: PeerId,
    /// Its place among all workers that this leader has seen.
    pub number: u32,
    /// Work that it does in a second, in seconds at standard speed.
    pub speed: f64,
    /// Attempts that it has in hand.
    pub in_hand: u32,
    /// Thousandths of CPUs that are free for copies; 0 where it may be given nothing.
    pub free_milli: u64,
    /// How often it is lost, per second.
    pub loss_per_s: f64,
    /// Whether it was told to leave, or is silent: what runs there may be lost.
    pub suspected: bool,
}

impl View<'_> {
    /// Whether a worker could be given a copy of a task, as far as is seen here: it has room, does not run it
    /// and is not barred, and the task does not wait.
    pub fn may_run(&self, job: &SeenJob<'_>, task: &SeenTask, worker: usize) -> bool {
        let need = job.spec.groups()[task.group].resources.cpus_milli;
        let seen = &self.workers[worker];
        seen.free_milli >= need.max(1)
            && !task.waits
            && !task.attempts.iter().any(|attempt| attempt.worker == worker)
            && !task.barred.contains(&worker)
    }

    /// Workers with room, fastest first.
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

    /// The speed of the fastest worker seen.
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
