//! The file system as attempts see it: system folders, a few devices, `/proc`, the scratch folders, and
//! nothing else. What is not there cannot be read, written or connected to.

mod etc;
mod mounts;

use crate::scratch::{TMP, WORK};
use crate::wire::Setup;
use mounts::{ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY, attach, clone_tree, mount, set_attributes};
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Folders that programs need and that hold nothing private.
const SYSTEM: [&str; 17] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix/store",
    "/gnu/store",
    "/run/current-system",
    "/var/cache/fontconfig",
    "/var/lib/ghostscript",
    "/var/lib/texmf",
    "/var/lib/texlive",
    "/sys/devices/system",
];

/// Devices without state that programs count on.
pub(crate) const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
];

/// Where POSIX shared memory and semaphores live; Python's `multiprocessing` does not work without.
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";

/// What of `/proc` attempts may read where it shows the machine's processes: nothing of those.
pub(crate) const PROC_OPEN: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys",
    "/proc/uptime",
    "/proc/version",
    "/proc/vmstat",
];

/// Where programs put temporary files whatever `TMPDIR` says.
const TEMPORARY: &str = "/tmp";
/// Size of the view's own folders and of its copy of `/etc`, at most.
const ROOT_SIZE: &str = "mode=755,size=32m,nr_inodes=16k";

/// Files and folders that attempts may read, existing ones only.
pub(crate) fn readable(setup: &Setup) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    all.extend(setup.read_only.iter().cloned());
    all.extend(setup.permissions.read_only.iter().cloned());
    if setup.shares_network()
        && let Ok(real) = std::fs::canonicalize("/etc/resolv.conf")
    {
        all.push(real);
    }
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in all {
        if path.symlink_metadata().is_ok() && !kept.iter().any(|k| path.starts_with(k)) {
            kept.push(path);
        }
    }
    kept
}

/// The folders that [`readable`] shows on any machine, links followed: what must be hidden may not lie in
/// one of them.
pub(crate) fn system_folders() -> Vec<PathBuf> {
    SYSTEM
        .iter()
        .filter_map(|path| std::fs::canonicalize(path).ok())
        .collect()
}

/// Leaves the machine's file system for the view. Needs a mount namespace of its own and, for `/proc`, a
/// pid namespace. `as_root` says that tasks are the owner of root's files: what other users may not read in `/etc` is
/// covered then.
pub(crate) fn enter(setup: &Setup, as_root: bool) -> Result<(), String> {
    let base = &setup.folder;
    let failed = |what: &Path, error: io::Error| format!("showing {}: {error}", what.display());
    let slave = libc::MS_REC | libc::MS_SLAVE;
    mount("none", Path::new("/"), None, slave, "")
        .map_err(|error| failed(Path::new("/"), error))?;
    let pieces = pieces(setup)?;
    let etc = etc::read().map_err(|error| failed(Path::new(etc::FOLDER), error))?;

    // The new root is mounted over the slot's folder, the one path that is sure to exist.
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    mount("tmpfs", base, Some("tmpfs"), flags, ROOT_SIZE).map_err(|error| failed(base, error))?;
    for (path, piece) in &pieces {
        place(base, path, piece).map_err(|error| failed(path, error))?;
    }
    etc::place(base, &etc, as_root).map_err(|error| failed(Path::new(etc::FOLDER), error))?;
    let (proc, shm) = (base.join("proc"), base.join("dev/shm"));
    std::fs::create_dir(&proc)
        .and_then(|()| mount("proc", &proc, Some("proc"), flags | libc::MS_NOEXEC, ""))
        .map_err(|error| failed(Path::new("/proc"), error))?;
    let size = match setup.memory_max {
        Some(bytes) => format!("mode=1777,size={}", bytes.min(memory_of_machine() / 4)),
        None => "mode=1777,size=25%".to_owned(),
    };
    std::fs::create_dir(&shm)
        .and_then(|()| mount("tmpfs", &shm, Some("tmpfs"), flags, &size))
        .map_err(|error| failed(Path::new(SHARED_MEMORY), error))?;
    pivot(base).map_err(|error| format!("entering the view: {error}"))
}

/// All that the view shows, besides `/etc`, `/proc` and shared memory.
fn pieces(setup: &Setup) -> Result<Vec<(PathBuf, Piece)>, String> {
    let failed = |what: &Path, error: io::Error| format!("showing {}: {error}", what.display());
    let tree = |path: &Path, attributes| {
        let tree = clone_tree(path, attributes).map_err(|error| failed(path, error))?;
        Ok::<_, String>(Piece::Tree(tree))
    };
    let mut pieces: Vec<(PathBuf, Piece)> = Vec::new();
    for path in readable(setup) {
        if path.starts_with(etc::FOLDER) || path.starts_with("/proc") {
            continue;
        }
        let piece = match std::fs::read_link(&path) {
            Ok(target) => Piece::Link(target),
            Err(_) => tree(&path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?,
        };
        pieces.push((path, piece));
    }
    let devices = DEVICES.iter().map(PathBuf::from);
    for path in devices.chain(setup.permissions.devices.iter().cloned()) {
        // A device can be written to all the same; its mode cannot be changed.
        let piece = tree(&path, ATTR_RDONLY | ATTR_NOSUID)?;
        pieces.push((path, piece));
    }
    for share in &setup.permissions.shares {
        let read_only = if share.writable { 0 } else { ATTR_RDONLY };
        let piece = tree(&share.path, read_only | ATTR_NOSUID | ATTR_NODEV)?;
        pieces.push((share.path.clone(), piece));
    }
    for mount in &setup.permissions.mounts {
        let piece = tree(&mount.from, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)?;
        pieces.push((mount.at.clone(), piece));
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        pieces.push((Path::new("/dev").join(name), Piece::Link(target.into())));
    }
    let (work, tmp) = (setup.folder.join(WORK), setup.folder.join(TMP));
    let own = ATTR_NOSUID | ATTR_NODEV;
    let elsewhere = |path: &PathBuf| !path.starts_with(TEMPORARY);
    if pieces
        .iter()
        .map(|(path, _)| path)
        .chain([&setup.folder])
        .all(elsewhere)
    {
        pieces.push((TEMPORARY.into(), tree(&tmp, own)?));
    }
    for path in [work, tmp] {
        let piece = tree(&path, own)?;
        pieces.push((path, piece));
    }
    Ok(pieces)
}

/// What lies in the view's shared memory, bytes.
pub(crate) fn shared_memory_used() -> u64 {
    rustix::fs::statvfs(SHARED_MEMORY)
        .map_or(0, |about| (about.f_blocks - about.f_bfree) * about.f_frsize)
}

/// Whether nothing lies in the view's shared memory but its own folder.
pub(crate) fn shared_memory_is_empty() -> bool {
    rustix::fs::statvfs(SHARED_MEMORY)
        .is_ok_and(|about| about.f_files.saturating_sub(about.f_ffree) == 1)
}

fn memory_of_machine() -> u64 {
    // SAFETY: only return numbers.
    let (pages, page) = unsafe {
        (
            libc::sysconf(libc::_SC_PHYS_PAGES),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    pages.max(0) as u64 * page.max(0) as u64
}

/// Makes what is left writable in the view read-only: its root, and the kernel's switches in `/proc`,
/// which belong to the machine's root.
pub(crate) fn seal() -> io::Result<()> {
    for path in [
        "/proc/sys",
        "/proc/irq",
        "/proc/bus",
        "/proc/fs",
        "/proc/sysrq-trigger",
    ] {
        if Path::new(path).exists() {
            attach(
                &clone_tree(Path::new(path), ATTR_RDONLY | ATTR_NOSUID)?,
                Path::new(path),
            )?;
        }
    }
    let root = CString::new("/").unwrap_or_default();
    set_attributes(libc::AT_FDCWD, &root, 0, ATTR_RDONLY)
}

/// Brings up `lo` in a network namespace of its own.
pub(crate) fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: `request` names the interface with a terminated string and is valid for both calls.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = *from as libc::c_char;
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::IFF_UP as libc::c_short;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

enum Piece {
    Link(PathBuf),
    Tree(OwnedFd),
}

fn place(root: &Path, path: &Path, piece: &Piece) -> io::Result<()> {
    let at = root.join(path.strip_prefix("/").unwrap_or(path));
    if let Some(parent) = at.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match piece {
        Piece::Link(target) => std::os::unix::fs::symlink(target, &at),
        Piece::Tree(tree) => {
            let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode);
            if kind.is_dir() {
                std::fs::create_dir_all(&at)?;
            } else {
                drop(std::fs::File::create(&at)?);
            }
            attach(tree, &at)
        }
    }
}

/// Makes `root` the root and lets go of the old one.
fn pivot(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    let here = CString::new(".").unwrap_or_default();
    // SAFETY: both strings are terminated and valid for the calls. With the same folder twice the old
    // root ends up on top of the new one, from where it is taken off.
    unsafe {
        if libc::syscall(libc::SYS_pivot_root, here.as_ptr(), here.as_ptr()) != 0
            || libc::umount2(here.as_ptr(), libc::MNT_DETACH) != 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(rustix::process::chdir("/")?)
}
