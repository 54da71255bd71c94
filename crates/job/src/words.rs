//! The words of a job file that stand for a choice.

use hedge_model::spec::{CriticalPlacement, Redundancy, Unplaceable};

/// Words and what each stands for.
pub type Words<T, const N: usize> = [(&'static str, T); N];

pub const REDUNDANCY: Words<Redundancy, { Redundancy::WORDS.len() }> = Redundancy::WORDS;

pub const UNPLACEABLE: Words<Unplaceable, 2> =
    [("wait", Unplaceable::Wait), ("fail", Unplaceable::Fail)];

pub const CRITICAL_PLACEMENT: Words<CriticalPlacement, 2> = [
    ("prefer", CriticalPlacement::Prefer),
    ("require", CriticalPlacement::Require),
];

/// The words alone.
pub fn names<T, const N: usize>(words: &Words<T, N>) -> Vec<&'static str> {
    words.iter().map(|(word, _)| *word).collect()
}
