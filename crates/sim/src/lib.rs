//! A virtual grid around the real scheduling core.
//!
//! The supervisor's and the worker's state machines are the ones that run live. Clock, network, journal,
//! disks, tasks and their failures are made up here, all from one seed, so that a run can be repeated. What
//! must always hold is checked after each event that the supervisor handles.

mod actors;
mod client;
mod dice;
mod error;
pub mod eval;
mod faults;
mod grid;
mod jobs;
mod journal;
mod oracle;
mod program;
mod scenario;
mod shadow;
mod supervisors;
mod watching;
mod worker;

pub use dice::Dice;
pub use error::Error;
pub use grid::{Faults, Grid, Options, Stats, Violation, WorkerKind};
pub use jobs::{JobShape, random_job, random_open_job};
pub use program::{Output, Program};
pub use scenario::{RandomRun, random_group_run, random_run};
