//! `auto`: a copy is started where what it is expected to gain for the job's end is worth what it costs.
//!
//! For a running task with the chance S(t) that it is not done t seconds from now, and a copy with the chance
//! F(t) to be done by then:
//! - gain = ∫ from c of S(t)·F(t) dt, where c is the moment up to which other work ends anyway, less the way
//!   that remains behind this task: time saved before it saves nothing;
//! - cost = ∫ S(t)·R(t) dt, where R(t) is the chance that the copy still runs at t, lost copies not counted.
//!
//! What copies of one task share, the error of its estimate, is told apart from what they do not: a task that
//! takes long everywhere is not helped by another machine. So both integrals are taken for several values of
//! the shared part, each as likely as what has been seen so far makes it.

use super::survival::Survival;
use super::{Beliefs, CopyOrder, Policy, SeenJob, SeenTask, View};
use hedge_model::JobSpec;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tasks looked at closely in one decision.
const CANDIDATES_MAX: usize = 48;
/// Points at which the integrals are taken.
const POINTS: usize = 36;
/// Values of the shared part with their chances: three points that give a normal distribution's moments.
const SHARED: [(f64, f64); 3] = [
    (-1.732_050_8, 1.0 / 6.0),
    (0.0, 2.0 / 3.0),
    (1.732_050_8, 1.0 / 6.0),
];

/// How `auto` weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoSettings {
    /// A copy is started where gain ÷ cost exceeds this. 0.25: over nine recorded workflows on spot machines
    /// 0.15 spent more for the same mean, and with 0.4 and more the slowest runs were slower; see
    /// docs/evaluation.md.
    pub price: f64,
    /// Attempts of one task at once: a third mattered in the calibration, a fourth did not.
    pub attempts_max: usize,
    /// Of the variance of a task's time around what was expected, the part that its copies share.
    pub shared: f64,
    /// Gains below this, in seconds, are not worth the start of a process.
    pub gain_min_s: f64,
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            price: 0.25,
            attempts_max: 3,
            shared: 0.7,
            gain_min_s: 0.002,
        }
    }
}

/// The policy.
#[derive(Clone, Debug, Default)]
pub struct Auto {
    settings: AutoSettings,
}

impl Auto {
    /// With these settings.
    pub fn new(settings: AutoSettings) -> Self {
        Self { settings }
    }
}

impl Policy for Auto {
    fn name(&self) -> &'static str {
        "auto"
    }

    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut idle = view.idle();
        if idle.is_empty() {
            return None;
        }
        let mut weigh = Weigh::new(view, self.settings);
        let mut again: Option<f64> = None;
        let mut candidates = Vec::new();
        for (at, job) in view.jobs.iter().enumerate() {
            let paths = Paths::new(view, job);
            for task in nominees(view, job, &paths) {
                candidates.push((at, task, paths.horizon_without(task)));
                let soon = 0.1 * job.running[task].work_s;
                again = Some(again.map_or(soon, |known: f64| known.min(soon)));
            }
        }
        let mut given: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        loop {
            let mut best: Option<(f64, usize, usize, usize)> = None;
            for (job, task, horizon) in &candidates {
                let seen = &view.jobs[*job];
                let copies = given.get(&(*job, *task)).map_or(&[][..], |g| g);
                let Some(worker) = place(view, seen, *task, copies, &idle) else {
                    continue;
                };
                if seen.running[*task].attempts.len() + copies.len() >= self.settings.attempts_max {
                    continue;
                }
                let worth =
                    seen.urgency * weigh.worth(&seen.running[*task], copies, worker, *horizon);
                if worth > self.settings.price && best.is_none_or(|(other, ..)| worth > other) {
                    best = Some((worth, *job, *task, worker));
                }
            }
            let Some((worth, job, task, worker)) = best else {
                break;
            };
            orders.push(CopyOrder {
                task: view.jobs[job].running[task].id,
                worker,
                yields: false,
                worth,
            });
            given.entry((job, task)).or_default().push(worker);
            idle.retain(|other| *other != worker);
        }
        again.map(|soon| Duration::from_secs_f64(soon.clamp(0.001, 60.0)))
    }

    fn in_advance(&self, job: &JobSpec, group: usize) -> bool {
        job.groups()[group].critical
    }
}

/// The fastest idle worker that may run a copy.
fn place(
    view: &View<'_>,
    job: &SeenJob<'_>,
    task: usize,
    copies: &[usize],
    idle: &[usize],
) -> Option<usize> {
    let seen = &job.running[task];
    let free = |worker: &&usize| !copies.contains(*worker) && view.may_run(job, seen, **worker);
    idle.iter().find(free).copied()
}

/// What remains of a job, on paths through its running tasks, without straggling and losses.
struct Paths {
    /// For each running task the seconds until the job's end through it.
    nominal: Vec<f64>,
    /// The largest of these, where, and the next.
    longest: (f64, usize),
    second: f64,
    /// Remaining work over the pool's speed.
    work: f64,
}

impl Paths {
    fn new(view: &View<'_>, job: &SeenJob<'_>) -> Self {
        let fast = view.fastest();
        let mut left = job.unstarted_s;
        let mut nominal = Vec::with_capacity(job.running.len());
        for task in &job.running {
            let remains = |attempt: &super::SeenAttempt| {
                let speed = view.workers[attempt.worker].speed;
                (task.work_s / speed - attempt.elapsed_s).max(0.0)
            };
            let soonest = task
                .attempts
                .iter()
                .map(remains)
                .fold(f64::INFINITY, f64::min);
            let soonest = if soonest.is_finite() { soonest } else { 0.0 };
            left += soonest;
            nominal.push(soonest + task.tail_s / fast);
        }
        let mut longest = (0.0, usize::MAX);
        let mut second = 0.0;
        for (at, path) in nominal.iter().enumerate() {
            if longest.1 == usize::MAX || *path > longest.0 {
                second = longest.0;
                longest = (*path, at);
            } else if *path > second {
                second = *path;
            }
        }
        Self {
            nominal,
            longest,
            second,
            work: left / view.pool_speed.max(1e-9),
        }
    }

    /// When the job would end but for this task.
    fn horizon_without(&self, task: usize) -> f64 {
        let others = if self.longest.1 == task {
            self.second
        } else {
            self.longest.0
        };
        others.max(self.work)
    }
}

/// The tasks that are worth a closer look: those that end last, and those most overdue.
fn nominees(view: &View<'_>, job: &SeenJob<'_>, paths: &Paths) -> Vec<usize> {
    let mut all: Vec<usize> = (0..job.running.len()).collect();
    if all.len() <= CANDIDATES_MAX {
        return all;
    }
    let overdue = |at: usize| {
        let task = &job.running[at];
        let lateness = task
            .attempts
            .iter()
            .map(|attempt| attempt.elapsed_s * view.workers[attempt.worker].speed / task.work_s);
        lateness.fold(f64::INFINITY, f64::min)
    };
    all.sort_by(|a, b| {
        paths.nominal[*b]
            .total_cmp(&paths.nominal[*a])
            .then(a.cmp(b))
    });
    let mut chosen = all[..CANDIDATES_MAX / 2].to_vec();
    let mut rest = all.split_off(CANDIDATES_MAX / 2);
    rest.sort_by(|a, b| overdue(*b).total_cmp(&overdue(*a)).then(a.cmp(b)));
    rest.truncate(CANDIDATES_MAX / 2);
    chosen.append(&mut rest);
    chosen
}

/// Computes gains and costs.
struct Weigh<'a> {
    view: &'a View<'a>,
    settings: AutoSettings,
    fast: f64,
    /// By the standard deviation of what is not shared, in hundredths.
    tables: BTreeMap<u32, Survival>,
}

/// One attempt, or a copy to be, as the integrals need it.
struct Course {
    /// Seconds it takes if nothing goes wrong and the task takes what is expected.
    nominal: f64,
    elapsed: f64,
    loss: f64,
}

impl<'a> Weigh<'a> {
    fn new(view: &'a View<'a>, settings: AutoSettings) -> Self {
        Self {
            view,
            settings,
            fast: view.fastest(),
            tables: BTreeMap::new(),
        }
    }

    /// Gain over cost of one more copy of a task on `worker`.
    fn worth(&mut self, task: &SeenTask, copies: &[usize], worker: usize, horizon: f64) -> f64 {
        let noise = task.spread * (1.0 - self.settings.shared).sqrt();
        let shared = task.spread * self.settings.shared.sqrt();
        let key = ((noise * 100.0).round() as u32).max(2);
        let beliefs: Beliefs = self.view.beliefs;
        let table = &*self
            .tables
            .entry(key)
            .or_insert_with(|| Survival::new(f64::from(key) / 100.0, &beliefs));
        let course = |worker: usize, elapsed: f64| {
            let seen = &self.view.workers[worker];
            Course {
                nominal: task.work_s / seen.speed,
                elapsed,
                loss: if seen.in_doubt {
                    1.0 / task.work_s.max(1e-3)
                } else {
                    seen.loss_per_s
                },
            }
        };
        let begun = task.attempts.iter().map(|a| course(a.worker, a.elapsed_s));
        let running: Vec<Course> = begun
            .chain(copies.iter().map(|at| course(*at, 0.0)))
            .collect();
        let copy = course(worker, 0.0);
        let from = (horizon - task.tail_s / self.fast).max(0.0);
        let weights = posterior(table, &running, shared);
        let (mut gain, mut cost) = (0.0, 0.0);
        for ((value, _), weight) in SHARED.iter().zip(weights) {
            if weight < 1e-4 {
                continue;
            }
            let (g, c) = integrate(table, &running, &copy, (value * shared).exp(), from);
            gain += weight * g;
            cost += weight * c;
        }
        if gain < self.settings.gain_min_s || cost <= 0.0 {
            return 0.0;
        }
        gain / cost
    }
}

/// How likely each value of the shared part is, given that the attempts still run.
fn posterior(table: &Survival, running: &[Course], shared: f64) -> [f64; SHARED.len()] {
    let mut weights = SHARED.map(|(value, chance)| {
        let longer = (value * shared).exp();
        let still = running.iter().map(|course| {
            table
                .beyond(course.elapsed / (course.nominal * longer))
                .max(1e-12)
        });
        chance * still.product::<f64>()
    });
    let all: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= all);
    weights
}

/// The integrals of gain and cost where the task takes `longer` times what is expected.
fn integrate(
    table: &Survival,
    running: &[Course],
    copy: &Course,
    longer: f64,
    from: f64,
) -> (f64, f64) {
    let expected = copy.nominal * longer;
    // Beyond this a fresh copy is done but for the rarest straggling.
    let until = expected * 8.0;
    let still: Vec<f64> = running
        .iter()
        .map(|course| {
            table
                .beyond(course.elapsed / (course.nominal * longer))
                .max(1e-12)
        })
        .collect();
    let (mut gain, mut cost) = (0.0, 0.0);
    let mut lost_copy = 0.0;
    let mut copy_before = 1.0;
    let mut before = 0.0;
    for point in 1..=POINTS {
        // Denser near the beginning: points lie on a parabola.
        let share = point as f64 / POINTS as f64;
        let t = until * share * share;
        let (middle, width) = ((before + t) / 2.0, t - before);
        before = t;
        let mut open = 1.0;
        for (course, still) in running.iter().zip(&still) {
            let nominal = course.nominal * longer;
            let runs = table.beyond((course.elapsed + middle) / nominal) / still;
            let kept = (-course.loss * middle).exp();
            // One that was lost is begun again, and is taken to be done a usual time after half the way.
            let again = if middle < nominal * 1.5 { 1.0 } else { 0.0 };
            open *= (runs * kept + (1.0 - kept) * again).min(1.0);
        }
        let kept = (-copy.loss * middle).exp();
        let runs = table.beyond(middle / expected);
        // What was lost while it still ran is never done.
        lost_copy += copy.loss * width * copy_before;
        copy_before = runs * kept;
        let done = (1.0 - runs * kept - lost_copy).max(0.0);
        if middle > from {
            gain += open * done * width;
        }
        cost += open * runs * kept * width;
    }
    // Who still runs then runs on for long: stragglers, while the copy is done.
    (gain, cost)
}
