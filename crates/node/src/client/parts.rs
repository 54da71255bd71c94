//! Writes files atomically: under a temporary name in the same directory, and renamed once they are complete.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// The prefix of the names of incomplete files.
const PREFIX: &str = ".hedge-part-";
/// Up to this many files are synced one by one; for more, one sync of the file system is cheaper.
const FLUSHED_ONE_BY_ONE_MAX: usize = 8;
/// How often to try to create a part. Another process that cleans up may take a new one for a leftover.
const TRIES: u32 = 5;

/// An incomplete file. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Part {
    /// Locked while the process lives. A part that can be locked is a leftover.
    file: NamedTempFile,
    place: PathBuf,
}

/// The directories in which parts were created.
#[derive(Debug, Default)]
pub(super) struct Folders(HashSet<PathBuf>);

impl Folders {
    /// Creates a part of the file at `place`, and the directory if it is missing. The first part in a directory
    /// removes leftovers of killed processes there.
    pub fn part(&mut self, place: &Path, executable: bool) -> io::Result<Part> {
        let folder = place.parent().unwrap_or(Path::new("."));
        if self.0.insert(folder.to_owned()) {
            std::fs::create_dir_all(folder)?;
            sweep(folder);
        }
        for _ in 0..TRIES {
            let mode = if executable { 0o777 } else { 0o666 };
            let file = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(Permissions::from_mode(mode))
                .tempfile_in(folder)?;
            // Some file systems do not support locks. Leftovers stay there.
            _ = file.as_file().try_lock();
            if file.as_file().metadata()?.nlink() > 0 {
                let place = place.to_owned();
                return Ok(Part { file, place });
            }
        }
        Err(io::Error::other("another process removes new files there"))
    }
}

impl Write for Part {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Part {
    /// Fails at once if the disk has too little space for this many bytes.
    pub fn check_room(&self, bytes: u64) -> io::Result<()> {
        // If the system does not tell, writing will fail.
        let Ok(disk) = rustix::fs::fstatvfs(self.file.as_file()) else {
            return Ok(());
        };
        match disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// Syncs parts and renames them to their final names, replacing files of these names. Returns for each its path or
/// the error.
pub(super) async fn finish<T>(parts: Vec<(T, Part)>) -> Vec<(T, io::Result<PathBuf>)> {
    let files: Vec<io::Result<File>> = parts
        .iter()
        .map(|(_, part)| part.file.as_file().try_clone())
        .collect();
    let synced = blocking(move || sync(files)).await;
    let mut folders = HashSet::new();
    let mut finished = Vec::with_capacity(parts.len());
    // Rename here, not on a thread that is cut short when the process ends.
    for ((what, part), synced) in parts.into_iter().zip(synced) {
        let Part { file, place } = part;
        let named = synced.and_then(|()| match file.persist(&place) {
            Ok(_) => Ok(place.clone()),
            Err(error) => Err(error.error),
        });
        folders.extend(place.parent().map(Path::to_owned));
        finished.push((what, named));
    }
    blocking(move || {
        // A name that is lost in a power failure is fetched again.
        let sync = |folder: PathBuf| File::open(folder).and_then(|folder| folder.sync_all());
        folders.into_iter().for_each(|folder| _ = sync(folder));
    })
    .await;
    finished
}

/// Syncs files. If there are many, one sync of their file system replaces one for each file.
fn sync(files: Vec<io::Result<File>>) -> Vec<io::Result<()>> {
    let many = files.len() > FLUSHED_ONE_BY_ONE_MAX;
    let mut flushed = HashSet::new();
    let mut one = |file: File| match many {
        true if !flushed.insert(file.metadata()?.dev()) => Ok(()),
        true => rustix::fs::syncfs(&file).map_err(io::Error::from),
        false => file.sync_all(),
    };
    files
        .into_iter()
        .map(|file| file.and_then(&mut one))
        .collect()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Removes the parts that killed processes left in a directory.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let part = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(entry.path());
        if let Ok(part) = part
            && part.metadata().is_ok_and(|about| about.is_file())
            && part.try_lock().is_ok()
        {
            _ = std::fs::remove_file(entry.path());
        }
    }
}
