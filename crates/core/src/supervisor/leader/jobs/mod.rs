//! Jobs that have not ended: what of them can start, what is critical, and when they are done.

pub(crate) mod activation;
pub(crate) mod active;
pub(crate) mod completion;
pub(crate) mod critical;
pub(crate) mod deadline;
pub(crate) mod elements;
pub(crate) mod estimate;
pub(crate) mod failure;
pub(crate) mod group;
pub(crate) mod open;
pub(crate) mod retention;
pub(crate) mod size;
