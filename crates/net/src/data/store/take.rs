//! Taking files in.

use super::super::parallel;
use super::{DataStore, file_error};
use crate::NetError;
use hedge_model::Hash;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

impl DataStore {
    /// Keeps copies of files, on all processors; returns their hashes and lengths in the same order. Where one cannot
    /// be read, those that were added already stay. `note` is called with each blob's hash before
    /// the blob is listed.
    pub async fn add_files(
        &self,
        paths: Vec<PathBuf>,
        note: impl Fn(Hash) + Send + Sync + 'static,
    ) -> Result<Vec<(Hash, u64)>, NetError> {
        self.bring_in(paths, false, note).await
    }

    /// Like [`DataStore::add_files`] for files that nobody needs where they are: those that are on the same file system,
    /// have no other name and are not open for writing are moved instead.
    pub async fn take_files(
        &self,
        paths: Vec<PathBuf>,
        note: impl Fn(Hash) + Send + Sync + 'static,
    ) -> Result<Vec<(Hash, u64)>, NetError> {
        self.bring_in(paths, true, note).await
    }

    async fn bring_in(
        &self,
        paths: Vec<PathBuf>,
        moves: bool,
        note: impl Fn(Hash) + Send + Sync + 'static,
    ) -> Result<Vec<(Hash, u64)>, NetError> {
        let added = self.blocking(move |store| {
            // Several of the paths may lead to one file.
            let (mut files, mut shared) = (HashMap::new(), HashSet::new());
            for path in paths.iter().filter(|_| moves) {
                if let Some(other) = files.insert(inode(path), path) {
                    shared.extend([other, path]);
                }
            }
            let add = |path: &PathBuf, buffer: &mut Vec<u8>| {
                store.bring_one_in(path, moves && !shared.contains(path), buffer, &note)
            };
            Ok(parallel::map(&paths, parallel::THREADS_MAX, add))
        });
        let added = added.await.map_err(|error| self.failed("add to", error))?;
        added.into_iter().collect()
    }

    fn bring_one_in(
        &self,
        path: &Path,
        moves: bool,
        buffer: &mut Vec<u8>,
        note: impl Fn(Hash),
    ) -> Result<(Hash, u64), NetError> {
        let failed = |error| file_error("take in", path, error);
        // Checked here because a folder can be opened, and a pipe is waited for.
        let about = fs::metadata(path).map_err(failed)?;
        if !about.is_file() {
            return Err(file_error("take in", path, "it is not a file"));
        }
        let file = File::open(path).map_err(failed)?;
        let moved = match moves {
            true => self.0.folder.take(path, &file, buffer).map_err(failed)?,
            false => None,
        };
        let (temp, digest) = match moved {
            Some(moved) => moved,
            None => {
                self.check_room(about.len())
                    .map_err(|why| file_error("take in", path, why))?;
                self.0.folder.copy(&file, buffer).map_err(failed)?
            }
        };
        note(digest.hash);
        self.install(Some(temp), &digest).map_err(failed)?;
        Ok((digest.hash, digest.size))
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let about = fs::metadata(path).ok()?;
    Some((about.dev(), about.ino()))
}
