//! What the spawner asks of the system once.

use crate::user::TaskUser;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// Most open files of a process of an attempt: the kernel's table is common to all of the machine.
const TASK_FILES_MAX: libc::rlim_t = 64 << 10;

/// A descriptor that becomes readable when a child ends.
pub(crate) fn signals_of_children() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised before use and valid for the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Allows this process as many open files as it may have; returns what attempts get.
pub(crate) fn raise_files_max() -> libc::rlimit {
    let mut limit = libc::rlimit {
        rlim_cur: 1024,
        rlim_max: 1024,
    };
    // SAFETY: both structures are valid for the calls.
    unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        let raised = libc::rlimit {
            rlim_cur: limit.rlim_max,
            rlim_max: limit.rlim_max,
        };
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised);
        limit.rlim_max = limit.rlim_max.min(TASK_FILES_MAX);
        limit.rlim_cur = limit.rlim_cur.min(TASK_FILES_MAX);
        let none = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
    }
    limit
}

/// Bounds what attempts take of the machine's common tables. `shared` says that the machine counts the processes of
/// this user's other programs with those of attempts.
pub(crate) fn bound(processes_max: u64, shared: bool) -> io::Result<()> {
    let others = if shared { threads_of_user() } else { 0 };
    for (resource, most) in [
        (libc::RLIMIT_NPROC, processes_max.saturating_add(others)),
        (libc::RLIMIT_RTPRIO, 0),
        (libc::RLIMIT_NICE, 0),
        (libc::RLIMIT_MSGQUEUE, 0),
    ] {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: the structure is valid for both calls.
        let done = unsafe {
            libc::getrlimit(resource, &raw mut limit) == 0 && {
                let most = limit.rlim_max.min(most);
                (limit.rlim_cur, limit.rlim_max) = (limit.rlim_cur.min(most), most);
                libc::setrlimit(resource, &raw const limit) == 0
            }
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Threads of all processes of this process's user, as far as they can be seen.
fn threads_of_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    let own = rustix::process::geteuid().as_raw();
    let threads = |pid: i32| {
        let tasks = std::fs::metadata(format!("/proc/{pid}/task")).ok()?;
        // A folder for each, beside `.` and `..`.
        (tasks.uid() == own).then(|| tasks.nlink().saturating_sub(2))
    };
    let all = super::tree::all_processes();
    all.into_iter().filter_map(threads).sum()
}

/// Does something as an attempt's user, if that is another: the kernel lets nobody else without rights of the
/// machine's root change how attempts are scheduled.
pub(crate) fn as_user<T>(user: Option<TaskUser>, run: impl FnOnce() -> T) -> T {
    let own = rustix::process::geteuid().as_raw();
    let become_user = |uid: u32| {
        // SAFETY: changes this thread alone, and leaves it the way back.
        unsafe { libc::syscall(libc::SYS_setresuid, u32::MAX, uid, u32::MAX) }
    };
    let Some(user) = user else { return run() };
    become_user(user.uid);
    let done = run();
    become_user(own);
    done
}

/// Whether this process is root of the machine itself, not of a user namespace alone.
pub(crate) fn is_machines_root() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let first = map.split_whitespace().take(2);
    rustix::process::geteuid().is_root() && first.eq(["0", "0"])
}

/// Leaves the session keyring that this process has inherited, with all keys in it, for an empty one.
pub(crate) fn leave_keyring() {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: without a name the kernel makes a new keyring. Where it knows no keyrings there is nothing to leave.
    unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            JOIN_SESSION_KEYRING,
            std::ptr::null::<u8>(),
        )
    };
}
