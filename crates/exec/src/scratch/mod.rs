//! Scratch directories: attempts run in them, and outputs are collected from them.
//!
//! A slot has the folder `BASE/sN`, with `work`, in which the attempt starts, and `tmp`, its `TMPDIR`. Slots are reused:
//! when an attempt has ended its folders are emptied, and folders that it did not change are used as they are. Making and
//! removing a folder took 85 µs on ext4, checking that it is empty 2 µs. The sandbox's rules, which name the folders, are
//! also made only once for each slot.

mod collect;
mod remove;
mod renames;

pub use collect::{OUTPUTS_MAX, OutputFile, OutputPatterns};
pub(crate) use remove::remove_tree;
pub use renames::RenameWatch;

use crate::{ExecError, StreamKind, Tail};
use hedge_model::Ending;
use rustix::fs::{FlockOperation, Mode, OFlags, RawDir};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem::MaybeUninit;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const WORK: &str = "work";
pub(crate) const TMP: &str = "tmp";
pub(crate) const STDIN: &str = "stdin";

/// The most folders that wait for the thread that empties them. Beyond it, the caller that returns a folder empties it.
const CLEANING_MAX: usize = 16;
/// The most tries to empty a folder: processes of a spawner that was killed may exist for a moment.
const CLEANING_TRIES: u32 = 20;
/// The most tries to lock the folder, 10 ms apart.
const LOCK_TRIES: u32 = 20;
/// The most entries that are counted for a folder's size.
const SIZE_ENTRIES_MAX: usize = 200_000;

/// The mode of the folder that holds all slots: the user of a slot may enter it.
const BASE_MODE: u32 = 0o711;

/// The name of a slot's folder.
pub(crate) fn slot_name(slot: u32) -> String {
    format!("s{slot}")
}

/// Returns the path of the file for the part of a captured stream that is not kept in memory.
pub(crate) fn spill(folder: &Path, kind: StreamKind) -> PathBuf {
    folder.join(match kind {
        StreamKind::Stdout => "stdout",
        StreamKind::Stderr => "stderr",
    })
}

/// Creates scratch directories below one folder, which it locks.
#[derive(Clone)]
pub struct ScratchPool {
    keeper: Arc<Keeper>,
}

/// The folders of one attempt. Dropping it removes everything in them, as soon as no attempt runs there.
pub struct Scratch {
    lease: Arc<Lease>,
    /// The folder that was made last for an input.
    made: Option<PathBuf>,
}

/// Keeps a slot from being used again: held by the [`Scratch`] and by each attempt that runs in it.
pub(crate) struct Lease {
    slot: Option<Slot>,
    keeper: Arc<Keeper>,
    dirty: AtomicBool,
}

/// The content of an input.
pub enum Source<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// A file, which is copied because the attempt may write to its inputs.
    File(&'a Path),
    /// All that this reader returns.
    Reader(&'a mut dyn Read),
}

/// The pool, and the thread that empties folders. When the last scratch directory and the last handle are dropped, it
/// empties all folders and ends.
struct Keeper {
    pool: Arc<Pool>,
    dirty: Option<SyncSender<Slot>>,
    cleaner: Option<std::thread::JoinHandle<()>>,
}

struct Pool {
    base: PathBuf,
    free: Mutex<Free>,
    /// Holds the lock on the folder.
    _lock: File,
}

struct Free {
    slots: Vec<Slot>,
    next: u32,
    /// Slots that are being emptied.
    cleaning: usize,
}

struct Slot {
    number: u32,
    folder: PathBuf,
}

impl ScratchPool {
    /// Opens `base` for scratch directories, creates it if necessary, and removes what an earlier process left there. Fails
    /// if another worker uses it.
    pub fn open(base: impl Into<PathBuf>) -> Result<ScratchPool, ExecError> {
        let base: PathBuf = base.into();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(BASE_MODE)
            .create(&base)
            .map_err(|error| ExecError::io("make the folder", &base, error))?;
        let base = std::fs::canonicalize(&base)
            .map_err(|error| ExecError::io("find the folder", &base, error))?;
        // Tasks of an earlier version could remove its owner's rights.
        std::fs::set_permissions(&base, PermissionsExt::from_mode(BASE_MODE))
            .map_err(|error| ExecError::io("open up the folder", &base, error))?;
        let lock =
            File::open(&base).map_err(|error| ExecError::io("open the folder", &base, error))?;
        take_lock(&lock, &base)?;
        remove_left_overs(&base)?;
        // The first slot exists from the beginning, because its spawner is started then.
        let free = Mutex::new(Free {
            slots: vec![Slot::make(&base, 0)?],
            next: 1,
            cleaning: 0,
        });
        let pool = Arc::new(Pool {
            base,
            free,
            _lock: lock,
        });
        let (dirty, waiting) = sync_channel(CLEANING_MAX);
        let cleaned = pool.clone();
        let cleaner = std::thread::Builder::new()
            .name("scratch".to_owned())
            .spawn(move || clean_all(&cleaned, &waiting))
            .map_err(|error| ExecError::io("start a thread to empty", &pool.base, error))?;
        let keeper = Keeper {
            pool,
            dirty: Some(dirty),
            cleaner: Some(cleaner),
        };
        Ok(ScratchPool {
            keeper: Arc::new(keeper),
        })
    }

    /// Returns the folder that holds the scratch directories; for [`crate::SpawnerConfig::scratch`].
    pub fn base(&self) -> &Path {
        &self.keeper.pool.base
    }

    /// Returns an empty scratch directory for one attempt. Takes a few microseconds if a slot can be reused.
    pub fn create(&self) -> Result<Scratch, ExecError> {
        let (free, number) = {
            let mut free = self.keeper.pool.lock();
            let slot = free.slots.pop();
            let number = free.next;
            free.next += u32::from(slot.is_none());
            (slot, number)
        };
        let slot = match free {
            Some(slot) => slot,
            None => Slot::make(&self.keeper.pool.base, number)?,
        };
        let (keeper, dirty) = (self.keeper.clone(), AtomicBool::new(false));
        let slot = Some(slot);
        Ok(Scratch {
            lease: Arc::new(Lease {
                slot,
                keeper,
                dirty,
            }),
            made: None,
        })
    }

    /// Returns how many folders are still being emptied.
    pub fn cleaning(&self) -> usize {
        self.keeper.pool.lock().cleaning
    }
}

impl Scratch {
    /// Returns the folder in which the attempt starts.
    pub fn folder(&self) -> PathBuf {
        self.inner().folder.join(WORK)
    }

    /// Returns the number of the slot, by which the spawner finds the folder.
    pub(crate) fn slot(&self) -> u32 {
        self.inner().number
    }

    pub(crate) fn lease(&self) -> Arc<Lease> {
        self.lease.clone()
    }

    /// Returns whether an input was put into the folders.
    pub(crate) fn is_filled(&self) -> bool {
        self.lease.dirty.load(Ordering::Relaxed)
    }

    /// Returns all folders that the attempt can write to.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        vec![
            self.inner().folder.join(WORK),
            self.inner().folder.join(TMP),
        ]
    }

    /// Creates the folders above `path`, which is relative to the folder. Returns the absolute path, at which the caller may
    /// write the file.
    pub fn make_room(&mut self, path: &str) -> Result<PathBuf, ExecError> {
        check_path(path)?;
        self.lease.dirty.store(true, Ordering::Relaxed);
        let at = self.folder().join(path);
        if let Some(parent) = at.parent()
            && self.made.as_deref() != Some(parent)
        {
            std::fs::create_dir_all(parent).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                    ExecError::AlreadyThere {
                        path: path.to_owned(),
                    }
                }
                _ => ExecError::io("make the folder", parent, error),
            })?;
            self.made = Some(parent.to_owned());
        }
        Ok(at)
    }

    /// Writes an input to `path`, relative to the folder, and creates the folders above it. On an error no part of the file
    /// stays.
    pub fn place(
        &mut self,
        path: &str,
        executable: bool,
        source: Source<'_>,
    ) -> Result<(), ExecError> {
        let at = self.make_room(path)?;
        write(&at, if executable { 0o755 } else { 0o644 }, source).map_err(|error| match error {
            ExecError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                ExecError::AlreadyThere {
                    path: path.to_owned(),
                }
            }
            other => other,
        })
    }

    /// Writes the content of the attempt's standard input, see [`crate::Stdin::Placed`].
    pub fn place_stdin(&mut self, source: Source<'_>) -> Result<(), ExecError> {
        write(&self.stdin_path(), 0o600, source)
    }

    /// Returns the path at which the caller may write the standard input.
    pub fn stdin_path(&mut self) -> PathBuf {
        self.lease.dirty.store(true, Ordering::Relaxed);
        self.inner().folder.join(STDIN)
    }

    /// Finds the declared outputs: names of files, names of folders (with everything in them), or patterns with `*`, `?`,
    /// `[…]`, `{…,…}` and `**`. A link counts as the file that it leads to, if that is in the folder. Each file is returned
    /// once, sorted by path.
    ///
    /// Fails at a pattern that matches nothing, at a folder without files unless the pattern ends in a slash, at
    /// files that cannot be read, at links that leave the folder or lead to a folder, at special files, and at more
    /// than [`OUTPUTS_MAX`] files. To be called when the attempt has ended.
    ///
    /// # Errors
    /// How the attempt ended instead of successfully.
    pub fn collect<P: AsRef<str>>(&self, patterns: &[P]) -> Result<Vec<OutputFile>, Ending> {
        let patterns: Vec<&str> = patterns.iter().map(AsRef::as_ref).collect();
        collect::collect(&self.folder(), &patterns)
    }

    /// Returns the file with the kept part of a captured stream, if that is more than its tail. To be called when the
    /// attempt has ended. Blocks.
    pub fn spilled(&self, kind: StreamKind, tail: &Tail) -> io::Result<Option<File>> {
        let Some(kept) = tail.spilled else {
            return Ok(None);
        };
        self.lease.dirty.store(true, Ordering::Relaxed);
        let path = spill(&self.inner().folder, kind);
        let mut file = File::options()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)?;
        let about = file.metadata()?;
        if !about.is_file() || about.len() != kept {
            return Err(io::Error::other("what was kept of its output was changed"));
        }
        if tail.total == kept {
            return Ok(Some(file));
        }
        // The file is a ring: its oldest byte is not the first.
        let path = path.with_extension("ordered");
        let mut ordered = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.seek(SeekFrom::Start(tail.total % kept))?;
        io::copy(&mut file, &mut ordered)?;
        file.rewind()?;
        io::copy(&mut file.take(tail.total % kept), &mut ordered)?;
        Ok(Some(ordered))
    }

    fn inner(&self) -> &Slot {
        match &self.lease.slot {
            Some(slot) => slot,
            None => unreachable!("the slot is taken at drop only"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let pool = &self.keeper.pool;
        if !*self.dirty.get_mut() && slot.is_clean() {
            pool.lock().slots.push(slot);
            return;
        }
        pool.lock().cleaning += 1;
        let Some(dirty) = &self.keeper.dirty else {
            return clean(pool, slot);
        };
        if let Err(refused) = dirty.try_send(slot) {
            let (TrySendError::Full(slot) | TrySendError::Disconnected(slot)) = refused;
            clean(pool, slot);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.dirty = None;
        if let Some(cleaner) = self.cleaner.take() {
            let _ = cleaner.join();
        }
    }
}

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slot {
    fn make(base: &Path, number: u32) -> Result<Slot, ExecError> {
        let folder = base.join(slot_name(number));
        let failed = |error: io::Error| {
            let _ = remove::remove_tree(&folder);
            ExecError::io("make the scratch folder", &folder, error)
        };
        for path in [folder.clone(), folder.join(WORK), folder.join(TMP)] {
            std::fs::DirBuilder::new()
                .mode(0o700)
                .create(path)
                .map_err(failed)?;
        }
        Ok(Slot { number, folder })
    }

    /// Returns whether the folders are as when they were created.
    fn is_clean(&self) -> bool {
        holds(&self.folder, 2)
            && holds(&self.folder.join(WORK), 0)
            && holds(&self.folder.join(TMP), 0)
    }

    /// Restores the folders to the state in which they were created.
    fn clean(&self) -> io::Result<()> {
        remove::open_up(&self.folder)?;
        for entry in std::fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.ends_with(WORK) || path.ends_with(TMP) {
                remove::open_up(&path)?;
                for entry in std::fs::read_dir(&path)? {
                    remove::remove_tree(&entry?.path())?;
                }
            } else {
                remove::remove_tree(&path)?;
            }
        }
        if self.is_clean() {
            Ok(())
        } else {
            Err(io::ErrorKind::DirectoryNotEmpty.into())
        }
    }
}

/// Returns whether a folder has its first mode and exactly `count` entries.
pub(crate) fn holds(folder: &Path, count: usize) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(folder) = rustix::fs::open(folder, flags, Mode::empty()) else {
        return false;
    };
    if !rustix::fs::fstat(&folder).is_ok_and(|about| about.st_mode & 0o7777 == 0o700) {
        return false;
    }
    let mut buffer = [MaybeUninit::uninit(); 1024];
    let mut entries = RawDir::new(&folder, &mut buffer);
    let mut seen = 0;
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else { return false };
        let name = entry.file_name().to_bytes();
        seen += usize::from(name != b"." && name != b"..");
        if seen > count {
            return false;
        }
    }
    seen == count
}

/// Locks the folder. Tries more than once, because a process that is just being started may hold the lock of the last
/// owner until it executes its program.
fn take_lock(lock: &File, base: &Path) -> Result<(), ExecError> {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(()),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            Err(error) => return Err(ExecError::io("lock the folder", base, error.into())),
        }
    }
    Err(ExecError::ScratchInUse {
        folder: base.to_owned(),
    })
}

fn clean_all(pool: &Pool, dirty: &Receiver<Slot>) {
    while let Ok(slot) = dirty.recv() {
        clean(pool, slot);
    }
}

/// Empties a slot and frees it. This process does not reuse a slot that cannot be emptied.
fn clean(pool: &Pool, slot: Slot) {
    let mut result = slot.clean();
    for _ in 0..CLEANING_TRIES {
        if result.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
        result = slot.clean();
    }
    let mut free = pool.lock();
    free.cleaning -= 1;
    match result {
        Ok(()) => free.slots.push(slot),
        Err(error) => {
            tracing::warn!(folder = ?slot.folder, %error, "cannot empty a scratch folder; it is left until the worker starts again");
        }
    }
}

fn remove_left_overs(base: &Path) -> Result<(), ExecError> {
    let failed = |error| ExecError::io("read the folder", base, error);
    for entry in std::fs::read_dir(base).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix('s'));
        if number.is_some_and(|number| number.parse::<u32>().is_ok()) {
            let path = entry.path();
            let mut result = remove::remove_tree(&path);
            for _ in 0..CLEANING_TRIES {
                if result.is_ok() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(5));
                result = remove::remove_tree(&path);
            }
            result.map_err(|error| ExecError::io("remove the left-over folder", &path, error))?;
        }
    }
    Ok(())
}

/// Returns the bytes of disk that the files in these folders use. Does not follow links.
pub(crate) fn space_used(folders: &[PathBuf]) -> u64 {
    let mut waiting: Vec<PathBuf> = folders.to_vec();
    let (mut used, mut seen) = (0, 0);
    while let Some(folder) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > SIZE_ENTRIES_MAX {
                return used;
            }
            let Ok(about) = entry.metadata() else {
                continue;
            };
            if about.is_dir() {
                waiting.push(entry.path());
            }
            used += about.blocks() * 512;
        }
    }
    used
}

fn check_path(path: &str) -> Result<(), ExecError> {
    path_fault(path).map_err(|why| ExecError::BadPath {
        path: path.to_owned(),
        why,
    })
}

/// Returns what is wrong with a path that must lie in an attempt's folder.
fn path_fault(path: &str) -> Result<(), &'static str> {
    if path.is_empty() {
        return Err("is empty");
    }
    if path.contains('\0') {
        return Err("holds a NUL");
    }
    for part in Path::new(path).components() {
        match part {
            Component::Normal(_) | Component::CurDir => {}
            Component::ParentDir => return Err("holds `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("is absolute"),
        }
    }
    Ok(())
}

/// Writes a new file, and removes it on an error.
fn write(at: &Path, mode: u32, source: Source<'_>) -> Result<(), ExecError> {
    let failed = |error| ExecError::io("write", at, error);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(at)
        .map_err(failed)?;
    let written = match source {
        Source::Bytes(bytes) => file.write_all(bytes).map(|()| 0),
        Source::File(path) => {
            let mut from = File::open(path).map_err(|error| ExecError::io("read", path, error));
            match &mut from {
                Ok(from) => io::copy(from, &mut file),
                Err(_) => {
                    let _ = std::fs::remove_file(at);
                    return from.map(drop);
                }
            }
        }
        Source::Reader(reader) => io::copy(reader, &mut file),
    };
    if let Err(error) = written {
        let _ = std::fs::remove_file(at);
        return Err(failed(error));
    }
    Ok(())
}
