//! Network access of tasks.

use serde::{Deserialize, Serialize};

/// The network access of a task, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Network {
    /// None.
    None,
    /// A loopback interface of its own.
    Loopback,
    /// Everything that the machine reaches.
    Any,
}

impl Network {
    /// All kinds, from the least to the most.
    pub const ALL: [Network; 3] = [Network::None, Network::Loopback, Network::Any];

    /// Returns its name in job files.
    pub fn name(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Loopback => "loopback",
            Network::Any => "any",
        }
    }
}
