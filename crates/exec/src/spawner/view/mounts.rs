//! The system calls that make a view out of mounts.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(super) const ATTR_RDONLY: u64 = 1;
pub(super) const ATTR_NOSUID: u64 = 2;
pub(super) const ATTR_NODEV: u64 = 4;

/// A detached copy of what is mounted at and below `path`, with `attributes`.
pub(super) fn clone_tree(path: &Path, attributes: u64) -> io::Result<OwnedFd> {
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

pub(super) fn attach(tree: &OwnedFd, path: &Path) -> io::Result<()> {
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

pub(super) fn set_attributes(
    folder: RawFd,
    path: &CString,
    flags: i32,
    set: u64,
) -> io::Result<()> {
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

pub(super) fn mount(
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
