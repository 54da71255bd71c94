//! Requests of clients and administrators: access control, changes, and views.

mod access;
mod attempts;
mod ends;
mod extensions;
mod groups;
pub(crate) mod job_view;
mod members;
mod name;
mod printed;
pub(crate) mod requests;
mod results;
mod tasks;
mod tickets;
pub(crate) mod views;
mod waits;
