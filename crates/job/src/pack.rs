//! Packing trees: the content of a folder's files in blobs of some MiB.
//!
//! Files are packed in the order of their names. Where a pack ends depends on the content of its last file, so that a
//! file that was added or changed changes one or two packs, and the grid has the others already.

use crate::find::cannot_read;
use crate::inputs::Slot;
use crate::mounts::{FoundEntry, FoundKind, MANIFEST, TreeContent, walk};
use crate::{Found, Upload};
use hedge_model::spec::Mount;
use hedge_model::tree::{Manifest, PACK_BYTES_MAX, PACKS_MAX, TreeEntry, TreeFile, TreeKind};
use hedge_model::{Data, FileEntry, Hash};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A longer file is a pack of its own, which is sent from where it lies.
const ALONE_BYTES: u64 = 4 << 20;
/// Packs of several files have at least so many bytes, but for the last.
const PACK_BYTES_MIN: usize = 1 << 20;
/// A longer pack ends behind one file in so many: with files of 20 KiB, after about another 1 MiB.
const ENDS_ONE_IN: u16 = 64;

/// A tree as blobs that lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedTree {
    /// The list of its entries.
    pub manifest: PackedBlob,
    /// Its packs, in the order of the manifest.
    pub packs: Vec<PackedBlob>,
}

/// A manifest or a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedBlob {
    /// Where its content is: a file of the spool folder, or of the tree.
    pub path: PathBuf,
    /// The BLAKE3 hash of the content.
    pub hash: Hash,
    /// Length in bytes.
    pub bytes: u64,
}

/// Packs a folder as [`Found::pack`] does.
///
/// # Errors
/// One sentence: the folder cannot be read or is too large, or `spool` cannot be written.
pub fn pack_folder(root: &Path, spool: &Path) -> Result<PackedTree, String> {
    let entries = walk(root).map_err(|(what, help)| format!("{what}; {help}"))?;
    pack_entries(root, &entries, &spool.join("tree"))
}

impl Found {
    /// Whether there are folders to pack, see [`Found::pack`].
    pub fn has_trees(&self) -> bool {
        !self.trees.is_empty()
    }

    /// Packs the folders that tasks see as trees. The packs become uploads; files up to 4 MiB are copied to `spool` for
    /// that, which must stay until the job is submitted. Reads all files. Blocks. Nothing is written for trees that came
    /// with a submission.
    ///
    /// # Errors
    /// One sentence: a file cannot be read any more, or a tree is too large.
    pub fn pack(&mut self, spool: &Path) -> Result<(), String> {
        for (number, tree) in std::mem::take(&mut self.trees).into_iter().enumerate() {
            let first = self.draft.files.len() as u32;
            match &tree.content {
                TreeContent::Packed => self.push_packed(&tree.root)?,
                TreeContent::Folder(entries) => {
                    let name = spool.join(number.to_string());
                    self.push_tree(pack_entries(&tree.root, entries, &name)?);
                }
            }
            let packs = self.draft.files.len() as u32 - first - 1;
            for (group, at) in tree.seen {
                let group = &mut self.draft.groups[group];
                let mount = Mount { at, first, packs };
                let before = group.mounts.iter().cloned();
                group.mounts = before.chain([mount]).collect();
            }
        }
        Ok(())
    }

    fn push_tree(&mut self, tree: PackedTree) {
        let blobs = std::iter::once(("tree", tree.manifest));
        for (name, blob) in blobs.chain(tree.packs.into_iter().map(|pack| ("pack", pack))) {
            self.push_upload(name, Slot::Known(blob.hash), blob);
        }
    }

    /// Adds the manifest and the packs of a tree that came with a submission. A worker finds whether they belong together.
    fn push_packed(&mut self, root: &Path) -> Result<(), String> {
        self.push_unread("tree", root.join(MANIFEST))?;
        for number in 0.. {
            let path = root.join(number.to_string());
            if !path.is_file() {
                break;
            }
            if number >= PACKS_MAX {
                return Err(too_many_packs());
            }
            self.push_unread("pack", path)?;
        }
        Ok(())
    }

    /// Adds a file of the job that is to be hashed.
    fn push_unread(&mut self, name: &str, path: PathBuf) -> Result<(), String> {
        let about = std::fs::metadata(&path);
        let bytes = about.map_err(|error| not_read(&path, &error))?.len();
        let hash = Hash([0; 32]);
        let slot = Slot::File(self.draft.files.len() as u32);
        self.push_upload(name, slot, PackedBlob { path, hash, bytes });
        Ok(())
    }

    /// Adds a file of the job, whose content belongs into this slot.
    fn push_upload(&mut self, name: &str, slot: Slot, blob: PackedBlob) {
        let PackedBlob { path, hash, bytes } = blob;
        self.slots.push((slot, self.uploads.len()));
        self.uploads.push(Upload { path, bytes });
        self.draft.files.push(FileEntry {
            path: name.into(),
            executable: false,
            data: Data::Blob { hash, size: bytes },
        });
    }
}

/// Packs the entries of a folder. The names of the files that are written begin with `name`.
fn pack_entries(root: &Path, entries: &[FoundEntry], name: &Path) -> Result<PackedTree, String> {
    let mut packer = Packer::new(name.to_owned());
    let entries = entries.iter();
    let entries = entries.map(|entry| packer.entry(root, &entry.path, &entry.kind));
    let entries = entries.collect::<Result<Vec<_>, String>>()?;
    packer.close()?;
    let (packs, sources) = (packer.packs, packer.sources);
    let manifest = Manifest { packs, entries };
    let too_large = |why| format!("the tree {} cannot be sent: {why}", root.display());
    let bytes = manifest.encode().map_err(too_large)?;
    let path = name.with_extension(MANIFEST);
    std::fs::write(&path, &bytes).map_err(|error| not_written(&path, &error))?;
    let packs = manifest.packs.into_iter().zip(sources);
    let packs = packs.map(|((hash, bytes), path)| PackedBlob { path, hash, bytes });
    Ok(PackedTree {
        manifest: PackedBlob {
            path,
            hash: Hash(*blake3::hash(&bytes).as_bytes()),
            bytes: bytes.len() as u64,
        },
        packs: packs.collect(),
    })
}

/// Makes packs of one tree.
struct Packer {
    /// The beginning of the packs' names.
    name: PathBuf,
    /// The pack of several files that is being made has no hash yet.
    packs: Vec<(Hash, u64)>,
    /// Where the content of each pack lies.
    sources: Vec<PathBuf>,
    /// The position of the pack that is being made, and its content.
    open: Option<(u32, Vec<u8>)>,
    /// Where content lies already: the position of its pack, and where it begins there.
    known: HashMap<Hash, (u32, u64)>,
}

impl Packer {
    fn new(name: PathBuf) -> Self {
        Self {
            name,
            packs: Vec::new(),
            sources: Vec::new(),
            open: None,
            known: HashMap::new(),
        }
    }

    fn entry(&mut self, root: &Path, path: &str, kind: &FoundKind) -> Result<TreeEntry, String> {
        let kind = match kind {
            FoundKind::Folder => TreeKind::Folder,
            FoundKind::Link(target) => TreeKind::Link(target.clone()),
            FoundKind::File {
                executable,
                modified,
            } => {
                let (hash, size, (pack, from)) = self.file(&root.join(path))?;
                TreeKind::File(TreeFile {
                    executable: *executable,
                    modified: *modified,
                    size,
                    hash,
                    pack,
                    from,
                })
            }
        };
        let path = path.into();
        Ok(TreeEntry { path, kind })
    }

    /// Packs a file, unless its content is packed. Returns its hash, its length, and where its content lies.
    fn file(&mut self, path: &Path) -> Result<(Hash, u64, (u32, u64)), String> {
        let cannot = |error: io::Error| not_read(path, &error);
        let about = std::fs::metadata(path).map_err(cannot)?;
        if about.len() > ALONE_BYTES {
            let mut hasher = blake3::Hasher::new();
            hasher
                .update_reader(File::open(path).map_err(cannot)?)
                .map_err(cannot)?;
            let (hash, size) = (Hash(*hasher.finalize().as_bytes()), hasher.count());
            if let Some(place) = self.known.get(&hash) {
                return Ok((hash, size, *place));
            }
            let place = (self.push((hash, size), path.to_owned())?, 0);
            self.known.insert(hash, place);
            return Ok((hash, size, place));
        }
        let content = std::fs::read(path).map_err(cannot)?;
        let (hash, size) = (
            Hash(*blake3::hash(&content).as_bytes()),
            content.len() as u64,
        );
        if size > PACK_BYTES_MAX {
            return Err(format!("{} grew while it was read", path.display()));
        }
        let place = match self.known.get(&hash) {
            Some(place) => *place,
            // It has nothing to lie anywhere.
            None if content.is_empty() => (0, 0),
            None => self.add(hash, &content)?,
        };
        Ok((hash, size, place))
    }

    fn add(&mut self, hash: Hash, content: &[u8]) -> Result<(u32, u64), String> {
        let full = |pack: &Vec<u8>| (pack.len() + content.len()) as u64 > PACK_BYTES_MAX;
        if self.open.as_ref().is_some_and(|(_, pack)| full(pack)) {
            self.close()?;
        }
        let (number, mut pack) = match self.open.take() {
            Some(open) => open,
            None => (self.push((Hash([0; 32]), 0), PathBuf::new())?, Vec::new()),
        };
        let place = (number, pack.len() as u64);
        pack.extend_from_slice(content);
        let ends = u16::from_le_bytes([hash.0[0], hash.0[1]]).is_multiple_of(ENDS_ONE_IN);
        let ends = ends && pack.len() >= PACK_BYTES_MIN;
        self.open = Some((number, pack));
        self.known.insert(hash, place);
        if ends {
            self.close()?;
        }
        Ok(place)
    }

    /// Writes the pack that is being made.
    fn close(&mut self) -> Result<(), String> {
        let Some((number, pack)) = self.open.take() else {
            return Ok(());
        };
        let path = self.name.with_extension(number.to_string());
        std::fs::write(&path, &pack).map_err(|error| not_written(&path, &error))?;
        let hash = Hash(*blake3::hash(&pack).as_bytes());
        self.packs[number as usize] = (hash, pack.len() as u64);
        self.sources[number as usize] = path;
        Ok(())
    }

    fn push(&mut self, pack: (Hash, u64), source: PathBuf) -> Result<u32, String> {
        if self.packs.len() >= PACKS_MAX {
            return Err(too_many_packs());
        }
        self.packs.push(pack);
        self.sources.push(source);
        Ok(self.packs.len() as u32 - 1)
    }
}

fn too_many_packs() -> String {
    format!("the tree is too large: its files fill more than {PACKS_MAX} packs")
}

fn not_read(path: &Path, error: &io::Error) -> String {
    let (what, help) = cannot_read(path, error);
    format!("{what}; {help}")
}

fn not_written(path: &Path, error: &io::Error) -> String {
    format!(
        "a tree cannot be packed: {} cannot be written: {error}",
        path.display()
    )
}
