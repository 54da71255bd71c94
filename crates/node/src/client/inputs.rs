//! Input files of a submission, and which blobs of a client's store are in use.

use super::ClientBlobs;
use crate::Temporary;
use hedge_model::Hash;
use hedge_net::Digest;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A file with the hash and length in bytes of its content.
pub type HashedFile = (PathBuf, io::Result<(Hash, u64)>);

/// Input files of a job with their hashes. They are read again when the grid fetches them.
#[derive(Debug, Default)]
pub struct InputFiles {
    files: HashMap<Hash, (PathBuf, Digest)>,
    /// Holds some of them.
    folder: Option<Temporary>,
}

impl InputFiles {
    /// Hashes files on all processors. Returns the hash or error of each, in order. Blocks.
    pub fn read(paths: Vec<PathBuf>) -> (Self, Vec<HashedFile>) {
        Self::read_unknown(paths.into_iter().map(|path| (path, None)).collect())
    }

    /// Does the same for files of which some have been read before and did not change since.
    pub fn read_unknown(all: Vec<(PathBuf, Option<Digest>)>) -> (Self, Vec<HashedFile>) {
        let unknown = all.iter().filter(|(_, digest)| digest.is_none());
        let unknown: Vec<_> = unknown.map(|(path, _)| path.clone()).collect();
        let mut digests = Digest::of_files(&unknown).into_iter();
        let mut files = Self::default();
        let each = all.into_iter().map(|(path, known)| {
            let digest = known.map(Ok).or_else(|| digests.next());
            let unread = || Err(io::Error::other("it was not read"));
            let added = digest.unwrap_or_else(unread);
            let added = added.and_then(|digest| files.add(&path, digest));
            (path, added)
        });
        let read = each.collect();
        (files, read)
    }

    /// Returns the digests of the files.
    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.files.values().map(|(_, digest)| digest)
    }

    /// Keeps a folder that holds some of the files as long as they are needed.
    pub fn keep(&mut self, folder: Temporary) {
        self.folder = Some(folder);
    }

    fn add(&mut self, path: &Path, digest: Digest) -> io::Result<(Hash, u64)> {
        let absolute = std::path::absolute(path)?;
        let added = (digest.hash, digest.size);
        self.files.insert(digest.hash, (absolute, digest));
        Ok(added)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    pub(super) fn hashes(&self) -> Vec<Hash> {
        self.files.keys().copied().collect()
    }

    /// Returns the files for a store that serves them.
    pub(super) fn references(&self) -> Vec<(PathBuf, Digest)> {
        self.files.values().cloned().collect()
    }

    /// Returns a file that the store dropped because its content had changed when it was read.
    pub(super) fn changed(&self, is_held: impl Fn(Hash) -> bool) -> Option<&Path> {
        let gone = self.files.iter().find(|(hash, _)| !is_held(**hash));
        gone.map(|(_, (path, _))| path.as_path())
    }
}

/// How many requests use each blob of a client's store.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<HashMap<Hash, usize>>);

/// The blobs that a request uses. A blob that no request uses any more is removed from the store.
#[derive(Debug)]
pub(super) struct InUse {
    blobs: Arc<ClientBlobs>,
    hashes: Vec<Hash>,
}

impl InUse {
    /// Uses these blobs from now on. Comes before they are added or fetched: the end of another request removes those that
    /// nobody uses.
    pub fn new(blobs: &Arc<ClientBlobs>, hashes: Vec<Hash>) -> Self {
        let mut uses = lock(&blobs.uses);
        for hash in &hashes {
            *uses.entry(*hash).or_default() += 1;
        }
        drop(uses);
        let blobs = blobs.clone();
        Self { blobs, hashes }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut uses = lock(&self.blobs.uses);
        let mut unused = Vec::new();
        for hash in self.hashes.drain(..) {
            let Some(count) = uses.get_mut(&hash) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                uses.remove(&hash);
                unused.push(hash);
            }
        }
        // While `uses` is locked, so that no new request counts on a blob that is about to go.
        let forget = self.blobs.store.forget(unused);
        drop(uses);
        // Without a runtime the process is ending, and the store's directory with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(forget);
        }
    }
}

fn lock(uses: &Uses) -> std::sync::MutexGuard<'_, HashMap<Hash, usize>> {
    uses.0.lock().unwrap_or_else(PoisonError::into_inner)
}
