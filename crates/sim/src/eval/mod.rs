//! Evaluation of schedulers on workflows and machine failures that were recorded elsewhere.
//!
//! The scheduler that is measured is the real core; what luck decides is the same for each policy.

mod arena;
mod baselines;
mod compare;
mod contender;
mod estimates;
mod model;
mod plan;
mod plot;
mod reference;
mod run;
mod running;
mod scale;
mod svg;
mod trace;
mod truth;
mod wfformat;
mod workflow;

pub use arena::{Ended, Span};
pub use baselines::{Boinc, CloneAll, Late, Nothing, Spark};
pub use compare::{
    Comparison, Options, RUNS_MAX, Ratios, Row, Table, compare, luck_of, time_scale,
};
pub use contender::Contender;
pub use estimates::{
    Estimated, Estimates, HISTORY, MEDIANS, MOMENTS, Promised, SPREAD, draw, estimates,
};
pub use model::{Luck, Machine, Model, Saving};
pub use plan::{Level, MACHINES_MAX, Plan, Unsaved, machines, plan, prices};
pub use plot::{Line, boxes, gantt, growth};
pub use reference::Reference;
pub use run::{Bar, Outcome, Setting, run};
pub use scale::{Scale, scale};
pub use trace::{Presence, Trace};
pub use truth::Truth;
pub use workflow::{Task, WORK_MIN, Workflow};
