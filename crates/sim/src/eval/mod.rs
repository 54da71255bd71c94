//! Evaluation of schedulers on workflows and machine failures that were recorded elsewhere.
//!
//! The scheduler that is measured is the real core; what luck decides is the same for each policy.

mod arena;
mod baselines;
mod compare;
mod contender;
mod data;
mod estimates;
mod model;
mod plan;
mod plot;
mod reference;
mod rows;
mod run;
mod running;
mod scale;
mod study;
mod svg;
mod trace;
mod truth;
mod wfformat;
mod workflow;

pub use arena::{Ended, Span};
pub use baselines::{Boinc, CloneAll, Late, Nothing, Spark};
pub use compare::{
    Comparison, JOBS_APART, JOBS_MAX, Options, RUNS_MAX, compare, later_of, luck_of, time_scale,
};
pub use contender::Contender;
pub use estimates::{
    Estimated, Estimates, HISTORY, MEDIANS, MOMENTS, Promised, SPREAD, draw, estimates,
};
pub use model::{Luck, Machine, Model, STRAGGLERS, Saving, Stragglers};
pub use plan::{Level, MACHINES_MAX, Plan, Unsaved, machines, plan, prices};
pub use plot::{Line, boxes, gantt, growth};
pub use reference::Reference;
pub use rows::{Behind, Errors, Ratios, Row, Table};
pub use run::{Bar, Later, Outcome, Setting, run};
pub use scale::{Scale, scale};
pub use study::{Case, ESTIMATE_ERRORS, Measured, Study, cases, study, with_errors};
pub use trace::{Presence, Trace};
pub use truth::Truth;
pub use workflow::{Task, WORK_MIN, Workflow};
