//! What is usual between two signs of life of one worker, and how unusual a silence is.

use std::time::Duration;

/// Weight of a new gap in the moving mean and variance: about the last 100 gaps count.
const WEIGHT: f64 = 0.01;
/// Gaps after which a single long one is half forgotten, where nothing like it came again.
const PEAK_HALF_LIFE: f64 = 2_000.0;
/// A silence as long as the longest one of late is not unusual; this much longer is.
const PEAK_MARGIN: f64 = 1.25;

/// The usual spread of a worker's arrivals.
///
/// An accrual detector after Hayashibara and others ("The φ accrual failure detector", 2004): a silence is
/// judged by how unlikely it is, given the mean and the spread of the gaps before. Gaps on a busy machine
/// have a longer tail than the normal distribution of that paper: a scheduler gives a thread its turn late,
/// rarely but again and again. So the longest gap of late counts as usual too.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// Of what gaps were longer than the interval, seconds.
    mean: f64,
    variance: f64,
    peak: f64,
    count: u32,
}

impl Arrivals {
    /// Another gap, while beats were due every `interval`.
    pub fn add(&mut self, gap: Duration, interval: Duration) {
        let late = (gap.as_secs_f64() - interval.as_secs_f64()).max(0.0);
        self.count = self.count.saturating_add(1);
        let weight = WEIGHT.max(1.0 / f64::from(self.count));
        let off = late - self.mean;
        self.mean += weight * off;
        self.variance = (1.0 - weight) * (self.variance + weight * off * off);
        self.peak = (self.peak * (-std::f64::consts::LN_2 / PEAK_HALF_LIFE).exp()).max(late);
    }

    /// The silence from which on more than `deviations` standard deviations are missing, and that is longer
    /// than any of late; beats being due every `interval`.
    pub fn patience(&self, deviations: f64, interval: Duration) -> Duration {
        let usual = self.mean + deviations * self.variance.max(0.0).sqrt();
        let late = usual.max(self.peak * PEAK_MARGIN).max(0.0);
        interval + Duration::try_from_secs_f64(late).unwrap_or(Duration::ZERO)
    }
}
