//! The file system as attempts see it: system folders, a few devices, `/proc`, the scratch folders, and
//! nothing else. What is not there cannot be read, written or connected to.

use crate::wire::Setup;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
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

/// Where POSIX shared memory and semaphores live. It is the spawner's own and shared by its attempts,
/// because its path is fixed; Python's `multiprocessing` does not work without.
pub(crate) const SHARED_MEMORY: &str = "/dev/shm";

/// Entries of `/etc` that are looked at for secrets.
const ETC_ENTRIES_MAX: usize = 20_000;

const ATTR_RDONLY: u64 = 1;
const ATTR_NOSUID: u64 = 2;
const ATTR_NODEV: u64 = 4;

/// Files and folders that attempts may read, existing ones only.
pub(crate) fn readable(setup: &Setup) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = SYSTEM.iter().map(PathBuf::from).collect();
    all.extend(setup.read_only.iter().cloned());
    if setup.network
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
/// pid namespace. Where the worker is root, what other users may not read in `/etc` is covered: without
/// capabilities a task would still be the files' owner.
pub(crate) fn enter(setup: &Setup, is_root: bool) -> Result<(), String> {
    let base = &setup.scratch;
    let failed = |what: &Path, error: io::Error| format!("showing {}: {error}", what.display());
    mount(
        "none",
        Path::new("/"),
        None,
        libc::MS_REC | libc::MS_SLAVE,
        "",
    )
    .map_err(|error| failed(Path::new("/"), error))?;

    let readonly = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV;
    let mut pieces: Vec<(PathBuf, Piece)> = Vec::new();
    for path in readable(setup) {
        let piece = match std::fs::read_link(&path) {
            Ok(target) => Piece::Link(target),
            Err(_) => {
                Piece::Tree(clone_tree(&path, readonly).map_err(|error| failed(&path, error))?)
            }
        };
        pieces.push((path, piece));
    }
    for path in DEVICES.map(PathBuf::from) {
        let tree = clone_tree(&path, ATTR_NOSUID).map_err(|error| failed(&path, error))?;
        pieces.push((path, Piece::Tree(tree)));
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        pieces.push((Path::new("/dev").join(name), Piece::Link(target.into())));
    }
    let scratch =
        clone_tree(base, ATTR_NOSUID | ATTR_NODEV).map_err(|error| failed(base, error))?;
    pieces.push((base.clone(), Piece::Tree(scratch)));

    // The new root is mounted over the scratch folder, the one path that is sure to exist.
    mount(
        "tmpfs",
        base,
        Some("tmpfs"),
        libc::MS_NOSUID | libc::MS_NODEV,
        "mode=755,size=4m",
    )
    .map_err(|error| failed(base, error))?;
    for (path, piece) in &pieces {
        place(base, path, piece).map_err(|error| failed(path, error))?;
    }
    let proc = base.join("proc");
    let shm = base.join("dev/shm");
    std::fs::create_dir(&proc)
        .and_then(|()| {
            let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            mount("proc", &proc, Some("proc"), flags, "")
        })
        .map_err(|error| failed(Path::new("/proc"), error))?;
    std::fs::create_dir(&shm)
        .and_then(|()| {
            let flags = libc::MS_NOSUID | libc::MS_NODEV;
            mount("tmpfs", &shm, Some("tmpfs"), flags, "mode=1777,size=25%")
        })
        .map_err(|error| failed(Path::new(SHARED_MEMORY), error))?;
    if is_root {
        cover_secrets(base).map_err(|error| failed(Path::new("/etc"), error))?;
    }
    pivot(base).map_err(|error| format!("entering the view: {error}"))
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

/// Covers files and folders of `/etc` that only their owner or group may read.
fn cover_secrets(root: &Path) -> io::Result<()> {
    let null = root.join("dev/null");
    let nothing = root.join(".nothing");
    std::fs::create_dir(&nothing)?;
    std::fs::set_permissions(&nothing, std::fs::Permissions::from_mode(0o555))?;
    let mut folders = vec![root.join("etc")];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)? {
            seen += 1;
            if seen > ETC_ENTRIES_MAX {
                return Err(io::Error::other(
                    "more entries than can be checked for secrets",
                ));
            }
            let path = entry?.path();
            let about = path.symlink_metadata()?;
            if about.is_symlink() {
                continue;
            }
            let open = about.mode() & if about.is_dir() { 0o005 } else { 0o004 };
            match (open != 0, about.is_dir()) {
                (true, true) => folders.push(path),
                (true, false) => {}
                (false, true) => attach(&clone_tree(&nothing, ATTR_RDONLY)?, &path)?,
                (false, false) => attach(&clone_tree(&null, ATTR_RDONLY)?, &path)?,
            }
        }
    }
    Ok(())
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

/// A detached copy of what is mounted at and below `path`, with `attributes`.
fn clone_tree(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
    const CLONE: libc::c_uint = 1;
    let c_path = CString::new(path.as_os_str().as_bytes())?;
    let flags = CLONE | libc::O_CLOEXEC as libc::c_uint | libc::AT_RECURSIVE as libc::c_uint;
    // SAFETY: the path is terminated and valid for the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c_path.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    set_attributes(tree.as_raw_fd(), &CString::default(), flags, attributes)?;
    Ok(tree)
}

fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    const FROM_EMPTY_PATH: libc::c_uint = 4;
    let (empty, to) = (
        CString::default(),
        CString::new(path.as_os_str().as_bytes())?,
    );
    // SAFETY: both strings are terminated and valid for the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            empty.as_ptr(),
            libc::AT_FDCWD,
            to.as_ptr(),
            FROM_EMPTY_PATH,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set_attributes(folder: RawFd, path: &CString, flags: i32, set: u64) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: path and attributes are valid for the call, of the size that is given.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder,
            path.as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn mount(
    source: &str,
    at: &Path,
    kind: Option<&str>,
    flags: libc::c_ulong,
    data: &str,
) -> io::Result<()> {
    let source = CString::new(source)?;
    let at = CString::new(at.as_os_str().as_bytes())?;
    let kind = CString::new(kind.unwrap_or(""))?;
    let data = CString::new(data)?;
    // SAFETY: all strings are terminated and valid for the call.
    let done = unsafe {
        libc::mount(
            source.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            flags,
            data.as_ptr().cast(),
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
