//! Trees: folders as content. A manifest lists the entries of a folder, and the content of its files lies in packs.
//! Manifest and packs are blobs, so that a folder of 20,000 files is some dozens of blobs to the grid.

use crate::Hash;
use crate::spec::check_path;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The longest manifest, in bytes. A client and a worker hold one in memory while they read or write a tree.
pub const MANIFEST_BYTES_MAX: usize = 64 << 20;
/// The most entries of a tree. Ten times as many as large environments have.
pub const ENTRIES_MAX: usize = 400_000;
/// The most packs of a tree. Their list is part of what a worker is told of a task.
pub const PACKS_MAX: usize = 8_192;
/// The longest pack of several files, in bytes. A worker holds one in memory.
pub const PACK_BYTES_MAX: u64 = 16 << 20;
/// The longest target of a link, in bytes: as Linux allows.
const LINK_BYTES_MAX: usize = 4_095;

/// The first bytes of a manifest.
pub const MANIFEST_MAGIC: &[u8] = b"hedge tree 1\n";

/// The list of a tree's entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The packs: hash and length in bytes of each.
    pub packs: Vec<(Hash, u64)>,
    /// The entries. A folder stands before what lies in it.
    pub entries: Vec<TreeEntry>,
}

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeEntry {
    /// Its path within the tree, `/`-separated, without `.` or `..`.
    pub path: Arc<str>,
    /// What it is.
    pub kind: TreeKind,
}

/// What an entry of a tree is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeKind {
    /// A folder.
    Folder,
    /// A symbolic link, which may lead anywhere.
    Link(Arc<str>),
    /// A regular file.
    File(TreeFile),
}

/// A regular file of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeFile {
    /// Whether it may be executed.
    pub executable: bool,
    /// When it was changed, in seconds since 1970. Python compares it with what its compiled files say.
    pub modified: i64,
    /// Length in bytes.
    pub size: u64,
    /// The BLAKE3 hash of its content.
    pub hash: Hash,
    /// The position of its pack in the list. An empty file has none.
    pub pack: u32,
    /// Where it begins in the pack, in bytes.
    pub from: u64,
}

/// A tree that tasks see, with its blobs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountedTree {
    /// The absolute path of the tree.
    pub at: Arc<str>,
    /// Hash and length in bytes of its manifest.
    pub manifest: (Hash, u64),
    /// Hashes and lengths in bytes of its packs.
    pub packs: Vec<(Hash, u64)>,
}

impl MountedTree {
    /// Its blobs: the manifest, then the packs.
    pub fn blobs(&self) -> impl Iterator<Item = (Hash, u64)> + '_ {
        std::iter::once(self.manifest).chain(self.packs.iter().copied())
    }
}

impl Manifest {
    /// Returns its bytes.
    ///
    /// # Errors
    /// One sentence: it is not valid, or longer than [`MANIFEST_BYTES_MAX`].
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        self.check()?;
        let bytes = postcard::to_extend(self, MANIFEST_MAGIC.to_vec())
            .map_err(|error| error.to_string())?;
        match bytes.len() <= MANIFEST_BYTES_MAX {
            true => Ok(bytes),
            false => Err("the list of its files is longer than 64 MiB".to_owned()),
        }
    }

    /// Reads a manifest, which may come from a stranger.
    ///
    /// # Errors
    /// One sentence: these bytes are no valid manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MANIFEST_BYTES_MAX {
            return Err("it is longer than 64 MiB".to_owned());
        }
        let rest = bytes.strip_prefix(MANIFEST_MAGIC);
        let rest = rest.ok_or("it is not of a form that this version knows")?;
        let manifest: Self = postcard::from_bytes(rest).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Returns what its files take on a disk, in bytes: whole blocks of 4 KiB, and one for each other entry.
    pub fn disk_bytes(&self) -> u64 {
        const BLOCK: u64 = 4096;
        let each = self.entries.iter().map(|entry| match &entry.kind {
            TreeKind::File(file) => file.size.div_ceil(BLOCK).max(1).saturating_mul(BLOCK),
            TreeKind::Folder | TreeKind::Link(_) => BLOCK,
        });
        each.fold(0, u64::saturating_add)
    }

    /// Checks that each path is inside of the tree and named once, that everything lies in folders, and that files lie
    /// within their packs. So nothing that is written by it leaves its folder.
    fn check(&self) -> Result<(), String> {
        if self.entries.len() > ENTRIES_MAX {
            return Err(format!("it has more than {ENTRIES_MAX} entries"));
        }
        if self.packs.len() > PACKS_MAX {
            return Err(format!("it has more than {PACKS_MAX} packs"));
        }
        let (mut all, mut folders) = (BTreeSet::new(), BTreeSet::new());
        for entry in &self.entries {
            let path = &*entry.path;
            check_path(path).map_err(|why| format!("the path {path:?} {why}"))?;
            let inside = path.rsplit_once('/').map(|(parent, _)| parent);
            if inside.is_some_and(|parent| !folders.contains(parent)) {
                return Err(format!("{path:?} does not lie in a folder"));
            }
            if !all.insert(path) {
                return Err(format!("the path {path:?} is there twice"));
            }
            match &entry.kind {
                TreeKind::Folder => drop(folders.insert(path)),
                TreeKind::Link(target) => {
                    if target.is_empty() || target.len() > LINK_BYTES_MAX || target.contains('\0') {
                        return Err(format!("the link {path:?} leads nowhere"));
                    }
                }
                TreeKind::File(file) => self.check_file(path, file)?,
            }
        }
        Ok(())
    }

    fn check_file(&self, path: &str, file: &TreeFile) -> Result<(), String> {
        if file.size == 0 {
            return Ok(());
        }
        let pack = self.packs.get(file.pack as usize);
        let (hash, size) = pack.ok_or_else(|| format!("the pack of {path:?} is not listed"))?;
        let end = file.from.checked_add(file.size);
        if end.is_none_or(|end| end > *size) {
            return Err(format!("{path:?} reaches beyond its pack"));
        }
        let alone = file.from == 0 && file.size == *size && file.hash == *hash;
        if *size > PACK_BYTES_MAX && !alone {
            return Err(format!("the pack of {path:?} is longer than 16 MiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: TreeKind) -> TreeEntry {
        TreeEntry {
            path: path.into(),
            kind,
        }
    }

    fn file(pack: u32, from: u64, size: u64) -> TreeKind {
        TreeKind::File(TreeFile {
            executable: false,
            modified: 1,
            size,
            hash: Hash([7; 32]),
            pack,
            from,
        })
    }

    fn manifest(entries: Vec<TreeEntry>) -> Manifest {
        let packs = vec![(Hash([1; 32]), 100), (Hash([7; 32]), PACK_BYTES_MAX + 1)];
        Manifest { packs, entries }
    }

    #[test]
    fn a_manifest_survives_encoding() {
        let manifest = manifest(vec![
            entry("a", TreeKind::Folder),
            entry("a/b", file(0, 60, 40)),
            entry("a/c", TreeKind::Link("../elsewhere".into())),
            entry("big", file(1, 0, PACK_BYTES_MAX + 1)),
        ]);
        let bytes = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest.clone()));
        assert!(Manifest::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Manifest::decode(&bytes[1..]).is_err());
        assert_eq!(manifest.disk_bytes(), 3 * 4096 + (PACK_BYTES_MAX + 4096));
    }

    #[test]
    fn a_manifest_that_leads_out_of_its_folder_is_refused() {
        let link = || TreeKind::Link("/etc".into());
        let wrong = [
            vec![entry("../x", file(0, 0, 1))],
            vec![entry("/x", file(0, 0, 1))],
            vec![entry("a/x", file(0, 0, 1))],
            vec![entry("a", link()), entry("a/passwd", file(0, 0, 1))],
            vec![entry("a", file(0, 0, 1)), entry("a/b", file(0, 0, 1))],
            vec![entry("a", TreeKind::Folder), entry("a", link())],
            vec![entry("a", TreeKind::Link("".into()))],
            vec![entry("a", TreeKind::Link("x\0".into()))],
            vec![entry("a", file(2, 0, 1))],
            vec![entry("a", file(0, 61, 40))],
            vec![entry("a", file(0, u64::MAX, 2))],
            vec![entry("a", file(1, 1, 5))],
        ];
        for entries in wrong {
            assert!(manifest(entries.clone()).encode().is_err(), "{entries:?}");
            let unchecked =
                postcard::to_extend(&manifest(entries.clone()), MANIFEST_MAGIC.to_vec());
            assert!(
                Manifest::decode(&unchecked.unwrap()).is_err(),
                "{entries:?}"
            );
        }
    }
}
