//! The `speculate` policy: a task that takes much longer than its siblings did gets one copy, by the rule of Apache
//! Spark 4 (`spark.speculation`). A task without siblings is never copied.

use crate::supervisor::leader::redundancy::{CopyOrder, Policy, View};
use std::time::Duration;

/// Fraction of a kind that must be done: Spark 4's `spark.speculation.quantile`.
const QUANTILE: f64 = 0.9;
/// Multiple of the median: Spark 4's `spark.speculation.multiplier`.
const MULTIPLIER: f64 = 3.0;
/// Time in seconds below which nothing is copied: Spark 4's `spark.speculation.minTaskRuntime`.
const TIME_MIN: f64 = 0.1;

/// The `speculate` policy.
#[derive(Clone, Copy, Debug, Default)]
pub struct Speculate;

impl Policy for Speculate {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut idle = view.idle();
        let mut again: Option<f64> = None;
        for job in &view.jobs {
            for task in &job.running {
                let kind = &job.kinds[task.kind];
                let enough = f64::from(kind.done) >= QUANTILE * f64::from(kind.total);
                let (Some(median), true, [first]) =
                    (kind.quantile(0.5), enough, &task.attempts[..])
                else {
                    continue;
                };
                // It is evaluated again when it leaves the queue.
                if first.queued {
                    continue;
                }
                let limit = (median * MULTIPLIER).max(TIME_MIN);
                if first.elapsed_s < limit {
                    let remaining = limit - first.elapsed_s;
                    again = Some(again.map_or(remaining, |known| known.min(remaining)));
                    continue;
                }
                let Some(at) = idle
                    .iter()
                    .position(|worker| view.may_run(job, task, *worker))
                else {
                    continue;
                };
                orders.push(CopyOrder {
                    task: task.id,
                    worker: idle.remove(at),
                    yields: false,
                    worth: first.elapsed_s / median.max(1e-9),
                });
            }
        }
        again.map(|remaining| Duration::from_secs_f64((remaining + 1e-6).clamp(1e-3, 3600.0)))
    }
}
