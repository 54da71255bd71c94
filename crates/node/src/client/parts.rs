//! Files on their way to their place: written under a temporary name beside it, and renamed once they are whole.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// How the names of unfinished files begin.
const PREFIX: &str = ".hedge-part-";
/// Files that are flushed one by one: of more, all have to wait for the disk.
const FLUSHED_ONE_BY_ONE_MAX: usize = 8;
/// Tries to make a part: another process that cleans up may take a new one for a leftover.
const TRIES: u32 = 5;

/// A file that is not whole yet. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Part {
    /// Locked for as long as the process lives: one that can be locked is a leftover.
    file: NamedTempFile,
    place: PathBuf,
}

/// The folders that parts were made in.
#[derive(Debug, Default)]
pub(super) struct Folders(HashSet<PathBuf>);

impl Folders {
    /// A part of the file that is to be at `place`, in a folder that is made where it is missing. The first part in a
    /// folder removes what killed processes left there.
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
            // Some file systems know no locks; there, leftovers stay.
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
    /// Fails at once where the disk has no room for so many bytes.
    pub fn check_room(&self, bytes: u64) -> io::Result<()> {
        // Where the system does not say, writing will.
        let Ok(disk) = rustix::fs::fstatvfs(self.file.as_file()) else {
            return Ok(());
        };
        match disk.f_bavail.saturating_mul(disk.f_frsize) >= bytes {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }
}

/// Makes parts durable and gives them their names, where each replaces a file of that name; says of each where it is,
/// or why not.
pub(super) async fn finish<T>(parts: Vec<(T, Part)>) -> Vec<(T, io::Result<PathBuf>)> {
    let files: Vec<io::Result<File>> = parts
        .iter()
        .map(|(_, part)| part.file.as_file().try_clone())
        .collect();
    let synced = blocking(move || sync(files)).await;
    let mut folders = HashSet::new();
    let mut finished = Vec::with_capacity(parts.len());
    // Renamed here, and not on a thread that the end of the process would cut short.
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
        // A name that is lost with the power is brought again.
        let sync = |folder: PathBuf| File::open(folder).and_then(|folder| folder.sync_all());
        folders.into_iter().for_each(|folder| _ = sync(folder));
    })
    .await;
    finished
}

/// Makes files durable. One flush of a whole file system serves many.
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

/// Removes the parts that killed processes left in a folder.
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
