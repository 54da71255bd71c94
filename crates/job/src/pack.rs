//! Packing trees: the content of a folder's files in blobs of some MiB.
//!
//! Files are packed in the order of their names. Where a pack ends depends on the content of its last file, so that a
//! file that was added or changed changes one or two packs, and the grid has the others already.

use crate::find::cannot_read;
use crate::inputs::Slot;
use crate::mounts::{FoundKind, FoundTree};
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

impl Found {
    /// Whether there are folders to pack, see [`Found::pack`].
    pub fn has_trees(&self) -> bool {
        !self.trees.is_empty()
    }

    /// Packs the folders that tasks see as trees. The packs become uploads; files up to 4 MiB are copied to `spool` for
    /// that, which must stay until the job is submitted. Reads all files. Blocks.
    ///
    /// # Errors
    /// One sentence: a file cannot be read any more, or a tree is too large.
    pub fn pack(&mut self, spool: &Path) -> Result<(), String> {
        for (number, tree) in std::mem::take(&mut self.trees).into_iter().enumerate() {
            let mut packer = Packer::new(spool.join(number.to_string()));
            let entries = tree.entries.iter();
            let entries = entries.map(|entry| packer.entry(&tree, &entry.path, &entry.kind));
            let entries = entries.collect::<Result<Vec<_>, String>>()?;
            packer.close()?;
            let (packs, sources) = (packer.packs, packer.sources);
            let manifest = Manifest { packs, entries };
            let too_large = |why| format!("the tree {} cannot be sent: {why}", tree.root.display());
            let bytes = manifest.encode().map_err(too_large)?;
            let path = spool.join(format!("{number}-manifest"));
            std::fs::write(&path, &bytes).map_err(|error| not_written(&path, &error))?;
            let first = self.draft.files.len() as u32;
            let hash = Hash(*blake3::hash(&bytes).as_bytes());
            self.push_known("tree", path, (hash, bytes.len() as u64));
            for (blob, path) in manifest.packs.iter().zip(sources) {
                self.push_known("pack", path, *blob);
            }
            for (group, at) in tree.seen {
                let group = &mut self.draft.groups[group];
                let mount = Mount {
                    at,
                    first,
                    packs: manifest.packs.len() as u32,
                };
                let before = group.mounts.iter().cloned();
                group.mounts = before.chain([mount]).collect();
            }
        }
        Ok(())
    }

    /// Adds a file of the job whose content is known.
    fn push_known(&mut self, name: &str, path: PathBuf, (hash, bytes): (Hash, u64)) {
        self.slots.push((Slot::Known(hash), self.uploads.len()));
        self.uploads.push(Upload { path, bytes });
        self.draft.files.push(FileEntry {
            path: name.into(),
            executable: false,
            data: Data::Blob { hash, size: bytes },
        });
    }
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

    fn entry(
        &mut self,
        tree: &FoundTree,
        path: &str,
        kind: &FoundKind,
    ) -> Result<TreeEntry, String> {
        let kind = match kind {
            FoundKind::Folder => TreeKind::Folder,
            FoundKind::Link(target) => TreeKind::Link(target.clone()),
            FoundKind::File {
                executable,
                modified,
            } => {
                let (hash, size, (pack, from)) = self.file(&tree.root.join(path))?;
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
        let cannot = |error: io::Error| {
            let (what, help) = cannot_read(path, &error);
            format!("{what}; {help}")
        };
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
            return Err(format!(
                "the tree is too large: its files fill more than {PACKS_MAX} packs"
            ));
        }
        self.packs.push(pack);
        self.sources.push(source);
        Ok(self.packs.len() as u32 - 1)
    }
}

fn not_written(path: &Path, error: &io::Error) -> String {
    format!(
        "a tree cannot be packed: {} cannot be written: {error}",
        path.display()
    )
}
