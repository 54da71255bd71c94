//! `hedge-lab bench recovery`: how long work pauses when a part of the grid ends. One module for each kind of end.

pub mod leader;
pub mod owner;
pub mod pair;
pub mod restart;
pub mod stall;
pub(super) mod tasks;
pub mod worker;

pub use owner::Desktop;
pub use tasks::{all_idle, failed};
pub use worker::descendants;
