//! The model of execution times in this grid, with stragglers.

/// How many factors represent the distribution of stragglers.
const FACTORS: usize = 6;

/// A model of execution times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beliefs {
    /// Standard deviation of the logarithm of actual over expected time, for executions that do not straggle.
    pub noise: f64,
    /// The share of executions that straggle.
    pub straggling: f64,
    /// A straggler takes at least this many times the expected time.
    pub straggle_min: f64,
    /// A straggler takes at most this many times the expected time.
    pub straggle_max: f64,
    /// The shape of the Pareto distribution, truncated to these bounds, of a straggler's factor.
    pub straggle_shape: f64,
}

impl Default for Beliefs {
    /// The values of a calibration on real workflows: 5 % of executions take 3 to 10 times as long, by a truncated
    /// Pareto distribution of shape 1.5; the others scatter by 0.2.
    fn default() -> Self {
        Self {
            noise: 0.2,
            straggling: 0.05,
            straggle_min: 3.0,
            straggle_max: 10.0,
            straggle_shape: 1.5,
        }
    }
}

impl Beliefs {
    /// Returns factors that represent stragglers, with their probabilities, which sum to 1.
    pub fn factors(&self) -> [(f64, f64); FACTORS] {
        let (low, high, shape) = (self.straggle_min, self.straggle_max, self.straggle_shape);
        let share = 1.0 - (low / high).powf(shape);
        std::array::from_fn(|at| {
            // The middle of each of `FACTORS` equally likely parts.
            let part = (at as f64 + 0.5) / FACTORS as f64;
            let factor = low * (1.0 - part * share).powf(-1.0 / shape);
            (factor, 1.0 / FACTORS as f64)
        })
    }

    /// Returns the probability that an execution straggled. `off` is the logarithm of its actual over its expected
    /// time. One that was stopped (`done` is false) would have taken at least that long.
    pub fn straggled(&self, off: f64, spread: f64, done: bool) -> f64 {
        let spread = spread.max(0.05);
        let like = |mean: f64| {
            let x = (off - mean) / spread;
            if done { (-0.5 * x * x).exp() } else { above(x) }
        };
        let straggling: f64 = self
            .factors()
            .iter()
            .map(|(factor, chance)| chance * like(factor.ln()))
            .sum();
        let (yes, no) = (
            self.straggling * straggling,
            (1.0 - self.straggling) * like(0.0),
        );
        // If both likelihoods underflow, an execution far above the expected time straggled, and one far below did
        // not.
        if yes + no > 1e-290 {
            yes / (yes + no)
        } else if off > 0.0 {
            1.0
        } else {
            0.0
        }
    }
}

/// Returns the probability that a standard normal variable exceeds `x` (Abramowitz and Stegun 7.1.26, accurate to
/// 1e-7).
pub(crate) fn above(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let poly = t
        * (0.254_829_592
            + t * (-0.284_496_736
                + t * (1.421_413_741 + t * (-1.453_152_027 + t * 1.061_405_429))));
    let tail = 0.5 * poly * (-z * z).exp();
    if x >= 0.0 { tail } else { 1.0 - tail }
}
