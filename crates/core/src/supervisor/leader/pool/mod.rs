//! The workers: what each offers and has, how closely it is watched, and how it comes and goes.

pub(crate) mod attach;
pub(crate) mod attention;
pub(crate) mod capacity;
pub(crate) mod departure;
pub(crate) mod index;
pub(crate) mod link;
pub(crate) mod owner;
pub(crate) mod worker;
