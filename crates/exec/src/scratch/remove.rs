//! Removes what an attempt has left, even if it removed its own rights to that.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Removes a file, a link or a folder with everything in it, even if the attempt removed its own rights. Never follows
/// links. Succeeds if nothing is there.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let is_dir = match path.symlink_metadata() {
        Ok(about) => about.is_dir(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let remove = || {
        if is_dir {
            std::fs::remove_dir_all(path)
        } else {
            std::fs::remove_file(path)
        }
    };
    match remove() {
        Err(error) if is_dir && error.kind() == io::ErrorKind::PermissionDenied => {
            open_all(path)?;
            remove()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives this folder back its first mode.
pub(crate) fn open_up(folder: &Path) -> io::Result<()> {
    if folder.symlink_metadata()?.permissions().mode() & 0o7777 != 0o700 {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

fn open_all(folder: &Path) -> io::Result<()> {
    let mut waiting: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        open_up(&folder)?;
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}
