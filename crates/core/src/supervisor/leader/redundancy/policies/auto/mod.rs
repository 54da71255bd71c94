//! The `auto` policy: starts a copy if its expected gain for the job's completion time is worth its cost.
//!
//! For a running task, S(t) is the probability that it is not done t seconds from now. For a copy, F(t) is the
//! probability that it is done by then.
//! - gain = ∫ S(t)·F(t)·O(t) dt, where O(t) is the probability that all other work of the job is over by t and the
//!   bottom level behind this task ([`paths`]): time saved before that saves nothing;
//! - cost = ∫ S(t)·R(t) dt, where R(t) is the probability that the copy still runs at t and was not lost.
//!
//! A copy starts if gain ÷ cost exceeds a price, which is lower the more workers the job keeps busy on average: what
//! counts is the share by which the job ends sooner against the share by which its worker time grows.
//!
//! A copy does not start if one that starts later, in case the task still runs then, promises more. A task also waits
//! if a faster worker that will soon be free promises more than a slower one now: a task may have only a few copies,
//! and one on a slow worker takes the place of a better one.
//!
//! While several jobs keep all workers busy, a copy takes the next free worker ahead of tasks that wait if it is also
//! worth more than the time by which it delays the jobs of these tasks.
//!
//! The copies of one task share the error of its estimate: a task that takes long everywhere does not gain from
//! another worker. So both integrals are computed for several values of this shared part, weighted by their
//! probability given what has been seen so far. An attempt that reports its progress is expected to end when its rate
//! says ([`course`]).

mod course;
mod paths;
mod value;

use crate::supervisor::leader::placement::deferral::remaining_s;
use crate::supervisor::leader::redundancy::{
    CopyOrder, Policy, SeenAttempt, SeenJob, SeenTask, View,
};
use course::{Course, Times, Told};
use hedge_model::TaskId;
use paths::{Others, Paths};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use value::{COPY_MAX, Known, WAIT_MAX, Window};

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
/// A copy later is better than one now if it is worth this many times as much: it finds fewer workers idle.
const LATER: f64 = 1.05;
/// Times after which a copy could start instead of now, as multiples of the time that it takes.
const WAITS: [f64; 5] = [0.1, 0.3, 0.7, 1.2, WAIT_MAX];

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
                open.push(Candidate::new(at, task, &paths));
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

    fn ahead(&mut self, view: &View<'_>, waiting_jobs: usize) -> Vec<TaskId> {
        if waiting_jobs == 0 {
            return Vec::new();
        }
        let mut weigh = Weigh::new(view, self.settings);
        let soon_free = soon_free(view);
        let mut ahead = Vec::new();
        for (at, job) in view.jobs.iter().enumerate() {
            let paths = Paths::new(view, job);
            for task in candidates(view, job, &paths) {
                let candidate = Candidate::new(at, task, &paths);
                if weigh.goes_ahead(&candidate, &soon_free, waiting_jobs) {
                    ahead.push(job.running[task].id);
                }
            }
        }
        ahead
    }
}

/// A task that may be worth a copy.
struct Candidate {
    job: usize,
    task: usize,
    /// When the other work of the job is over.
    others: Others,
    /// Workers that the job keeps busy on average.
    width: f64,
    /// Workers that were chosen for it in this decision.
    copies: Vec<usize>,
    /// Its best copy now.
    offer: Option<Offer>,
}

impl Candidate {
    fn new(job: usize, task: usize, paths: &Paths) -> Self {
        Self {
            job,
            task,
            others: paths.others(task),
            width: paths.width,
            copies: Vec::new(),
            offer: None,
        }
    }
}

/// A copy that is worth its cost.
#[derive(Clone, Copy)]
struct Offer {
    worker: usize,
    worth: f64,
}

/// Where and when a copy would start.
#[derive(Clone, Copy)]
struct Start {
    worker: usize,
    /// In so many seconds.
    delay: f64,
    /// Gain and cost within this many seconds count, so that copies that start at different times can be compared.
    ahead: f64,
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
    all.sort_by(|a, b| paths.likely(*b).total_cmp(&paths.likely(*a)).then(a.cmp(b)));
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
        let known = self.known(candidate, begun);
        let price = self.settings.price_of(candidate.width);
        let takes = Course::fresh(&self.view.workers[worker], task).nominal;
        let ahead = takes * (WAIT_MAX + COPY_MAX);
        let now = Start {
            worker,
            delay: 0.0,
            ahead,
        };
        let (gain, cost) = self.gain_and_cost(candidate, &known, now);
        let worth = job.urgency * gain / cost;
        // A copy without cost has no gain either, and the quotient is not a number.
        if worth.is_nan() || worth <= price {
            return None;
        }
        let net = job.urgency * gain - price * cost;
        let value = |start: Start| {
            let (gain, cost) = self.gain_and_cost(candidate, &known, start);
            job.urgency * gain - price * cost
        };
        let later = |wait: &f64| {
            let delay = wait * takes;
            value(Start { delay, ..now }) > net * LATER
        };
        if WAITS.iter().any(later) {
            return None;
        }
        let speed = self.view.workers[worker].speed;
        for soon in soon_free.iter_mut().filter(|soon| !soon.reserved) {
            let runs_it = task
                .attempts
                .iter()
                .any(|attempt| attempt.worker == soon.worker);
            let faster = self.view.workers[soon.worker].speed >= speed * FASTER;
            if runs_it || !faster || soon.after > WAIT_MAX * takes {
                continue;
            }
            let there = Start {
                worker: soon.worker,
                delay: soon.after,
                ahead,
            };
            if value(there) > net * self.settings.patience {
                soon.reserved = true;
                return None;
            }
        }
        Some(Offer { worker, worth })
    }

    /// Returns whether a copy of a task is worth more than what it costs and than what `waiting` jobs lose, whose tasks
    /// wait: the time that it takes from the pool delays each of them by the pool's share of it.
    fn goes_ahead(
        &mut self,
        candidate: &Candidate,
        soon_free: &[SoonFree],
        waiting: usize,
    ) -> bool {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        let may_run = |soon: &&SoonFree| {
            let there = |attempt: &SeenAttempt| attempt.worker == soon.worker;
            !task.attempts.iter().any(there) && !task.avoid.contains(&soon.worker)
        };
        let Some(soon) = soon_free.iter().find(may_run) else {
            return false;
        };
        if task.waits || task.attempts.len() != 1 {
            return false;
        }
        let of =
            |attempt: &SeenAttempt| Course::of(&self.view.workers[attempt.worker], task, attempt);
        let begun: Vec<Course> = task.attempts.iter().map(of).collect();
        if self.awaits_reports(task, &begun, soon.worker) {
            return false;
        }
        let known = self.known(candidate, begun);
        let worker = &self.view.workers[soon.worker];
        let takes = Course::fresh(worker, task).nominal;
        let start = Start {
            worker: soon.worker,
            delay: soon.after,
            ahead: soon.after + takes * (WAIT_MAX + COPY_MAX),
        };
        let (gain, cost) = self.gain_and_cost(candidate, &known, start);
        let others = waiting as f64 * worker.speed / self.view.pool_speed.max(1e-9);
        let price = self.settings.price_of(candidate.width) + others;
        job.urgency * gain > price * cost
    }

    /// Returns whether an attempt of a task has run too briefly to report its progress, which is about to come.
    fn awaits_reports(&self, task: &SeenTask, begun: &[Course], worker: usize) -> bool {
        let nominal = Course::fresh(&self.view.workers[worker], task).nominal;
        let awaited = REPORTED_AFTER_S + REPORTED_AFTER * nominal;
        let young = |course: &Course| course.elapsed < awaited && course.told == Told::Nothing;
        nominal > awaited && begun.iter().any(young)
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

    /// Returns the gain and the cost of one more copy of a task.
    fn gain_and_cost(&self, candidate: &Candidate, known: &Known, start: Start) -> (f64, f64) {
        let job = &self.view.jobs[candidate.job];
        let task = &job.running[candidate.task];
        let copy = Course::fresh(&self.view.workers[start.worker], task);
        let window = Window {
            delay: start.delay,
            ahead: start.ahead,
            others: &candidate.others,
            tail: task.tail_s / self.fast,
        };
        let (gain, cost) = known.gain_and_cost(&copy, &window);
        if gain < self.settings.gain_min_s || cost <= 0.0 {
            return (0.0, 0.0);
        }
        (gain, cost)
    }
}
