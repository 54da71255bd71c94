//! Memory of stopped attempts, left to the machine's other programs for as long as they are stopped.
//!
//! The kernel is asked to push out what each process holds: pages of its own go to swap, where there is any, and those
//! of files are dropped, since they can be read again. What goes on later fetches what it needs by itself.

use crate::spawner::tree;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};

/// Most that is asked for at once, bytes: only between two requests it is seen that attempts go on.
const CHUNK_BYTES: usize = 32 << 20;
/// Mappings of one process that are looked at, at most: as many as the kernel allows by default.
const MAPPINGS_MAX: usize = 65_530;

/// Whether this process may ask that of the processes of another: the kernel wants `CAP_SYS_NICE` for it.
pub(crate) fn may_push_out(process: u32) -> bool {
    open(process as i32).is_ok_and(|process| advise(&process, 0, 0).is_ok())
}

/// Pushes out what the attempts of the spawner below this watcher hold, for as long as `stopped` says that they are.
///
/// # Errors
/// The kernel refuses it.
pub(crate) fn push_out(watcher: u32, stopped: impl Fn() -> bool) -> io::Result<()> {
    let spawners = tree::children_of(watcher as i32);
    let attempts = tree::below(spawners.clone()).into_iter();
    for pid in attempts.filter(|pid| !spawners.contains(pid)) {
        // One that has ended needs no memory.
        if let (Ok(process), Ok(mappings)) = (open(pid), mappings(pid)) {
            for (from, to) in mappings {
                for at in (from..to).step_by(CHUNK_BYTES) {
                    if !stopped() {
                        return Ok(());
                    }
                    match advise(&process, at, CHUNK_BYTES.min(to - at)) {
                        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                            return Err(error);
                        }
                        // A mapping that stays where it is, as those of the kernel do.
                        _ => {}
                    }
                }
            }
        }
    }
    Ok(())
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Beginnings and ends of a process's mappings.
fn mappings(pid: i32) -> io::Result<Vec<(usize, usize)>> {
    let file = std::fs::File::open(format!("/proc/{pid}/maps"))?;
    let lines = BufReader::new(file).lines().take(MAPPINGS_MAX);
    let ends = |line: String| {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some((number(from)?, number(to)?))
    };
    Ok(lines.map_while(Result::ok).filter_map(ends).collect())
}

fn advise(process: &OwnedFd, from: usize, bytes: usize) -> io::Result<()> {
    let range = libc::iovec {
        iov_base: from as *mut libc::c_void,
        iov_len: bytes,
    };
    // SAFETY: the range is one of the other process and only named; a hint changes nothing that it holds.
    let done = unsafe {
        libc::syscall(
            libc::SYS_process_madvise,
            process.as_raw_fd(),
            &raw const range,
            1,
            libc::MADV_PAGEOUT,
            0,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
