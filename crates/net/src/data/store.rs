//! Content kept on disk under its hash.
//!
//! Everything added or fetched is held, over restarts too, until it is forgotten; its bytes are then freed
//! by the next collection. A blob is protected by a tag of ours from before it is complete until it is
//! forgotten, because the collector may otherwise sweep it between two protections of its own.

use crate::NetError;
use bytes::Bytes;
use futures_util::StreamExt;
use hedge_model::Hash;
use hedge_model::units::show_bytes;
use iroh_blobs::HashAndFormat;
use iroh_blobs::api::TempTag;
use iroh_blobs::api::blobs::{
    AddPathOptions, AddProgress, BlobStatus, ExportMode, ExportOptions, ImportMode,
};
use iroh_blobs::api::proto::ExportRangesItem;
use iroh_blobs::protocol::ChunkRanges;
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::store::fs::options::Options;
use iroh_blobs::store::{GcConfig, ProtectOutcome};
use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often forgotten content is removed, at least, while there is room on the disk.
const COLLECT_INTERVAL: Duration = Duration::from_secs(120);
/// How often it is looked whether that is due; also how long after opening it is the first time. A process that
/// never lives as long as the interval would else fill the disk with what it forgot.
const COLLECT_LOOK: Duration = Duration::from_secs(5);
/// What was added this long ago survives a kill; see [`DataStore::flush`].
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
const MEND_TRIES_MAX: u32 = 20;
const MEND_WAIT: Duration = Duration::from_millis(50);
/// Room on the disk that added content leaves free: what the store keeps records in stops for good without.
const ROOM_KEPT_BYTES: u64 = 4 << 20;
const TAG_PREFIX: &str = "held/";

/// Content kept on disk under its hash; cheap to clone. One process at a time may open a folder.
#[derive(Clone, Debug)]
pub struct DataStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    files: FsStore,
    /// Something was not added for want of room: what was forgotten is to be removed soon.
    short: Arc<AtomicBool>,
    held: Arc<Mutex<HashMap<Hash, Held>>>,
    /// Orders changes of tags, so that holding and forgetting one hash do not cross.
    tagging: tokio::sync::Mutex<()>,
    /// Flushes asked for, and how many of them are done: whoever waits for one shares it with all who came before
    /// it began.
    flushes_asked: AtomicU64,
    flushes_done: tokio::sync::Mutex<u64>,
    /// Hashes whose bytes on disk turned out to be wrong; only adding them again mends that.
    damaged: Mutex<HashSet<Hash>>,
}

#[derive(Debug)]
struct Held {
    size: u64,
    _pin: Option<TempTag>,
}

impl DataStore {
    /// Opens the folder, makes it where it is missing, and finds what is held in it.
    pub async fn open(dir: &Path) -> Result<DataStore, NetError> {
        let failed = |why: String| NetError::Store {
            what: "open",
            dir: dir.to_owned(),
            why,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(|error| failed(error.to_string()))?;
        let dir = std::path::absolute(dir).map_err(|error| failed(error.to_string()))?;
        let held: Arc<Mutex<HashMap<Hash, Held>>> = Arc::default();
        let mut options = Options::new(&dir);
        options.batch.max_write_duration = COMMIT_INTERVAL;
        let short = Arc::<AtomicBool>::default();
        options.gc = Some(collector(held.clone(), short.clone()));
        let files = FsStore::load_with_opts(dir.join("blobs.db"), options)
            .await
            .map_err(|error| failed(format!("{error:#}")))?;
        let store = DataStore(Arc::new(Inner {
            dir,
            files,
            short,
            held,
            tagging: tokio::sync::Mutex::default(),
            flushes_asked: AtomicU64::new(0),
            flushes_done: tokio::sync::Mutex::default(),
            damaged: Mutex::default(),
        }));
        store.find_held().await?;
        Ok(store)
    }

    /// Keeps these bytes.
    pub async fn add_bytes(&self, bytes: impl Into<Bytes>) -> Result<Hash, NetError> {
        let bytes = bytes.into();
        let size = bytes.len() as u64;
        self.check_room(size)
            .map_err(|why| self.failed("add to", why))?;
        let added = self.0.files.blobs().add_bytes(bytes);
        let pin = added
            .temp_tag()
            .await
            .map_err(|error| self.failed("add to", error))?;
        self.hold(pin, size).await
    }

    /// Keeps a copy of a file; returns its hash and length.
    pub async fn add_file(&self, path: &Path) -> Result<(Hash, u64), NetError> {
        self.add_path(path, ImportMode::Copy).await
    }

    /// Keeps a file where it lies, without a copy. A later change of the file damages the content,
    /// which is noticed whenever it is read or served.
    pub async fn add_file_by_reference(&self, path: &Path) -> Result<(Hash, u64), NetError> {
        self.add_path(path, ImportMode::TryReference).await
    }

    /// Whether the whole content is held.
    pub fn has(&self, hash: Hash) -> bool {
        self.size(hash).is_some()
    }

    /// Length in bytes of content that is held.
    pub fn size(&self, hash: Hash) -> Option<u64> {
        self.held().get(&hash).map(|held| held.size)
    }

    /// Everything held, with lengths in bytes, in no particular order.
    pub fn list(&self) -> Vec<(Hash, u64)> {
        self.held()
            .iter()
            .map(|(hash, held)| (*hash, held.size))
            .collect()
    }

    /// Length of everything held, in bytes.
    pub fn bytes_held(&self) -> u64 {
        self.held().values().map(|held| held.size).sum()
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
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.0.files.blobs().get_bytes(theirs(hash)).await {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(self.damaged(hash, error).await),
        }
    }

    /// Writes the content to `sink`, verified. The inner result is the sink's, which may have got a part; the outer one
    /// is this store's.
    pub async fn copy(
        &self,
        hash: Hash,
        sink: &mut (impl Write + Send),
    ) -> Result<io::Result<()>, NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        if size == 0 {
            return Ok(Ok(()));
        }
        let mut hasher = blake3::Hasher::new();
        let pieces = self.0.files.blobs().export_ranges(theirs(hash), 0..size);
        let mut pieces = std::pin::pin!(pieces.stream());
        while let Some(piece) = pieces.next().await {
            match piece {
                ExportRangesItem::Size(_) => {}
                ExportRangesItem::Data(leaf) => {
                    hasher.update(&leaf.data);
                    if let Err(error) = sink.write_all(&leaf.data) {
                        return Ok(Err(error));
                    }
                }
                ExportRangesItem::Error(error) => return Err(self.damaged(hash, error).await),
            }
        }
        match hasher.finalize().as_bytes() == &hash.0 {
            true => Ok(Ok(())),
            false => {
                let why = "what was read has another hash";
                Err(self.damaged(hash, why).await)
            }
        }
    }

    /// Moves the content to a new file where that can be done, else copies it; for a store that is about to end, on a
    /// disk that may have no room for a second copy.
    pub async fn move_out(
        &self,
        hash: Hash,
        target: &Path,
        executable: bool,
    ) -> Result<(), NetError> {
        let target = std::path::absolute(target).map_err(|e| file_error("write", target, e))?;
        let failed = |why: String| file_error("write", &target, why);
        if self.size(hash) == Some(0) {
            File::create_new(&target).map_err(|error| failed(error.to_string()))?;
        } else {
            let options = ExportOptions {
                hash: theirs(hash),
                mode: ExportMode::TryReference,
                target: target.clone(),
            };
            let moved = self.0.files.blobs().export_with_opts(options).await;
            moved.map_err(|error| failed(format!("{error:#}")))?;
        }
        set_executable(&target, executable).map_err(|error| failed(error.to_string()))
    }

    /// Writes the content to a new file, verified; who may read and execute it is up to the umask. It is a copy (or a
    /// clone where the file system can do that), so that changing the file changes nothing here.
    ///
    /// A file that exists already is an error and stays as it is.
    pub async fn export(
        &self,
        hash: Hash,
        target: &Path,
        executable: bool,
    ) -> Result<(), NetError> {
        let size = self.size(hash).ok_or(NetError::NotHeld(hash))?;
        let target = std::path::absolute(target).map_err(|e| file_error("write", target, e))?;
        if fs::symlink_metadata(&target).is_ok() {
            return Err(file_error("write", &target, "there is a file already"));
        }
        if size == 0 {
            fs::write(&target, b"").map_err(|error| file_error("write", &target, error))?;
        } else {
            let copied = self.0.files.blobs().export(theirs(hash), &target).await;
            copied.map_err(|error| file_error("write", &target, format!("{error:#}")))?;
        }
        let path = target.clone();
        let check = move || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&path)?)?;
            set_executable(&path, executable)?;
            Ok(Hash(*hasher.finalize().as_bytes()))
        };
        let checked: std::io::Result<Hash> = tokio::task::spawn_blocking(check)
            .await
            .unwrap_or_else(|e| Err(e.into()));
        match checked {
            Ok(found) if found == hash => Ok(()),
            Ok(_) => {
                _ = fs::remove_file(&target);
                Err(self
                    .damaged(hash, "the exported file has another hash")
                    .await)
            }
            Err(error) => Err(file_error("write", &target, error)),
        }
    }

    /// Gives content up: it is no longer listed, read or served from this call on, and its bytes are freed within
    /// minutes of the future's end. What is added again meanwhile stays.
    pub fn forget(
        &self,
        hashes: impl IntoIterator<Item = Hash>,
    ) -> impl Future<Output = Result<(), NetError>> + Send + 'static {
        let hashes: Vec<Hash> = hashes.into_iter().collect();
        // At once: whoever needs it again from here on has to add it again.
        let mut held = self.held();
        hashes.iter().for_each(|hash| drop(held.remove(hash)));
        drop(held);
        let store = self.clone();
        async move {
            for hash in hashes {
                let _tagging = store.0.tagging.lock().await;
                if store.has(hash) {
                    continue;
                }
                let deleted = store.0.files.tags().delete(tag(hash)).await;
                deleted.map_err(|error| store.failed("forget part of", error))?;
            }
            Ok(())
        }
    }

    /// Makes what was added and forgotten so far survive a kill of the process. Without it that takes
    /// up to 100 ms.
    pub async fn flush(&self) -> Result<(), NetError> {
        let mine = self.0.flushes_asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut done = self.0.flushes_done.lock().await;
        if *done >= mine {
            return Ok(());
        }
        let upto = self.0.flushes_asked.load(Ordering::SeqCst);
        let flushed = self.0.files.sync_db().await;
        flushed.map_err(|error| self.failed("write", error))?;
        *done = upto;
        Ok(())
    }

    /// Makes content that was added survive a loss of power, too.
    pub async fn flush_content(&self, hash: Hash) -> Result<(), NetError> {
        let folder = self.0.dir.join("data");
        let written = tokio::task::spawn_blocking(move || {
            match File::open(folder.join(format!("{hash}.data"))) {
                Ok(file) => file
                    .sync_all()
                    .and_then(|()| File::open(&folder)?.sync_all()),
                // Short content lies in the database, which the flush below writes.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                Err(error) => Err(error),
            }
        });
        let written = written.await.unwrap_or_else(|error| Err(error.into()));
        written.map_err(|error| self.failed("write", error))?;
        self.flush().await
    }

    /// Writes everything to disk and closes the folder, so that another process may open it.
    pub async fn close(&self) -> Result<(), NetError> {
        self.0
            .files
            .shutdown()
            .await
            .map_err(|error| self.failed("close", error))
    }

    /// Fails where the store works no more, as after a full disk, until it is opened again.
    pub async fn check(&self) -> Result<(), NetError> {
        self.flush().await
    }

    /// Whether the disk has room for so many bytes more; a sentence where it has not.
    pub(super) fn check_room(&self, bytes: u64) -> Result<(), String> {
        // Where the system does not say, adding will.
        let Ok(disk) = rustix::fs::statvfs(&self.0.dir) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        if free >= bytes.saturating_add(ROOM_KEPT_BYTES) {
            return Ok(());
        }
        self.0.short.store(true, Ordering::Relaxed);
        Err(format!(
            "no space left on the disk: {} are to be added, and {} are free, of which {} stay free",
            show_bytes(bytes),
            show_bytes(free),
            show_bytes(ROOM_KEPT_BYTES)
        ))
    }

    pub(super) fn files(&self) -> &FsStore {
        &self.0.files
    }

    /// Protects content that is about to arrive.
    pub(super) async fn pin(&self, hash: Hash) -> Result<TempTag, NetError> {
        let pin = self
            .0
            .files
            .tags()
            .temp_tag(HashAndFormat::raw(theirs(hash)))
            .await;
        pin.map_err(|error| self.failed("add to", error))
    }

    /// Holds content that has just become complete.
    pub(super) async fn hold(&self, pin: TempTag, size: u64) -> Result<Hash, NetError> {
        let hash = ours(pin.hash());
        let _tagging = self.0.tagging.lock().await;
        let set = self
            .0
            .files
            .tags()
            .set(tag(hash), HashAndFormat::raw(pin.hash()))
            .await;
        set.map_err(|error| self.failed("add to", error))?;
        if self.is_damaged(hash) {
            self.wait_mended(hash).await?;
        }
        self.held().insert(
            hash,
            Held {
                size,
                _pin: Some(pin),
            },
        );
        Ok(hash)
    }

    /// Adding damaged content again replaces its file, but the old file stays open for a moment.
    async fn wait_mended(&self, hash: Hash) -> Result<(), NetError> {
        for _ in 0..MEND_TRIES_MAX {
            let encoded = self
                .0
                .files
                .blobs()
                .export_bao(theirs(hash), ChunkRanges::all());
            let mut pieces = std::pin::pin!(encoded.into_byte_stream());
            let mut sound = true;
            while let Some(piece) = pieces.next().await {
                sound &= piece.is_ok();
            }
            if sound {
                self.0
                    .damaged
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&hash);
                return Ok(());
            }
            tokio::time::sleep(MEND_WAIT).await;
        }
        Err(NetError::Damaged(hash))
    }

    /// Gives up content whose bytes are wrong.
    pub(super) async fn damaged(&self, hash: Hash, error: impl Display) -> NetError {
        tracing::warn!(%hash, %error, "content on disk is damaged and is given up");
        self.0
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(hash);
        match self.forget([hash]).await {
            Ok(()) => NetError::Damaged(hash),
            Err(error) => error,
        }
    }

    /// Whether wrong bytes lie under this hash, which a fetch cannot overwrite.
    pub(super) fn is_damaged(&self, hash: Hash) -> bool {
        self.0
            .damaged
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains(&hash)
    }

    async fn add_path(&self, path: &Path, mode: ImportMode) -> Result<(Hash, u64), NetError> {
        let what = "take in";
        let absolute = std::path::absolute(path).map_err(|error| file_error(what, path, error))?;
        // Checked here because the store's own answer does not tell a missing file from a folder.
        let kind = fs::metadata(&absolute).map_err(|error| file_error(what, path, error))?;
        if !kind.is_file() {
            return Err(file_error(what, path, "it is not a file"));
        }
        let copied = if matches!(mode, ImportMode::Copy) {
            kind.len()
        } else {
            0
        };
        self.check_room(copied)
            .map_err(|why| file_error(what, path, why))?;
        let format = iroh_blobs::BlobFormat::Raw;
        let options = AddPathOptions {
            path: absolute,
            format,
            mode,
        };
        let added: AddProgress<'_> = self.0.files.blobs().add_path_with_opts(options);
        let pin = added.temp_tag().await;
        let pin = pin.map_err(|error| file_error(what, path, format!("{error:#}")))?;
        // What was hashed is the copy; the file itself may have grown since.
        let size = match self.0.files.blobs().status(pin.hash()).await {
            Ok(BlobStatus::Complete { size }) => size,
            other => return Err(file_error(what, path, format!("it came to {other:?}"))),
        };
        Ok((self.hold(pin, size).await?, size))
    }

    async fn find_held(&self) -> Result<(), NetError> {
        let failed = |error: String| self.failed("list", error);
        let tags = self.0.files.tags().list_prefix(TAG_PREFIX).await;
        let mut tags = std::pin::pin!(tags.map_err(|error| failed(error.to_string()))?);
        while let Some(tag) = tags.next().await {
            let hash = tag.map_err(|error| failed(error.to_string()))?.hash;
            let status = self.0.files.blobs().status(hash).await;
            if let BlobStatus::Complete { size } = status.map_err(|e| failed(e.to_string()))? {
                self.held().insert(ours(hash), Held { size, _pin: None });
            }
        }
        Ok(())
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self, what: &'static str, error: impl Display) -> NetError {
        NetError::Store {
            what,
            dir: self.0.dir.clone(),
            why: format!("{error:#}"),
        }
    }
}

pub(super) fn theirs(hash: Hash) -> iroh_blobs::Hash {
    iroh_blobs::Hash::from_bytes(hash.0)
}

fn ours(hash: iroh_blobs::Hash) -> Hash {
    Hash(*hash.as_bytes())
}

fn tag(hash: Hash) -> String {
    format!("{TAG_PREFIX}{hash}")
}

fn collector(held: Arc<Mutex<HashMap<Hash, Held>>>, short: Arc<AtomicBool>) -> GcConfig {
    let last = Mutex::new(None::<Instant>);
    GcConfig {
        interval: COLLECT_LOOK,
        add_protected: Some(Arc::new(move |live| {
            let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
            let due = last.is_none_or(|at| at.elapsed() >= COLLECT_INTERVAL);
            if !short.swap(false, Ordering::Relaxed) && !due {
                return Box::pin(std::future::ready(ProtectOutcome::Abort));
            }
            *last = Some(Instant::now());
            let held = held.lock().unwrap_or_else(PoisonError::into_inner);
            live.extend(held.keys().map(|hash| theirs(*hash)));
            Box::pin(std::future::ready(ProtectOutcome::Continue))
        })),
    }
}

/// Lets those execute a file who may read it, or nobody.
fn set_executable(path: &Path, executable: bool) -> io::Result<()> {
    let readable = fs::metadata(path)?.permissions().mode() & 0o666;
    let mode = match executable {
        true => readable | (readable & 0o444) >> 2,
        false => readable,
    };
    fs::set_permissions(path, Permissions::from_mode(mode))
}

fn file_error(what: &'static str, path: &Path, why: impl Display) -> NetError {
    NetError::File {
        what,
        path: path.to_owned(),
        why: why.to_string(),
    }
}
