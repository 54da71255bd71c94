//! Statistics of the gaps between one worker's heartbeats: which gap is unusually long for it.

use std::time::Duration;

/// Weight of a new gap in the moving mean and variance, so that about the last 100 gaps count.
const WEIGHT: f64 = 0.01;
/// A new worker starts as if this many heartbeats had arrived on time, so that a few late ones at the start do not
/// make long gaps look normal.
const BEFOREHAND: u32 = 50;
/// After this many gaps the weight of an earlier long gap has halved.
const PEAK_HALF_LIFE: f64 = 1_000.0;
/// A gap is unusual if it exceeds the second longest recent gap by this factor.
const PEAK_MARGIN: f64 = 1.25;
/// A gap counts for at most this multiple of the limit that was suspicious when it occurred. The limit thus grows by
/// steps, and only if long gaps recur.
const STEP: u32 = 4;

/// The distribution of a worker's inter-arrival times.
///
/// An accrual detector after Hayashibara and others ("The φ accrual failure detector", 2004): it judges a gap by how
/// unlikely it is, given mean and variance of earlier gaps. Gaps on a busy machine have a longer tail than the normal
/// distribution of that paper, because its scheduler rarely, but repeatedly, runs a thread late. So gaps up to the
/// second longest recent one count as normal too. The longest one does not count: the machine may have frozen once.
/// Two freezes within a short time must not count either, so a gap is limited to a few times the suspicious limit:
/// several in a row raise the limit, whatever their length, and two hardly do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    /// Mean and variance of the time by which gaps exceeded the interval, in seconds.
    mean: f64,
    variance: f64,
    /// The longest and second longest such time, fading, in seconds.
    peaks: [f64; 2],
    count: u32,
}

impl Arrivals {
    /// Adds a gap. Heartbeats were due every `interval`, and a gap was suspicious after `suspicious`.
    pub fn add(&mut self, gap: Duration, interval: Duration, suspicious: Duration) {
        let gap = gap.min(suspicious.saturating_mul(STEP));
        let late = (gap.as_secs_f64() - interval.as_secs_f64()).max(0.0);
        self.count = self.count.saturating_add(1);
        let weight = WEIGHT.max(1.0 / f64::from(self.count.saturating_add(BEFOREHAND)));
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

    /// Returns the gap from which on a heartbeat is unusually late: longer than the mean by `deviations` standard
    /// deviations, and than gaps that recur. Heartbeats are due every `interval`.
    pub fn patience(&self, deviations: f64, interval: Duration) -> Duration {
        let usual = self.mean + deviations * self.variance.max(0.0).sqrt();
        let late = usual.max(self.peaks[1] * PEAK_MARGIN).max(0.0);
        interval + Duration::try_from_secs_f64(late).unwrap_or(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(1);
    const FLOOR: Duration = Duration::from_millis(3);
    const DEVIATIONS: f64 = 8.0;

    /// A worker watched as the monitor does, with three missed heartbeats as the floor.
    struct Heard(Arrivals);

    impl Heard {
        /// Adds a gap and returns whether it was suspicious.
        fn gap(&mut self, gap: Duration) -> bool {
            let suspicious = self.suspicious();
            self.0.add(gap, INTERVAL, suspicious);
            gap >= suspicious
        }

        fn regular(heartbeats: u32) -> Self {
            let mut heard = Self(Arrivals::default());
            (0..heartbeats).for_each(|_| assert!(!heard.gap(INTERVAL)));
            heard
        }

        fn suspicious(&self) -> Duration {
            self.0.patience(DEVIATIONS, INTERVAL).max(FLOOR)
        }
    }

    #[test]
    fn two_freezes_do_not_make_freezes_usual_however_long_and_close_they_were() {
        for freeze_ms in [20, 100, 700, 5_000, 600_000] {
            for apart in [1, 10, 100, 1_000] {
                let mut heard = Heard::regular(300);
                for _ in 0..2 {
                    heard.gap(Duration::from_millis(freeze_ms));
                    (0..apart).for_each(|_| _ = heard.gap(INTERVAL));
                }
                (0..300).for_each(|_| _ = heard.gap(INTERVAL));
                let after = heard.suspicious();
                assert!(
                    after <= Duration::from_millis(30),
                    "{after:?} after two of {freeze_ms} ms, {apart} heartbeats apart"
                );
            }
        }
    }

    #[test]
    fn long_gaps_that_recur_become_usual_soon_and_stay_so() {
        for gap_ms in [5, 20, 100, 700, 2_000] {
            for apart in [10, 50, 150] {
                let mut heard = Heard::regular(300);
                let mut suspicions = 0;
                for _ in 0..100 {
                    (0..apart).for_each(|_| _ = heard.gap(INTERVAL));
                    suspicions += u32::from(heard.gap(Duration::from_millis(gap_ms)));
                }
                assert!(suspicions >= 2, "two of {gap_ms} ms are not usual");
                assert!(
                    suspicions <= 12,
                    "{suspicions} of 100 gaps of {gap_ms} ms, {apart} heartbeats apart"
                );
            }
        }
    }

    #[test]
    fn long_gaps_of_one_that_just_came_do_not_make_any_gap_usual() {
        let mut heard = Heard::regular(0);
        for gap_ms in [300, 700, 5_000] {
            heard.gap(Duration::from_millis(gap_ms));
        }
        let soon = heard.suspicious();
        assert!(soon <= Duration::from_millis(300), "{soon:?}");
        (0..300).for_each(|_| _ = heard.gap(INTERVAL));
        let later = heard.suspicious();
        assert!(later <= Duration::from_millis(60), "{later:?}");
    }
}
