//! The paths of a job through its running tasks: when its other work is over, beside any one of them.
//!
//! A task that ends sooner shortens its job only from when all other work of the job is over. When that is, is uncertain:
//! of many tasks that are each expected to end at the same time, the last one ends later.

use super::course::{Course, Told};
use crate::supervisor::leader::redundancy::{SeenJob, SeenTask, View, above};

/// Paths that are considered one by one: those that may end last.
const PATHS_MAX: usize = 128;
/// Points of time between which the probability is interpolated.
const STEPS: usize = 48;
/// How far the points reach around the ends of paths, in standard deviations.
const REACH: f64 = 3.0;
/// Ends of paths are uncertain by this much at least: standard deviation of the logarithm.
const SPREAD_MIN: f64 = 0.02;
/// Lower probabilities count as this, so that a path can be left out again.
const CHANCE_MIN: f64 = 1e-4;

/// When a path through a running task ends.
#[derive(Clone, Copy, Debug)]
struct End {
    /// Seconds that the task takes.
    nominal: f64,
    /// Of which so many have passed.
    elapsed: f64,
    /// Standard deviation of the logarithm of the first.
    spread: f64,
    /// Seconds from the end of the task to the end of the job.
    tail: f64,
    /// Seconds until the end of the job, as expected.
    likely: f64,
}

impl End {
    /// Returns the end of the path through a task. A copy of a straggler ends sooner than the straggler.
    fn of(view: &View<'_>, task: &SeenTask, fast: f64) -> Self {
        let tail = task.tail_s / fast;
        let ends = task.attempts.iter().map(|attempt| {
            let course = Course::of(&view.workers[attempt.worker], task, attempt);
            let (nominal, elapsed, spread) = match course.told {
                Told::Ends { after, spread, .. } if after < course.nominal => (after, 0.0, spread),
                Told::Ends { .. } => (course.nominal, 0.0, task.spread),
                Told::Nothing | Told::Steady => (course.nominal, course.elapsed, task.spread),
            };
            let spread = spread.max(SPREAD_MIN);
            let late = elapsed > nominal && {
                let on_time = above((elapsed / nominal).ln() / spread);
                on_time < view.beliefs.straggling
            };
            let elapsed = if late { 0.0 } else { elapsed };
            Self {
                nominal,
                elapsed,
                spread,
                tail,
                likely: (nominal - elapsed).max(0.0) + tail,
            }
        });
        let none = Self {
            nominal: 0.0,
            elapsed: 0.0,
            spread: SPREAD_MIN,
            tail,
            likely: tail,
        };
        ends.min_by(|a, b| a.likely.total_cmp(&b.likely))
            .unwrap_or(none)
    }

    /// Returns the probability that the path ends within `t` seconds.
    fn by(&self, t: f64) -> f64 {
        let beyond = |time: f64| {
            if time <= 0.0 || self.nominal <= 0.0 {
                return f64::from(u8::from(time <= 0.0 && self.nominal > 0.0));
            }
            above((time / self.nominal).ln() / self.spread)
        };
        let after = t - self.tail;
        if after < 0.0 {
            return 0.0;
        }
        1.0 - beyond(self.elapsed + after) / beyond(self.elapsed).max(1e-9)
    }

    /// Returns when the path ends if its task takes so many standard deviations longer than expected.
    fn at(&self, deviations: f64) -> f64 {
        let takes = self.nominal * (self.spread * deviations).exp();
        self.tail + (takes - self.elapsed).max(0.0)
    }
}

/// The paths of a job.
pub(super) struct Paths {
    /// For each running task the path through it.
    ends: Vec<End>,
    /// The logarithm of the probability that the paths which may end last have ended at each point of time.
    ended: [f64; STEPS + 1],
    /// Which these are, by task.
    last: Vec<bool>,
    /// The first point of time, in seconds from now, and the time between two.
    from: f64,
    step: f64,
    /// Remaining work divided by the pool's speed, in seconds.
    work: f64,
    /// Workers that the job keeps busy on average if nothing goes wrong, at least 1.
    pub width: f64,
}

impl Paths {
    pub fn new(view: &View<'_>, job: &SeenJob<'_>) -> Self {
        let fast = view.fastest();
        let ends = job.running.iter().map(|task| End::of(view, task, fast));
        let ends: Vec<End> = ends.collect();
        let running: f64 = ends.iter().map(|end| end.likely - end.tail).sum();
        let remaining_work = job.unstarted_s + running;
        let pool_s = |work_s: f64| work_s / view.pool_speed.max(1e-9);
        // Time that the whole job takes if nothing goes wrong: its critical path on the fastest worker, or all its work
        // divided by the pool's speed, whichever is longer.
        let usual = (job.path_s / fast).max(pool_s(remaining_work + job.success_s));
        let mut by_end: Vec<usize> = (0..ends.len()).collect();
        if by_end.len() > PATHS_MAX {
            let latest = |at: &usize| ends[*at].at(REACH);
            by_end.select_nth_unstable_by(PATHS_MAX, |a, b| {
                latest(b).total_cmp(&latest(a)).then(a.cmp(b))
            });
            by_end.truncate(PATHS_MAX);
        }
        let mut last = vec![false; ends.len()];
        by_end.iter().for_each(|at| last[*at] = true);
        // Below the second of the earliest possible ends, another path is still open whichever is left out.
        let (mut first, mut second, mut to) = (0.0f64, 0.0f64, 0.0f64);
        for at in &by_end {
            let early = ends[*at].at(-REACH);
            second = second.max(early.min(first));
            first = first.max(early);
            to = to.max(ends[*at].at(REACH));
        }
        let step = ((to - second) / STEPS as f64).max(1e-9);
        let ended = std::array::from_fn(|point| {
            let t = second + step * point as f64;
            let chances = by_end.iter().map(|at| log_chance(&ends[*at], t));
            chances.sum()
        });
        Self {
            width: ((remaining_work / fast + job.success_s) / usual.max(1e-9)).max(1.0),
            ends,
            ended,
            last,
            from: second,
            step,
            work: pool_s(remaining_work),
        }
    }

    /// Returns when the job is expected to end on the path through a running task, in seconds from now.
    pub fn likely(&self, task: usize) -> f64 {
        self.ends[task].likely
    }

    /// Returns when the other work of the job is over, beside a running task and what follows it.
    pub fn others(&self, task: usize) -> Others {
        let own = &self.ends[task];
        let own = |point: usize| match self.last[task] {
            true => log_chance(own, self.from + self.step * point as f64),
            false => 0.0,
        };
        let over = |point: usize| (self.ended[point] - own(point)).exp().min(1.0);
        Others {
            over: std::array::from_fn(over),
            from: self.from,
            step: self.step,
            work: self.work,
        }
    }
}

fn log_chance(end: &End, t: f64) -> f64 {
    end.by(t).max(CHANCE_MIN).ln()
}

/// When the other work of a job is over.
#[derive(Clone, Debug)]
pub(super) struct Others {
    /// The probability at each point of time.
    over: [f64; STEPS + 1],
    from: f64,
    step: f64,
    /// Never before this.
    work: f64,
}

impl Others {
    /// Returns the probability that it is over `t` seconds from now.
    pub fn by(&self, t: f64) -> f64 {
        if t < self.work || t < self.from {
            return 0.0;
        }
        let at = (t - self.from) / self.step;
        if at >= STEPS as f64 {
            return 1.0;
        }
        let (low, part) = (at as usize, at.fract());
        self.over[low] * (1.0 - part) + self.over[low + 1] * part
    }
}
