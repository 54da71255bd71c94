//! What is random in a run: task times, estimates, stragglers, speeds. Each number is drawn from the run's
//! seed and what it belongs to (a task, an attempt of it, a machine), so that all policies meet the same luck.

use super::trace::{Presence, Trace};
use super::workflow::{WORK_MIN, Workflow};
use crate::{Dice, Error};

/// How executions and machines vary. The defaults are those of a calibration on real workflows and traces.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Model {
    /// Task times scatter around the recorded ones: standard deviation of the logarithm. 0.2. Copies of a
    /// task share it.
    pub noise: f64,
    /// Estimates scatter around the task times: standard deviation of the logarithm. 0.2.
    pub estimate_error: f64,
    /// Machines' speeds scatter around the standard: standard deviation of the logarithm. 0.3.
    pub speed_spread: f64,
    /// What is known of a speed scatters around it: standard deviation of the logarithm. 0.15.
    pub speed_error: f64,
    /// The clock rate scatters around the speed: standard deviation of the logarithm. 0.25: within a family
    /// of processors a clock rate says more than it does across families.
    pub clock_error: f64,
    /// Share of executions that straggle, drawn for each. 0.05.
    pub straggling: f64,
    /// A straggler takes so many times as long at least. 3.
    pub straggle_min: f64,
    /// And so many times at most. 10.
    pub straggle_max: f64,
    /// Shape of the Pareto distribution of the factor, truncated to these ends. 1.5.
    pub straggle_shape: f64,
    /// Whether machines that are there go when the trace says so, and others come.
    pub losses: bool,
    /// Seconds that a machine needs before an attempt runs, beside its data. 0.
    pub startup: f64,
    /// Median rate of machines' links, bytes per second; `None` makes data free. `None`.
    pub bandwidth: Option<f64>,
    /// Machines' links scatter around that: standard deviation of the logarithm. 0.5.
    pub link_spread: f64,
    /// Share of tasks whose programs report how much of their work is done; of the others only CPU time is heard. 1.
    pub reports: f64,
    /// Share of stragglers that lack CPU time; the others use it all the time. 0.5.
    pub starved: f64,
    /// How programs save checkpoints; `None` if they save none. `None`.
    pub checkpoints: Option<Saving>,
    /// Speeds of the machines, by their number in the trace, where they are known; drawn where empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pool: Vec<f64>,
}

/// How a program saves checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Saving {
    /// After this share of the task's work. 0.05.
    pub share: f64,
    /// After this many seconds, if they pass first. 60.
    pub every_s: f64,
    /// It runs longer by this share. 0.01.
    pub cost: f64,
}

impl Default for Saving {
    fn default() -> Self {
        Self {
            share: 0.05,
            every_s: 60.0,
            cost: 0.01,
        }
    }
}

/// How many executions straggle, and by how much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stragglers {
    /// Share of executions.
    pub share: f64,
    /// A straggler takes so many times as long at least.
    pub min: f64,
    /// And so many times at most.
    pub max: f64,
}

/// The models of stragglers under which policies are compared by default: `usual` is that of the calibration, which
/// `auto` has as its prior; the others differ from what it expects.
pub const STRAGGLERS: [(&str, Stragglers); 3] = [
    (
        "none",
        Stragglers {
            share: 0.0,
            min: 3.0,
            max: 10.0,
        },
    ),
    (
        "usual",
        Stragglers {
            share: 0.05,
            min: 3.0,
            max: 10.0,
        },
    ),
    (
        "heavy",
        Stragglers {
            share: 0.15,
            min: 1.5,
            max: 30.0,
        },
    ),
];

impl Default for Model {
    fn default() -> Self {
        Self {
            noise: 0.2,
            estimate_error: 0.2,
            speed_spread: 0.3,
            speed_error: 0.15,
            clock_error: 0.25,
            straggling: 0.05,
            straggle_min: 3.0,
            straggle_max: 10.0,
            straggle_shape: 1.5,
            losses: true,
            startup: 0.0,
            bandwidth: None,
            reports: 1.0,
            starved: 0.5,
            checkpoints: None,
            link_spread: 0.5,
            pool: Vec::new(),
        }
    }
}

impl Model {
    /// The same with other stragglers.
    pub fn with_stragglers(self, stragglers: Stragglers) -> Self {
        Self {
            straggling: stragglers.share,
            straggle_min: stragglers.min,
            straggle_max: stragglers.max,
            ..self
        }
    }

    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<(), Error> {
        let spreads = [
            self.noise,
            self.estimate_error,
            self.speed_spread,
            self.speed_error,
            self.clock_error,
            self.link_spread,
        ];
        let bad = |why: &str| Err(Error::Option(why.into()));
        if self.pool.iter().any(|speed| !(1e-3..=1e3).contains(speed)) {
            return bad("speeds lie between 0.001 and 1,000");
        }
        if spreads.iter().any(|spread| !(0.0..=3.0).contains(spread)) {
            return bad("a spread is the standard deviation of a logarithm, from 0 to 3");
        }
        let shares = [self.straggling, self.reports, self.starved];
        if shares.iter().any(|share| !(0.0..=1.0).contains(share)) {
            return bad(
                "the shares of stragglers and of tasks that report progress lie between 0 and 1",
            );
        }
        if let Some(saving) = self.checkpoints {
            let spans =
                (1e-3..=1.0).contains(&saving.share) && (1e-3..=1e9).contains(&saving.every_s);
            if !spans || !(0.0..=1.0).contains(&saving.cost) {
                return bad(
                    "checkpoints are saved after 0.001 to 1 of the work, at a cost of 0 to 1",
                );
            }
        }
        let (min, max) = (self.straggle_min, self.straggle_max);
        if !(1.0..=1e6).contains(&min) || !(min..=1e6).contains(&max) || self.straggle_shape <= 0.0
        {
            return bad("stragglers take from 1 to 1,000,000 times as long, by a positive shape");
        }
        if !(0.0..=1e9).contains(&self.startup) || self.bandwidth.is_some_and(|rate| rate <= 0.0) {
            return bad("the start-up time is not negative, and the bandwidth positive");
        }
        Ok(())
    }

    fn straggle(&self, dice: &mut Dice) -> f64 {
        if dice.unit() >= self.straggling {
            return 1.0;
        }
        let (low, high, shape) = (self.straggle_min, self.straggle_max, self.straggle_shape);
        let cut = 1.0 - (low / high).powf(shape);
        low * (1.0 - dice.unit() * cut).powf(-1.0 / shape)
    }
}

/// A machine of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Machine {
    /// When it is there.
    pub presence: Presence,
    /// Seconds of work at standard speed that it does in a second.
    pub speed: f64,
    /// What is known of that.
    pub believed: f64,
    /// Its clock rate, as a speed.
    pub clock: f64,
    /// Bytes per second of its link; infinite where data are free.
    pub link: f64,
}

/// Everything that luck decides about one run, whatever the policy does.
#[derive(Clone, Debug)]
pub struct Luck {
    model: Model,
    seed: u64,
    /// What the machines' draws follow from.
    machine_seed: u64,
    /// Seconds that each task takes at standard speed.
    pub work: Vec<f64>,
    /// What is said of that in advance.
    pub estimates: Vec<f64>,
    /// Seconds that a machine needs before an attempt runs, beside its data.
    pub startup: f64,
    /// How each task's program saves checkpoints, if it does.
    saving: Vec<Option<Saving>>,
    /// Seconds into the trace at which the run starts.
    pub start: f64,
}

/// What a number is drawn for: numbers for different things have nothing to do with each other.
#[derive(Clone, Copy)]
enum For {
    Start = 1,
    Work,
    Estimate,
    Straggle,
    Speed,
    Reports,
    Starved,
    Link,
    Arrival,
}

impl Luck {
    /// The luck of one run of a workflow.
    pub fn new(model: &Model, workflow: &Workflow, trace: &Trace, seed: u64) -> Self {
        let count = workflow.tasks.len();
        let scatter = |dice: &mut Dice, spread: f64| (spread * dice.normal()).exp();
        let work: Vec<f64> = (0..count)
            .map(|at| {
                let mut dice = dice(seed, For::Work, at as u64, 0);
                (workflow.tasks[at].work * scatter(&mut dice, model.noise)).max(WORK_MIN)
            })
            .collect();
        let estimates = (0..count).map(|at| {
            let mut dice = dice(seed, For::Estimate, at as u64, 0);
            work[at] * scatter(&mut dice, model.estimate_error)
        });
        let saving = workflow.tasks.iter().map(|task| {
            let own = task.saves_s.map(|every_s| Saving {
                share: 1.0,
                every_s,
                ..Saving::default()
            });
            model.checkpoints.or(own)
        });
        Self {
            saving: saving.collect(),
            model: model.clone(),
            seed,
            machine_seed: seed,
            estimates: estimates.collect(),
            startup: model.startup,
            work,
            start: dice(seed, For::Start, 0, 0).unit() * trace.length(),
        }
    }

    /// The luck of another job of the workflow that is submitted `at` seconds into the run, on the same machines.
    pub fn job(&self, workflow: &Workflow, trace: &Trace, nth: u64, at: f64) -> Self {
        Self {
            machine_seed: self.machine_seed,
            start: self.start + at,
            ..Self::new(&self.model, workflow, trace, mix(self.seed ^ mix(nth)))
        }
    }

    /// Seconds from the run's start to the submission of the `nth` of further jobs, which come `apart` seconds after
    /// each other on average.
    pub fn arrival(&self, nth: u64, apart: f64) -> f64 {
        let gap = |nth: u64| {
            let mut dice = dice(self.seed, For::Arrival, nth, 0);
            -(1.0 - dice.unit()).ln() * apart
        };
        (1..=nth).map(gap).sum()
    }

    /// How many times as long as usual the `number`th attempt of a task takes, counted from 1.
    pub fn straggle(&self, task: usize, number: u32) -> f64 {
        let mut dice = dice(self.seed, For::Straggle, task as u64, number.into());
        self.model.straggle(&mut dice)
    }

    /// Whether a task's program reports how much of its work is done.
    pub fn reports(&self, task: usize) -> bool {
        dice(self.seed, For::Reports, task as u64, 0).unit() < self.model.reports
    }

    /// Whether the `number`th attempt of a task lacks CPU time if it straggles.
    pub fn starved(&self, task: usize, number: u32) -> bool {
        dice(self.seed, For::Starved, task as u64, number.into()).unit() < self.model.starved
    }

    /// How a task's program saves checkpoints: as the model says for all, or as its job says.
    pub fn saving(&self, task: usize) -> Option<Saving> {
        self.saving[task]
    }

    /// The rate of a machine's link, bytes per second.
    fn link(&self, key: u64) -> f64 {
        let mut dice = dice(self.machine_seed, For::Link, key, 0);
        let factor = (self.model.link_spread * dice.normal()).exp();
        self.model
            .bandwidth
            .map_or(f64::INFINITY, |rate| rate * factor)
    }

    /// The machines of the run that come within `horizon` seconds, by when they come.
    pub fn machines(&self, trace: &Trace, horizon: f64) -> Vec<Machine> {
        let presences = if self.model.losses {
            trace.presences(self.start, horizon)
        } else {
            steady(trace, self.start)
        };
        let machine = |presence: Presence| {
            let mut dice = dice(self.machine_seed, For::Speed, presence.key, 0);
            let mut scatter = |spread: f64| (spread * dice.normal()).exp();
            let drawn = scatter(self.model.speed_spread);
            let known = self.model.pool.get(presence.key as u32 as usize);
            let speed = known.copied().unwrap_or(drawn);
            Machine {
                presence,
                speed,
                believed: speed * scatter(self.model.speed_error),
                clock: speed * scatter(self.model.clock_error),
                link: self.link(presence.key),
            }
        };
        presences.into_iter().map(machine).collect()
    }
}

/// Those who are there at the start, or are the first to come, for ever.
fn steady(trace: &Trace, start: f64) -> Vec<Presence> {
    let mut all = trace.presences(start, trace.length() * 2.0);
    let first = all.first().map_or(0.0, |presence| presence.from);
    all.retain(|presence| presence.from <= first);
    for presence in &mut all {
        (presence.from, presence.to) = (0.0, f64::MAX);
    }
    all
}

fn dice(seed: u64, what: For, a: u64, b: u64) -> Dice {
    let mut state = seed;
    for part in [what as u64, a, b] {
        state = mix(state ^ mix(part));
    }
    Dice::new(state)
}

/// Spreads a number over all 64 bits: the finaliser of SplitMix64 (Steele, Lea and Flood 2014).
pub(crate) fn mix(number: u64) -> u64 {
    let a = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let b = (a ^ (a >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let c = (b ^ (b >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    c ^ (c >> 31)
}
