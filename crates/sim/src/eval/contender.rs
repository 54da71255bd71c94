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
    /// No copies: list scheduling on the fastest idle machine. What *net* is counted from.
    None,
    /// No copies, and machines ranked by their clock rate alone.
    Clock,
    /// LATE, given exact progress (Zaharia et al., OSDI 2008).
    Late,
    /// The rule of Apache Spark 4.
    Spark,
    /// BOINC's rule for the end of a batch.
    Boinc,
    /// A copy of everything on idle machines.
    CloneAll,
    /// Hedgerow's copies of the critical set in advance.
    Critical,
    /// Hedgerow's copies on all idle machines, given back at once.
    Fill,
    /// Hedgerow's reactive copies.
    Speculate,
    /// Hedgerow's default.
    Auto,
}

impl Contender {
    /// All of them, in the order of reports.
    pub const ALL: [Contender; 10] = [
        Contender::None,
        Contender::Clock,
        Contender::Late,
        Contender::Spark,
        Contender::Boinc,
        Contender::CloneAll,
        Contender::Critical,
        Contender::Fill,
        Contender::Speculate,
        Contender::Auto,
    ];

    /// What it is called on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Contender::None => "none",
            Contender::Clock => "clock",
            Contender::Critical => "critical",
            Contender::Fill => "fill",
            Contender::Speculate => "speculate",
            Contender::Auto => "auto",
            Contender::Late => "late",
            Contender::Spark => "spark",
            Contender::Boinc => "boinc",
            Contender::CloneAll => "clone",
        }
    }

    /// The contender of a name.
    pub fn find(name: &str) -> Result<Self, Error> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        let names = Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| Error::Option(format!("{name:?} is no policy; there are {names}")))
    }

    /// Whether it is a rule of others that `auto` is to beat.
    pub fn rival(self) -> bool {
        matches!(self, Self::Late | Self::Spark | Self::Boinc)
    }

    /// What a job asks for under it.
    pub(crate) fn qos(self) -> Qos {
        let redundancy = match self {
            Contender::Critical => Redundancy::Critical,
            Contender::Fill => Redundancy::Fill,
            Contender::Speculate => Redundancy::Speculate,
            Contender::Auto => Redundancy::Auto,
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
            Contender::Critical | Contender::Fill | Contender::Speculate | Contender::Auto => {
                return;
            }
            Contender::None | Contender::Clock => Box::new(Nothing),
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
