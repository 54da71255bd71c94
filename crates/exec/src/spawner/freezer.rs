//! A control group for attempts alone, which the kernel stops as a whole: what is started in it is in it from its
//! first moment, nothing escapes, and no program sees that it was stopped, as it would see a signal.
//!
//! It is made below the group that the worker is in, where that may be: by root, and by a user whose session or
//! service has its groups to itself. Elsewhere signals do.

use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How the groups' folders begin; what follows are the watcher's pid namespace and its process id there.
const NAME: &str = "hedge-attempts-";
/// How long to wait for the kernel's word that all are stopped. It has only to interrupt them; one at idle priority on
/// a busy machine is stopped when it would have gone on.
const FROZEN_WITHIN: Duration = Duration::from_millis(20);
/// How long the kernel may take to let go of a group whose processes have been killed: at idle priority on a busy
/// machine they end when it would have gone on with them.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How far the kernel's limit on memory lies above what is allowed: a share of that, and bytes.
const MARGIN_SHARE: u64 = 10;
const MARGIN: u64 = 64 << 20;
/// What the kernel says in `cgroup.events` of a group that is stopped.
const FROZEN: &str = "frozen 1";
/// Tries to make the group.
const TRIES: usize = 3;
/// Groups of watchers that were killed which one start clears away, at most.
const CLEARED_MAX: usize = 1_000;

/// A control group for attempts.
pub(crate) struct Freezer {
    path: PathBuf,
    folder: OwnedFd,
    freeze: File,
    events: File,
}

impl Freezer {
    /// Makes the group, if this system and this user's rights allow it. Where its controllers are there too, they bound
    /// processes and memory, the latter somewhat above what is allowed: beyond that an attempt is ended by name.
    pub(crate) fn make(processes_max: u64, memory_max: Option<u64>) -> Option<Freezer> {
        let made = Freezer::make_group()?;
        let memory = memory_max.map(|bytes| (bytes + bytes / MARGIN_SHARE + MARGIN).to_string());
        let pids = Some(processes_max.to_string());
        for (name, most) in [("pids.max", pids), ("memory.max", memory)] {
            if let Some(most) = most {
                // Without the controller there is no such file.
                let _ = std::fs::write(made.path.join(name), most);
            }
        }
        Some(made)
    }

    fn make_group() -> Option<Freezer> {
        let own = group_of("self")?;
        clear(&own);
        let path = own.join(format!("{NAME}{}-{}", pid_namespace()?, std::process::id()));
        // Another that starts just now may clear it away before it is held.
        (0..TRIES).find_map(|_| {
            std::fs::create_dir(&path).ok()?;
            let made = Freezer::open(&path);
            if made.is_none() {
                let _ = std::fs::remove_dir(&path);
            }
            made
        })
    }

    fn open(path: &Path) -> Option<Freezer> {
        let folder = hold(path)?;
        Some(Freezer {
            folder,
            freeze: File::options()
                .write(true)
                .open(path.join("cgroup.freeze"))
                .ok()?,
            events: File::open(path.join("cgroup.events")).ok()?,
            path: path.to_owned(),
        })
    }

    /// The folder, for processes to be started in.
    pub(crate) fn folder(&self) -> RawFd {
        self.folder.as_raw_fd()
    }

    /// Stops all processes of the group, or lets them go on.
    pub(crate) fn freeze(&self, on: bool) -> io::Result<()> {
        self.freeze.write_at(if on { b"1" } else { b"0" }, 0)?;
        let since = Instant::now();
        while on && !self.frozen()? && since.elapsed() < FROZEN_WITHIN {
            let left = FROZEN_WITHIN.saturating_sub(since.elapsed());
            let mut polled = libc::pollfd {
                fd: self.events.as_fd().as_raw_fd(),
                events: libc::POLLPRI,
                revents: 0,
            };
            let left = i32::try_from(left.as_millis()).unwrap_or(0).max(1);
            // SAFETY: one valid structure.
            unsafe { libc::poll(&raw mut polled, 1, left) };
        }
        Ok(())
    }

    fn frozen(&self) -> io::Result<bool> {
        let mut text = [0; 256];
        let read = self.events.read_at(&mut text, 0)?;
        let mut lines = text[..read].split(|byte| *byte == b'\n');
        Ok(lines.any(|line| line == FROZEN.as_bytes()))
    }

    /// Removes the group, once all its processes have ended.
    pub(crate) fn remove(&self) {
        let since = Instant::now();
        let in_use = |error: io::Error| error.kind() == io::ErrorKind::ResourceBusy;
        while std::fs::remove_dir(&self.path).is_err_and(in_use) && since.elapsed() < GONE_WITHIN {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether a process stands still: stopped by a signal, or by the kernel with its control group.
pub fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let frozen = || {
        let events = group_of(&pid.to_string())?.join("cgroup.events");
        let events = std::fs::read_to_string(events).ok()?;
        Some(events.lines().any(|line| line == FROZEN))
    };
    state.starts_with('T') || frozen().unwrap_or(false)
}

/// The folder of the control group that a process, or `self`, is in.
fn group_of(process: &str) -> Option<PathBuf> {
    let groups = std::fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| group_below(line, group))
}

/// The folder of `group`, if this line of mountinfo shows where control groups lie and the group is among them.
fn group_below(line: &str, group: &str) -> Option<PathBuf> {
    let (mount, kind) = line.split_once(" - ")?;
    if !kind.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = mount.split(' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    let below = Path::new(group).strip_prefix(root).ok()?;
    let inside = below
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    inside.then(|| Path::new(at).join(below))
}

/// Where this process's id counts.
fn pid_namespace() -> Option<u64> {
    let about = std::fs::metadata("/proc/self/ns/pid").ok()?;
    Some(std::os::unix::fs::MetadataExt::ino(&about))
}

/// Opens a group's folder and holds it for as long as it is open, here or in a process forked later; none while
/// another does.
fn hold(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(folder)
}

/// Removes what watchers left that were killed, wherever their ids counted.
fn clear(own: &Path) {
    let Ok(entries) = std::fs::read_dir(own) else {
        return;
    };
    let ours = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with(NAME));
    let left = entries.flatten().filter(|entry| ours(&entry.file_name()));
    for entry in left.take(CLEARED_MAX) {
        if hold(&entry.path()).is_some() {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_below_whatever_part_is_mounted() {
        let line = |root: &str| {
            format!("42 32 0:29 {root} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw")
        };
        let found = |root, group| group_below(&line(root), group);
        let below = |path: &str| Some(PathBuf::from(path));
        assert_eq!(found("/", "/a.slice/b"), below("/sys/fs/cgroup/a.slice/b"));
        assert_eq!(found("/a.slice", "/a.slice/b"), below("/sys/fs/cgroup/b"));
        assert_eq!(found("/", "/"), below("/sys/fs/cgroup/"));
        assert_eq!(found("/c", "/a.slice/b"), None, "not to be seen from here");
        assert_eq!(found("/", "/../b"), None, "outside of what is shown");
        let other = "32 21 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        assert_eq!(group_below(other, "/"), None);
    }
}
