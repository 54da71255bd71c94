//! The few things that the journal does with files, in one place.

use crate::StoreError;
use crate::options::{Disk, SystemDisk};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// Creates, writes, flushes, renames and removes files. Clones share the disk.
#[derive(Clone, Debug)]
pub(crate) struct Files(Arc<dyn Disk>);

impl Default for Files {
    fn default() -> Self {
        Self(Arc::new(SystemDisk))
    }
}

/// Makes a folder that only its owner may enter, where it is missing: a journal holds the grid's secrets.
pub(crate) fn create_folder(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| file_error("create", path, error))
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>) -> Self {
        Self(disk)
    }

    /// A file for reading and writing, empty.
    pub fn create(&self, path: &Path) -> Result<File, StoreError> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| file_error("create", path, source))
    }

    /// Writes all bytes at an offset.
    pub fn write_at(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), StoreError> {
        let written = self.0.write_at(file, bytes, offset);
        written.map_err(|source| file_error("write", path, source))
    }

    /// Makes what was written durable.
    pub fn flush(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        let flushed = self.0.flush(file);
        flushed.map_err(|source| file_error("flush", path, source))
    }

    /// Makes the names in a folder durable.
    pub fn flush_folder(&self, folder: &Path) -> Result<(), StoreError> {
        File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| file_error("flush", folder, source))
    }

    /// Puts a whole file in the place of another, or of none, at once.
    pub fn replace(&self, folder: &Path, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = folder.join(format!("{name}{TEMPORARY}"));
        let file = self.create(&path)?;
        self.write_at(&file, &path, bytes, 0)?;
        self.flush(&file, &path)?;
        self.rename(folder, &path, name)
    }

    /// Gives a finished file its name.
    pub fn rename(&self, folder: &Path, from: &Path, name: &str) -> Result<(), StoreError> {
        let to = folder.join(name);
        std::fs::rename(from, &to).map_err(|source| file_error("rename", &to, source))?;
        self.flush_folder(folder)
    }

    /// Removes a file, which may be gone already.
    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        match std::fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(file_error("remove", path, source))
            }
            _ => Ok(()),
        }
    }
}

/// What files end with that are not finished. They are removed at start.
pub(crate) const TEMPORARY: &str = ".new";

pub(crate) fn file_error(doing: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> StoreError {
    StoreError::Damaged {
        path: path.to_owned(),
        offset,
        what: what.into(),
    }
}

/// A whole file in memory.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(path).map_err(|source| file_error("read", path, source))
}

/// A file that is written from front to back.
pub(crate) struct Appender<'a> {
    pub files: &'a Files,
    pub file: &'a File,
    pub path: &'a Path,
    pub offset: u64,
    /// Flush each time this many bytes have been written, so that one large flush does not hold up those of others on
    /// the same disk.
    pub flush_every: u64,
    pub unflushed: u64,
}

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.files
            .write_at(self.file, self.path, bytes, self.offset)
            .map_err(io::Error::other)?;
        self.offset += bytes.len() as u64;
        self.unflushed += bytes.len() as u64;
        if self.unflushed >= self.flush_every {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unflushed = 0;
        self.files
            .flush(self.file, self.path)
            .map_err(io::Error::other)
    }
}
