//! Trees that tasks see: what a job file says of them, and the folders that they are made of.

use crate::fields::{Field, Reader};
use crate::find::{Finder, Wrong, cannot_read};
use crate::keys::MOUNT;
use crate::{Mistake, Wanted};
use hedge_model::spec::{Group, MOUNTS_LABEL, MOUNTS_MAX, check_mount_path, covers};
use hedge_model::tree::ENTRIES_MAX;
use std::fs::Metadata;
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The name of a tree's manifest among the files of a submission. Its packs have their numbers.
pub const MANIFEST: &str = "manifest";

/// One item of `mounts`.
#[derive(Clone, Debug, PartialEq)]
pub struct WantedMount {
    /// The folder, as written.
    tree: String,
    /// Where tasks see it, if that is written.
    at: Option<String>,
    /// Where it is written.
    span: Range<usize>,
}

impl WantedMount {
    /// Reads an argument of a command line: a folder, and where tasks see it, if that is not its own path.
    pub fn of(text: &str) -> Self {
        let (tree, at) = match text.rsplit_once(":/") {
            Some((tree, at)) => (tree, Some(format!("/{at}"))),
            None => (text, None),
        };
        Self {
            tree: tree.to_owned(),
            at,
            span: 0..0,
        }
    }

    /// Returns where tasks see a file of this machine, if it is in the tree.
    pub fn seen(&self, folder: &Path, name: &str) -> Option<String> {
        let root = normal(&folder.join(&self.tree)).ok()?;
        let path = normal(&folder.join(name)).ok()?;
        let rest = path.strip_prefix(&root).ok()?;
        let at = self.at.as_ref().map_or(root.as_path(), Path::new);
        at.join(rest).to_str().map(str::to_owned)
    }
}

/// Has a group's tasks run on workers that can show trees.
pub fn ask_for_mounts(group: &mut Group) {
    let label = (MOUNTS_LABEL.0.into(), MOUNTS_LABEL.1.into());
    if !group.labels.contains(&label) {
        group.labels.push(label);
        group.labels.sort();
    }
}

/// A tree that tasks see.
#[derive(Debug)]
pub struct FoundTree {
    /// Where its folder is, or its manifest and packs.
    pub root: PathBuf,
    /// What is there.
    pub content: TreeContent,
    /// The positions of groups whose tasks see it, and where they do.
    pub seen: Vec<(usize, Arc<str>)>,
}

/// What a tree is made of.
#[derive(Debug)]
pub enum TreeContent {
    /// A folder that is to be packed: its entries, folders before what lies in them.
    Folder(Vec<FoundEntry>),
    /// The files `manifest`, `0`, `1` and so on, which came with a submission.
    Packed,
}

/// An entry of such a folder.
#[derive(Debug)]
pub struct FoundEntry {
    /// Its path within the folder.
    pub path: Arc<str>,
    /// What it is.
    pub kind: FoundKind,
}

/// What an entry is.
#[derive(Debug)]
pub enum FoundKind {
    /// A folder.
    Folder,
    /// A symbolic link.
    Link(Arc<str>),
    /// A regular file.
    File {
        /// Whether anybody may execute it.
        executable: bool,
        /// When it was changed, seconds since 1970.
        modified: i64,
    },
}

/// Reads `mounts`. Tasks that see trees need a worker that can show them.
pub fn read_mounts(reader: &mut Reader, field: &Field<'_>, group: &mut Group) -> Vec<WantedMount> {
    let mut wanted = Vec::new();
    let items = reader.list(field);
    for item in items {
        let fields = reader.table(item, &MOUNT);
        let at = fields.get("at").and_then(|field| reader.text(&field));
        let Some(tree) = fields.get("tree") else {
            if matches!(item.value, crate::tree::Value::Table(_)) {
                let help = format!("write {}", field.key.written());
                reader.wrong(&item.span, "this mount has no `tree`", help);
            }
            continue;
        };
        let Some(tree) = reader.text(&tree) else {
            continue;
        };
        if let Some((what, help)) = at.as_deref().and_then(|at| check_mount_path(at).err()) {
            reader.wrong(&item.span, what, help);
            continue;
        }
        wanted.push(WantedMount {
            tree: tree.to_string(),
            at: at.map(|at| at.to_string()),
            span: item.span.clone(),
        });
    }
    if let Some(one) = items.get(MOUNTS_MAX) {
        let help = format!("put them into fewer folders: a task has at most {MOUNTS_MAX} trees");
        reader.wrong(&one.span, "here is one tree too many", help);
    }
    if !wanted.is_empty() {
        ask_for_mounts(group);
    }
    wanted
}

/// Finds the folders of all trees, each once.
pub fn find_trees(
    finder: &Finder<'_>,
    wanted: &[Wanted],
    mistakes: &mut Vec<Mistake>,
) -> Vec<FoundTree> {
    let mut trees: Vec<FoundTree> = Vec::new();
    for (group, wanted) in wanted.iter().enumerate() {
        let mut taken: Vec<Arc<str>> = Vec::new();
        for mount in &wanted.mounts {
            let found = find_tree(finder, mount, &taken, &mut trees);
            match found {
                Ok((tree, at)) => {
                    trees[tree].seen.push((group, at.clone()));
                    taken.push(at);
                }
                Err((what, help)) => mistakes.push(Mistake::new(mount.span.clone(), what, help)),
            }
        }
    }
    trees
}

/// Finds the folder of one tree, which is added unless it is there already. Returns its position, and where tasks see it.
fn find_tree(
    finder: &Finder<'_>,
    mount: &WantedMount,
    taken: &[Arc<str>],
    trees: &mut Vec<FoundTree>,
) -> Result<(usize, Arc<str>), Wrong> {
    let name = &mount.tree;
    let path = finder.tree_path(name)?;
    if finder.is_confined() && mount.at.is_none() {
        return Err((
            format!("the tree {name:?} has no path at which tasks see it"),
            "write one: at = \"/ref\"".to_owned(),
        ));
    }
    let root = normal(&path).map_err(|error| cannot_read(Path::new(name), &error))?;
    let at: Arc<str> = match &mount.at {
        Some(at) => at.as_str().into(),
        None => root.to_str().ok_or_else(|| not_text(&root))?.into(),
    };
    check_mount_path(&at).map_err(|(what, help)| (what, help.to_owned()))?;
    let overlaps = |other: &&Arc<str>| covers(other, &at) || covers(&at, other);
    if let Some(other) = taken.iter().find(overlaps) {
        return Err((
            format!("the tree at {at:?} and the one at {other:?} overlap"),
            "name paths of which none lies within another, with `at`".to_owned(),
        ));
    }
    let known = trees.iter().position(|tree| tree.root == root);
    let tree = match known {
        Some(known) => known,
        None => {
            let content = match finder.is_confined() {
                true => packed(name, &root)?,
                false => TreeContent::Folder(entries(finder, name, &root)?),
            };
            trees.push(FoundTree {
                root,
                content,
                seen: Vec::new(),
            });
            trees.len() - 1
        }
    };
    Ok((tree, at))
}

/// Finds the entries of a folder that a job file names.
fn entries(finder: &Finder<'_>, name: &str, root: &Path) -> Result<Vec<FoundEntry>, Wrong> {
    let about = std::fs::metadata(root);
    let about = about.map_err(|error| finder.missing("tree", name, &error))?;
    if !about.is_dir() {
        return Err((
            format!("the tree {name:?} is not a folder"),
            "name a single file in `inputs`".to_owned(),
        ));
    }
    walk(root)
}

/// Finds a tree among the files of a submission.
fn packed(name: &str, root: &Path) -> Result<TreeContent, Wrong> {
    match root.join(MANIFEST).is_file() {
        true => Ok(TreeContent::Packed),
        false => Err((
            format!("the tree {name:?} does not come with the submission"),
            format!(
                "send what `hedge pack` made as the files {name}/{MANIFEST}, {name}/0, {name}/1 and so on, or submit the \
                 job file with `hedge submit`"
            ),
        )),
    }
}

/// An absolute path without `.` and `..`. Links stay as they are written, because programs in an environment name its
/// path in this way.
fn normal(path: &Path) -> std::io::Result<PathBuf> {
    let mut normal = PathBuf::new();
    for part in std::path::absolute(path)?.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            part => normal.push(part),
        }
    }
    Ok(normal)
}

/// Finds what is in a folder.
pub fn walk(root: &Path) -> Result<Vec<FoundEntry>, Wrong> {
    let mut entries = Vec::new();
    let walk = walkdir::WalkDir::new(root).min_depth(1);
    for entry in walk.sort_by_file_name() {
        let entry = entry.map_err(|error| {
            (
                format!("the tree cannot be read: {error}"),
                "make it readable, or leave it out".to_owned(),
            )
        })?;
        if entries.len() >= ENTRIES_MAX {
            return Err((
                format!("the tree holds more than {ENTRIES_MAX} files and folders"),
                "name a folder with fewer".to_owned(),
            ));
        }
        let path = entry.path();
        let about = entry.metadata();
        let about = about.map_err(|error| cannot_read(path, &error.into()))?;
        let kind = kind(path, &about)?;
        let path = path.strip_prefix(root).unwrap_or(path);
        let path = path.to_str().ok_or_else(|| not_text(path))?.into();
        entries.push(FoundEntry { path, kind });
    }
    Ok(entries)
}

fn kind(path: &Path, about: &Metadata) -> Result<FoundKind, Wrong> {
    if about.is_dir() {
        return Ok(FoundKind::Folder);
    }
    if about.is_symlink() {
        let target = std::fs::read_link(path).map_err(|error| cannot_read(path, &error))?;
        let target = target.to_str().ok_or_else(|| not_text(&target))?;
        return Ok(FoundKind::Link(target.into()));
    }
    if !about.is_file() {
        return Err((
            format!(
                "the tree holds {}, which is no regular file",
                path.display()
            ),
            "devices, sockets and pipes cannot be sent: remove it".to_owned(),
        ));
    }
    Ok(FoundKind::File {
        executable: about.permissions().mode() & 0o111 != 0,
        modified: about.mtime(),
    })
}

fn not_text(path: &Path) -> Wrong {
    (
        format!("{} is no UTF-8 name", path.display()),
        "rename it, or leave it out".to_owned(),
    )
}
