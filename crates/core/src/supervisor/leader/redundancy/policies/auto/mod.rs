//! The `auto` policy: starts a copy if its expected gain for the job's completion time is worth its cost.
//!
//! For a running task, S(t) is the probability that it is not done t seconds from now. For a copy, F(t) is the
//! probability that it is done by then.
//! - gain = ∫ from c of S(t)·F(t) dt, where c is the time at which other work of the job ends anyway, less the
//!   bottom level behind this task: time saved before c saves nothing. A second weighs more the later the job
//!   would end, in multiples of its time if nothing goes wrong;
//! - cost = ∫ S(t)·R(t) dt, where R(t) is the probability that the copy still runs at t and was not lost.
//!
//! A copy starts if gain ÷ cost exceeds a price, which is lower the more workers the job keeps busy on average: what
//! counts is the share by which the job ends sooner against the share by which its worker time grows.
//!
//! Of a task of which an attempt has reported nothing and is not late yet, a copy does not start if one that starts
//! later, in case the task still runs then, promises more. A task also waits if a faster worker that will soon be free
//! promises more than a slower one now: a task may have only a few copies, and one on a slow worker takes the place of a
//! better one.
//!
//! The copies of one task share the error of its estimate: a task that takes long everywhere does not gain from
//! another worker. So both integrals are computed for several values of this shared part, weighted by their
//! probability given what has been seen so far. An attempt that reports its progress is expected to end when its rate
//! says ([`course`]).

mod course;
mod value;

use crate::supervisor::durable::learned::UNKNOWN;
use crate::supervisor::leader::placement::deferral::remaining_s;
use crate::supervisor::leader::redundancy::{
    CopyOrder, Policy, SeenAttempt, SeenJob, SeenTask, View,
};
use course::{Course, Times, Told};
use hedge_model::JobSpec;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use value::{Known, Late};

/// Tasks that are evaluated in detail in one decision.
const CANDIDATES_MAX: usize = 48;
/// Busy workers that a task may wait for.
const SOON_FREE_MAX: usize = 8;
/// Maximum difference between copies of a task, however little is known of the task: the variation between machines.
/// A standard deviation of the logarithm.
const OWN_MAX: f64 = 0.2;
/// A worker is worth waiting for if it is at least this many times as fast.
const FASTER: f64 = 1.05;
/// A copy waits for the first reports of progress for this share of its time and this many seconds.
const REPORTED_AFTER: f64 = 0.05;
const REPORTED_AFTER_S: f64 = 0.5;
/// Times after which a copy could start instead of now, as multiples of the time that it takes.
const WAITS: [f64; 5] = [0.1, 0.3, 0.7, 1.2, 2.0];
/// A task is late, and no copy of it waits for a later start, once it has taken this many times as long as expected.
const LATE: f64 = 1.2;

/// Parameters of `auto`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutoSettings {
    /// A copy is started if gain ÷ cost exceeds its price. The price is this ÷ the number of workers that the job keeps
    /// busy on average: it weighs the share by which the job ends sooner against the share by which its worker time
    /// grows.
    pub exchange: f64,
    /// Bounds of the price: worker time has a value whatever the job, and a second of a job's time is worth more than
    /// one of a worker.
    pub prices: (f64, f64),
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
            exchange: 0.5,
            prices: (0.05, 0.7),
            attempts_max: 3,
            shared: 0.7,
            patience: 1.3,
            gain_min_s: 0.002,
        }
    }
}

impl AutoSettings {
    /// Returns the price of a copy for a job that keeps so many workers busy on average.
    fn price_of(&self, width: f64) -> f64 {
        (self.exchange / width).clamp(self.prices.0, self.prices.1)
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
                    width: paths.width,
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
    /// Workers that the job keeps busy on average.
    width: f64,
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
    reserved: bool,
}

/// Returns the busy workers that are expected to be free first. A worker that runs an overdue task counts as never
/// free.
fn soon_free(view: &View<'_>) -> Vec<SoonFree> {
    let mut free: BTreeMap<usize, f64> = BTreeMap::new();
    for task in view.jobs.iter().flat_map(|job| &job.running) {
        for attempt in &task.attempts {
            let course = Course::of(&view.workers[attempt.worker], task, attempt);
            let remaining = match course.told {
                Told::Ends { after, .. } => Some(after),
                Told::Nothing | Told::Steady => remaining_s(course.nominal, course.elapsed),
            };
            let remaining = remaining.unwrap_or(f64::INFINITY);
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
            reserved: false,
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
    /// Workers that it keeps busy on average meanwhile, at least 1.
    width: f64,
}

impl Paths {
    fn new(view: &View<'_>, job: &SeenJob<'_>) -> Self {
        let fast = view.fastest();
        let mut remaining_work = job.unstarted_s;
        let mut nominal = Vec::with_capacity(job.running.len());
        for task in &job.running {
            let remains = |attempt: &SeenAttempt| {
                let course = Course::of(&view.workers[attempt.worker], task, attempt);
                // A copy of a straggler ends sooner.
                course.remaining_s().min(course.nominal)
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
        let usual =
            (job.path_s / fast).max((remaining_work + job.success_s) / view.pool_speed.max(1e-9));
        Self {
            width: ((remaining_work / fast + job.success_s) / usual.max(1e-9)).max(1.0),
            nominal,
            longest,
            second,
            work: remaining_work / view.pool_speed.max(1e-9),
            usual,
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
    let overdue = |task: &SeenTask| {
        let lateness = task.attempts.iter().map(|attempt| {
            let course = Course::of(&view.workers[attempt.worker], task, attempt);
            (course.elapsed + course.remaining_s()) / course.nominal
        });
        lateness.fold(f64::INFINITY, f64::min)
    };
    let overdue: Vec<f64> = job.running.iter().map(overdue).collect();
    all.sort_by(|a, b| {
        paths.nominal[*b]
            .total_cmp(&paths.nominal[*a])
            .then(a.cmp(b))
    });
    let mut chosen = all[..CANDIDATES_MAX / 2].to_vec();
    let mut rest = all.split_off(CANDIDATES_MAX / 2);
    rest.sort_by(|a, b| overdue[*b].total_cmp(&overdue[*a]).then(a.cmp(b)));
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
    times: BTreeMap<u32, Rc<Times>>,
}

impl<'a> Weigh<'a> {
    fn new(view: &'a View<'a>, settings: AutoSettings) -> Self {
        Self {
            view,
            settings,
            fast: view.fastest(),
            times: BTreeMap::new(),
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
        let begun: Vec<Course> = task
            .attempts
            .iter()
            .map(|attempt| Course::of(&self.view.workers[attempt.worker], task, attempt))
            .collect();
        if self.awaits_reports(task, &begun, worker) {
            return None;
        }
        let early = is_early(&begun);
        let known = self.known(candidate, begun);
        let price = self.settings.price_of(candidate.width);
        let (gain, cost) = self.gain_and_cost(candidate, &known, worker, 0.0);
        let worth = job.urgency * gain / cost;
        // A copy without cost has no gain either, and the quotient is not a number.
        if worth.is_nan() || worth <= price {
            return None;
        }
        let net = job.urgency * gain - price * cost;
        if early && self.better_later(candidate, &known, worker, price, net) {
            return None;
        }
        let speed = self.view.workers[worker].speed;
        for soon in soon_free.iter_mut().filter(|soon| !soon.reserved) {
            let runs_it = task
                .attempts
                .iter()
                .any(|attempt| attempt.worker == soon.worker);
            if runs_it || self.view.workers[soon.worker].speed < speed * FASTER {
                continue;
            }
            let (gain, cost) = self.gain_and_cost(candidate, &known, soon.worker, soon.after);
            if job.urgency * gain - price * cost > net * self.settings.patience {
                soon.reserved = true;
                return None;
            }
        }
        Some(Offer { worker, worth })
    }

    /// Returns whether an attempt of a task has run too briefly to report its progress, which is about to come.
    fn awaits_reports(&self, task: &SeenTask, begun: &[Course], worker: usize) -> bool {
        let nominal = Course::fresh(&self.view.workers[worker], task).nominal;
        let awaited = REPORTED_AFTER_S + REPORTED_AFTER * nominal;
        let young = |course: &Course| course.elapsed < awaited && course.told == Told::Nothing;
        nominal > awaited && begun.iter().any(young)
    }

    /// Returns whether a copy that starts later, if its task still runs then, is worth more than `net`, the worth of
    /// one that starts now.
    fn better_later(
        &self,
        candidate: &Candidate,
        known: &Known,
        worker: usize,
        price: f64,
        net: f64,
    ) -> bool {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        let nominal = Course::fresh(&self.view.workers[worker], task).nominal;
        WAITS.iter().any(|wait| {
            let (gain, cost) = self.gain_and_cost(candidate, known, worker, wait * nominal);
            job.urgency * gain - price * cost > net
        })
    }

    /// Returns what is known of a task with these attempts.
    fn known(&mut self, candidate: &Candidate, begun: Vec<Course>) -> Known {
        let task = &self.view.jobs[candidate.job].running[candidate.task];
        let noise = (task.spread * (1.0 - self.settings.shared).sqrt()).min(OWN_MAX);
        let shared = (task.spread * task.spread - noise * noise).max(0.0).sqrt();
        let key = ((noise * 100.0).round() as u32).max(2);
        let times = self
            .times
            .entry(key)
            .or_insert_with(|| Rc::new(Times::new(f64::from(key) / 100.0, &self.view.beliefs)));
        let fresh = |worker: &usize| Course::fresh(&self.view.workers[*worker], task);
        let mut running = begun;
        running.extend(candidate.copies.iter().map(fresh));
        Known::new(running, times.clone(), shared)
    }

    /// Returns the gain and the cost of one more copy of a task that starts on `worker` in `delay` seconds.
    fn gain_and_cost(
        &self,
        candidate: &Candidate,
        known: &Known,
        worker: usize,
        delay: f64,
    ) -> (f64, f64) {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        let copy = Course::fresh(&self.view.workers[worker], task);
        let tail = task.tail_s / self.fast;
        let late = Late {
            delay,
            from: (candidate.horizon - tail).max(0.0),
            ends: job.elapsed_s + tail,
            usual: (task.spread < UNKNOWN).then_some(candidate.usual.max(1e-9)),
        };
        let (gain, cost) = known.gain_and_cost(&copy, &late);
        if gain < self.settings.gain_min_s || cost <= 0.0 {
            return (0.0, 0.0);
        }
        (gain, cost)
    }
}

/// Returns whether nothing is known of an attempt of a task but that it is not late yet.
fn is_early(begun: &[Course]) -> bool {
    let early =
        |course: &Course| course.told == Told::Nothing && course.elapsed < LATE * course.nominal;
    begun.iter().any(early)
}
