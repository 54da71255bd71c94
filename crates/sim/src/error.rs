//! Why an evaluation cannot be made.

/// Why a workload, a trace or an option cannot be used. Nothing was run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// A workflow that is not WfFormat, or that contradicts itself.
    #[error("the workflow cannot be read: {0}; nothing was run")]
    Workflow(String),
    /// A trace that does not say when machines come and go.
    #[error("line {line} of the availability trace: {why}; nothing was run")]
    Trace {
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// An option out of its range.
    #[error("{0}; nothing was run")]
    Option(String),
    /// A run that did not come to its end.
    #[error("{0}; the runs before it are dropped")]
    Run(String),
}
