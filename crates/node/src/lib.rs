//! The shell: thin loops around the state machines of `hedge-core`, one for each role. They feed events, carry out
//! actions, and sleep until the next deadline. They make no decisions about jobs, workers or votes.

pub mod client;
mod clock;
mod error;
mod folders;
mod frames;
mod grants;
mod known;
pub mod local;
mod memory;
pub mod metrics;
mod pause;
pub mod relay;
mod start_options;
pub mod supervisor;
mod temporary;
mod transport;
pub mod worker;

pub use client::Client;
pub use error::{ClientError, NodeError};
pub use folders::Folders;
pub use start_options::StartOptions;
pub use temporary::Temporary;
pub use transport::priority_can_be_raised;
