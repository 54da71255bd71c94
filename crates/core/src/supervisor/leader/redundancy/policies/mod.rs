//! The policies that job files can name, in one table.

mod auto;
mod fill;
mod speculate;

pub use auto::{Auto, AutoSettings};
pub use fill::Fill;
pub use speculate::Speculate;

use crate::supervisor::leader::redundancy::Policy;
use hedge_model::JobSpec;
use hedge_model::spec::Redundancy;

/// One kind of redundancy: whether it copies critical tasks in advance, and its policy.
pub(crate) struct Shipped {
    pub redundancy: Redundancy,
    /// Whether critical tasks of a group get the copies that the job asks for before any task is slow.
    pub in_advance: fn(&JobSpec, usize) -> bool,
    /// Creates the policy that is evaluated while a job runs; none if this kind starts no copies then.
    pub policy: Option<fn() -> Box<dyn Policy>>,
    /// Explains to users why that policy orders copies.
    pub why: &'static str,
}

/// Every kind of redundancy, in the order of their evaluation; the one that fills idle workers is last.
pub(crate) const SHIPPED: [Shipped; Redundancy::WORDS.len()] = [
    Shipped {
        redundancy: Redundancy::None,
        in_advance: |_, _| false,
        policy: None,
        why: "",
    },
    Shipped {
        redundancy: Redundancy::Critical,
        in_advance: |_, _| true,
        policy: None,
        why: "",
    },
    Shipped {
        redundancy: Redundancy::Auto,
        in_advance: |job, group| job.groups()[group].critical,
        policy: Some(|| Box::new(Auto::default())),
        why: "it is expected to bring the job's end nearer for less than it costs",
    },
    Shipped {
        redundancy: Redundancy::Speculate,
        in_advance: |_, _| false,
        policy: Some(|| Box::new(Speculate)),
        why: "the first attempt takes much longer than others of its kind did",
    },
    Shipped {
        redundancy: Redundancy::Fill,
        in_advance: |_, _| false,
        policy: Some(|| Box::new(Fill)),
        why: "the worker was idle, and nothing else was ready",
    },
];

/// Returns the table's row for a kind of redundancy.
pub(crate) fn shipped(redundancy: Redundancy) -> &'static Shipped {
    let found = SHIPPED.iter().find(|one| one.redundancy == redundancy);
    found.unwrap_or(&SHIPPED[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_redundancy_is_shipped() {
        for (word, redundancy, _) in Redundancy::WORDS {
            assert_eq!(shipped(redundancy).redundancy, redundancy, "{word}");
        }
    }
}
