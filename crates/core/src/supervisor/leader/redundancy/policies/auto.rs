//! `auto`: a copy is started where what it is expected to gain for the job's end is worth what it costs.
//!
//! For a running task with the chance S(t) that it is not done t seconds from now, and a copy with the chance
//! F(t) to be done by then:
//! - gain = ∫ from c of S(t)·F(t) dt, where c is the moment up to which other work ends anyway, less the
//!   bottom level behind this task: time saved before it saves nothing. A second counts the more the later the
//!   job would end, in multiples of what it takes where nothing goes wrong;
//! - cost = ∫ S(t)·R(t) dt, where R(t) is the chance that the copy still runs at t, lost copies not counted.
//!
//! A task waits where a faster machine that is soon free promises more than a slower one now: it may have a few
//! copies only, and one on a slow machine takes the place of a better one.
//!
//! What copies of one task share, the error of its estimate, is told apart from what they do not: a task that
//! takes long everywhere is not helped by another machine. So both integrals are taken for several values of
//! the shared part, each as likely as what has been seen so far makes it.

use crate::supervisor::durable::learned::UNKNOWN;
use crate::supervisor::leader::placement::deferral::remaining_s;
use crate::supervisor::leader::redundancy::{
    Beliefs, CopyOrder, Policy, SeenAttempt, SeenJob, Survival, View,
};
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

/// Busy machines that a task may wait for.
const COMING_MAX: usize = 8;
/// Copies of a task differ by no more than this (standard deviation of the logarithm), however little is known of
/// the task: what machines are off by.
const OWN_MAX: f64 = 0.2;
/// A machine is worth waiting for if it is so many times as fast.
const FASTER: f64 = 1.05;
/// Bounds of how much more or less the time of a late job, or one that is well in time, counts.
const LATENESS: (f64, f64) = (0.5, 4.0);

/// How `auto` weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoSettings {
    /// A copy is started where gain ÷ cost exceeds this; see docs/evaluation.md for how it was found.
    pub price: f64,
    /// Attempts of one task at once: a third mattered in the calibration, a fourth did not.
    pub attempts_max: usize,
    /// Of the variance of a task's time around what was expected, the part that its copies share.
    pub shared: f64,
    /// A task waits for a faster machine that is soon free where a copy there, less its price, is expected to
    /// gain so many times as much as one now.
    pub patience: f64,
    /// Gains below this, in seconds, are not worth the start of a process.
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
            for task in nominees(view, job, &paths) {
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
        let mut coming = coming(view);
        loop {
            for candidate in open.iter_mut().filter(|one| one.offer.is_none()) {
                candidate.offer = weigh.offer(candidate, &idle, &mut coming);
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
            // Who wanted the same machine looks for another.
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
    /// When the job would end but for this task, seconds from now.
    horizon: f64,
    /// Seconds that the job takes where nothing goes wrong.
    usual: f64,
    /// Machines that it was given in this decision.
    copies: Vec<usize>,
    /// What it would like best now.
    offer: Option<Offer>,
}

/// A copy that is worth its cost.
#[derive(Clone, Copy)]
struct Offer {
    worker: usize,
    worth: f64,
}

/// A busy machine that is expected to be free soon.
struct Coming {
    worker: usize,
    /// Seconds from now.
    after: f64,
    /// Whether a task waits for it rather than take a slower machine now.
    taken: bool,
}

/// Busy machines by when they are expected to be free, the first few. One that runs a task for much longer
/// than expected counts as never free.
fn coming(view: &View<'_>) -> Vec<Coming> {
    let mut free: BTreeMap<usize, f64> = BTreeMap::new();
    for task in view.jobs.iter().flat_map(|job| &job.running) {
        for attempt in &task.attempts {
            let nominal = task.work_s / view.workers[attempt.worker].speed;
            let left = remaining_s(nominal, attempt.elapsed_s).unwrap_or(f64::INFINITY);
            let known = free.entry(attempt.worker).or_insert(0.0);
            *known = known.max(left);
        }
    }
    let mut all: Vec<Coming> = free
        .into_iter()
        .filter(|(worker, after)| {
            let seen = &view.workers[*worker];
            after.is_finite() && seen.free_milli == 0 && !seen.suspected
        })
        .map(|(worker, after)| Coming {
            worker,
            after,
            taken: false,
        })
        .collect();
    all.sort_by(|a, b| a.after.total_cmp(&b.after).then(a.worker.cmp(&b.worker)));
    all.truncate(COMING_MAX);
    all
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
    /// Seconds that the whole job takes where nothing goes wrong: its longest path on the fastest machine, or
    /// all its work over the pool's speed.
    usual: f64,
}

impl Paths {
    fn new(view: &View<'_>, job: &SeenJob<'_>) -> Self {
        let fast = view.fastest();
        let mut left = job.unstarted_s;
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
            usual: (job.path_s / fast).max((left + job.success_s) / view.pool_speed.max(1e-9)),
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

/// From when on time saved counts, and how much.
struct Late {
    /// Seconds until the copy starts.
    delay: f64,
    /// Seconds from now up to which other work ends anyway.
    from: f64,
    /// Seconds that the job has taken by now and will take after this task.
    ends: f64,
    /// Seconds that it takes where nothing goes wrong, as far as that can be told.
    usual: Option<f64>,
}

impl Late {
    /// How much a second counts that is saved `at` seconds from now: the later the job, the more.
    fn weight(&self, at: f64) -> f64 {
        let late = |usual: f64| ((self.ends + at) / usual).clamp(LATENESS.0, LATENESS.1);
        self.usual.map_or(1.0, late)
    }
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

    /// The copy of a task that is worth most now; none where none is worth its price, or where waiting for a
    /// faster machine is better.
    fn offer(
        &mut self,
        candidate: &Candidate,
        idle: &[usize],
        coming: &mut [Coming],
    ) -> Option<Offer> {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        if task.attempts.len() + candidate.copies.len() >= self.settings.attempts_max {
            return None;
        }
        let worker = place(self.view, job, candidate.task, &candidate.copies, idle)?;
        let price = self.settings.price;
        let (gain, cost) = self.scales(candidate, worker, 0.0);
        let worth = job.urgency * gain / cost;
        // Where a copy costs nothing, it gains nothing either, and this is no number.
        if worth.is_nan() || worth <= price {
            return None;
        }
        let net = job.urgency * gain - price * cost;
        let speed = self.view.workers[worker].speed;
        for soon in coming.iter_mut().filter(|soon| !soon.taken) {
            let runs_it = task
                .attempts
                .iter()
                .any(|attempt| attempt.worker == soon.worker);
            if runs_it || self.view.workers[soon.worker].speed < speed * FASTER {
                continue;
            }
            let (gain, cost) = self.scales(candidate, soon.worker, soon.after);
            if job.urgency * gain - price * cost > net * self.settings.patience {
                soon.taken = true;
                return None;
            }
        }
        Some(Offer { worker, worth })
    }

    /// Gain and cost of one more copy of a task, started on `worker` in `delay` seconds.
    fn scales(&mut self, candidate: &Candidate, worker: usize, delay: f64) -> (f64, f64) {
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
    late: &Late,
) -> (f64, f64) {
    let expected = copy.nominal * longer;
    // Beyond this a fresh copy is done but for the rarest straggling.
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
        let own = middle - late.delay;
        if own <= 0.0 {
            continue;
        }
        let kept = (-copy.loss * own).exp();
        let runs = table.beyond(own / expected);
        // What was lost while it still ran is never done.
        lost_copy += copy.loss * width * copy_before;
        copy_before = runs * kept;
        let done = (1.0 - runs * kept - lost_copy).max(0.0);
        if middle > late.from {
            gain += open * done * width * late.weight(middle);
        }
        cost += open * runs * kept * width;
    }
    // Who still runs then runs on for long: stragglers, while the copy is done.
    (gain, cost)
}
