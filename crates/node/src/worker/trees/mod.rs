//! The trees that a worker has: each is written once from its blobs and shown to any number of attempts.
//!
//! The cache has a limit. A tree for which there is no room takes the place of those that were not used for longest; one
//! that attempts use stays. A tree lies in a folder `HASH-NUMBER-BYTES` with its manifest beside it. The number is never
//! used again, so that a view that shows an earlier tree never shows a later one. The bytes are what the tree takes on the
//! disk, so that a worker that starts need not read the manifests.

mod check;
mod write;

use super::attempt::{failed, lock};
use hedge_model::tree::{MANIFEST_BYTES_MAX, Manifest, MountedTree};
use hedge_model::units::show_bytes;
use hedge_model::{Ending, Hash};
use hedge_net::DataStore;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

/// Default for the limit of the cache, in bytes: some large environments.
pub const TREE_CACHE_BYTES: u64 = 10 << 30;
/// A tree whose content was compared with its hashes longer ago is compared again before an attempt gets it, as blobs
/// are.
const CHECK_AFTER: Duration = Duration::from_mins(10);
/// The time of a tree's last use is written to the disk again after this.
const NOTE_AFTER: Duration = Duration::from_mins(1);
/// The folder of a tree that is being written begins with this.
const ARRIVING: &str = "arriving-";
/// The folder with the tree's content.
const ROOT: &str = "root";
/// The file with its manifest. It was changed when the tree was last used, or up to [`NOTE_AFTER`] before.
const MANIFEST: &str = "manifest";

/// The trees that are here; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct TreeCache(Arc<Cache>);

#[derive(Debug)]
struct Cache {
    folder: PathBuf,
    bytes_max: u64,
    index: Mutex<Index>,
    /// Held while a tree is written or compared: each of them keeps all processors busy.
    working: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Index {
    trees: HashMap<Hash, Arc<Tree>>,
    /// The number of the next folder.
    next: u64,
}

/// A tree that is here. It stays as long as somebody beside the cache has it.
#[derive(Debug)]
pub(super) struct Tree {
    folder: PathBuf,
    bytes: u64,
    state: Mutex<TreeState>,
    /// It is not in the cache any more, and is removed when nobody uses it.
    damaged: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
struct TreeState {
    used: SystemTime,
    /// The time of use that is on the disk.
    noted: SystemTime,
    /// When its content was compared with its hashes by this process.
    checked: Option<Instant>,
}

impl Tree {
    fn new(folder: PathBuf, bytes: u64, used: SystemTime) -> Self {
        let state = TreeState {
            used,
            noted: used,
            checked: None,
        };
        Self {
            folder,
            bytes,
            state: Mutex::new(state),
            damaged: AtomicBool::new(false),
        }
    }

    /// The folder with its content.
    pub fn root(&self) -> PathBuf {
        self.folder.join(ROOT)
    }

    fn is_checked(&self) -> bool {
        let checked = lock(&self.state).checked;
        checked.is_some_and(|at| at.elapsed() < CHECK_AFTER)
    }

    fn note_checked(&self) {
        lock(&self.state).checked = Some(Instant::now());
    }

    /// Notes that an attempt gets it. Needs a runtime.
    fn note_used(&self) {
        let now = SystemTime::now();
        let mut state = lock(&self.state);
        state.used = now;
        if now.duration_since(state.noted).unwrap_or_default() < NOTE_AFTER {
            return;
        }
        state.noted = now;
        let manifest = self.folder.join(MANIFEST);
        // It only decides which tree is removed first after the next start.
        tokio::task::spawn_blocking(move || {
            let file = File::options().append(true).open(manifest);
            _ = file.and_then(|file| file.set_modified(now));
        });
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if *self.damaged.get_mut() {
            let folder = std::mem::take(&mut self.folder);
            // A large tree takes long, and this may be the thread of the loop.
            std::thread::spawn(move || std::fs::remove_dir_all(folder));
        }
    }
}

impl TreeCache {
    /// Opens the cache in a folder, with the trees that an earlier process left, and removes those beyond the limit.
    /// Blocks.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub fn open(folder: &Path, bytes_max: u64) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut index = Index::default();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            match left(&path) {
                Some((hash, number, tree)) => {
                    index.next = index.next.max(number + 1);
                    index.trees.insert(hash, Arc::new(tree));
                }
                None => {
                    if let Err(error) = std::fs::remove_dir_all(&path) {
                        tracing::warn!(%error, path = %path.display(), "what is no tree stays");
                    }
                }
            }
        }
        let cache = Self(Arc::new(Cache {
            folder: folder.to_owned(),
            bytes_max,
            index: Mutex::new(index),
            working: tokio::sync::Mutex::default(),
        }));
        if let Err(why) = cache.make_room(0) {
            tracing::warn!(why, "the cache for trees is larger than its limit");
        }
        Ok(cache)
    }

    /// Returns a tree that is here and was compared with its hashes not long ago.
    pub fn get(&self, hash: Hash) -> Option<Arc<Tree>> {
        let tree = self.find(hash).filter(|tree| tree.is_checked())?;
        tree.note_used();
        Some(tree)
    }

    /// Returns a tree. One that is not here is written from its blobs, which `fetch` brings into the store; they are
    /// given up then, unless they are `shared` with inputs. Attempts that need the same tree share the work.
    ///
    /// # Errors
    /// How an attempt that needs it ends.
    pub async fn take<F>(
        &self,
        store: &DataStore,
        wanted: &MountedTree,
        shared: &[Hash],
        fetch: impl Fn(Vec<(Hash, u64)>) -> F,
    ) -> Result<Arc<Tree>, Ending>
    where
        F: Future<Output = Result<(), Ending>>,
    {
        let hash = wanted.manifest.0;
        let _one = self.0.working.lock().await;
        if let Some(tree) = self.recheck(hash).await {
            return Ok(tree);
        }
        let wrong = |why: String| Ending::NotStarted {
            why: format!("the tree for {:?} is not valid: {why}", wanted.at),
        };
        let since = Instant::now();
        fetch(vec![wanted.manifest]).await?;
        if store
            .size(hash)
            .is_some_and(|size| size > MANIFEST_BYTES_MAX as u64)
        {
            return Err(wrong("its manifest is longer than 64 MiB".to_owned()));
        }
        let bytes = store.read(hash, MANIFEST_BYTES_MAX).await;
        let bytes = bytes.map_err(|error| failed(&error))?;
        let manifest = Manifest::decode(&bytes).map_err(wrong)?;
        let cache = self.clone();
        let size = manifest.disk_bytes();
        let room = write::blocking(move || Ok(cache.make_room(size))).await?;
        room.map_err(|why| Ending::Input {
            missing: Vec::new(),
            why: format!("the tree for {:?} {why}", wanted.at),
        })?;
        fetch(manifest.packs.clone()).await?;
        let arriving = Arriving::new(&self.0)?;
        write::write(store, &arriving.folder, Arc::new(manifest), &bytes).await?;
        let tree = Arc::new(
            arriving
                .arrived(hash, size)
                .map_err(|error| failed(&error))?,
        );
        tree.note_used();
        tree.note_checked();
        tracing::info!(%hash, bytes = size, took = ?since.elapsed(), "a tree was fetched");
        lock(&self.0.index).trees.insert(hash, tree.clone());
        let blobs = wanted.blobs().map(|(hash, _)| hash);
        let unneeded = blobs.filter(|hash| !shared.contains(hash));
        if let Err(error) = store.forget(unneeded).await {
            tracing::warn!(%error, "the packs of a tree stay until their job is over");
        }
        Ok(tree)
    }

    fn find(&self, hash: Hash) -> Option<Arc<Tree>> {
        lock(&self.0.index).trees.get(&hash).cloned()
    }

    /// Returns a tree that is here, compared with its hashes if that is due. A damaged one leaves the cache.
    async fn recheck(&self, hash: Hash) -> Option<Arc<Tree>> {
        let tree = self.find(hash)?;
        if !tree.is_checked() {
            let folder = tree.folder.clone();
            let checked = tokio::task::spawn_blocking(move || check::check(&folder, hash)).await;
            let checked = checked.unwrap_or_else(|error| Err(error.to_string()));
            if let Err(why) = checked {
                tracing::warn!(%hash, why, "a tree is damaged; it is fetched again");
                lock(&self.0.index).trees.remove(&hash);
                tree.damaged.store(true, Ordering::Relaxed);
                return None;
            }
            tree.note_checked();
        }
        tree.note_used();
        Some(tree)
    }

    /// Removes trees that nobody uses, those that were not used for longest first, until there is room. Blocks.
    fn make_room(&self, bytes: u64) -> Result<(), String> {
        let most = self.0.bytes_max;
        if bytes > most {
            return Err(format!(
                "takes {} on a disk, and this worker's cache for trees has {} (--tree-cache)",
                show_bytes(bytes),
                show_bytes(most)
            ));
        }
        loop {
            let mut index = lock(&self.0.index);
            let held = index.trees.values().map(|tree| tree.bytes).sum::<u64>();
            if held.saturating_add(bytes) <= most {
                return Ok(());
            }
            // The index has one reference, and others are made only while it is locked.
            let idle = index.trees.iter();
            let idle = idle.filter(|(_, tree)| Arc::strong_count(tree) == 1);
            let oldest = idle.min_by_key(|(_, tree)| lock(&tree.state).used);
            let Some(hash) = oldest.map(|(hash, _)| *hash) else {
                return Err(format!(
                    "takes {} on a disk, and the other trees of this worker are in use, which take {} of {} (--tree-cache)",
                    show_bytes(bytes),
                    show_bytes(held),
                    show_bytes(most)
                ));
            };
            let tree = index.trees.remove(&hash);
            drop(index);
            if let Some(tree) = tree {
                tracing::info!(%hash, bytes = tree.bytes, "a tree was evicted");
                if let Err(error) = std::fs::remove_dir_all(&tree.folder) {
                    tracing::warn!(%error, folder = %tree.folder.display(), "a tree cannot be removed");
                }
            }
        }
    }
}

/// The folder of a tree that is being written, which is removed unless it is finished.
struct Arriving {
    folder: PathBuf,
    number: u64,
}

impl Arriving {
    fn new(cache: &Cache) -> Result<Self, Ending> {
        let number = {
            let mut index = lock(&cache.index);
            index.next += 1;
            index.next - 1
        };
        let folder = cache.folder.join(format!("{ARRIVING}{number}"));
        std::fs::create_dir(&folder).map_err(|error| failed(&error))?;
        Ok(Self { folder, number })
    }

    /// Gives the finished tree its name.
    fn arrived(mut self, hash: Hash, bytes: u64) -> io::Result<Tree> {
        let to = self
            .folder
            .with_file_name(format!("{hash}-{}-{bytes}", self.number));
        std::fs::rename(&self.folder, &to)?;
        self.folder = PathBuf::new();
        Ok(Tree::new(to, bytes, SystemTime::now()))
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if !self.folder.as_os_str().is_empty() {
            let folder = std::mem::take(&mut self.folder);
            std::thread::spawn(move || std::fs::remove_dir_all(folder));
        }
    }
}

/// The tree that an earlier process left in a folder; none if the folder holds no finished tree. Its content is
/// compared with its hashes before an attempt gets it.
fn left(folder: &Path) -> Option<(Hash, u64, Tree)> {
    let mut parts = folder.file_name()?.to_str()?.split('-');
    let hash = parts.next()?.parse().ok()?;
    let mut number = || parts.next()?.parse::<u64>().ok();
    let (number, bytes) = (number()?, number()?);
    let used = folder.join(MANIFEST).metadata().ok()?.modified().ok()?;
    Some((hash, number, Tree::new(folder.to_owned(), bytes, used)))
}

#[cfg(test)]
mod tests;
