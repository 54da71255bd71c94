//! The policies that are compared: Hedgerow's own, by what a job asks for, and baselines.

use super::baselines::{Boinc, CloneAll, Late, Nothing, Spark};
use super::model::Machine;
use super::truth::Truth;
use crate::Error;
use hedge_core::supervisor::Supervisor;
use hedge_core::supervisor::redundancy::Policy;
use hedge_model::capacity::{BenchScores, STANDARD};
use hedge_model::msg::WorkerInfo;
use hedge_model::spec::{Qos, Redundancy};

/// The clock rate of a machine of standard speed, of which nothing else is known.
const STANDARD_MHZ: f64 = 3_000.0;

/// One of the policies compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// Hedgerow's own, by what a job asks for. `none` is list scheduling on the fastest idle machine; *net* is counted
    /// from it.
    Own(Redundancy),
    /// No copies, and machines ranked by their clock rate alone.
    Clock,
    /// LATE, given exact progress (Zaharia et al., OSDI 2008).
    Late,
    /// The rule of Apache Spark, with the defaults of version 3.
    Spark,
    /// BOINC's rule for the end of a batch.
    Boinc,
    /// A copy of everything on idle machines.
    CloneAll,
}

/// What the others are called on the command line and in reports.
const BASELINES: [(&str, Contender); 5] = [
    ("clock", Contender::Clock),
    ("late", Contender::Late),
    ("spark", Contender::Spark),
    ("boinc", Contender::Boinc),
    ("clone", Contender::CloneAll),
];

impl Contender {
    /// What *net* is counted from.
    pub const NONE: Contender = Contender::Own(Redundancy::None);

    /// All of them with their names, in the order of reports: `none`, the baselines, and Hedgerow's own.
    fn named() -> impl Iterator<Item = (&'static str, Contender)> {
        let own = || {
            let words = Redundancy::WORDS.into_iter();
            words.map(|(word, redundancy, _)| (word, Contender::Own(redundancy)))
        };
        let is_none = |(_, contender): &(&str, Contender)| *contender == Self::NONE;
        own()
            .filter(is_none)
            .chain(BASELINES)
            .chain(own().filter(move |one| !is_none(one)))
    }

    /// All of them, in the order of reports.
    pub fn all() -> Vec<Self> {
        Self::named().map(|(_, contender)| contender).collect()
    }

    /// What it is called on the command line and in reports.
    pub fn name(self) -> &'static str {
        let found = Self::named().find(|(_, contender)| *contender == self);
        found.map_or("", |(name, _)| name)
    }

    /// The contender of a name.
    pub fn find(name: &str) -> Result<Self, Error> {
        let found = Self::named().find(|(known, _)| *known == name);
        found.map(|(_, contender)| contender).ok_or_else(|| {
            let names: Vec<&str> = Self::named().map(|(name, _)| name).collect();
            let names = names.join(", ");
            Error::Option(format!("{name:?} is no policy; there are {names}"))
        })
    }

    /// Whether it is a rule of others that `auto` is measured against.
    pub fn rival(self) -> bool {
        matches!(self, Self::Late | Self::Spark | Self::Boinc)
    }

    /// What a job asks for under it.
    pub(crate) fn qos(self) -> Qos {
        let redundancy = match self {
            Contender::Own(redundancy) => redundancy,
            _ => Redundancy::None,
        };
        Qos {
            redundancy,
            ..Qos::default()
        }
    }

    /// Lets a baseline decide in the place of what jobs ask for.
    pub(crate) fn install(self, core: &mut Supervisor, truth: &Truth) {
        let policy: Box<dyn Policy> = match self {
            Contender::Own(_) => return,
            Contender::Clock => Box::new(Nothing),
            Contender::Late => Box::new(Late::new(truth.clone())),
            Contender::Spark => Box::new(Spark),
            Contender::Boinc => Box::new(Boinc),
            Contender::CloneAll => Box::new(CloneAll),
        };
        core.set_policy(policy);
    }

    /// What a machine says of itself, and what benchmark tasks found there.
    pub(crate) fn describe(self, machine: &Machine, info: &mut WorkerInfo) -> Option<BenchScores> {
        info.hardware.clock_mhz = (machine.clock * STANDARD_MHZ).round() as u32;
        let part = |standard: u64| (standard as f64 * machine.believed).round() as u64;
        (self != Contender::Clock).then(|| BenchScores {
            integer: part(STANDARD.integer),
            float: part(STANDARD.float),
            memory: part(STANDARD.memory),
            disk: part(STANDARD.disk),
        })
    }
}
