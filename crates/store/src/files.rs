//! The few things that the journal does with files, in one place, so that trials can make them fail.

use crate::{Faults, StoreError};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Writes and flushes, as the trial wants it. Clones share the count of bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    faults: Faults,
    written: Arc<AtomicU64>,
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
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            written: Arc::default(),
        }
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

    /// Writes all bytes at a place. No full disk refuses, or leaves a part of, what goes over bytes that are there.
    pub fn write_at(
        &self,
        file: &File,
        path: &Path,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), StoreError> {
        let allowed = match self.needs_room(file, offset + bytes.len() as u64) {
            true => self.allowed(bytes.len()),
            false => bytes.len(),
        };
        file.write_all_at(&bytes[..allowed], offset)
            .and_then(|()| match allowed == bytes.len() {
                true => Ok(()),
                false => Err(io::ErrorKind::StorageFull.into()),
            })
            .map_err(|source| file_error("write", path, source))
    }

    /// Makes what was written durable.
    pub fn flush(&self, file: &File, path: &Path) -> Result<(), StoreError> {
        if !self.faults.slow_flush.is_zero() {
            std::thread::sleep(self.faults.slow_flush);
        }
        file.sync_data()
            .map_err(|source| file_error("flush", path, source))
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

    /// Whether a trial may refuse a write that ends there. A full disk takes what a file has room for already.
    fn needs_room(&self, file: &File, end: u64) -> bool {
        let limited = self.faults.full_after.or(self.faults.short_write_at);
        limited.is_some() && file.metadata().map_or(true, |file| end > file.len())
    }

    /// How many of these bytes the trial lets through.
    fn allowed(&self, wanted: usize) -> usize {
        let before = self.written.fetch_add(wanted as u64, Ordering::Relaxed);
        let until = |limit: u64| {
            usize::try_from(limit.saturating_sub(before)).map_or(wanted, |left| left.min(wanted))
        };
        if let Some(limit) = self.faults.full_after
            && before + wanted as u64 > limit
        {
            return until(limit);
        }
        match self.faults.short_write_at {
            Some(limit) if before < limit && before + wanted as u64 >= limit => until(limit) / 2,
            _ => wanted,
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
    /// Flush whenever so many bytes have been written, so that one flush of much does not hold up others' on
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
