//! How sure a job wants to be of its end, and what that may cost.

use crate::ledger::MicroUnits;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Quality of service of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qos {
    /// Which tasks get redundant attempts.
    pub redundancy: Redundancy,
    /// Attempts of a critical task in all, each on another worker; `1..=COPIES_MAX`.
    pub copies: u32,
    /// What becomes of a task that asks for more than any worker has.
    pub unplaceable: Unplaceable,
    /// How much of the job must be done before its results are compiled; the rest is cancelled then.
    pub need: Need,
    /// Whether critical tasks wait for a worker of the higher class.
    pub critical_placement: CriticalPlacement,
    /// The job is to be done so long after it was accepted.
    pub finish_by: Option<Duration>,
    /// With this chance, `0.0..1.0`.
    pub confidence: f64,
    /// What the job is to cost at most, in micro-units. Redundancy ends where it would be exceeded; first
    /// attempts never do.
    pub budget: Option<MicroUnits>,
    /// How many tasks may fail before the whole job is stopped; any number, where it is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<MaxFailures>,
    /// The job is open: groups can be added to it until it is closed, and it closes itself once its client has been gone
    /// for so long. Tasks can be added to no other job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_timeout: Option<Duration>,
}

/// How long an open job waits for its client, where the job does not say.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(3600);
/// The shortest such time: a client needs a moment to find the next leader.
pub const OPEN_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest such time: an open job keeps all that its tasks left.
pub const OPEN_TIMEOUT_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

impl Default for Qos {
    fn default() -> Self {
        Self {
            redundancy: Redundancy::Auto,
            copies: 2,
            unplaceable: Unplaceable::Wait,
            need: Need::Share(1.0),
            critical_placement: CriticalPlacement::Prefer,
            finish_by: None,
            confidence: 0.95,
            budget: None,
            max_failures: None,
            open_timeout: None,
        }
    }
}

/// How many tasks may fail before a job is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum MaxFailures {
    /// This share of the job's tasks, `0.0..=1.0`, rounded down.
    Share(f64),
    /// This many.
    Count(u32),
}

impl MaxFailures {
    /// How many of `all`.
    pub fn of(self, all: u32) -> u32 {
        match self {
            MaxFailures::Share(share) => (f64::from(all) * share + 1e-9).floor() as u32,
            MaxFailures::Count(count) => count,
        }
    }
}

/// Which tasks get redundant attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redundancy {
    /// None; a task runs again only when its attempt failed or was lost.
    None,
    /// Critical tasks, in advance.
    Critical,
    /// Any, critical ones first, until all workers have an attempt; such copies end the instant real work is
    /// ready.
    Fill,
    /// Tasks that take much longer than others of their kind did.
    Speculate,
    /// Tasks marked critical in advance, and while the job runs those whose copy is expected to bring the
    /// job's end nearer for less than it costs.
    Auto,
}

impl Redundancy {
    /// What each is called in job files, on the command line and in reports, and which tasks it means.
    pub const WORDS: [(&'static str, Redundancy, &'static str); 5] = [
        ("none", Redundancy::None, "no task"),
        (
            "critical",
            Redundancy::Critical,
            "critical tasks, in advance",
        ),
        (
            "fill",
            Redundancy::Fill,
            "any task, as long as workers are idle",
        ),
        (
            "speculate",
            Redundancy::Speculate,
            "tasks that take much longer than others of their kind",
        ),
        (
            "auto",
            Redundancy::Auto,
            "marked tasks in advance, and others while the job runs where a copy is expected to be worth its cost",
        ),
    ];

    /// The oldest format of records in which a job may ask for it: supervisors that know only older formats
    /// cannot read such a job. A new policy comes with a new format.
    pub fn format(self) -> u32 {
        match self {
            Self::None | Self::Critical | Self::Fill | Self::Speculate | Self::Auto => 1,
        }
    }
}

/// How much of something must be done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Need {
    /// This share, `0.0..=1.0`, rounded up.
    Share(f64),
    /// This many; all, where there are fewer.
    Count(u32),
}

impl Need {
    /// How many of `all`; at least one.
    pub fn of(self, all: u32) -> u32 {
        match self {
            Need::Share(share) => (f64::from(all) * share - 1e-9).ceil() as u32,
            Need::Count(count) => count,
        }
        .clamp(1.min(all), all)
    }
}

/// Where critical tasks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CriticalPlacement {
    /// On a worker of the higher class where one is free, else on another.
    Prefer,
    /// On a worker of the higher class, or they wait for one.
    Require,
}

/// What becomes of a task that asks for more than any worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unplaceable {
    /// It waits, visibly, for a worker that has enough.
    Wait,
    /// The job fails at once and says why.
    Fail,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_at_least_one_and_at_most_all() {
        assert_eq!(Need::Share(1.0).of(7), 7);
        assert_eq!(
            Need::Share(0.95).of(100),
            95,
            "rounding errors do not add one"
        );
        assert_eq!(Need::Share(0.951).of(100), 96);
        assert_eq!(Need::Share(0.0).of(5), 1);
        assert_eq!(Need::Count(9).of(5), 5);
        assert_eq!(Need::Count(2).of(0), 0);
    }

    #[test]
    fn a_share_of_failures_is_rounded_down() {
        assert_eq!(MaxFailures::Share(0.05).of(60), 3);
        assert_eq!(MaxFailures::Share(0.05).of(59), 2);
        assert_eq!(MaxFailures::Share(0.0).of(59), 0);
        assert_eq!(MaxFailures::Count(4).of(2), 4);
    }

    #[test]
    fn every_policy_that_can_be_read_has_a_word_and_keeps_its_number() {
        let read = (0..=u8::MAX).map_while(|number| postcard::from_bytes(&[number]).ok());
        let words = Redundancy::WORDS.map(|(_, redundancy, _)| redundancy);
        assert_eq!(read.collect::<Vec<Redundancy>>(), words);
    }
}
