//! The `auto` policy: starts a copy if its expected gain for the job's completion time is worth its cost.
//!
//! For a running task, S(t) is the probability that it is not done t seconds from now. For a copy, F(t) is the
//! probability that it is done by then.
//! - gain = ∫ from c of S(t)·F(t) dt, where c is the time at which other work of the job ends anyway, less the
//!   bottom level behind this task: time saved before c saves nothing. A second weighs more the later the job
//!   would end, in multiples of its time if nothing goes wrong;
//! - cost = ∫ S(t)·R(t) dt, where R(t) is the probability that the copy still runs at t and was not lost.
//!
//! A task waits if a faster worker that will soon be free promises more than a slower one now: a task may have
//! only a few copies, and one on a slow worker takes the place of a better one.
//!
//! The copies of one task share the error of its estimate: a task that takes long everywhere does not gain from
//! another worker. So both integrals are computed for several values of this shared part, weighted by their
//! probability given what has been seen so far.

use crate::supervisor::durable::learned::UNKNOWN;
use crate::supervisor::leader::placement::deferral::remaining_s;
use crate::supervisor::leader::redundancy::{
    Beliefs, CopyOrder, Policy, SeenAttempt, SeenJob, Survival, View,
};
use hedge_model::JobSpec;
use std::collections::BTreeMap;
use std::time::Duration;

/// Tasks that are evaluated in detail in one decision.
const CANDIDATES_MAX: usize = 48;
/// Points at which the integrals are evaluated.
const POINTS: usize = 36;
/// Values of the shared part with their probabilities: three points that have a normal distribution's moments.
const SHARED: [(f64, f64); 3] = [
    (-1.732_050_8, 1.0 / 6.0),
    (0.0, 2.0 / 3.0),
    (1.732_050_8, 1.0 / 6.0),
];

/// Busy workers that a task may wait for.
const SOON_FREE_MAX: usize = 8;
/// Maximum difference between copies of a task, however little is known of the task: the variation between machines.
/// A standard deviation of the logarithm.
const OWN_MAX: f64 = 0.2;
/// A worker is worth waiting for if it is at least this many times as fast.
const FASTER: f64 = 1.05;
/// Bounds of the factor by which the time of a late job counts more, or that of an early one less.
const LATENESS: (f64, f64) = (0.5, 4.0);

/// Parameters of `auto`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoSettings {
    /// A copy is started if gain ÷ cost exceeds this; see docs/evaluation.md for how it was found.
    pub price: f64,
    /// Maximum number of attempts of one task at once: a third mattered in the calibration, a fourth did not.
    pub attempts_max: usize,
    /// The part of the variance of a task's time that its copies share.
    pub shared: f64,
    /// A task waits for a faster worker that will soon be free if a copy there is expected to gain this many times as
    /// much, less its price, as a copy now.
    pub patience: f64,
    /// Minimum gain in seconds: less is not worth starting a process.
    pub gain_min_s: f64,
}

impl Default for AutoSettings {
    fn default() -> Self {
        Self {
            price: 0.35,
            attempts_max: 3,
            shared: 0.7,
            patience: 1.3,
            gain_min_s: 0.002,
        }
    }
}

/// The `auto` policy.
#[derive(Clone, Debug, Default)]
pub struct Auto {
    settings: AutoSettings,
}

impl Auto {
    /// Creates the policy with these settings.
    pub fn new(settings: AutoSettings) -> Self {
        Self { settings }
    }
}

impl Policy for Auto {
    fn decide(&mut self, view: &View<'_>, orders: &mut Vec<CopyOrder>) -> Option<Duration> {
        let mut idle = view.idle();
        if idle.is_empty() {
            return None;
        }
        let mut weigh = Weigh::new(view, self.settings);
        let mut again: Option<f64> = None;
        let mut open = Vec::new();
        for (at, job) in view.jobs.iter().enumerate() {
            let paths = Paths::new(view, job);
            for task in candidates(view, job, &paths) {
                open.push(Candidate {
                    job: at,
                    task,
                    horizon: paths.horizon_without(task),
                    usual: paths.usual,
                    copies: Vec::new(),
                    offer: None,
                });
                let soon = 0.1 * job.running[task].work_s;
                again = Some(again.map_or(soon, |known: f64| known.min(soon)));
            }
        }
        let mut soon_free = soon_free(view);
        loop {
            for candidate in open.iter_mut().filter(|one| one.offer.is_none()) {
                candidate.offer = weigh.offer(candidate, &idle, &mut soon_free);
            }
            open.retain(|candidate| candidate.offer.is_some());
            let offers = open.iter().enumerate();
            let offers = offers.filter_map(|(at, one)| Some((at, one.offer?)));
            let best = offers.reduce(|best, next| {
                if next.1.worth > best.1.worth {
                    next
                } else {
                    best
                }
            });
            let Some((at, Offer { worker, worth })) = best else {
                break;
            };
            let chosen = &mut open[at];
            orders.push(CopyOrder {
                task: view.jobs[chosen.job].running[chosen.task].id,
                worker,
                yields: false,
                worth,
            });
            chosen.copies.push(worker);
            idle.retain(|other| *other != worker);
            // Candidates for the same worker look for another.
            for one in &mut open {
                one.offer = one.offer.filter(|offer| offer.worker != worker);
            }
        }
        again.map(|soon| Duration::from_secs_f64(soon.clamp(0.001, 60.0)))
    }

    fn in_advance(&self, job: &JobSpec, group: usize) -> bool {
        job.groups()[group].critical
    }
}

/// A task that may be worth a copy.
struct Candidate {
    job: usize,
    task: usize,
    /// When the job would end without this task, in seconds from now.
    horizon: f64,
    /// Time that the job takes if nothing goes wrong, in seconds.
    usual: f64,
    /// Workers that were chosen for it in this decision.
    copies: Vec<usize>,
    /// Its best copy now.
    offer: Option<Offer>,
}

/// A copy that is worth its cost.
#[derive(Clone, Copy)]
struct Offer {
    worker: usize,
    worth: f64,
}

/// A busy worker that is expected to be free soon.
struct SoonFree {
    worker: usize,
    /// When it is free, in seconds from now.
    after: f64,
    /// Whether a task waits for it instead of getting a slower worker now.
    taken: bool,
}

/// Returns the busy workers that are expected to be free first. A worker that runs an overdue task counts as never
/// free.
fn soon_free(view: &View<'_>) -> Vec<SoonFree> {
    let mut free: BTreeMap<usize, f64> = BTreeMap::new();
    for task in view.jobs.iter().flat_map(|job| &job.running) {
        for attempt in &task.attempts {
            let nominal = task.work_s / view.workers[attempt.worker].speed;
            let remaining = remaining_s(nominal, attempt.elapsed_s).unwrap_or(f64::INFINITY);
            let known = free.entry(attempt.worker).or_insert(0.0);
            *known = known.max(remaining);
        }
    }
    let mut all: Vec<SoonFree> = free
        .into_iter()
        .filter(|(worker, after)| {
            let seen = &view.workers[*worker];
            after.is_finite() && seen.free_milli == 0 && !seen.suspected
        })
        .map(|(worker, after)| SoonFree {
            worker,
            after,
            taken: false,
        })
        .collect();
    all.sort_by(|a, b| a.after.total_cmp(&b.after).then(a.worker.cmp(&b.worker)));
    all.truncate(SOON_FREE_MAX);
    all
}

/// Returns the fastest idle worker that may run a copy.
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

/// The remaining time of a job on the paths through its running tasks, without straggling and losses.
struct Paths {
    /// For each running task, the seconds until the job's end on the path through it.
    nominal: Vec<f64>,
    /// The longest of these, with its task, and the second longest.
    longest: (f64, usize),
    second: f64,
    /// Remaining work divided by the pool's speed, in seconds.
    work: f64,
    /// Time that the whole job takes if nothing goes wrong, in seconds: its critical path on the fastest worker, or
    /// all its work divided by the pool's speed, whichever is longer.
    usual: f64,
}

impl Paths {
    fn new(view: &View<'_>, job: &SeenJob<'_>) -> Self {
        let fast = view.fastest();
        let mut remaining_work = job.unstarted_s;
        let mut nominal = Vec::with_capacity(job.running.len());
        for task in &job.running {
            let remains = |attempt: &SeenAttempt| {
                let speed = view.workers[attempt.worker].speed;
                (task.work_s / speed - attempt.elapsed_s).max(0.0)
            };
            let soonest = task
                .attempts
                .iter()
                .map(remains)
                .fold(f64::INFINITY, f64::min);
            let soonest = if soonest.is_finite() { soonest } else { 0.0 };
            remaining_work += soonest;
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
            work: remaining_work / view.pool_speed.max(1e-9),
            usual: (job.path_s / fast)
                .max((remaining_work + job.success_s) / view.pool_speed.max(1e-9)),
        }
    }

    /// Returns when the job would end without this task, in seconds from now.
    fn horizon_without(&self, task: usize) -> f64 {
        let others = if self.longest.1 == task {
            self.second
        } else {
            self.longest.0
        };
        others.max(self.work)
    }
}

/// Returns the tasks to evaluate in detail: those on the longest paths, and those most overdue.
fn candidates(view: &View<'_>, job: &SeenJob<'_>, paths: &Paths) -> Vec<usize> {
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
    /// By the standard deviation of the part that is not shared, in hundredths.
    tables: BTreeMap<u32, Survival>,
}

/// From when saved time counts, and how much.
struct Late {
    /// Seconds until the copy starts.
    delay: f64,
    /// When other work of the job ends anyway, in seconds from now.
    from: f64,
    /// Seconds that the job has taken so far and will take after this task.
    ends: f64,
    /// Time that the job takes if nothing goes wrong, in seconds; none if it is too uncertain.
    usual: Option<f64>,
}

impl Late {
    /// Returns the weight of a second that is saved `at` seconds from now: the later the job, the higher.
    fn weight(&self, at: f64) -> f64 {
        let late = |usual: f64| ((self.ends + at) / usual).clamp(LATENESS.0, LATENESS.1);
        self.usual.map_or(1.0, late)
    }
}

/// An attempt or an intended copy, as the integrals need it.
struct Course {
    /// Seconds that it takes if nothing goes wrong and the estimate is right.
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

    /// Returns the most valuable copy of a task now; none if none is worth its price, or if it is better to wait for
    /// a faster worker.
    fn offer(
        &mut self,
        candidate: &Candidate,
        idle: &[usize],
        soon_free: &mut [SoonFree],
    ) -> Option<Offer> {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        if task.attempts.len() + candidate.copies.len() >= self.settings.attempts_max {
            return None;
        }
        let worker = place(self.view, job, candidate.task, &candidate.copies, idle)?;
        let price = self.settings.price;
        let (gain, cost) = self.gain_and_cost(candidate, worker, 0.0);
        let worth = job.urgency * gain / cost;
        // A copy without cost has no gain either, and the quotient is not a number.
        if worth.is_nan() || worth <= price {
            return None;
        }
        let net = job.urgency * gain - price * cost;
        let speed = self.view.workers[worker].speed;
        for soon in soon_free.iter_mut().filter(|soon| !soon.taken) {
            let runs_it = task
                .attempts
                .iter()
                .any(|attempt| attempt.worker == soon.worker);
            if runs_it || self.view.workers[soon.worker].speed < speed * FASTER {
                continue;
            }
            let (gain, cost) = self.gain_and_cost(candidate, soon.worker, soon.after);
            if job.urgency * gain - price * cost > net * self.settings.patience {
                soon.taken = true;
                return None;
            }
        }
        Some(Offer { worker, worth })
    }

    /// Returns the gain and the cost of one more copy of a task that starts on `worker` in `delay` seconds.
    fn gain_and_cost(&mut self, candidate: &Candidate, worker: usize, delay: f64) -> (f64, f64) {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        let noise = (task.spread * (1.0 - self.settings.shared).sqrt()).min(OWN_MAX);
        let shared = (task.spread * task.spread - noise * noise).max(0.0).sqrt();
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
                loss: if seen.suspected {
                    1.0 / task.work_s.max(1e-3)
                } else {
                    seen.loss_per_s
                },
            }
        };
        let begun = task.attempts.iter().map(|a| course(a.worker, a.elapsed_s));
        let running: Vec<Course> = begun
            .chain(candidate.copies.iter().map(|at| course(*at, 0.0)))
            .collect();
        let copy = course(worker, 0.0);
        let tail = task.tail_s / self.fast;
        let late = Late {
            delay,
            from: (candidate.horizon - tail).max(0.0),
            ends: job.elapsed_s + tail,
            usual: (task.spread < UNKNOWN).then_some(candidate.usual.max(1e-9)),
        };
        let weights = posterior(table, &running, shared);
        let (mut gain, mut cost) = (0.0, 0.0);
        for ((value, _), weight) in SHARED.iter().zip(weights) {
            if weight < 1e-4 {
                continue;
            }
            let (g, c) = integrate(table, &running, &copy, (value * shared).exp(), &late);
            gain += weight * g;
            cost += weight * c;
        }
        if gain < self.settings.gain_min_s || cost <= 0.0 {
            return (0.0, 0.0);
        }
        (gain, cost)
    }
}

/// Returns the probability of each value of the shared part, given that the attempts still run.
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

/// Returns the integrals of gain and cost if the task takes `longer` times the expected time.
fn integrate(
    table: &Survival,
    running: &[Course],
    copy: &Course,
    longer: f64,
    late: &Late,
) -> (f64, f64) {
    let expected = copy.nominal * longer;
    // By then a new copy is done, except in rare cases of straggling.
    let until = late.delay + expected * 8.0;
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
        // The points lie on a parabola, denser near the beginning.
        let share = point as f64 / POINTS as f64;
        let t = until * share * share;
        let (middle, width) = ((before + t) / 2.0, t - before);
        before = t;
        let mut open = 1.0;
        for (course, still) in running.iter().zip(&still) {
            let nominal = course.nominal * longer;
            let runs = table.beyond((course.elapsed + middle) / nominal) / still;
            let kept = (-course.loss * middle).exp();
            // A lost attempt runs again. It counts as lost halfway, so its repetition ends after 1.5 times the
            // expected time.
            let again = if middle < nominal * 1.5 { 1.0 } else { 0.0 };
            open *= (runs * kept + (1.0 - kept) * again).min(1.0);
        }
        let own = middle - late.delay;
        if own <= 0.0 {
            continue;
        }
        let kept = (-copy.loss * own).exp();
        let runs = table.beyond(own / expected);
        // A copy that was lost while it still ran is never done.
        lost_copy += copy.loss * width * copy_before;
        copy_before = runs * kept;
        let done = (1.0 - runs * kept - lost_copy).max(0.0);
        if middle > late.from {
            gain += open * done * width * late.weight(middle);
        }
        cost += open * runs * kept * width;
    }
    // The time beyond `until` is left out: only stragglers still run then, and the copy is done.
    (gain, cost)
}
