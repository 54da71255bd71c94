//! Landlock, by its system calls: restricts what an attempt may do to files, and its TCP, signals and abstract sockets.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const CREATE_RULESET: libc::c_long = 444;
const ADD_RULE: libc::c_long = 445;
/// `landlock_restrict_self`, for the child to call.
pub(crate) const RESTRICT_SELF: libc::c_long = 446;

const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;

const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
const MAKE_CHAR: u64 = 1 << 6;
const MAKE_BLOCK: u64 = 1 << 11;
const TRUNCATE: u64 = 1 << 14;
const IOCTL_DEV: u64 = 1 << 15;
const BIND_TCP: u64 = 1;
const CONNECT_TCP: u64 = 1 << 1;
const SCOPE_ABSTRACT_SOCKETS: u64 = 1;
const SCOPE_SIGNALS: u64 = 1 << 1;

/// The first ABI that restricts signals and connections to abstract Unix sockets.
pub(crate) const ABI_SCOPES: u32 = 6;
/// The first ABI that restricts truncation. With an older one an attempt could truncate files that it may not write.
pub(crate) const ABI_MIN: u32 = 3;

#[repr(C)]
struct RulesetAttr {
    handled_access_fs: u64,
    handled_access_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneathAttr {
    allowed_access: u64,
    parent_fd: i32,
}

/// What an attempt may do below a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Read and execute.
    Read,
    /// Read and write one existing file, as for a device.
    Device,
    /// Everything below a folder, except making devices.
    All,
}

/// Returns the kernel's Landlock ABI; 0 if there is none or it is switched off.
pub(crate) fn abi() -> u32 {
    // SAFETY: with a null attribute and this flag the call only returns a number.
    let version = unsafe {
        libc::syscall(
            CREATE_RULESET,
            std::ptr::null::<u8>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).unwrap_or(0)
}

/// A ruleset that is being built. It denies everything that the kernel's ABI can restrict and no rule allows.
pub(crate) struct Ruleset {
    fd: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// Creates a ruleset that allows nothing. With `network` it does not restrict TCP.
    pub(crate) fn new(abi: u32, network: bool) -> io::Result<Ruleset> {
        let handled = handled(abi);
        let attr = RulesetAttr {
            handled_access_fs: handled,
            handled_access_net: if network { 0 } else { BIND_TCP | CONNECT_TCP },
            scoped: SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS,
        };
        // Older kernels take a shorter attribute.
        let size: usize = match abi {
            0..=3 => 8,
            4..ABI_SCOPES => 16,
            _ => 24,
        };
        // SAFETY: `attr` is valid for `size` bytes for the time of the call.
        let fd = unsafe { libc::syscall(CREATE_RULESET, &raw const attr, size, 0u32) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; it is close-on-exec.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Ruleset { fd, handled })
    }

    /// Allows `access` to `path` (opened with `O_PATH`) and everything below it.
    pub(crate) fn allow(
        &mut self,
        path: BorrowedFd<'_>,
        is_folder: bool,
        access: Access,
    ) -> io::Result<()> {
        let file_only = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV;
        let mut allowed = match access {
            Access::Read => EXECUTE | READ_FILE | READ_DIR,
            Access::Device => READ_FILE | WRITE_FILE | IOCTL_DEV | TRUNCATE,
            Access::All => !(MAKE_CHAR | MAKE_BLOCK),
        } & self.handled;
        if !is_folder {
            allowed &= file_only;
        }
        let attr = PathBeneathAttr {
            allowed_access: allowed,
            parent_fd: path.as_raw_fd(),
        };
        // SAFETY: `attr` is valid for the time of the call.
        let done = unsafe {
            libc::syscall(
                ADD_RULE,
                self.fd.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const attr,
                0u32,
            )
        };
        if done == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// Returns the finished ruleset, for any number of calls of `landlock_restrict_self`.
    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

fn handled(abi: u32) -> u64 {
    let bits = match abi {
        0 | 1 => 13,
        2 => 14,
        3 | 4 => 15,
        _ => 16,
    };
    (1 << bits) - 1
}
