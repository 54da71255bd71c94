//! What a copy is expected to gain and to cost.

use super::course::{Course, Times};
use super::paths::Others;
use std::rc::Rc;

/// A copy starts after at most this many times the time that it takes.
pub(super) const WAIT_MAX: f64 = 2.0;
/// By this many times the time that it takes, a copy is done, except in rare cases of straggling.
pub(super) const COPY_MAX: f64 = 8.0;
/// Points at which the integrals are evaluated.
const POINTS: usize = 36;
/// Values of the shared part with their probabilities: three points that have a normal distribution's moments.
const SHARED: [(f64, f64); 3] = [
    (-1.732_050_8, 1.0 / 6.0),
    (0.0, 2.0 / 3.0),
    (1.732_050_8, 1.0 / 6.0),
];

/// When a copy starts, and which of the time that it saves and takes counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window<'a> {
    /// In so many seconds.
    pub delay: f64,
    /// Gain and cost within this many seconds count, if the task takes as long as expected. This must not depend on
    /// when the copy starts: of copies that start at different times, the later one would seem to gain more.
    pub ahead: f64,
    /// When other work of the job is over.
    pub others: &'a Others,
    /// Seconds that the job will take after this task.
    pub tail: f64,
}

/// What is known of a task when copies of it are weighed, whichever copy that is.
#[derive(Debug)]
pub(super) struct Known {
    /// Its attempts, and copies that were chosen in the same decision.
    pub running: Vec<Course>,
    /// How long its executions take, relative to the expected time.
    times: Rc<Times>,
    /// Standard deviation of the part of the time that all attempts share, as a logarithm.
    shared: f64,
    /// The probability of each value of the shared part.
    weights: [f64; SHARED.len()],
}

impl Known {
    pub fn new(running: Vec<Course>, times: Rc<Times>, shared: f64) -> Self {
        Self {
            weights: posterior(&times, &running, shared),
            running,
            times,
            shared,
        }
    }

    /// Returns the gain and the cost of one more copy, in seconds.
    pub fn gain_and_cost(&self, copy: &Course, window: &Window<'_>) -> (f64, f64) {
        let (mut gain, mut cost) = (0.0, 0.0);
        for ((value, _), weight) in SHARED.iter().zip(self.weights) {
            if weight < 1e-4 {
                continue;
            }
            let longer = (value * self.shared).exp();
            let (g, c) = integrate(&self.times, &self.running, copy, longer, window);
            gain += weight * g;
            cost += weight * c;
        }
        (gain, cost)
    }
}

/// Returns the probability of each value of the shared part, given what is known of the attempts.
fn posterior(times: &Times, running: &[Course], shared: f64) -> [f64; SHARED.len()] {
    let mut weights = SHARED.map(|(value, chance)| {
        let longer = (value * shared).exp();
        let known = running
            .iter()
            .map(|course| course.likelihood(times, longer));
        chance * known.product::<f64>()
    });
    let all: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|weight| *weight /= all);
    weights
}

/// The probability that an attempt was lost, as the integrals advance.
struct Losses {
    /// Its probability to run beyond now, by which all others are divided.
    still: f64,
    /// By the end of each interval.
    by: [(f64, f64); POINTS + 1],
    /// The interval that [`Self::by`] was asked for last.
    at: usize,
}

impl Losses {
    fn new(course: &Course, times: &Times, longer: f64) -> Self {
        Self {
            still: course.beyond(times, longer, 0.0).max(1e-12),
            by: [(0.0, 0.0); POINTS + 1],
            at: 0,
        }
    }

    /// Returns the probability that the attempt was lost by `t`, which increases from call to call.
    fn by(&mut self, t: f64) -> f64 {
        while self.at + 1 < POINTS && self.by[self.at + 1].0 <= t {
            self.at += 1;
        }
        let ((from, low), (to, high)) = (self.by[self.at], self.by[self.at + 1]);
        let part = (t - from) / (to - from).max(1e-12);
        low + (high - low) * part.clamp(0.0, 1.0)
    }
}

/// Returns the integrals of gain and cost if the task takes `longer` times the expected time.
fn integrate(
    times: &Times,
    running: &[Course],
    copy: &Course,
    longer: f64,
    window: &Window<'_>,
) -> (f64, f64) {
    let expected = copy.nominal * longer;
    let until = window.ahead * longer;
    let losses = running
        .iter()
        .map(|course| Losses::new(course, times, longer));
    let mut losses: Vec<Losses> = losses.collect();
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
        for (course, lost) in running.iter().zip(&mut losses) {
            let kept = (-course.loss * middle).exp();
            let runs = course.beyond(times, longer, middle) / lost.still * kept;
            let lost_now = lost.by[point - 1].1 + course.loss * runs * width;
            lost.by[point] = (t, lost_now);
            // A new attempt starts when it is lost.
            let over = lost.by(middle - course.again * longer);
            open *= (runs + lost_now - over).min(1.0);
        }
        let own = middle - window.delay;
        if own <= 0.0 {
            continue;
        }
        let kept = (-copy.loss * own).exp();
        let runs = times.beyond(own / expected);
        // A copy that was lost while it still ran is never done.
        lost_copy += copy.loss * width * copy_before;
        copy_before = runs * kept;
        let done = (1.0 - runs * kept - lost_copy).max(0.0);
        gain += open * done * width * window.others.by(middle + window.tail);
        cost += open * runs * kept * width;
    }
    (gain, cost)
}
