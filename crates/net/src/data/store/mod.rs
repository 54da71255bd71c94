//! Blobs kept on disk under their hashes, each in a file of its own.
//!
//! A blob that was added survives a kill of the process from then on, and a loss of power once [`DataStore::persist`]
//! has returned. Its bytes are hashed while they are written, and verified again whenever they are read or
//! served. A file that is placed was verified in the last ten minutes, or has not changed since.

mod catalog;
mod folder;
mod neighbours;
mod part;
mod place;
mod retired;
mod take;

pub use place::{PlaceMode, Placement};

use super::digest::{Digest, GROUP_BYTES, Proof};
use crate::NetError;
use bytes::Bytes;
use catalog::{Catalog, Held};
use folder::{Folder, Temp};
use hedge_model::Hash;
use hedge_model::units::show_bytes;
use retired::Retired;
use std::collections::HashMap;
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;

/// Free space that added blobs leave on the disk, for the journal beside them.
const ROOM_KEPT_BYTES: u64 = 4 << 20;
/// Operations on files at a time. Each has two files open at most, or as many for each thread that takes files in.
const OPERATIONS_MAX: usize = 16;

/// Blobs kept on disk under their hashes; cheap to clone. One process at a time may open a folder.
#[derive(Clone, Debug)]
pub struct DataStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: Folder,
    /// Files get and lose their names in the folder while this is locked.
    catalog: Mutex<Catalog>,
    /// How much of a blob that broke off is there, and since when.
    parts: Mutex<HashMap<Hash, (u64, Instant)>>,
    retired: Mutex<Retired>,
    operations: Semaphore,
    /// What is to be made durable, and how often that was asked for.
    unsynced: Mutex<(Vec<Hash>, u64)>,
    /// How many of those requests are done: one waits with all that came before it began.
    synced: tokio::sync::Mutex<u64>,
    syncs: AtomicU64,
    /// Where this store serves the stores of this user's other peers on this machine, beside their sockets.
    neighbours: OnceLock<PathBuf>,
    writes_early: AtomicBool,
}

impl DataStore {
    /// Opens the folder, makes it where it is missing, and finds the blobs in it.
    pub async fn open(dir: &Path) -> Result<DataStore, NetError> {
        let (path, folder) = (dir.to_owned(), dir.to_owned());
        let open = move || {
            let folder = Folder::open(&folder)?;
            let listed = folder.list()?;
            Ok::<_, io::Error>((folder, listed))
        };
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.unwrap_or_else(|error| Err(error.into()));
        let (folder, listed) = opened.map_err(|error| NetError::Store {
            what: "open",
            dir: path,
            why: error.to_string(),
        })?;
        let listed = listed.into_iter();
        let catalog = listed.map(|(hash, size)| (hash, Held::unchecked(size)));
        let store = DataStore(Arc::new(Inner {
            folder,
            catalog: Mutex::new(catalog.collect()),
            parts: Mutex::default(),
            retired: Mutex::default(),
            operations: Semaphore::new(OPERATIONS_MAX),
            unsynced: Mutex::default(),
            synced: tokio::sync::Mutex::default(),
            syncs: AtomicU64::new(0),
            neighbours: OnceLock::new(),
            writes_early: AtomicBool::new(false),
        }));
        tokio::spawn(retired::remove_old(Arc::downgrade(&store.0)));
        Ok(store)
    }

    /// Has large blobs written to the disk while they arrive, from now on; for a store that persists what it takes in.
    pub fn write_early(&self) {
        self.0.writes_early.store(true, Ordering::Relaxed);
    }

    /// Keeps these bytes.
    pub async fn add_bytes(&self, bytes: impl Into<Bytes>) -> Result<Hash, NetError> {
        let bytes = bytes.into();
        self.check_room(bytes.len() as u64)
            .map_err(|why| self.failed("add to", why))?;
        let added = self.blocking(move |store| {
            let mut copy = None;
            let digest = Digest::of(&bytes[..], &mut Vec::new(), |_| Ok(()))?;
            if !store.has(digest.hash) {
                copy = Some(store.0.folder.write(&bytes)?);
            }
            store.install(copy, &digest)?;
            Ok(digest.hash)
        });
        added.await.map_err(|error| self.failed("add to", error))
    }

    /// Keeps blobs of at most 1 MiB each, in one go; returns those whose bytes have another hash, which are not kept.
    pub(super) async fn add_small(&self, blobs: Vec<(Hash, Bytes)>) -> io::Result<Vec<Hash>> {
        let added = self.blocking(move |store| {
            let mut wrong = Vec::new();
            for (hash, bytes) in blobs {
                if blake3::hash(&bytes).as_bytes() != &hash.0 {
                    wrong.push(hash);
                } else if !store.has(hash) {
                    let copy = store.0.folder.write(&bytes)?;
                    let digest = Digest {
                        hash,
                        size: bytes.len() as u64,
                        proof: None,
                    };
                    store.install(Some(copy), &digest)?;
                }
            }
            Ok(wrong)
        });
        added.await
    }

    /// Keeps a copy of a file; returns its hash and length.
    pub async fn add_file(&self, path: &Path) -> Result<(Hash, u64), NetError> {
        let mut added = self.add_files(vec![path.to_owned()], |_| ()).await?;
        match added.pop() {
            Some(added) => Ok(added),
            None => Err(file_error("take in", path, "it was not added")),
        }
    }

    /// Keeps a file where it is, without a copy. A later change of the file damages the blob, which is noticed
    /// whenever it is read or served.
    pub async fn add_file_by_reference(&self, path: &Path) -> Result<(Hash, u64), NetError> {
        let from = path.to_owned();
        let hashed = self.blocking(move |_| Digest::of_file(&from, &mut Vec::new()));
        let digest = hashed
            .await
            .map_err(|error| file_error("take in", path, error))?;
        self.add_references(vec![(path.to_owned(), digest.clone())])?;
        Ok((digest.hash, digest.size))
    }

    /// Like [`DataStore::add_file_by_reference`] for files that were hashed already, which are not read again.
    pub fn add_references(&self, files: Vec<(PathBuf, Digest)>) -> Result<(), NetError> {
        for (path, digest) in files {
            let failed = |error| file_error("take in", &path, error);
            let absolute = std::path::absolute(&path).map_err(failed)?;
            if let Some(proof) = &digest.proof {
                self.0
                    .folder
                    .keep_proof(digest.hash, proof)
                    .map_err(failed)?;
            }
            let held = Held::outside(digest.size, absolute.into());
            self.catalog().entry(digest.hash).or_insert(held);
        }
        Ok(())
    }

    /// Whether the whole blob is held.
    pub fn has(&self, hash: Hash) -> bool {
        self.catalog().contains_key(&hash)
    }

    /// Length in bytes of a blob that is held.
    pub fn size(&self, hash: Hash) -> Option<u64> {
        self.catalog().get(&hash).map(|held| held.size)
    }

    /// Everything held, with lengths in bytes, in no particular order.
    pub fn list(&self) -> Vec<(Hash, u64)> {
        let catalog = self.catalog();
        let held = catalog.iter().map(|(hash, held)| (*hash, held.size));
        held.collect()
    }

    /// Length of everything held, in bytes.
    pub fn bytes_held(&self) -> u64 {
        self.catalog().values().map(|held| held.size).sum()
    }

    /// The content, verified; refused with [`NetError::TooLarge`] where it is over `bytes_max`.
    pub async fn read(&self, hash: Hash, bytes_max: usize) -> Result<Bytes, NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        if size > bytes_max as u64 {
            return Err(NetError::TooLarge {
                bytes: size as usize,
                limit: bytes_max,
            });
        }
        let read = self.blocking(move |store| Ok(store.read_verified(hash)));
        read.await
            .unwrap_or_else(|error| Err(self.failed("read", error)))
    }

    /// The content from a position on to the end of the group that holds it, verified: at most 1 MiB, and nothing behind
    /// the end.
    pub async fn read_from(&self, hash: Hash, from: u64) -> Result<Bytes, NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        if from >= size {
            return Ok(Bytes::new());
        }
        let group = from / GROUP_BYTES as u64;
        let bytes = if size <= GROUP_BYTES as u64 {
            self.read(hash, GROUP_BYTES).await?
        } else {
            let proof = self.proof(hash).await?;
            self.read_group(hash, &proof, group).await?
        };
        let skipped = (from - group * GROUP_BYTES as u64) as usize;
        Ok(bytes.slice(skipped.min(bytes.len())..))
    }

    /// Writes the content to a new file, with mode 755 or 644. It is a copy (or a clone where the file system can do
    /// that), so that changing the file changes nothing here. A file that exists already is an error and stays as it
    /// is.
    pub async fn export(
        &self,
        hash: Hash,
        target: &Path,
        executable: bool,
    ) -> Result<(), NetError> {
        let target = target.to_owned();
        let placement = Placement {
            hash,
            target,
            executable,
            way: PlaceMode::Copy,
        };
        self.place(vec![placement]).await
    }

    /// Writes the content to `sink`, verified. The inner result is the sink's, which may have got a part; the outer one
    /// is this store's.
    pub async fn copy(
        &self,
        hash: Hash,
        sink: &mut (impl Write + Send),
    ) -> Result<io::Result<()>, NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        if size <= GROUP_BYTES as u64 {
            return Ok(sink.write_all(&self.read(hash, GROUP_BYTES).await?));
        }
        let proof = self.proof(hash).await?;
        for group in 0..proof.count() {
            let bytes = self.read_group(hash, &proof, group).await?;
            if let Err(error) = sink.write_all(&bytes) {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Moves the content to a new file where that can be done, else copies it; for a store that is about to end, on a
    /// disk that may have no room for a second copy.
    pub async fn move_out(
        &self,
        hash: Hash,
        target: &Path,
        executable: bool,
    ) -> Result<(), NetError> {
        let placement = Placement {
            hash,
            target: target.to_owned(),
            executable,
            way: PlaceMode::Move,
        };
        self.place(vec![placement]).await
    }

    /// Gives blobs up: they are no longer listed, read or served from this call on. Their files are moved away before
    /// the future ends, and removed within minutes, or as soon as they take more than 1 GiB or the disk is short; a
    /// fetch that wants one until then need not transfer it. What is added again meanwhile stays.
    pub fn forget(
        &self,
        hashes: impl IntoIterator<Item = Hash>,
    ) -> impl Future<Output = Result<(), NetError>> + Send + 'static {
        let mut catalog = self.catalog();
        let held = hashes.into_iter();
        let gone: Vec<(Hash, Held)> = held
            .filter_map(|hash| Some((hash, catalog.remove(&hash)?)))
            .collect();
        drop(catalog);
        let store = self.clone();
        async move {
            let retired = store.blocking(move |store| {
                for (hash, held) in gone {
                    store.retire(hash, held);
                }
                store.remove_retired(false);
                Ok(())
            });
            retired
                .await
                .map_err(|error| store.failed("forget part of", error))
        }
    }

    /// Makes blobs that were added survive a loss of power, too. Calls that come while another is under way share the
    /// next write to the disk.
    pub async fn persist(&self, hashes: Vec<Hash>) -> Result<(), NetError> {
        let mine = {
            let mut unsynced = lock(&self.0.unsynced);
            unsynced.0.extend(hashes);
            unsynced.1 += 1;
            unsynced.1
        };
        let mut done = self.0.synced.lock().await;
        if *done >= mine {
            return Ok(());
        }
        let (pending, upto) = {
            let mut unsynced = lock(&self.0.unsynced);
            (std::mem::take(&mut unsynced.0), unsynced.1)
        };
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        let tried = pending.clone();
        let synced = self
            .blocking(move |store| store.0.folder.sync(&tried))
            .await;
        if let Err(error) = synced {
            lock(&self.0.unsynced).0.extend(pending);
            return Err(self.failed("write", error));
        }
        *done = upto;
        Ok(())
    }

    /// How often blobs were written to the disk so far to survive a loss of power.
    pub fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    /// Whether [`PlaceMode::Link`] has an effect here: the store's files belong to a user of their own, which takes
    /// root to set up.
    pub fn links(&self) -> bool {
        self.0.folder.links()
    }

    /// Lets another process open the folder; nothing may be added from here on.
    pub fn close(&self) {
        self.0.folder.unlock();
    }

    /// Whether the disk has room for so many bytes more; a sentence where it has not.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), String> {
        // Where the system does not say, adding will.
        let free = || {
            let disk = rustix::fs::statvfs(self.0.folder.root());
            disk.map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
        };
        let needed = bytes.saturating_add(ROOM_KEPT_BYTES);
        if free() >= needed {
            return Ok(());
        }
        self.remove_retired(true);
        let free = free();
        if free >= needed {
            return Ok(());
        }
        Err(format!(
            "no space left on the disk: {} are to be added, and {} are free, of which {} stay free",
            show_bytes(bytes),
            show_bytes(free),
            show_bytes(ROOM_KEPT_BYTES)
        ))
    }

    /// The proof of a large blob. Where there is none the whole content is read.
    pub(super) async fn proof(&self, hash: Hash) -> Result<Proof, NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        let found = self.blocking(move |store| {
            if let Some(proof) = store.0.folder.proof(hash, size) {
                return Ok(Some(proof));
            }
            let digest = Digest::of_file(&store.path(hash)?, &mut Vec::new())?;
            let proof = digest.proof.filter(|_| digest.hash == hash);
            if let Some(proof) = &proof {
                store.0.folder.keep_proof(hash, proof)?;
            }
            Ok(proof)
        });
        match found.await {
            Ok(Some(proof)) => Ok(proof),
            Ok(None) => Err(self.damaged(hash, "its content has another hash")),
            Err(error) => Err(self.unreadable(hash, error)),
        }
    }

    /// A group of a large blob, verified.
    pub(super) async fn read_group(
        &self,
        hash: Hash,
        proof: &Proof,
        group: u64,
    ) -> Result<Bytes, NetError> {
        let proof = proof.clone();
        let read = self.blocking(move |store| {
            let mut bytes = vec![0; proof.group_len(group)];
            let file = File::open(store.path(hash)?)?;
            file.read_exact_at(&mut bytes, group * GROUP_BYTES as u64)?;
            Ok(proof.fits(group, &bytes).then_some(bytes))
        });
        match read.await {
            Ok(Some(bytes)) => Ok(bytes.into()),
            Ok(None) => Err(self.damaged(hash, "a part of its content is wrong")),
            Err(error) => Err(self.unreadable(hash, error)),
        }
    }

    /// Small blobs in the order asked for, up to about `bytes_max` together, but one at least.
    pub(super) async fn read_some(
        &self,
        hashes: Vec<Hash>,
        bytes_max: usize,
    ) -> Vec<Result<Bytes, NetError>> {
        let count = hashes.len();
        let read = self.blocking(move |store| {
            let mut found = Vec::new();
            let mut total = 0;
            for hash in hashes {
                let read = match store.size(hash) {
                    Some(size) if size > GROUP_BYTES as u64 => Err(NetError::TooLarge {
                        bytes: size as usize,
                        limit: GROUP_BYTES,
                    }),
                    Some(_) => store.read_verified(hash),
                    None => Err(NetError::NotHeld(hash)),
                };
                total += read.as_ref().map_or(0, Bytes::len);
                found.push(read);
                if total >= bytes_max {
                    break;
                }
            }
            Ok(found)
        });
        let failed = |error: io::Error| {
            let all = (0..count).map(|_| Err(self.failed("read", &error)));
            all.collect()
        };
        read.await.unwrap_or_else(failed)
    }

    /// Gives up a blob whose bytes are wrong.
    pub(super) fn damaged(&self, hash: Hash, error: impl Display) -> NetError {
        tracing::warn!(%hash, %error, "a blob on disk is damaged and is given up");
        self.catalog().remove(&hash);
        self.remove_unless_held(hash);
        NetError::Damaged(hash)
    }

    /// Gives up a blob that cannot be read, unless another time may do, as with too many open files.
    pub(super) fn unreadable(&self, hash: Hash, error: io::Error) -> NetError {
        use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
        let is_gone = matches!(error.kind(), NotFound | UnexpectedEof | InvalidData);
        match is_gone || error.raw_os_error() == Some(libc::EIO) {
            true => self.damaged(hash, error),
            false => self.failed("read", error),
        }
    }

    /// Runs an operation on files on a thread where it holds nobody up, a bounded number at a time.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DataStore) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let _place = self.0.operations.acquire().await;
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|error| Err(error.into()))
    }

    fn read_verified(&self, hash: Hash) -> Result<Bytes, NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        let read = || {
            let mut bytes = Vec::with_capacity(size as usize);
            let file = File::open(self.path(hash)?)?;
            file.take(size + 1).read_to_end(&mut bytes)?;
            Ok::<_, io::Error>(bytes)
        };
        match read() {
            Ok(bytes) if *blake3::hash(&bytes).as_bytes() == hash.0 => Ok(bytes.into()),
            Ok(_) => Err(self.damaged(hash, "its content has another hash")),
            Err(error) => Err(self.unreadable(hash, error)),
        }
    }

    /// Names a copy whose content has this digest, and lists it. Where the blob is held already the copy is removed.
    fn install(&self, copy: Option<Temp>, digest: &Digest) -> io::Result<()> {
        if let (Some(proof), Some(_)) = (&digest.proof, &copy) {
            self.0.folder.keep_proof(digest.hash, proof)?;
        }
        let mut catalog = self.catalog();
        // One that is held by reference becomes a file of the store.
        let inside = |held: &Held| held.outside.is_none();
        if let Some(copy) = copy.filter(|_| !catalog.get(&digest.hash).is_some_and(inside)) {
            self.0.folder.install(copy, digest.hash)?;
            let about = fs::metadata(self.0.folder.blob(digest.hash))?;
            let held = Held::unchecked(digest.size).checked(&about);
            catalog.insert(digest.hash, held);
        }
        Ok(())
    }

    fn remove_unless_held(&self, hash: Hash) {
        let catalog = self.catalog();
        if !catalog.contains_key(&hash) {
            self.0.folder.remove(hash);
        }
    }

    /// Where the content lies.
    fn path(&self, hash: Hash) -> io::Result<PathBuf> {
        let catalog = self.catalog();
        let held = catalog.get(&hash).ok_or(io::ErrorKind::NotFound)?;
        let outside = held.outside.as_ref().map(|path| path.to_path_buf());
        Ok(outside.unwrap_or_else(|| self.0.folder.blob(hash)))
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        lock(&self.0.catalog)
    }

    fn failed(&self, what: &'static str, error: impl Display) -> NetError {
        NetError::Store {
            what,
            dir: self.0.folder.root().to_owned(),
            why: error.to_string(),
        }
    }
}

fn file_error(what: &'static str, path: &Path, why: impl Display) -> NetError {
    NetError::File {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_blob_that_cannot_be_read_just_now_is_not_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let store = DataStore::open(dir.path()).await.unwrap();
        let hash = store.add_bytes(vec![7; 100]).await.unwrap();
        let busy = io::Error::from_raw_os_error(libc::EMFILE);
        assert!(matches!(
            store.unreadable(hash, busy),
            NetError::Store { .. }
        ));
        assert!(store.has(hash), "another time it can be read");
        let broken = io::Error::from_raw_os_error(libc::EIO);
        assert!(matches!(
            store.unreadable(hash, broken),
            NetError::Damaged(_)
        ));
        assert!(!store.has(hash));
    }
}
