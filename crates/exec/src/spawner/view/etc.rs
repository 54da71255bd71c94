//! The view's `/etc`: copies of the files in it that anybody may read, and its folders as they are.
//!
//! Programs that change accounts put new files in the place of old ones. A copy is not affected, and a file that only
//! root may read never gets into it.

use super::mounts::{ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY, attach, clone_tree};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(super) const FOLDER: &str = "/etc";

/// Largest file that is copied, bytes: longer ones are data that no program counts on there.
const FILE_BYTES_MAX: u64 = 4 << 20;
/// Largest copy in all, bytes.
const ALL_BYTES_MAX: u64 = 16 << 20;
/// Entries of `/etc` that are taken.
const ENTRIES_MAX: usize = 4_000;
/// Entries of its folders that are looked at for secrets.
const COVERED_MAX: usize = 20_000;

/// An entry of `/etc`.
pub(super) enum Entry {
    Link(PathBuf),
    File(Vec<u8>, u32),
    Folder(OwnedFd),
}

/// Reads what is to be shown.
pub(super) fn read() -> io::Result<Vec<(PathBuf, Entry)>> {
    let mut all = Vec::new();
    let mut left = ALL_BYTES_MAX;
    for entry in std::fs::read_dir(FOLDER)?.take(ENTRIES_MAX) {
        let path = entry?.path();
        let Ok(about) = path.symlink_metadata() else {
            continue;
        };
        let anybody = if about.is_dir() { 0o005 } else { 0o004 };
        let entry = if about.is_symlink() {
            Entry::Link(std::fs::read_link(&path)?)
        } else if about.mode() & anybody != anybody {
            continue;
        } else if about.is_dir() {
            Entry::Folder(clone_tree(&path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?)
        } else if about.is_file() && about.len() <= FILE_BYTES_MAX.min(left) {
            let mut content = Vec::new();
            let Ok(file) = std::fs::File::open(&path) else {
                continue;
            };
            // The one that is open now may be another.
            let mode = file.metadata()?.mode();
            if mode & anybody != anybody {
                continue;
            }
            file.take(FILE_BYTES_MAX).read_to_end(&mut content)?;
            left = left.saturating_sub(content.len() as u64);
            Entry::File(content, mode & 0o555)
        } else {
            continue;
        };
        all.push((path, entry));
    }
    Ok(all)
}

/// Makes `/etc` below `root`.
pub(super) fn place(root: &Path, all: &[(PathBuf, Entry)], as_root: bool) -> io::Result<()> {
    let folder = root.join("etc");
    std::fs::create_dir_all(&folder)?;
    for (path, entry) in all {
        let at = root.join(path.strip_prefix("/").unwrap_or(path));
        match entry {
            Entry::Link(target) => std::os::unix::fs::symlink(target, &at)?,
            Entry::File(content, mode) => {
                std::fs::write(&at, content)?;
                std::fs::set_permissions(&at, PermissionsExt::from_mode(*mode))?;
            }
            Entry::Folder(tree) => {
                std::fs::create_dir(&at)?;
                attach(tree, &at)?;
            }
        }
    }
    if as_root { cover_secrets(root) } else { Ok(()) }
}

/// Covers files and folders of `/etc` that only their owner or group may read.
fn cover_secrets(root: &Path) -> io::Result<()> {
    let null = root.join("dev/null");
    let nothing = root.join(".nothing");
    std::fs::create_dir(&nothing)?;
    std::fs::set_permissions(&nothing, std::fs::Permissions::from_mode(0o555))?;
    let mut folders = vec![root.join("etc")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            seen += 1;
            if seen > COVERED_MAX {
                return Err(io::Error::other(
                    "more entries than can be checked for secrets",
                ));
            }
            let path = entry?.path();
            let about = path.symlink_metadata()?;
            if about.is_symlink() {
                continue;
            }
            let open = about.mode() & if about.is_dir() { 0o005 } else { 0o004 };
            match (open != 0, about.is_dir()) {
                (true, true) => folders.push(path),
                (true, false) => {}
                (false, true) => attach(&clone_tree(&nothing, ATTR_RDONLY)?, &path)?,
                (false, false) => attach(&clone_tree(&null, ATTR_RDONLY)?, &path)?,
            }
        }
    }
    Ok(())
}
