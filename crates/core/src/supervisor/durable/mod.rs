//! The durable state. It changes only when a record is committed, in the same way on every supervisor.

pub(crate) mod beliefs;
mod bounded;
pub(crate) mod change;
pub(crate) mod checkpoints;
pub(crate) mod failures;
pub(crate) mod job;
pub(crate) mod learned;
pub(crate) mod ledger;
mod need;
pub(crate) mod open;
pub(crate) mod reruns;
pub(crate) mod retention;
mod snapshot;
pub(crate) mod state;
mod submitted;
mod tickets;
mod timed;
