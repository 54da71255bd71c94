//! Blobs: who holds each, what is fetched and replicated, and what is dropped.

pub(crate) mod catalog;
pub(crate) mod possession;
pub(crate) mod replication;
pub(crate) mod retention;
pub(crate) mod state;
pub(crate) mod submissions;
pub(crate) mod transfers;
