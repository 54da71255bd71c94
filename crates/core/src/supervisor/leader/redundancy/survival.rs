//! The probability that an execution still runs after some time.
//!
//! The time of an execution is its task's work divided by its worker's speed, times noise and, if it straggles, times
//! a factor from a truncated Pareto distribution. Both are computed on a logarithmic scale and tabulated once.

use super::{Beliefs, above};

/// The table covers this much of the natural logarithm on each side of the expected time.
const REACH: f64 = 5.0;
const STEPS: usize = 512;
/// Beyond the least factor of stragglers, executions end at most at this rate, per logarithm of time: one that straggles
/// then takes about as long again as it has taken, whatever the model's longest stragglers are. They are not known well
/// enough to expect an end that has been due for long.
const TAIL: f64 = 2.0;

/// Tabulated probabilities that an execution takes longer than a multiple of its expected time.
#[derive(Clone, Debug)]
pub(crate) struct Survival {
    table: Vec<f64>,
}

impl Survival {
    /// Creates the table for noise of this standard deviation and these beliefs about straggling.
    pub fn new(noise: f64, beliefs: &Beliefs) -> Self {
        let noise = noise.max(0.02);
        let factors = beliefs.factors();
        let chance = |log: f64| {
            let straggling: f64 = factors
                .iter()
                .map(|(factor, chance)| chance * above((log - factor.ln()) / noise))
                .sum();
            (1.0 - beliefs.straggling) * above(log / noise) + beliefs.straggling * straggling
        };
        let log = |at: usize| (at as f64 / STEPS as f64 * 2.0 - 1.0) * REACH;
        let mut table: Vec<f64> = (0..=STEPS).map(|at| chance(log(at))).collect();
        let falls = (-TAIL * 2.0 * REACH / STEPS as f64).exp();
        for at in 1..=STEPS {
            if log(at) > beliefs.straggle_min.ln() {
                table[at] = table[at].max(table[at - 1] * falls);
            }
        }
        Self { table }
    }

    /// Returns the probability that an execution takes longer than `ratio` times its expected time.
    pub fn beyond(&self, ratio: f64) -> f64 {
        if ratio <= 0.0 {
            return 1.0;
        }
        let at = (ratio.ln() / REACH + 1.0) * 0.5 * STEPS as f64;
        if at <= 0.0 {
            return 1.0;
        }
        if at >= STEPS as f64 {
            return self.table[STEPS];
        }
        let (low, part) = (at as usize, at.fract());
        self.table[low] * (1.0 - part) + self.table[low + 1] * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_what_they_should_be() {
        assert!((above(0.0) - 0.5).abs() < 1e-6);
        assert!((above(1.96) - 0.025).abs() < 1e-4);
        assert!((above(-1.0) - 0.841_345).abs() < 1e-5);
        let beliefs = Beliefs::default();
        let survival = Survival::new(0.2, &beliefs);
        assert!((survival.beyond(1.0) - (0.95 * 0.5 + 0.05)).abs() < 0.01);
        assert!(
            (survival.beyond(2.5) - 0.05).abs() < 0.005,
            "only stragglers take 2.5 times as long"
        );
        let (late, later) = (survival.beyond(20.0), survival.beyond(40.0));
        assert!(late < 2e-3 && later > late / 4.0 * 0.99, "{late}, {later}");
        let falling = (1..100).map(|at| survival.beyond(f64::from(at) * 0.2));
        assert!(falling.clone().zip(falling.skip(1)).all(|(a, b)| a >= b));
    }

    #[test]
    fn what_took_long_straggled() {
        let beliefs = Beliefs::default();
        assert!(beliefs.straggled(0.0, 0.3, true) < 0.001);
        assert!(beliefs.straggled(5f64.ln(), 0.3, true) > 0.99);
        assert!(
            beliefs.straggled(0.5f64.ln(), 0.3, false) < 0.06,
            "it was stopped early: nothing is known"
        );
        assert!(beliefs.straggled(-9.0, 0.1, true) < 0.5);
        let mean: f64 = beliefs.factors().iter().map(|(f, c)| f * c).sum();
        assert!((4.0..5.5).contains(&mean), "{mean}");
    }
}
