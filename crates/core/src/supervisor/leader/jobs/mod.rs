//! Jobs that have not ended: which of their tasks can start, which are critical, and when a job is done.

pub(crate) mod activation;
pub(crate) mod active;
pub(crate) mod completion;
pub(crate) mod critical;
pub(crate) mod deadline;
pub(crate) mod elements;
pub(crate) mod failure;
pub(crate) mod forecast;
pub(crate) mod group;
pub(crate) mod open;
pub(crate) mod policy_inputs;
pub(crate) mod progress;
pub(crate) mod quota;
pub(crate) mod retention;
