//! What others do: rules that `auto` is measured against, behind the core's own interface. Each has the reading of
//! its published rule that does best here.

use super::arena::machine;
use super::truth::Truth;
use hedge_core::supervisor::redundancy::{CopyOrder, Policy, SeenJob, SeenTask, View};
use std::time::Duration;

/// Most that LATE's copies may take of all machines that have room or work: its `SpeculativeCap`.
const LATE_CAP: f64 = 0.1;
/// LATE copies tasks slower than this share of their siblings, to machines that are not slower than this
/// share of machines: its `SlowTaskThreshold` and `SlowNodeThreshold`.
const LATE_SLOW: f64 = 0.25;
/// How often LATE looks: progress changes without an event.
const LATE_EVERY: f64 = 0.02;
/// `spark.speculation.quantile`: Spark 3's default. Spark 4's, 0.9 and 3, copies later and does worse here.
const SPARK_QUANTILE: f64 = 0.75;
/// `spark.speculation.multiplier`, likewise.
const SPARK_MULTIPLIER: f64 = 1.5;
/// `spark.speculation.minTaskRuntime`, seconds.
const SPARK_MIN: f64 = 0.1;
/// BOINC: the end of a batch begins when so much of it is done.
const BOINC_DONE: f64 = 0.85;
/// Or fewer are left than this.
const BOINC_LEFT: u32 = 20;

/// No copies at all.
#[derive(Debug)]
pub struct Nothing;

impl Policy for Nothing {
    fn decide(&mut self, _: &View<'_>, _: &mut Vec<CopyOrder>) -> Option<Duration> {
        None
    }
}

/// LATE: among tasks whose progress rate is below the 25th percentile of their siblings', the one with the
/// longest time left gets one copy, on a machine that is not slow, while copies hold less than a tenth of
/// the machines. It is given exact progress, does not wait a minute before it judges a task, and counts siblings that
/// are done. With few siblings the percentile is the next rate above it, as otherwise the slowest of up to four
/// could never lie below it; that of machines is the next speed below it, so that more of them get copies.
#[derive(Debug)]
pub struct Late {
    truth: Truth,
}

impl Late {
    /// With the progress that machines really make.
    pub fn new(truth: Truth) -> Self {
        Self { truth }
    }

    /// The share of a task's first attempt that is done, and its rate in a second.
    fn progress(&self, view: &View<'_>, task: &SeenTask) -> Option<(f64, f64)> {
        let first = task.attempts.first()?;
        let at = machine(view.workers[first.worker].peer);
        let done = self.truth.progress(task.id, at, view.now)?;
        let elapsed = first.elapsed_s;
        (elapsed > 0.0 && done > 0.0).then(|| (done, done / elapsed))
    }
}

impl Policy for Late {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut slow: Vec<(f64, &SeenJob<'_>, &SeenTask)> = Vec::new();
        let mut open = false;
        for job in &view.jobs {
            let rated: Vec<(&SeenTask, f64, f64)> = job
                .running
                .iter()
                .filter_map(|task| {
                    let (done, rate) = self.progress(view, task)?;
                    Some((task, done, rate))
                })
                .collect();
            for (task, done, rate) in &rated {
                open |= task.attempts.len() == 1;
                if task.attempts.len() > 1 {
                    continue;
                }
                let siblings = rated.iter().filter(|(other, ..)| other.kind == task.kind);
                let mut rates: Vec<f64> = siblings.map(|(_, _, rate)| *rate).collect();
                let ended = job.kinds[task.kind].times_s.iter();
                rates.extend(ended.map(|time| 1.0 / time.max(1e-9)));
                rates.sort_by(f64::total_cmp);
                if rates.len() > 1 && *rate < percentile(&rates, LATE_SLOW, f64::ceil) {
                    slow.push(((1.0 - done) / rate, job, task));
                }
            }
        }
        slow.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.id.cmp(&b.2.id)));
        let attempts = || view.jobs.iter().flat_map(|job| &job.running);
        let copies = attempts()
            .map(|task| task.attempts.len() - 1)
            .sum::<usize>();
        let cap = (view.workers.len() as f64 * LATE_CAP).ceil() as usize;
        let mut speeds: Vec<f64> = view.workers.iter().map(|worker| worker.speed).collect();
        speeds.sort_by(f64::total_cmp);
        let slowest = percentile(&speeds, LATE_SLOW, f64::floor);
        let mut idle = view.idle();
        idle.retain(|at| view.workers[*at].speed >= slowest);
        for (left, job, task) in slow.into_iter().take(cap.saturating_sub(copies)) {
            order(view, job, task, &mut idle, left, orders);
        }
        (open && !idle.is_empty()).then(|| {
            let shortest = attempts().map(|task| task.work_s).fold(f64::MAX, f64::min);
            Duration::from_secs_f64((shortest * LATE_EVERY).clamp(1e-3, 60.0))
        })
    }
}

/// Spark 3: once three quarters of a stage are done, a task that takes more than one and a half times the median of its
/// siblings gets one copy, at once rather than at the next of its looks every 100 ms.
#[derive(Debug)]
pub struct Spark;

impl Policy for Spark {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut idle = view.idle();
        let mut next = f64::MAX;
        for job in &view.jobs {
            for task in &job.running {
                // Spark counts from the start of an attempt, and what is queued at a machine has not started.
                let [first] = &task.attempts[..] else {
                    continue;
                };
                if first.queued {
                    continue;
                }
                let kind = &job.kinds[task.kind];
                let enough = (f64::from(kind.total) * SPARK_QUANTILE).floor().max(1.0);
                if kind.total < 2 || f64::from(kind.done) < enough {
                    continue;
                }
                let Some(median) = kind.quantile(0.5) else {
                    continue;
                };
                let limit = (median * SPARK_MULTIPLIER).max(SPARK_MIN);
                let elapsed = first.elapsed_s;
                if elapsed > limit {
                    order(view, job, task, &mut idle, elapsed, orders);
                } else {
                    next = next.min(limit - elapsed);
                }
            }
        }
        (next < f64::MAX && !idle.is_empty()).then(|| Duration::from_secs_f64(next + 1e-6))
    }
}

/// BOINC: once 85 % of a batch is done or fewer than 20 tasks are left, each gets one copy, the oldest first.
#[derive(Debug)]
pub struct Boinc;

impl Policy for Boinc {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut idle = view.idle();
        for job in &view.jobs {
            let all = f64::from(job.spec.task_count());
            let done = all - f64::from(job.open);
            if done >= all * BOINC_DONE || job.open < BOINC_LEFT {
                copy_each(view, job, &mut idle, orders);
            }
        }
        None
    }
}

/// Each running task gets one copy as soon as a machine is idle, the oldest first.
#[derive(Debug)]
pub struct CloneAll;

impl Policy for CloneAll {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut idle = view.idle();
        for job in &view.jobs {
            copy_each(view, job, &mut idle, orders);
        }
        None
    }
}

fn copy_each(
    view: &View<'_>,
    job: &SeenJob<'_>,
    idle: &mut Vec<usize>,
    orders: &mut Vec<CopyOrder>,
) {
    let single = job.running.iter().filter(|task| task.attempts.len() == 1);
    let mut tasks: Vec<&SeenTask> = single.collect();
    let age = |task: &SeenTask| task.attempts[0].elapsed_s;
    tasks.sort_by(|a, b| age(b).total_cmp(&age(a)).then(a.id.cmp(&b.id)));
    for task in tasks {
        order(view, job, task, idle, age(task), orders);
    }
}

/// Orders a copy on the fastest idle machine that may run it.
fn order(
    view: &View<'_>,
    job: &SeenJob<'_>,
    task: &SeenTask,
    idle: &mut Vec<usize>,
    worth: f64,
    orders: &mut Vec<CopyOrder>,
) {
    let fits = |at: &usize| view.may_run(job, task, *at);
    if let Some(place) = idle.iter().position(fits) {
        let worker = idle.remove(place);
        orders.push(CopyOrder {
            task: task.id,
            worker,
            yields: false,
            worth,
        });
    }
}

/// The number at a share of ascending numbers, where `round` says which of two neighbours that is.
fn percentile(sorted: &[f64], share: f64, round: fn(f64) -> f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = round(share * last as f64) as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hedge_core::supervisor::CriticalSet;
    use hedge_core::supervisor::redundancy::{Beliefs, Kind, SeenAttempt, SeenWorker};
    use hedge_model::spec::{CriticalRule, Draft, Group, Qos};
    use hedge_model::{JobId, JobSpec, PeerId, TaskId, Time};

    fn worker(number: u8, free_milli: u64) -> SeenWorker {
        SeenWorker {
            peer: PeerId([number; 32]),
            number: u32::from(number),
            speed: 1.0,
            in_hand: 0,
            free_milli,
            loss_per_s: 0.0,
            suspected: false,
        }
    }

    /// A task whose first attempt was assigned to the first machine a second ago.
    fn task(number: u32, queued: bool) -> SeenTask {
        let attempt = SeenAttempt {
            worker: 0,
            elapsed_s: 1.0,
            redundant: false,
            queued,
            begun_at: 0.0,
            reports: None,
        };
        SeenTask {
            id: TaskId {
                job: JobId(1),
                number,
            },
            group: 0,
            kind: 0,
            critical: false,
            work_s: 0.01,
            spread: 0.2,
            cpus_busy: None,
            saves: false,
            saved: 0.0,
            tail_s: 0.0,
            attempts: [attempt].into_iter().collect(),
            avoid: Default::default(),
            waits: false,
        }
    }

    #[test]
    fn spark_copies_what_runs_for_long_and_not_what_is_queued_behind_it() {
        let spec = JobSpec::new(Draft {
            name: "short".into(),
            qos: Qos::default(),
            critical: CriticalRule::default(),
            files: Vec::new(),
            groups: vec![Group {
                array: Some((0, 20)),
                ..Group::program("short", &["true"])
            }],
            outline: false,
        })
        .unwrap();
        let kinds = [Kind {
            total: 20,
            done: 18,
            times_s: vec![0.01; 18],
        }];
        let critical = CriticalSet::find(&spec);
        let job = SeenJob {
            id: JobId(1),
            spec: &spec,
            redundancy: spec.qos().redundancy,
            urgency: 1.0,
            critical: &critical,
            elapsed_s: 2.0,
            open: 2,
            unstarted_s: 0.0,
            path_s: 0.01,
            running: vec![task(18, true), task(19, false)],
            success_s: 0.18,
            kinds: &kinds,
        };
        let view = View {
            now: Time(0),
            jobs: vec![job],
            workers: vec![worker(1, 0), worker(2, 2000), worker(3, 1000)],
            pool_speed: 3.0,
            beliefs: Beliefs::default(),
        };
        let mut orders = Vec::new();
        assert_eq!(Spark.decide(&view, &mut orders), None);
        let copied: Vec<u32> = orders.iter().map(|order| order.task.number).collect();
        assert_eq!(copied, [19]);
    }
}
