//! Trees that tasks see at a path of their own.

use super::validate::{Checked, Place, check_path, wrong};
use super::{Few, Group};
use crate::{Data, FileEntry};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The most trees of one task. Each is a mount in the sandbox of its attempts.
pub const MOUNTS_MAX: usize = 16;
/// The label of workers that can show trees to tasks.
pub const MOUNTS_LABEL: (&str, &str) = ("mounts", "yes");
/// Paths that tasks see of the worker's machine, or that the sandbox makes for them. No tree lies there.
const TAKEN: [&str; 20] = [
    "/bin",
    "/dev",
    "/etc",
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/opt",
    "/proc",
    "/run/current-system",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/var/cache/fontconfig",
    "/var/lib/ghostscript",
    "/var/lib/texlive",
    "/var/lib/texmf",
];

/// A tree that each task of a group sees, read-only. Its content is the job's file at `first`, the manifest, and the
/// `packs` files behind it; see [`crate::tree`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mount {
    /// The absolute path of the tree.
    pub at: Arc<str>,
    /// The position of the manifest among the job's files.
    pub first: u32,
    /// The number of packs.
    pub packs: u32,
}

impl Mount {
    /// Returns its manifest and packs among the job's files.
    pub fn files<'a>(&self, files: &'a [FileEntry]) -> &'a [FileEntry] {
        let (first, packs) = (self.first as usize, self.packs as usize);
        files.get(first..first + 1 + packs).unwrap_or(&[])
    }
}

/// Checks a path at which tasks are to see a tree. Returns what is wrong and what would be right.
pub fn check_mount_path(path: &str) -> Result<(), (String, &'static str)> {
    let within = path.strip_prefix('/').map(check_path);
    match within {
        None => {
            return Err((
                format!("the path {path:?} is not absolute"),
                "write where tasks see the tree, like \"/ref\"",
            ));
        }
        Some(Err(_)) if path.split('/').any(|part| part == "..") => {
            return Err((
                format!("a tree cannot lie at {path:?}, because \"..\" has no meaning there"),
                "write a path like \"/ref\"",
            ));
        }
        Some(Err(why)) => {
            return Err((
                format!("a tree cannot lie at {path:?}: the path {why}"),
                "write a path like \"/ref\"",
            ));
        }
        Some(Ok(())) => {}
    }
    // What lies below `/tmp` is a folder like others.
    let hides = |taken: &&&str| covers(path, taken) || (covers(taken, path) && **taken != "/tmp");
    match TAKEN.iter().find(hides) {
        None => Ok(()),
        Some(taken) => Err((
            format!("a tree cannot lie at {path:?}, because tasks have {taken} of their own"),
            "name another path: mounts = [{ tree = \"…\", at = \"/…\" }]",
        )),
    }
}

/// Returns whether a path is another one or a folder above it.
pub fn covers(path: &str, other: &str) -> bool {
    let rest = other.strip_prefix(path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Checks the trees of a group.
pub(super) fn check_mounts(files: &[FileEntry], at: usize, group: &Group) -> Checked<()> {
    let place = |item| Place {
        group: Some(at),
        key: "mounts",
        item,
    };
    let mounts: &Few<Mount> = &group.mounts;
    if mounts.len() > MOUNTS_MAX {
        return wrong(
            place(None),
            format!("the task has {} trees", mounts.len()),
            format!("put them into fewer folders: a task has at most {MOUNTS_MAX} trees"),
        );
    }
    for (item, mount) in mounts.iter().enumerate() {
        check_mount_path(&mount.at).or_else(|(what, help)| wrong(place(Some(item)), what, help))?;
        let before = mounts[..item].iter();
        let overlaps =
            |other: &&Mount| covers(&other.at, &mount.at) || covers(&mount.at, &other.at);
        if let Some(other) = before.into_iter().find(overlaps) {
            return wrong(
                place(Some(item)),
                format!(
                    "the tree at {:?} and the one at {:?} overlap",
                    mount.at, other.at
                ),
                "name paths of which none lies within another",
            );
        }
        let blobs = mount.files(files);
        let whole = |file: &FileEntry| matches!(file.data, Data::Blob { .. });
        if blobs.is_empty() || !blobs.iter().all(whole) {
            return wrong(
                place(Some(item)),
                "the tree's content is not among the job's files",
                "add its manifest and packs as blobs",
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Hash;

    #[test]
    fn trees_lie_where_tasks_have_nothing_of_their_own() {
        for good in [
            "/ref",
            "/srv/project/.venv",
            "/tmp/project/.venv",
            "/usrlocal",
            "/var/lib/data",
        ] {
            assert_eq!(check_mount_path(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "ref",
            "/",
            "/a/../b",
            "/a//b",
            "/a/",
            "/usr",
            "/usr/local/x",
            "/opt/conda",
            "/tmp",
            "/var",
            "/nix",
            "/etc/x",
            "/a\0",
        ] {
            assert!(check_mount_path(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn trees_of_a_task_are_blobs_and_do_not_overlap() {
        let blob = |byte| FileEntry {
            path: "tree".into(),
            executable: false,
            data: Data::Blob {
                hash: Hash([byte; 32]),
                size: 1,
            },
        };
        let inline = FileEntry {
            data: Data::Inline(vec![1].into()),
            ..blob(0)
        };
        let mount = |at: &str, first, packs| Mount {
            at: at.into(),
            first,
            packs,
        };
        let check = |mounts: Vec<Mount>| {
            let group = Group {
                mounts: mounts.into(),
                ..Group::program("a", &["true"])
            };
            let files = [blob(1), blob(2), blob(3), inline.clone()];
            check_mounts(&files, 0, &group).map_err(|error| error.place.item)
        };
        assert_eq!(check(vec![mount("/a", 0, 1), mount("/ab", 0, 1)]), Ok(()));
        assert_eq!(
            check(vec![mount("/a", 2, 0)]),
            Ok(()),
            "a tree without files"
        );
        assert_eq!(check(vec![mount("/a", 0, 3)]), Err(Some(0)), "not a blob");
        assert_eq!(check(vec![mount("/a", 3, 1)]), Err(Some(0)), "not there");
        assert_eq!(check(vec![mount("/a", u32::MAX, u32::MAX)]), Err(Some(0)));
        for other in ["/a", "/a/b"] {
            let twice = vec![mount("/a", 0, 1), mount(other, 0, 1)];
            assert_eq!(check(twice), Err(Some(1)), "{other}");
        }
        let many = (0..=MOUNTS_MAX).map(|at| mount(&format!("/{at}"), 0, 1));
        assert_eq!(check(many.collect()), Err(None));
    }
}
