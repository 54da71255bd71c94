//! The policies that are compared: Hedgerow's own, by what a job asks for, and baselines.

use super::baselines::{Boinc, CloneAll, Late, Nothing, Spark};
use super::model::Machine;
use super::truth::Truth;
use crate::Error;
use hedge_core::supervisor::Supervisor;
use hedge_core::supervisor::redundancy::Policy;
use hedge_model::msg::WorkerInfo;
use hedge_model::spec::{Qos, Redundancy};

/// One of the policies compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// No copies: list scheduling on the fastest idle machine. What *net* is counted from.
    None,
    /// No copies, and machines ranked by their clock rate alone.
    Clock,
    /// Hedgerow's copies of the critical set in advance.
    Critical,
    /// LATE, given exact progress (Zaharia et al., OSDI 2008).
    Late,
    /// The rule of Apache Spark 4.
    Spark,
    /// BOINC's rule for the end of a batch.
    Boinc,
    /// A copy of everything on idle machines.
    CloneAll,
}

impl Contender {
    /// All of them, in the order of reports.
    pub const ALL: [Contender; 7] = [
        Contender::None,
        Contender::Clock,
        Contender::Late,
        Contender::Spark,
        Contender::Boinc,
        Contender::CloneAll,
        Contender::Critical,
    ];

    /// What it is called on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Contender::None => "none",
            Contender::Clock => "clock",
            Contender::Critical => "critical",
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
            Contender::Critical => return,
            Contender::None | Contender::Clock => Box::new(Nothing),
            Contender::Late => Box::new(Late::new(truth.clone())),
            Contender::Spark => Box::new(Spark),
            Contender::Boinc => Box::new(Boinc),
            Contender::CloneAll => Box::new(CloneAll),
        };
        core.set_policy(policy);
    }

    /// What a machine says of itself.
    pub(crate) fn describe(self, machine: &Machine, info: &mut WorkerInfo) {
        let _ = (machine, info);
    }
}
