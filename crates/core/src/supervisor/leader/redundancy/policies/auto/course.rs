//! When an attempt is expected to end: from what it reports, or else from how long it has run.

use crate::supervisor::leader::redundancy::{
    Beliefs, SeenAttempt, SeenTask, SeenWorker, Survival, above,
};

/// How unevenly programs progress: standard deviation of the logarithm of an attempt's rate, beside the resolution of
/// its reports.
const RATE_SPREAD: f64 = 0.1;
/// The resolution of progress reports, as a share of the task's work.
const RESOLUTION: f64 = 0.01;
/// Reports that show the rate less exactly than this are not used yet.
const RATE_SPREAD_MAX: f64 = 0.5;
/// How far rates are from the expected one, as a standard deviation of the logarithm: wide, because stragglers are far
/// from it.
const RATE_PRIOR: f64 = 0.6;
/// An attempt that gets less than this share of the CPU time that is usual for its kind lacks CPU time.
const STARVED: f64 = 0.6;
/// The share of stragglers that lack CPU time. The others use as much as usual, because they compute more or wait.
const STARVED_SHARE: f64 = 0.5;
/// The least share of a remaining time that still remains once it should be over.
const REMAINS_MIN: f64 = 0.05;
/// How far stragglers are from the factors that represent them: standard deviation of the logarithm.
const FACTOR_SPREAD: f64 = 0.35;
/// The least time of an execution, in seconds.
const TIME_MIN: f64 = 1e-6;
/// If an attempt that saves checkpoints is lost, this share of what was to do since the newest one is repeated on
/// average.
const REPEATED: f64 = 0.5;

/// An attempt, or an intended copy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Seconds that it takes if nothing goes wrong and the estimate is right.
    pub nominal: f64,
    /// Seconds that it has run.
    pub elapsed: f64,
    /// How often its worker is lost, per second.
    pub loss: f64,
    /// Seconds that a new attempt takes if this one is lost.
    pub again: f64,
    /// What its reports say.
    pub told: Told,
}

/// What an attempt's reports say of its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    /// Nothing.
    Nothing,
    /// It uses as much CPU time as is usual for its kind.
    Steady,
    /// It is expected to end.
    Ends {
        /// In this many seconds.
        after: f64,
        /// The standard deviation of the logarithm of that.
        spread: f64,
        /// The seconds that it takes in all with the standard deviation of their logarithm, if its reports show them
        /// whatever the estimate says.
        whole: Option<(f64, f64)>,
    },
}

impl Told {
    fn of(task: &SeenTask, attempt: &SeenAttempt, nominal: f64) -> Self {
        let Some([first, last]) = attempt.reports else {
            return Self::Nothing;
        };
        let span = last.at_s - first.at_s;
        if span <= 0.0 {
            return Self::Nothing;
        }
        let since = (attempt.elapsed_s - last.at_s).max(0.0);
        let ends = |after: f64, spread: f64, whole: Option<(f64, f64)>| Self::Ends {
            after: (after - since).max(REMAINS_MIN * after).max(TIME_MIN),
            spread,
            whole,
        };
        if let (Some(from), Some(to)) = (first.done, last.done) {
            let rate = (to - from) / span;
            let spread = RATE_SPREAD.hypot(RESOLUTION / (to - from).max(1e-9));
            if rate <= 0.0 || spread > RATE_SPREAD_MAX {
                return Self::Nothing;
            }
            let to_do = 1.0 - attempt.begun_at;
            let (told, usual) = (spread.powi(-2), RATE_PRIOR.powi(-2));
            let log = (rate.ln() * told + (to_do / nominal).ln() * usual) / (told + usual);
            let after = (1.0 - to).max(0.0) / log.exp();
            return ends(
                after,
                (told + usual).powf(-0.5),
                Some((to_do / rate, spread)),
            );
        }
        let Some(usual) = task.cpus_busy.filter(|usual| *usual > 0.0) else {
            return Self::Nothing;
        };
        let share = (last.cpu_s - first.cpu_s) / span / usual;
        if share >= STARVED {
            return Self::Steady;
        }
        // It progresses as it gets CPU time. How much it needs is as uncertain as the estimate.
        let whole = nominal / share.max(1e-3);
        let to_do = 1.0 - (last.cpu_s / usual / nominal).min(1.0 - REMAINS_MIN);
        ends(whole * to_do, task.spread.max(RATE_SPREAD), None)
    }
}

impl Course {
    /// Returns the course of an attempt.
    pub fn of(worker: &SeenWorker, task: &SeenTask, attempt: &SeenAttempt) -> Self {
        let nominal = (task.work_s * (1.0 - attempt.begun_at) / worker.speed).max(TIME_MIN);
        Self {
            nominal,
            elapsed: attempt.elapsed_s,
            told: Told::of(task, attempt, nominal),
            ..Self::fresh(worker, task)
        }
    }

    /// Returns the course of a copy that starts now, from the newest checkpoint.
    pub fn fresh(worker: &SeenWorker, task: &SeenTask) -> Self {
        let nominal = (task.work_s * (1.0 - task.saved) / worker.speed).max(TIME_MIN);
        let suspected = worker.suspected.then(|| 1.0 / task.work_s.max(1e-3));
        Self {
            nominal,
            elapsed: 0.0,
            loss: suspected.unwrap_or(worker.loss_per_s),
            again: if task.saves {
                REPEATED * nominal
            } else {
                nominal
            },
            told: Told::Nothing,
        }
    }

    /// Returns the seconds until it ends, without straggling that its reports do not show.
    pub fn remaining_s(&self) -> f64 {
        match self.told {
            Told::Ends { after, .. } => after,
            Told::Nothing | Told::Steady => (self.nominal - self.elapsed).max(0.0),
        }
    }

    /// Returns the probability that it runs for more than `after` seconds from now if it is not lost and its task takes
    /// `longer` times the expected time. To be divided by that for 0 seconds.
    pub fn beyond(&self, times: &Times, longer: f64, after: f64) -> f64 {
        let ratio = (self.elapsed + after) / (self.nominal * longer);
        match self.told {
            Told::Nothing => times.usual.beyond(ratio),
            Told::Steady => times.steady.beyond(ratio),
            Told::Ends { .. } if after <= 0.0 => 1.0,
            Told::Ends {
                after: expected,
                spread,
                ..
            } => above((after / expected).ln() / spread),
        }
    }

    /// Returns how likely what is known of it would be if its task took `longer` times the expected time.
    pub fn likelihood(&self, times: &Times, longer: f64) -> f64 {
        let likelihood = match self.told {
            Told::Nothing | Told::Steady => self.beyond(times, longer, 0.0),
            Told::Ends { whole: None, .. } => 1.0,
            Told::Ends {
                whole: Some((whole, spread)),
                ..
            } => times.density((whole / (self.nominal * longer)).ln(), spread),
        };
        likelihood.max(1e-12)
    }
}

/// How long executions take, relative to the expected time of their task.
#[derive(Clone, Debug)]
pub(super) struct Times {
    /// Of all executions.
    usual: Survival,
    /// Of those that do not lack CPU time.
    steady: Survival,
    /// Standard deviation of the logarithm, without straggling.
    noise: f64,
    beliefs: Beliefs,
}

impl Times {
    pub fn new(noise: f64, beliefs: &Beliefs) -> Self {
        let steady = Beliefs {
            straggling: beliefs.straggling * (1.0 - STARVED_SHARE),
            ..*beliefs
        };
        Self {
            usual: Survival::new(noise, beliefs),
            steady: Survival::new(noise, &steady),
            noise,
            beliefs: *beliefs,
        }
    }

    /// Returns the probability that a copy takes longer than `ratio` times its expected time.
    pub fn beyond(&self, ratio: f64) -> f64 {
        self.usual.beyond(ratio)
    }

    /// Returns the likelihood of an execution whose logarithm of actual over expected time is `off`, known to `spread`.
    fn density(&self, off: f64, spread: f64) -> f64 {
        let density = |mean: f64, own: f64| {
            let spread = own.hypot(spread);
            let x = (off - mean) / spread;
            (-0.5 * x * x).exp() / spread
        };
        let factors = self.beliefs.factors();
        let straggling = factors.iter();
        let straggling =
            straggling.map(|(factor, chance)| chance * density(factor.ln(), FACTOR_SPREAD));
        let (share, straggling) = (self.beliefs.straggling, straggling.sum::<f64>());
        (1.0 - share) * density(0.0, self.noise) + share * straggling
    }
}
