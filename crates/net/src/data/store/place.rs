//! Handing blobs out as files.

use super::super::digest::Digest;
use super::{DataStore, Held, file_error};
use crate::NetError;
use hedge_model::Hash;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file to be made of a blob.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The content.
    pub hash: Hash,
    /// The new file; the folder above it exists.
    pub target: PathBuf,
    /// Mode 755 instead of 644; of a link 555 instead of 444; of a moved file 777 instead of 666, less the umask.
    pub executable: bool,
    /// Whose the file is.
    pub way: PlaceMode,
}

/// How a file is made of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceMode {
    /// A copy, or a clone where the file system can do that.
    Copy,
    /// A hard link to the store's file, because the task that gets it has no privileges over files of other users. It takes
    /// effect where [`DataStore::links`] says so; elsewhere, and where the file system refuses a link, it is a copy.
    Link,
    /// The store's file itself, where it lies on the same file system: the blob leaves the store.
    Move,
}

impl DataStore {
    /// Makes files of blobs, in one go. A file that exists already is an error and stays as it is; those before it in
    /// the list stay, too.
    pub async fn place(&self, files: Vec<Placement>) -> Result<(), NetError> {
        let placed = self.blocking(move |store| {
            let mut buffer = Vec::new();
            let each = |file| store.place_one(file, &mut buffer);
            Ok(files.iter().try_for_each(each))
        });
        placed
            .await
            .unwrap_or_else(|error| Err(self.failed("read", error)))
    }

    fn place_one(&self, file: &Placement, buffer: &mut Vec<u8>) -> Result<(), NetError> {
        let (hash, target) = (file.hash, &file.target);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::AlreadyExists => file_error("write", target, "there is a file already"),
            _ => file_error("write", target, error),
        };
        let held = self.checked(hash, buffer)?;
        let sealed = held.outside.is_none();
        let mode = if file.executable { 0o755 } else { 0o644 };
        let done = match file.way {
            PlaceMode::Link if sealed && self.links() => {
                self.0.folder.link(hash, target, file.executable)
            }
            PlaceMode::Move if sealed => self.take_out(hash, target, mode | (mode & 0o444) >> 1),
            _ => Ok(false),
        };
        if done.map_err(failed)? {
            return Ok(());
        }
        let from = self.path(hash).and_then(File::open);
        let from = from.map_err(|error| self.unreadable(hash, error))?;
        let to = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(target)
            .map_err(failed)?;
        let copied = self.0.folder.copy_into(&from, &to).and_then(|()| {
            // Whatever the process's umask says.
            rustix::fs::fchmod(&to, rustix::fs::Mode::from_raw_mode(mode))?;
            // A file elsewhere may change while it is copied.
            match sealed {
                true => Ok(true),
                false => Ok(Digest::of_file(target, buffer)?.hash == hash),
            }
        });
        match copied {
            Ok(true) => Ok(()),
            Ok(false) => {
                _ = fs::remove_file(target);
                Err(self.damaged(hash, "its content has another hash"))
            }
            Err(error) => {
                _ = fs::remove_file(target);
                Err(failed(error))
            }
        }
    }

    fn take_out(&self, hash: Hash, target: &Path, mode: u32) -> io::Result<bool> {
        let mut catalog = self.catalog();
        let moved = self.0.folder.move_out(hash, target, mode)?;
        if moved {
            catalog.remove(&hash);
        }
        Ok(moved)
    }

    /// What is known of a blob, whose file is hashed first where that is due.
    fn checked(&self, hash: Hash, buffer: &mut Vec<u8>) -> Result<Held, NetError> {
        let held = self.catalog().get(&hash).cloned();
        let held = held.ok_or(NetError::NotHeld(hash))?;
        if held.outside.is_some() {
            return Ok(held);
        }
        let path = self.0.folder.blob(hash);
        let about = fs::metadata(&path).map_err(|error| self.unreadable(hash, error))?;
        if !held.needs_check(&about) {
            return Ok(held);
        }
        let found = Digest::of_file(&path, buffer);
        let found = found.map_err(|error| self.failed("read", error))?;
        if found.hash != hash {
            return Err(self.damaged(hash, "its content has another hash"));
        }
        let held = Held::unchecked(found.size).checked(&about);
        if let Some(entry) = self.catalog().get_mut(&hash) {
            *entry = held.clone();
        }
        Ok(held)
    }
}
