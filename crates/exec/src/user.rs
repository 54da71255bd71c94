//! Chooses the user that an attempt runs as.
//!
//! A root worker gives each slot its own user, who owns nothing else and thus has no rights to the files of the system or
//! of other slots. A worker of an ordinary user has only that user.

use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The first id of slots if all ids exist. Distributions assign none that are so high.
const FIRST: u64 = 0x4000_0000;
/// The ids of each worker.
const PER_WORKER: u64 = 1 << 12;
/// The most workers of one machine with different ids.
const WORKERS: u64 = 1 << 17;
/// If only few ids exist, as in a container, slots get ids from the last ones.
const FEW: u64 = 4096;

/// The user and the group of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskUser {
    pub uid: u32,
    pub gid: u32,
}

/// The ids that a root worker gives to its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskUsers {
    first: u64,
    count: u64,
}

impl TaskUsers {
    /// Returns the ids of the worker that this process belongs to; none if it is not root or may not become another user.
    pub(crate) fn of_worker(worker: u32) -> Option<TaskUsers> {
        if !rustix::process::geteuid().is_root() || !may_change_users() {
            return None;
        }
        let uids = std::fs::read_to_string("/proc/self/uid_map").ok()?;
        let gids = std::fs::read_to_string("/proc/self/gid_map").ok()?;
        TaskUsers::within(last_id(&uids)?.min(last_id(&gids)?), worker)
    }

    fn within(last: u64, worker: u32) -> Option<TaskUsers> {
        if last >= FIRST + WORKERS * PER_WORKER {
            let first = FIRST + u64::from(worker) % WORKERS * PER_WORKER;
            return Some(TaskUsers {
                first,
                count: PER_WORKER,
            });
        }
        // Behind those of users and of `nobody`'s usual neighbours.
        let first = last.checked_sub(3 * FEW)?;
        (first > 1000).then_some(TaskUsers { first, count: FEW })
    }

    pub(crate) fn of_slot(self, slot: u32) -> TaskUser {
        let id = (self.first + u64::from(slot) % self.count) as u32;
        TaskUser { uid: id, gid: id }
    }
}

/// Makes `user` the owner of a slot's folders, or this process's user again.
pub(crate) fn give(folder: &Path, user: Option<TaskUser>) -> io::Result<()> {
    let own = TaskUser {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
    };
    let to = user.unwrap_or(own);
    for name in ["", crate::scratch::WORK, crate::scratch::TMP] {
        let path = folder.join(name);
        if path.symlink_metadata()?.uid() != to.uid {
            std::os::unix::fs::lchown(path, Some(to.uid), Some(to.gid))?;
        }
    }
    Ok(())
}

/// Makes `user` the owner of what this process's user owns below a folder, links themselves included. Does not change
/// what links lead to, nor files of other users: inputs can be links to the files of a blob store.
pub(crate) fn give_below(folder: &Path, user: TaskUser) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.uid() == own {
                std::os::unix::fs::lchown(entry.path(), Some(user.uid), Some(user.gid))?;
            }
            if about.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Makes `user` the owner of an open file, if this process's user owns it.
pub(crate) fn give_file(file: &OwnedFd, user: TaskUser) -> io::Result<()> {
    if rustix::fs::fstat(file)?.st_uid == rustix::process::geteuid().as_raw() {
        std::os::unix::fs::fchown(file, Some(user.uid), Some(user.gid))?;
    }
    Ok(())
}

/// Returns the first of the folders above this one that some users may not enter.
pub(crate) fn closed_above(folder: &Path) -> Option<PathBuf> {
    let above = folder
        .ancestors()
        .skip(1)
        .filter(|path| !path.as_os_str().is_empty());
    let open = |path: &Path| std::fs::metadata(path).is_ok_and(|about| about.mode() & 1 == 1);
    above.filter(|path| !open(path)).last().map(Path::to_owned)
}

/// Returns the highest id of a user namespace, given its map.
fn last_id(map: &str) -> Option<u64> {
    let lines = map.lines().filter_map(|line| {
        let mut fields = line.split_whitespace().map(str::parse::<u64>);
        let (first, _, count) = (fields.next()?.ok()?, fields.next()?, fields.next()?.ok()?);
        (first + count).checked_sub(1)
    });
    lines.max()
}

fn may_change_users() -> bool {
    const CHOWN: u64 = 1;
    const SETGID: u64 = 1 << 6;
    const SETUID: u64 = 1 << 7;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let held = line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    let wanted = CHOWN | SETGID | SETUID;
    held.is_some_and(|held| held & wanted == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_ids_of_their_own_where_there_are_any() {
        let all = TaskUsers::within(u64::from(u32::MAX) - 1, 77).unwrap();
        assert_ne!(all.of_slot(0), all.of_slot(1));
        assert!(all.of_slot(4095).uid < 0x8000_0000);
        let other = TaskUsers::within(u64::from(u32::MAX) - 1, 78).unwrap();
        assert_ne!(all.of_slot(4095), other.of_slot(0));
        let few = TaskUsers::within(65535, 77).unwrap();
        assert!((1001..65534).contains(&few.of_slot(4095).uid));
        assert_eq!(TaskUsers::within(0, 77), None);
        assert_eq!(last_id("0 1000 1\n1 100000 65536\n"), Some(65536));
    }
}
