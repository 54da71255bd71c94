//! What is believed of how executions go, straggling included.

/// Factors by which stragglers are represented.
const FACTORS: usize = 6;

/// How executions go in this grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Beliefs {
    /// Standard deviation of the logarithm of an execution's time around what was expected, straggling apart.
    pub noise: f64,
    /// The share of executions that straggle.
    pub straggling: f64,
    /// A straggler takes at least this many times as long.
    pub straggle_min: f64,
    /// And at most this many times.
    pub straggle_max: f64,
    /// The shape of the straggling factor's Pareto distribution between these.
    pub straggle_shape: f64,
}

impl Default for Beliefs {
    /// What a calibration on real workflows was made with: 5 % of executions take 3 to 10 times as long, by a
    /// truncated Pareto distribution of shape 1.5; others scatter by 0.2.
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
    /// Stragglers' factors with their chances, which sum to 1.
    pub fn factors(&self) -> [(f64, f64); FACTORS] {
        let (low, high, shape) = (self.straggle_min, self.straggle_max, self.straggle_shape);
        let share = 1.0 - (low / high).powf(shape);
        std::array::from_fn(|at| {
            // The middle of each of equally likely parts.
            let part = (at as f64 + 0.5) / FACTORS as f64;
            let factor = low * (1.0 - part * share).powf(-1.0 / shape);
            (factor, 1.0 / FACTORS as f64)
        })
    }

    /// How likely an execution straggled whose time was off from what was expected by this logarithm; one that
    /// did not end by itself took at least that long.
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
        // Far above all that is known it straggled; far below it did not.
        if yes + no > 1e-290 {
            yes / (yes + no)
        } else if off > 0.0 {
            1.0
        } else {
            0.0
        }
    }
}

/// The chance that a standard normal variable exceeds `x`: Abramowitz and Stegun 7.1.26, right to 1e-7.
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
