//! Blobs: who holds each, what is fetched and replicated, and what is dropped. The *own store* is the blob store of
//! this supervisor.

pub(crate) mod catalog;
pub(crate) mod possession;
pub(crate) mod replication;
pub(crate) mod retention;
pub(crate) mod state;
pub(crate) mod submissions;
pub(crate) mod transfers;
