//! What a task may reach over the network.

use serde::{Deserialize, Serialize};

/// What a task may reach over the network, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Network {
    /// Nothing.
    None,
    /// Itself, over a loopback interface of its own.
    Loopback,
    /// Whatever the machine reaches.
    Any,
}

impl Network {
    /// All of them, least first.
    pub const ALL: [Network; 3] = [Network::None, Network::Loopback, Network::Any];

    /// The word for it in job files.
    pub fn name(self) -> &'static str {
        match self {
            Network::None => "none",
            Network::Loopback => "loopback",
            Network::Any => "any",
        }
    }
}
