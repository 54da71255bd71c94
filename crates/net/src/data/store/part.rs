//! The verified beginnings of large blobs that are arriving.

use super::super::digest::{GROUP_BYTES, Proof};
use super::{DataStore, Held, lock};
use hedge_model::Hash;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The beginning of a blob that nobody continued for this long is removed.
const KEPT_FOR: Duration = Duration::from_secs(600);

impl DataStore {
    /// How many groups of a blob have arrived.
    pub(in super::super) fn arrived(&self, hash: Hash) -> u64 {
        lock(&self.0.parts)
            .get(&hash)
            .map_or(0, |(groups, _)| *groups)
    }

    /// Keeps the next group of a blob; false, and nothing is kept, where the bytes are not that group.
    pub(in super::super) async fn add_group(
        &self,
        hash: Hash,
        proof: &Proof,
        group: u64,
        bytes: Vec<u8>,
    ) -> io::Result<bool> {
        let proof = proof.clone();
        let added = self.blocking(move |store| {
            if !proof.fits(group, &bytes) {
                return Ok(false);
            }
            if group == 0 {
                store.remove_old_parts();
            }
            // A transfer that was given up may write a group late: the same bytes to the same place.
            let file = File::options()
                .write(true)
                .create(group == 0)
                .truncate(false)
                .open(store.0.folder.arriving(hash))?;
            let at = group * GROUP_BYTES as u64;
            file.write_all_at(&bytes, at)?;
            if store.0.writes_early.load(Ordering::Relaxed) {
                begin_writing(&file, at, bytes.len());
            }
            let mut parts = lock(&store.0.parts);
            let (groups, since) = parts.entry(hash).or_insert((0, Instant::now()));
            *groups = (*groups).max(group + 1);
            *since = Instant::now();
            Ok(true)
        });
        added.await
    }

    /// Holds a blob of which all groups have arrived.
    pub(in super::super) async fn complete(&self, hash: Hash, proof: &Proof) -> io::Result<()> {
        let proof = proof.clone();
        let completed = self.blocking(move |store| {
            store.0.folder.keep_proof(hash, &proof)?;
            let mut catalog = store.catalog();
            store.0.folder.install_arrived(hash)?;
            let about = fs::metadata(store.0.folder.blob(hash))?;
            let held = Held::unchecked(about.len()).checked(&about);
            catalog.insert(hash, held);
            drop(catalog);
            lock(&store.0.parts).remove(&hash);
            Ok(())
        });
        completed.await
    }

    fn remove_old_parts(&self) {
        let mut parts = lock(&self.0.parts);
        parts.retain(|hash, (_, since)| {
            let keep = since.elapsed() < KEPT_FOR;
            if !keep {
                _ = fs::remove_file(self.0.folder.arriving(*hash));
            }
            keep
        });
    }
}

/// Has the system write a part of a file to the disk without waiting for it: less is left to wait for when the blob is
/// persisted.
fn begin_writing(file: &File, at: u64, bytes: usize) {
    // SAFETY: the descriptor is open. Where the system refuses, the bytes are written when they are persisted.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            at as i64,
            bytes as i64,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}
