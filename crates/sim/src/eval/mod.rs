//! Evaluation of schedulers on workflows and machine failures that were recorded elsewhere.
//!
//! The scheduler that is measured is the real core; what luck decides is the same for each policy.

mod arena;
mod model;
mod reference;
mod trace;
mod wfformat;
mod workflow;

pub use arena::{Ended, Span};
pub use model::{Luck, Machine, Model};
pub use reference::Reference;
pub use trace::{Presence, Trace};
pub use workflow::{Task, WORK_MIN, Workflow};
