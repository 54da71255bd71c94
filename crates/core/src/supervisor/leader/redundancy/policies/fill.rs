//! The `fill` policy: idle workers get copies until all of them have an attempt, those of the most critical tasks
//! first. These copies are cancelled as soon as a first attempt needs their slot, so they cost other work nothing.

use crate::supervisor::leader::redundancy::{CopyOrder, Policy, View};
use std::cmp::Ordering;
use std::time::Duration;

/// Maximum number of attempts of one task at once.
const ATTEMPTS_MAX: usize = 64;

/// The `fill` policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill;

/// A running task that may get a copy.
struct Candidate {
    attempts: usize,
    critical: bool,
    /// The longest path from its start to the job's end, in seconds at standard speed.
    path_s: f64,
    /// The indexes of its job in the view and of the task in the job.
    job: usize,
    task: usize,
}

impl Candidate {
    /// Orders candidates: those with the fewest attempts come first, then critical ones, then those with the longest
    /// path.
    fn order(&self, other: &Self) -> Ordering {
        (self.attempts, !self.critical)
            .cmp(&(other.attempts, !other.critical))
            .then(other.path_s.total_cmp(&self.path_s))
            .then((self.job, self.task).cmp(&(other.job, other.task)))
    }
}

fn candidates(view: &View<'_>) -> Vec<Candidate> {
    let jobs = view.jobs.iter().enumerate();
    let all = jobs.flat_map(|(job, seen)| {
        let tasks = seen.running.iter().enumerate();
        tasks.map(move |(number, task)| Candidate {
            attempts: task.attempts.len(),
            critical: task.critical,
            path_s: task.work_s + task.tail_s,
            job,
            task: number,
        })
    });
    let mut all: Vec<Candidate> = all.collect();
    all.sort_by(Candidate::order);
    all
}

impl Policy for Fill {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let candidates = candidates(view);
        let mut idle: Vec<usize> = view
            .idle()
            .into_iter()
            .filter(|worker| view.workers[*worker].in_hand == 0)
            .collect();
        let fewest = candidates.first().map_or(0, |first| first.attempts);
        for attempts in fewest..ATTEMPTS_MAX {
            let before = orders.len();
            for candidate in &candidates {
                if candidate.attempts > attempts || idle.is_empty() {
                    break;
                }
                let job = &view.jobs[candidate.job];
                let task = &job.running[candidate.task];
                let fits = |worker: &usize| view.may_run(job, task, *worker);
                let Some(at) = idle.iter().position(fits) else {
                    continue;
                };
                orders.push(CopyOrder {
                    task: task.id,
                    worker: idle.remove(at),
                    yields: true,
                    worth: candidate.path_s,
                });
            }
            if idle.is_empty() || orders.len() == before {
                break;
            }
        }
        None
    }
}
