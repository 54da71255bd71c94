//! What an attempt may use beyond what every attempt may.

use crate::ExecError;
use hedge_model::spec::Network;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What an attempt may use beyond what every attempt may. The spawner of a slot is started anew for an attempt whose
/// permissions differ from those of the attempt before, which takes some milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Device nodes that it may open.
    pub devices: Vec<PathBuf>,
    /// Files and folders that it may read; those that do not exist are left out.
    pub read_only: Vec<PathBuf>,
    /// Folders of the machine that it sees at their own paths.
    pub shares: Vec<SharedFolder>,
    /// Folders of the machine that it sees elsewhere, read-only. This takes a view, see [`crate::Sandbox::View`].
    pub mounts: Vec<MountedFolder>,
    /// The network that it asks for; it gets no more than the worker allows, and `None` takes all of that.
    pub network: Option<Network>,
}

/// A folder of the machine that tasks see at another path, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedFolder {
    /// Where it is on the machine. Another content has another path, because a slot's view stays as it is while its
    /// attempts have the same permissions.
    pub from: PathBuf,
    /// The absolute path at which tasks see it. No path that the view shows leads into it or lies within it.
    pub at: PathBuf,
}

/// A folder of the machine that its owner shares with tasks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedFolder {
    /// Where it is, on the machine as for tasks. Absolute, without links.
    pub path: PathBuf,
    /// Whether tasks may change what is in it, as far as its modes let their user.
    pub writable: bool,
}

impl SharedFolder {
    /// A folder that tasks may see.
    ///
    /// # Errors
    /// It does not exist, or is no folder, or is one that tasks see anyway or that no task may see.
    pub fn new(path: &Path, writable: bool) -> Result<SharedFolder, ExecError> {
        let real = std::fs::canonicalize(path);
        let real = real.map_err(|error| ExecError::io("find the shared folder", path, error))?;
        let refused = |why: &str| ExecError::Share {
            path: real.clone(),
            why: why.to_owned(),
        };
        if !real.is_dir() {
            return Err(refused("it is not a folder"));
        }
        let own = ["/dev", "/proc", "/sys", "/etc"].map(PathBuf::from);
        let seen = crate::spawner::system_folders();
        let taken = |folder: &&PathBuf| real.starts_with(folder) || folder.starts_with(&real);
        if let Some(folder) = seen.iter().chain(&own).find(taken) {
            return Err(refused(&format!(
                "tasks have {} of their own, or see it anyway",
                folder.display()
            )));
        }
        Ok(SharedFolder {
            path: real,
            writable,
        })
    }
}
