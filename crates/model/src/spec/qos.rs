//! Quality of service: redundancy, completion thresholds, deadline, budget, and tolerated failures.

use crate::ledger::MicroUnits;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Quality of service of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Qos {
    /// The redundancy policy: which tasks get redundant attempts.
    pub redundancy: Redundancy,
    /// Total attempts of a critical task, each on another worker; `1..=COPIES_MAX`.
    pub copies: u32,
    /// What happens to a task that needs more than any worker has.
    pub unplaceable: Unplaceable,
    /// Completion threshold: how much must be done before the job can end. The rest is then cancelled.
    pub need: Need,
    /// Whether critical tasks wait for a worker of the higher class.
    pub critical_placement: CriticalPlacement,
    /// Deadline: time after acceptance by which the job should be done.
    pub finish_by: Option<Duration>,
    /// The probability with which the deadline should be met, `0.0..1.0`.
    pub confidence: f64,
    /// The most that the job should cost, in micro-units. No redundant attempt that would exceed it is started; first
    /// attempts always are.
    pub budget: Option<MicroUnits>,
    /// How many tasks may fail before the whole job is stopped; none means any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<MaxFailures>,
    /// Whether the job is done once all tasks are that can be, even if others failed. `need` then has no effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tolerate_failures: bool,
    /// If set, the job is open: groups can be added until it is closed, and it closes itself once its client has been
    /// gone for this long. Groups cannot be added to any other job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_timeout: Option<Duration>,
}

/// Default for how long an open job waits for its client.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(3600);
/// The shortest such time. A client needs a moment to find the next leader.
pub const OPEN_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest such time. An open job keeps all outputs of its tasks.
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
            tolerate_failures: false,
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
    /// Returns how many of `all`.
    pub fn of(self, all: u32) -> u32 {
        match self {
            MaxFailures::Share(share) => (f64::from(all) * share + 1e-9).floor() as u32,
            MaxFailures::Count(count) => count,
        }
    }
}

/// The redundancy policy of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Redundancy {
    /// No redundant attempts. A task runs again only after its attempt failed or was lost.
    None,
    /// Redundant attempts of critical tasks, in advance.
    Critical,
    /// Redundant attempts of any task, critical ones first, until all workers have an attempt. They end at once when
    /// first attempts are ready.
    Fill,
    /// Speculative copies of tasks that take much longer than others of their kind did.
    Speculate,
    /// Redundant attempts in advance for tasks marked critical, and while the job runs for tasks where a copy is
    /// expected to shorten the job by more than it costs.
    Auto,
}

impl Redundancy {
    /// Each policy's name in job files, on the command line and in reports, with the tasks that it applies to.
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

    /// Returns the oldest record format in which a job may ask for it. Supervisors that know only older formats
    /// cannot read such a job, so a new policy needs the newest format, or the next one if that is released.
    pub fn format(self) -> u32 {
        match self {
            Self::None | Self::Critical | Self::Fill | Self::Speculate | Self::Auto => 1,
        }
    }
}

/// A completion threshold.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Need {
    /// This share, `0.0..=1.0`, rounded up.
    Share(f64),
    /// This many; all, if there are fewer.
    Count(u32),
}

impl Need {
    /// Returns how many of `all` are needed; at least one.
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
    /// On a worker of the higher class if one is free, otherwise on another.
    Prefer,
    /// Only on a worker of the higher class.
    Require,
}

/// What happens to a task that needs more than any worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unplaceable {
    /// It waits, and views show why, for a worker that has enough.
    Wait,
    /// The job fails at once, with the reason.
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
