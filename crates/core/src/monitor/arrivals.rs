//! What is usual between two signs of life of one worker, and how unusual a silence is.

use std::time::Duration;

/// Weight of a new gap in the moving mean and variance: about the last 100 gaps count.
const WEIGHT: f64 = 0.01;
/// Gaps after which long ones are half forgotten, where nothing like them came again.
const PEAK_HALF_LIFE: f64 = 1_000.0;
/// A silence as long as the second longest of late is not unusual; this much longer is.
const PEAK_MARGIN: f64 = 1.25;

/// The usual spread of a worker's arrivals.
///
/// An accrual detector after Hayashibara and others ("The φ accrual failure detector", 2004): a silence is
/// judged by how unlikely it is, given the mean and the spread of the gaps before. Gaps on a busy machine
/// have a longer tail than the normal distribution of that paper: a scheduler gives a thread its turn late,
/// rarely but again and again. So the second longest gap of late counts as usual too; a single long one does
/// not, as it may well have been a machine that froze.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// Of what gaps were longer than the interval, seconds.
    mean: f64,
    variance: f64,
    /// The longest of late, and the second longest.
    peaks: [f64; 2],
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
        let [mut first, mut second] = self
            .peaks
            .map(|peak| peak * 0.5_f64.powf(1.0 / PEAK_HALF_LIFE));
        if late > first {
            (first, second) = (late, first);
        } else {
            second = second.max(late);
        }
        self.peaks = [first, second];
    }

    /// The silence from which on more than `deviations` standard deviations are missing, and that is longer
    /// than what recurs; beats being due every `interval`.
    pub fn patience(&self, deviations: f64, interval: Duration) -> Duration {
        let usual = self.mean + deviations * self.variance.max(0.0).sqrt();
        let late = usual.max(self.peaks[1] * PEAK_MARGIN).max(0.0);
        interval + Duration::try_from_secs_f64(late).unwrap_or(Duration::ZERO)
    }
}
