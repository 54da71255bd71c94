//! The words of a job file that stand for a choice.

use hedge_model::spec::{CriticalPlacement, Network, Redundancy, Runtime, Unplaceable};

/// Words, what each stands for, and what that means.
pub type Words<T, const N: usize> = [(&'static str, T, &'static str); N];

pub const REDUNDANCY: Words<Redundancy, { Redundancy::WORDS.len() }> = Redundancy::WORDS;

pub const RUNTIME: Words<Runtime, { Runtime::WORDS.len() }> = Runtime::WORDS;

pub const NETWORK: Words<Network, { Network::WORDS.len() }> = Network::WORDS;

pub const COPIED: Words<bool, 2> = [
    ("none", false, "none at all"),
    ("job", true, "as `redundancy` of `[qos]` says"),
];

pub const UNPLACEABLE: Words<Unplaceable, 2> = [
    (
        "wait",
        Unplaceable::Wait,
        "the task waits for such a worker",
    ),
    ("fail", Unplaceable::Fail, "the job fails at once"),
];

pub const CRITICAL_PLACEMENT: Words<CriticalPlacement, 2> = [
    (
        "prefer",
        CriticalPlacement::Prefer,
        "they run there where one is free",
    ),
    ("require", CriticalPlacement::Require, "they wait for one"),
];

/// The words with what they mean.
pub fn meanings<T, const N: usize>(words: &Words<T, N>) -> Vec<(&'static str, &'static str)> {
    words.iter().map(|(word, _, what)| (*word, *what)).collect()
}
