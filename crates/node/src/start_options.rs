//! Options of a peer's last start, which also apply to the next. Without them, a peer that was told to listen at one
//! address would listen at all addresses after a start that does not repeat the option.

use crate::NodeError;
use crate::folders::write_private;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;

const FILE: &str = "options.json";

/// Options that may be left out at the next start; none if they were never given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StartOptions {
    /// Where it listens.
    pub listen: Option<SocketAddr>,
    /// Whether it uses mDNS to find peers on the local network and to be found there.
    pub mdns: Option<bool>,
    /// Whether it notices the failure of a leader in half the time.
    pub fast: Option<bool>,
    /// Whether it takes part without a vote.
    pub standby: Option<bool>,
}

impl StartOptions {
    /// Loads the options of the last start from this directory.
    ///
    /// # Errors
    /// The file cannot be read, or contains something else.
    pub fn load(dir: &Path) -> Result<Self, NodeError> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(NodeError::io("read", &path, error)),
        };
        serde_json::from_str(&text).map_err(|error| {
            NodeError::Other(format!(
                "{} does not hold the options of the last start: {error}; nothing was started: remove it, and give \
                 --listen and the other options again",
                path.display()
            ))
        })
    }

    /// Returns these options, with those of `last` where they are not given.
    pub fn or(self, last: &Self) -> Self {
        Self {
            listen: self.listen.or(last.listen),
            mdns: self.mdns.or(last.mdns),
            fast: self.fast.or(last.fast),
            standby: self.standby.or(last.standby),
        }
    }

    /// Saves the options for the next start from this directory.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, dir: &Path) -> Result<(), NodeError> {
        let text = serde_json::to_string(self).unwrap_or_default();
        write_private(&dir.join(FILE), &format!("{text}\n"))
    }
}

/// As on a command line.
impl fmt::Display for StartOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = [
            ("mdns", self.mdns),
            ("fast", self.fast),
            ("standby", self.standby),
        ];
        let listen = self.listen.map(|at| format!("--listen {at}"));
        let set = flags.iter().filter_map(|(name, on)| match on {
            Some(true) => Some(format!("--{name}")),
            Some(false) => Some(format!("--{name}=false")),
            None => None,
        });
        let all: Vec<String> = listen.into_iter().chain(set).collect();
        f.write_str(&all.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_leaves_open_is_as_at_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let none = StartOptions::default();
        assert_eq!(StartOptions::load(folder.path()).unwrap(), none);
        let first = StartOptions {
            listen: Some("127.0.0.1:7433".parse().unwrap()),
            mdns: Some(true),
            ..none.clone()
        };
        first.save(folder.path()).unwrap();
        let last = StartOptions::load(folder.path()).unwrap();
        let second = StartOptions {
            mdns: Some(false),
            ..none.clone()
        };
        let second = second.or(&last);
        assert_eq!(second.to_string(), "--listen 127.0.0.1:7433 --mdns=false");
        std::fs::write(folder.path().join(FILE), "{").unwrap();
        let error = StartOptions::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("remove it"), "{error}");
    }
}
