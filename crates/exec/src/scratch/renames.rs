//! Watches for files that an attempt renames into place while it runs: only such files are known to be complete.

use super::{Scratch, check_path};
use crate::ExecError;
use rustix::fs::{Mode, OFlags, ResolveFlags, inotify};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use tokio::io::unix::AsyncFd;

/// Enough for some events with the longest names.
const EVENT_BYTES: usize = 16 << 10;

/// Watches some files of a scratch directory for renames.
#[derive(Debug)]
pub struct RenameWatch {
    events: AsyncFd<OwnedFd>,
    folder: PathBuf,
    /// For the watch of a folder and a name in it, the position of the file in the list.
    files: BTreeMap<(i32, Vec<u8>), usize>,
    names: Vec<String>,
}

impl Scratch {
    /// Watches these files, whose paths are relative to the folder, and creates the folders above them. Must be called
    /// within a Tokio runtime.
    ///
    /// # Errors
    /// A path that leaves the folder, and what the system refuses.
    pub fn watch_renames(&mut self, files: &[String]) -> Result<RenameWatch, ExecError> {
        let folder = self.folder();
        let failed = |error: Errno| ExecError::io("watch the folder", &folder, error.into());
        let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
        let events = inotify::init(flags).map_err(failed)?;
        let mut places = BTreeMap::new();
        for (place, path) in files.iter().enumerate() {
            check_path(path)?;
            let at = match path.contains('/') {
                true => self.make_room(path)?,
                false => folder.join(path),
            };
            let (Some(parent), Some(name)) = (at.parent(), at.file_name()) else {
                continue;
            };
            let flags = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::ONLYDIR;
            let watch = inotify::add_watch(&events, parent, flags).map_err(failed)?;
            places.insert((watch, name.as_encoded_bytes().to_vec()), place);
        }
        // SAFETY: the descriptor is owned, and neither closed nor replaced before the watch is dropped.
        let events = unsafe { AsyncFd::register(events) };
        let events = events
            .map_err(|error| ExecError::io("watch the folder", &folder, io::Error::from(error)))?;
        Ok(RenameWatch {
            events,
            folder,
            files: places,
            names: files.to_vec(),
        })
    }
}

impl RenameWatch {
    /// Waits until a file was renamed there. It may be dropped and called again.
    pub async fn changed(&self) -> io::Result<()> {
        self.events.readable().await?.clear_ready();
        Ok(())
    }

    /// Returns the positions in the list of the files that were renamed into place since the last call.
    pub fn renamed(&self) -> Vec<usize> {
        let mut renamed = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut events = inotify::Reader::new(self.events.get_ref(), &mut buffer);
        // An error means that there are no more events.
        while let Ok(event) = events.next() {
            let Some(name) = event.file_name() else {
                continue;
            };
            let file = (event.wd(), name.to_bytes().to_vec());
            renamed.extend(self.files.get(&file));
        }
        renamed.sort_unstable();
        renamed.dedup();
        renamed
    }

    /// Opens one of the files for reading; none if it is gone. Opens only regular files and follows no link, because the
    /// attempt could link to any file.
    ///
    /// # Errors
    /// The file cannot be opened, or is no regular file.
    pub fn open(&self, place: usize) -> io::Result<Option<File>> {
        let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&self.folder, folder, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let within =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let name = self.names[place].as_str();
        let file = match rustix::fs::openat2(&folder, name, flags, Mode::empty(), within) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP | Errno::XDEV) => {
                return Err(io::Error::other("it is a link, or lies behind one"));
            }
            Err(error) => return Err(error.into()),
        };
        match file.metadata()?.is_file() {
            true => Ok(Some(file)),
            false => Err(io::Error::other("it is no regular file")),
        }
    }
}
