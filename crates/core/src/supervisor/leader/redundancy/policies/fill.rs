//! The `fill` policy: idle workers get copies until all of them have an attempt, those of the most critical tasks
//! first. These copies are cancelled as soon as a first attempt needs their slot, so they cost other work nothing.

use crate::supervisor::leader::redundancy::{CopyOrder, Policy, View};
use std::time::Duration;

/// Maximum number of attempts of one task at once.
const ATTEMPTS_MAX: usize = 64;

/// The `fill` policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fill;

impl Policy for Fill {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        // Tasks by number of attempts, then critical ones, then those with the highest bottom level.
        let mut turns: Vec<(usize, bool, f64, usize, usize)> = Vec::new();
        for (at, job) in view.jobs.iter().enumerate() {
            for (number, task) in job.running.iter().enumerate() {
                let path_s = task.work_s + task.tail_s;
                turns.push((task.attempts.len(), !task.critical, -path_s, at, number));
            }
        }
        let order = |a: &(usize, bool, f64, usize, usize), b: &(usize, bool, f64, usize, usize)| {
            (a.0, a.1)
                .cmp(&(b.0, b.1))
                .then(a.2.total_cmp(&b.2))
                .then((a.3, a.4).cmp(&(b.3, b.4)))
        };
        turns.sort_by(order);
        let mut idle: Vec<usize> = view
            .idle()
            .into_iter()
            .filter(|worker| view.workers[*worker].in_hand == 0)
            .collect();
        let fewest = turns.first().map_or(0, |first| first.0);
        for round in fewest..ATTEMPTS_MAX {
            let before = orders.len();
            for (attempts, _, negated_path_s, job, task) in &turns {
                if *attempts > round || idle.is_empty() {
                    break;
                }
                let (seen, running) = (&view.jobs[*job], &view.jobs[*job].running[*task]);
                let fits = |worker: &usize| view.may_run(seen, running, *worker);
                let Some(at) = idle.iter().position(fits) else {
                    continue;
                };
                orders.push(CopyOrder {
                    task: running.id,
                    worker: idle.remove(at),
                    yields: true,
                    worth: -negated_path_s,
                });
            }
            if idle.is_empty() || orders.len() == before {
                break;
            }
        }
        None
    }
}
