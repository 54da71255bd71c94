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
    /// Each kind's name in job files, and its description.
    pub const WORDS: [(&'static str, Network, &'static str); 3] = [
        ("none", Network::None, "no network at all"),
        (
            "loopback",
            Network::Loopback,
            "a loopback interface of its own, which no other task sees",
        ),
        (
            "any",
            Network::Any,
            "everything that the machine reaches; the task goes only to workers whose owner allows that",
        ),
    ];

    /// Returns its name in job files.
    pub fn name(self) -> &'static str {
        let own = Self::WORDS.iter().find(|(_, network, _)| *network == self);
        own.map_or("", |(word, ..)| word)
    }
}
