//! Temporary directories that are removed with their process. Leftovers of a killed process are removed by the next
//! one with the same prefix.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

const LOCK: &str = "lock";

/// A directory below the system's temporary directory. It is removed when dropped.
#[derive(Debug)]
pub struct Temporary {
    dir: tempfile::TempDir,
    /// Locked while the process lives. A process that can lock it knows that the directory is a leftover.
    _lock: File,
}

impl Temporary {
    /// Creates a directory whose name begins with `prefix`, and removes leftovers of killed processes.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn new(prefix: &str) -> io::Result<Self> {
        Self::with_mode(prefix, 0o755)
    }

    /// Creates a directory that only this process's user may enter, as blobs in it are nobody else's to read.
    ///
    /// # Errors
    /// Nothing can be written there.
    pub fn private(prefix: &str) -> io::Result<Self> {
        Self::with_mode(prefix, 0o700)
    }

    fn with_mode(prefix: &str, mode: u32) -> io::Result<Self> {
        sweep(prefix);
        let mut builder = tempfile::Builder::new();
        builder
            .prefix(prefix)
            .permissions(Permissions::from_mode(mode));
        let dir = builder.tempdir()?;
        let mut lock = File::create_new(dir.path().join(LOCK))?;
        lock.lock()?;
        // Other processes treat an unlocked lock file as a leftover only once it has content.
        write!(lock, "{}", std::process::id())?;
        Ok(Self { dir, _lock: lock })
    }

    /// Returns its path.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }
}

fn sweep(prefix: &str) {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        // Directories of other users cannot be opened for writing, and stay.
        let lock = File::options().write(true).open(entry.path().join(LOCK));
        if let Ok(lock) = lock
            && lock.metadata().is_ok_and(|data| data.len() > 0)
            && lock.try_lock().is_ok()
        {
            _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_folder_is_closed_to_others() {
        let folder = Temporary::private("hedge-temporary-private-").unwrap();
        let mode = folder.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn folders_of_the_dead_are_removed_and_those_of_the_living_stay() {
        let prefix = format!("hedge-temporary-test-{}-", std::process::id());
        let living = Temporary::new(&prefix).unwrap();
        let dead = std::env::temp_dir().join(format!("{prefix}dead"));
        std::fs::create_dir(&dead).unwrap();
        std::fs::write(dead.join(LOCK), "1").unwrap();
        let young = std::env::temp_dir().join(format!("{prefix}young"));
        std::fs::create_dir(&young).unwrap();
        std::fs::write(young.join(LOCK), "").unwrap();
        let other = Temporary::new(&prefix).unwrap();
        assert!(living.path().exists() && other.path().exists() && young.exists());
        assert!(!dead.exists());
        std::fs::remove_dir_all(young).unwrap();
    }
}
