//! Pure state machines that make every decision in Hedgerow: the [`supervisor`], the [`worker`], the [`group`] of
//! supervisors and the failure detector ([`monitor`]).
//!
//! Time is a parameter, input arrives as events, and output is a list of actions. They use no clock, socket, file,
//! thread or system randomness, so the same events always give the same actions. The live grid and the simulator run
//! this same code. `clippy.toml` forbids the rest.

pub mod commit_batcher;
pub mod group;
pub mod monitor;
pub mod supervisor;
pub mod worker;
