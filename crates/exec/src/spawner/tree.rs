//! Finds and measures processes through `/proc`. Those below a spawner are of its attempt, but for the interpreter from
//! which Python tasks are forked.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

/// Open files that are looked at in one round.
const OPEN_FILES_MAX: usize = 4096;
/// Rounds in which processes are looked for that have no idle priority yet.
const IDLE_ROUNDS_MAX: usize = 64;
/// Largest list of children that is looked at, bytes of text; a task that leaves more orphans than fit has
/// them ended in several rounds.
const CHILDREN_BYTES_MAX: usize = 256 << 10;

/// The children of this process, orphans included that came to it. The kernel lists them for each thread.
pub(crate) struct Children {
    files: Vec<File>,
}

impl Children {
    /// Those of the threads that there are now.
    pub(crate) fn open() -> Children {
        let threads = threads_of(std::process::id() as i32).into_iter();
        let open = |thread| File::open(format!("/proc/self/task/{thread}/children")).ok();
        Children {
            files: threads.filter_map(open).collect(),
        }
    }

    /// Whether the kernel lists them.
    pub(crate) fn is_exact(&self) -> bool {
        !self.files.is_empty()
    }

    /// Their process ids. The kernel may leave one out while others end; it comes up the next time.
    pub(crate) fn list(&self) -> Vec<i32> {
        if self.files.is_empty() {
            return children_by_search();
        }
        self.files.iter().flat_map(read_children).collect()
    }
}

fn read_children(file: &File) -> Vec<i32> {
    let mut buffer = vec![0; 4096];
    loop {
        match file.read_at(&mut buffer, 0) {
            Ok(read) if read == buffer.len() && read < CHILDREN_BYTES_MAX => {
                buffer.resize(CHILDREN_BYTES_MAX, 0);
            }
            Ok(read) => return numbers(&buffer[..read]),
            Err(_) => return Vec::new(),
        }
    }
}

/// Memory of these processes together, bytes: what each has for itself, and the largest share of files and
/// shared memory once, since that is mostly the same for all.
pub(crate) fn memory_of(pids: &[i32]) -> u64 {
    // SAFETY: only returns a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as u64;
    let (mut own, mut shared) = (0u64, 0u64);
    for pid in pids {
        let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/statm")) else {
            continue;
        };
        let mut fields = text
            .split(' ')
            .skip(1)
            .map(|field| field.parse::<u64>().unwrap_or(0));
        let (resident, common) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        own += resident.saturating_sub(common);
        shared = shared.max(common);
    }
    (own + shared) * page
}

/// Space of files on the file system of `folder` that have no name any more but are open in one of these processes,
/// bytes. Of very many open files some are left out.
pub(crate) fn unlinked_of(pids: &[i32], folder: &impl std::os::fd::AsFd) -> u64 {
    let Ok(device) = rustix::fs::fstat(folder).map(|about| about.st_dev) else {
        return 0;
    };
    let folders = pids
        .iter()
        .map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")));
    let open = folders.flatten().flatten().flatten().take(OPEN_FILES_MAX);
    let mut found = std::collections::HashMap::new();
    for entry in open {
        if let Ok(about) = std::fs::metadata(entry.path())
            && about.is_file()
            && about.nlink() == 0
            && about.dev() == device
        {
            found.insert(about.ino(), about.blocks() * 512);
        }
    }
    found.into_values().sum()
}

/// CPU time of a process that has not ended, and of those of its children that were waited for.
pub(crate) fn cpu_of(pid: i32) -> Duration {
    ticks_of(pid, 0)
}

/// Own user and system time of a process, and those of its children that were waited for, less the first of these
/// four.
fn ticks_of(pid: i32, less: usize) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name, in brackets, may hold anything; these are the 12th to 15th fields behind it.
    let fields = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .skip(11);
    let ticks: u64 = fields
        .take(4)
        .skip(less)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    // SAFETY: only returns a number.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.max(1) as u64;
    Duration::from_millis(ticks * 1000 / per_second)
}

/// CPU time of these processes and of those of their children that were waited for; of those that still run to the
/// nanosecond, which the text of [`cpu_of`] has not.
pub(crate) fn cpu_of_all(pids: &[i32]) -> Duration {
    let one = |pid: &i32| {
        let mut clock = 0;
        let mut own = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: both structures are valid for the calls.
        let read = unsafe {
            libc::clock_getcpuclockid(*pid, &raw mut clock) == 0
                && libc::clock_gettime(clock, &raw mut own) == 0
        };
        if !read {
            return Duration::ZERO;
        }
        let own = Duration::new(
            u64::try_from(own.tv_sec).unwrap_or(0),
            u32::try_from(own.tv_nsec).unwrap_or(0),
        );
        own + ticks_of(*pid, 2)
    };
    pids.iter().map(one).sum()
}

/// Bytes that these processes, and those of their children that were waited for, have handed to the kernel.
pub(crate) fn written_by(pids: &[i32]) -> u64 {
    let one = |pid: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("wchar:"));
        line.and_then(|count| count.trim().parse::<u64>().ok())
            .unwrap_or(0)
    };
    pids.iter().map(one).sum()
}

/// These processes and all below them, as far as the kernel lists children. One that loses its parent meanwhile can be
/// missed.
pub(crate) fn below(mut pids: Vec<i32>) -> Vec<i32> {
    let mut at = 0;
    while let Some(pid) = pids.get(at) {
        pids.extend(children_of(*pid));
        at += 1;
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// The children of a process.
pub(crate) fn children_of(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let children = |thread: std::fs::DirEntry| {
        let text = std::fs::read(thread.path().join("children")).unwrap_or_default();
        numbers(&text)
    };
    threads.flat_map(children).collect()
}

/// All processes of this pid namespace.
pub(crate) fn all_processes() -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// For kernels without lists of children.
fn children_by_search() -> Vec<i32> {
    let own = std::process::id() as i32;
    let is_child = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in brackets, may hold anything; the parent is the second field behind it.
        let parent = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split(' ').nth(2));
        parent.and_then(|text| text.parse().ok()) == Some(own)
    };
    all_processes().into_iter().filter(is_child).collect()
}

fn numbers(text: &[u8]) -> Vec<i32> {
    text.split(|byte| *byte == b' ')
        .filter_map(|word| std::str::from_utf8(word).ok()?.trim().parse().ok())
        .collect()
}

/// Gives all processes below this one idle priority. One that starts others meanwhile is found in the next round.
pub(crate) fn make_all_idle(children: &Children) {
    for _ in 0..IDLE_ROUNDS_MAX {
        let mut found = false;
        for pid in below(children.list()) {
            for thread in threads_of(pid) {
                // SAFETY: only returns a number.
                let policy = unsafe { libc::sched_getscheduler(thread) };
                if policy >= 0 && policy != libc::SCHED_IDLE {
                    found |= set_idle(thread);
                }
            }
        }
        if !found {
            return;
        }
    }
}

fn threads_of(pid: i32) -> Vec<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    threads
        .filter_map(|thread| thread.file_name().to_str()?.parse().ok())
        .collect()
}

/// Whether that could be done.
fn set_idle(thread: i32) -> bool {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: changes a child of ours that is not reaped, or what was just found below it.
    unsafe { libc::sched_setscheduler(thread, libc::SCHED_IDLE, &raw const none) == 0 }
}

/// Whether one of these processes is not stopped.
pub(crate) fn awake(pids: &[i32]) -> bool {
    pids.iter().any(|pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        !(state.is_empty() || state.starts_with(['T', 't', 'Z', 'X']))
    })
}
