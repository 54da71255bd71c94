//! Compares a tree on the disk with its hashes.

use super::{MANIFEST, ROOT};
use hedge_model::Hash;
use hedge_model::tree::{Manifest, TreeEntry, TreeFile, TreeKind};
use hedge_net::map_in_parallel;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Threads that read files at a time, each with one file open.
const THREADS_MAX: usize = 4;

/// Compares all of a tree: no entry is missing, none was added, and each is what its manifest says. Blocks.
///
/// # Errors
/// One sentence: what is different.
pub(super) fn check(folder: &Path, hash: Hash) -> Result<(), String> {
    let bytes = std::fs::read(folder.join(MANIFEST));
    let bytes = bytes.map_err(|error| format!("its manifest cannot be read: {error}"))?;
    if *blake3::hash(&bytes).as_bytes() != hash.0 {
        return Err("its manifest is another one".to_owned());
    }
    let manifest = Manifest::decode(&bytes)?;
    let root = folder.join(ROOT);
    let count = count(&root, manifest.entries.len());
    let count = count.map_err(|error| format!("it cannot be read: {error}"))?;
    if count != manifest.entries.len() {
        let listed = manifest.entries.len();
        return Err(format!(
            "it has {count} entries or more, and {listed} are listed"
        ));
    }
    let wrong = AtomicBool::new(false);
    let found = map_in_parallel(&manifest.entries, THREADS_MAX, |entry, _| {
        // Nothing more has to be read after the first difference.
        let why = (!wrong.load(Ordering::Relaxed)).then(|| different(&root, entry))?;
        if why.is_some() {
            wrong.store(true, Ordering::Relaxed);
        }
        why
    });
    found.into_iter().flatten().next().map_or(Ok(()), Err)
}

/// The number of entries below a folder, links not followed; at most one more than expected.
fn count(root: &Path, expected: usize) -> io::Result<usize> {
    let (mut folders, mut seen) = (VecDeque::from([root.to_owned()]), 0);
    while let Some(folder) = folders.pop_front() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            seen += 1;
            if seen > expected {
                return Ok(seen);
            }
            if entry.file_type()?.is_dir() {
                folders.push_back(entry.path());
            }
        }
    }
    Ok(seen)
}

/// What is different at an entry.
fn different(root: &Path, entry: &TreeEntry) -> Option<String> {
    let path = root.join(&*entry.path);
    let same = match &entry.kind {
        TreeKind::Folder => path.symlink_metadata().map(|about| about.is_dir()),
        TreeKind::Link(target) => std::fs::read_link(&path).map(|is| is == Path::new(&**target)),
        TreeKind::File(file) => same_file(&path, file),
    };
    match same {
        Ok(true) => None,
        Ok(false) => Some(format!("{:?} is not what it was", entry.path)),
        Err(error) => Some(format!("{:?} cannot be read: {error}", entry.path)),
    }
}

fn same_file(path: &Path, expected: &TreeFile) -> io::Result<bool> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    let executable = about.permissions().mode() & 0o111 != 0;
    if !about.is_file() || about.len() != expected.size || executable != expected.executable {
        return Ok(false);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file)?;
    Ok(*hasher.finalize().as_bytes() == expected.hash.0)
}
