//! Writes a tree from its packs. The content of each file is compared with its hash before it is written.

use super::super::attempt::failed;
use super::{MANIFEST, ROOT};
use bytes::Bytes;
use hedge_model::tree::{Manifest, PACK_BYTES_MAX, TreeEntry, TreeFile, TreeKind};
use hedge_model::{Ending, Hash};
use hedge_net::{DataStore, PlaceMode, Placement};
use rustix::fs::Mode;
use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;

/// Packs that are written at a time, each with a buffer of 16 MiB at most.
const TOGETHER_MAX: usize = 4;

/// Writes a tree and its manifest into an empty folder.
pub(super) async fn write(
    store: &DataStore,
    folder: &Path,
    manifest: Arc<Manifest>,
    bytes: &Bytes,
) -> Result<(), Ending> {
    let root = folder.join(ROOT);
    let (made, listed, whole) = (root.clone(), manifest.clone(), bytes.clone());
    let path = folder.join(MANIFEST);
    let folders = move || {
        std::fs::write(path, whole)?;
        make_folders(&made, &listed)
    };
    blocking(move || folders().map_err(|error| failed(&error))).await?;
    let mut packs: Vec<Vec<usize>> = vec![Vec::new(); manifest.packs.len()];
    let mut empty = Vec::new();
    for (at, entry) in manifest.entries.iter().enumerate() {
        match &entry.kind {
            TreeKind::File(file) if file.size == 0 => empty.push(at),
            TreeKind::File(file) => packs[file.pack as usize].push(at),
            TreeKind::Folder | TreeKind::Link(_) => {}
        }
    }
    let mut tasks = JoinSet::new();
    for (pack, files) in packs.into_iter().enumerate() {
        if tasks.len() >= TOGETHER_MAX
            && let Some(done) = tasks.join_next().await
        {
            done.map_err(|error| failed(&error))??;
        }
        let (hash, size) = manifest.packs[pack];
        let (store, root, manifest) = (store.clone(), root.clone(), manifest.clone());
        tasks.spawn(async move {
            if store.size(hash) != Some(size) {
                return Err(Ending::NotStarted {
                    why: format!("the pack {hash} of its tree is not as long as its manifest says"),
                });
            }
            if size > PACK_BYTES_MAX {
                return place(&store, hash, root, manifest, files).await;
            }
            let bytes = store.read(hash, PACK_BYTES_MAX as usize).await;
            let bytes = bytes.map_err(|error| failed(&error))?;
            blocking(move || write_files(&root, &manifest, &files, &bytes)).await
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| failed(&error))??;
    }
    blocking(move || {
        write_files(&root, &manifest, &empty, &Bytes::new())?;
        links(&root, &manifest).map_err(|error| failed(&error))
    })
    .await
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Ending> + Send + 'static,
) -> Result<T, Ending> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(failed(&error)))
}

/// Whatever the process's umask says.
fn make_folders(root: &Path, manifest: &Manifest) -> io::Result<()> {
    let make = |path: &Path| {
        std::fs::create_dir(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o755))
    };
    make(root)?;
    let folders = manifest.entries.iter();
    let mut folders = folders.filter(|entry| entry.kind == TreeKind::Folder);
    folders.try_for_each(|entry| make(&root.join(&*entry.path)))
}

fn links(root: &Path, manifest: &Manifest) -> io::Result<()> {
    manifest
        .entries
        .iter()
        .try_for_each(|entry| match &entry.kind {
            TreeKind::Link(target) => symlink(&**target, root.join(&*entry.path)),
            TreeKind::Folder | TreeKind::File(_) => Ok(()),
        })
}

/// The files at these positions of the list.
fn files<'a>(
    manifest: &'a Manifest,
    positions: &'a [usize],
) -> impl Iterator<Item = (&'a TreeEntry, &'a TreeFile)> {
    positions.iter().filter_map(move |at| {
        let entry = &manifest.entries[*at];
        match &entry.kind {
            TreeKind::File(file) => Some((entry, file)),
            TreeKind::Folder | TreeKind::Link(_) => None,
        }
    })
}

/// Writes the files of one pack.
fn write_files(
    root: &Path,
    manifest: &Manifest,
    positions: &[usize],
    pack: &Bytes,
) -> Result<(), Ending> {
    for (entry, file) in files(manifest, positions) {
        let (from, size) = (file.from as usize, file.size as usize);
        let content = match size {
            0 => Some(&[][..]),
            size => pack.get(from..from + size),
        };
        let right = |content: &&[u8]| *blake3::hash(content).as_bytes() == file.hash.0;
        let content = content.filter(right).ok_or_else(|| Ending::NotStarted {
            why: format!(
                "the pack of {:?} in its tree holds something else",
                entry.path
            ),
        })?;
        write_file(&root.join(&*entry.path), file, content).map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn write_file(path: &Path, about: &TreeFile, content: &[u8]) -> io::Result<()> {
    let mode = if about.executable { 0o755 } else { 0o644 };
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(content)?;
    finish(&file, mode, about)
}

/// Gives a file its mode, whatever the process's umask says, and its time.
fn finish(file: &File, mode: u32, about: &TreeFile) -> io::Result<()> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
    let span = Duration::from_secs(about.modified.unsigned_abs());
    let time = match about.modified >= 0 {
        true => SystemTime::UNIX_EPOCH.checked_add(span),
        false => SystemTime::UNIX_EPOCH.checked_sub(span),
    };
    file.set_modified(time.unwrap_or(SystemTime::UNIX_EPOCH))
}

/// Writes a file that is a pack by itself, under each name that it has.
async fn place(
    store: &DataStore,
    hash: Hash,
    root: PathBuf,
    manifest: Arc<Manifest>,
    positions: Vec<usize>,
) -> Result<(), Ending> {
    let placement = |(entry, file): (&TreeEntry, &TreeFile)| Placement {
        hash,
        target: root.join(&*entry.path),
        executable: file.executable,
        way: PlaceMode::Copy,
    };
    let placements = files(&manifest, &positions).map(placement).collect();
    let placed = store.place(placements).await;
    placed.map_err(|error| failed(&error))?;
    blocking(move || {
        files(&manifest, &positions).try_for_each(|(entry, about)| {
            let mode = if about.executable { 0o755 } else { 0o644 };
            let file = File::options().append(true).open(root.join(&*entry.path));
            let done = file.and_then(|file| finish(&file, mode, about));
            done.map_err(|error| failed(&error))
        })
    })
    .await
}
