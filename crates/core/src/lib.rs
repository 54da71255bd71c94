//! The state machines that decide everything in Hedgerow: [`supervisor`] and [`worker`], the [`group`] of supervisors
//! and the [`monitor`] of workers.
//!
//! All are pure: the time is a parameter, what happens comes in as events, what is to be done goes out as
//! actions. No clock, no socket, no file, no thread, no randomness of the system; the same events give the
//! same actions, always. The live grid and the simulator run this same code.

pub mod commit_batcher;
pub mod group;
pub mod monitor;
pub mod supervisor;
pub mod worker;
