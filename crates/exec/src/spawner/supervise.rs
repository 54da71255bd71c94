//! Calls that the spawner checks, or makes in an attempt's place.
//!
//! A thread of its own waits for them, so that a call is soon taken: until then a signal to the caller interrupts it.
//! The spawner's main thread is filtered as attempts are, and its own signals to them come here too.
//!
//! Where attempts run as the worker's own user and see all its files and processes, Landlock does not keep them from
//! changing the modes and times of its files, and a filter cannot see paths. The kernel hands such calls to the
//! spawner. It looks at the file itself, not at its name a second time, so that nothing can change in between.

use super::tree::{self, Children};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

/// Longest path that is read, bytes: the kernel's own limit.
const PATH_BYTES_MAX: usize = 4096;
const PAGE: usize = 4096;
/// A file of the attempt may become this: no set-user-id and no set-group-id.
const MODE_MASK: u64 = 0o1777;
const PRIO_PROCESS: u64 = 0;
const IOPRIO_WHO_PROCESS: u64 = 1;

/// What becomes of a call.
enum Answer {
    /// The kernel goes on with it. Only for calls whose arguments are all in registers.
    Go,
    /// It was done here.
    Done,
    Refused(i32),
}

/// The thread that answers.
pub(crate) struct Supervisor {
    /// Its number.
    pub thread: u32,
    asked: SyncSender<OwnedFd>,
}

impl Supervisor {
    /// Hands over the descriptor on which the kernel asks.
    pub(crate) fn watch(self, asked: OwnedFd) -> io::Result<()> {
        let gone = |_| io::Error::other("the thread that checks system calls ended");
        self.asked.send(asked).map_err(gone)
    }
}

/// Starts the thread. `root` is the folder in which files may be changed.
pub(crate) fn start(root: &Path) -> io::Result<Supervisor> {
    let (asked, taken) = sync_channel(1);
    let (said, heard) = sync_channel(1);
    let root = root.to_owned();
    std::thread::Builder::new().spawn(move || {
        // SAFETY: only returns a number.
        let _ = said.send(unsafe { libc::gettid() } as u32);
        let children = Children::open();
        if let Ok(asked) = taken.recv() {
            while answer(&asked, &root, &children) {}
        }
    })?;
    let gone = |_| io::Error::other("the thread that checks system calls ended");
    let thread = heard.recv().map_err(gone)?;
    Ok(Supervisor { thread, asked })
}

/// Waits for a question of the kernel and answers it; `false` when there will be no more. `children` are the processes
/// that may be reached.
fn answer(asked: &OwnedFd, root: &Path, children: &Children) -> bool {
    // SAFETY: all zeroes is a valid value, which the kernel asks for, and it is valid for the call.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let fd = asked.as_raw_fd();
    // SAFETY: as above.
    if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut question) } != 0 {
        // The caller is gone, or was interrupted, before this thread came to it.
        let error = io::Error::last_os_error().raw_os_error();
        return matches!(error, Some(libc::ENOENT | libc::EINTR));
    }
    let call = Call {
        pid: question.pid as i32,
        number: libc::c_long::from(question.data.nr),
        args: question.data.args,
        root,
    };
    let answer = call.decide(children);
    let mut response = libc::seccomp_notif_resp {
        id: question.id,
        val: 0,
        error: 0,
        flags: 0,
    };
    match answer {
        Answer::Go => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        Answer::Done => {}
        Answer::Refused(errno) => response.error = -errno,
    }
    // SAFETY: valid for the call. It fails where the caller has been killed meanwhile.
    unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response) };
    true
}

/// A call that an attempt's thread waits for.
struct Call<'a> {
    /// The thread.
    pid: i32,
    number: libc::c_long,
    args: [u64; 6],
    root: &'a Path,
}

/// Times of a file to be set; both now, if there are none.
type Times = Option<[libc::timespec; 2]>;

impl Call<'_> {
    fn decide(&self, children: &Children) -> Answer {
        let changed = match self.number {
            libc::SYS_kill => return self.signal(children),
            libc::SYS_tkill
            | libc::SYS_rt_sigqueueinfo
            | libc::SYS_tgkill
            | libc::SYS_rt_tgsigqueueinfo => {
                return allowed_if(self.is_own(self.number(0), children));
            }
            libc::SYS_setpriority | libc::SYS_ioprio_set => {
                let one = match self.number {
                    libc::SYS_setpriority => PRIO_PROCESS,
                    _ => IOPRIO_WHO_PROCESS,
                };
                let own = self.args[0] == one && self.is_own(self.number(1), children);
                return allowed_if(own);
            }
            libc::SYS_sched_setaffinity
            | libc::SYS_sched_setattr
            | libc::SYS_sched_setparam
            | libc::SYS_sched_setscheduler => {
                return allowed_if(self.is_own(self.number(0), children));
            }
            libc::SYS_fchmod => self
                .file(self.args[0], 0, false)
                .and_then(|file| self.set_mode(&file, self.args[1])),
            libc::SYS_fchmodat => self
                .file(self.args[0], self.args[1], true)
                .and_then(|file| self.set_mode(&file, self.args[2])),
            452 => {
                let follow = self.args[3] & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
                let path = self.path_or_empty(self.args[1], self.args[3]);
                self.file(self.args[0], path, follow)
                    .and_then(|file| self.set_mode(&file, self.args[2]))
            }
            libc::SYS_utimensat => self.utimensat(),
            number => self.old_call(number),
        };
        match changed {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Refused(error.raw_os_error().unwrap_or(libc::EPERM)),
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn old_call(&self, number: libc::c_long) -> io::Result<()> {
        const HERE: u64 = libc::AT_FDCWD as u64;
        match number {
            libc::SYS_chmod => {
                let file = self.file(HERE, self.args[0], true)?;
                self.set_mode(&file, self.args[1])
            }
            libc::SYS_utime => {
                let times = self.words::<2>(self.args[1])?;
                let times = times.map(|times| times.map(|seconds| timespec(seconds, 0)));
                self.set_times(&self.file(HERE, self.args[0], true)?, times)
            }
            libc::SYS_utimes => {
                let times = self.micros(self.args[1])?;
                self.set_times(&self.file(HERE, self.args[0], true)?, times)
            }
            libc::SYS_futimesat => {
                let times = self.micros(self.args[2])?;
                self.set_times(&self.file(self.args[0], self.args[1], true)?, times)
            }
            _ => Err(not_permitted()),
        }
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn old_call(&self, _: libc::c_long) -> io::Result<()> {
        Err(not_permitted())
    }

    fn utimensat(&self) -> io::Result<()> {
        let times = self.words::<4>(self.args[2])?;
        let times = times.map(|[a, b, c, d]| [timespec(a, b), timespec(c, d)]);
        let follow = self.args[3] & libc::AT_SYMLINK_NOFOLLOW as u64 == 0;
        let path = self.path_or_empty(self.args[1], self.args[3]);
        self.set_times(&self.file(self.args[0], path, follow)?, times)
    }

    /// The address of a path, or 0 where the descriptor itself is meant.
    fn path_or_empty(&self, address: u64, flags: u64) -> u64 {
        if flags & libc::AT_EMPTY_PATH as u64 != 0
            && self.text(address).is_ok_and(|path| path.is_empty())
        {
            0
        } else {
            address
        }
    }

    fn number(&self, argument: usize) -> i32 {
        self.args[argument] as u32 as i32
    }

    /// Whether a process or thread is below the spawner.
    fn is_own(&self, thread: i32, children: &Children) -> bool {
        let process = process_of(thread);
        thread > 0 && process.is_some_and(|process| tree::below(children.list()).contains(&process))
    }

    fn signal(&self, children: &Children) -> Answer {
        let target = self.number(0);
        if target > 0 {
            return allowed_if(self.is_own(target, children));
        }
        let group = match target {
            -1 => return Answer::Refused(libc::EPERM),
            0 => group_of(process_of(self.pid).unwrap_or(0)),
            group => -group,
        };
        // Those of the spawner's own session that are not below it are all in one group.
        let own = group_of(0) == group;
        let below = tree::below(children.list());
        allowed_if(group > 0 && !own && below.iter().any(|pid| group_of(*pid) == group))
    }

    /// The file that a call names, if it lies in the attempt's folders; `path` is an address, 0 for the descriptor
    /// itself.
    fn file(&self, folder: u64, path: u64, follow: bool) -> io::Result<OwnedFd> {
        let at = match folder as u32 as i32 {
            libc::AT_FDCWD => PathBuf::from(format!("/proc/{}/cwd", self.pid)),
            fd => PathBuf::from(format!("/proc/{}/fd/{fd}", self.pid)),
        };
        let mut flags = OFlags::PATH | OFlags::CLOEXEC;
        let at = if path == 0 {
            at
        } else {
            if !follow {
                flags |= OFlags::NOFOLLOW;
            }
            let name = self.text(path)?;
            if name.is_empty() {
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            let name = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(name);
            // What `/proc` calls by the reader's name is the caller's.
            if let Ok(rest) = Path::new(&name).strip_prefix("/proc/self") {
                Path::new(&format!("/proc/{}", self.pid)).join(rest)
            } else if let Ok(rest) = Path::new(&name).strip_prefix("/dev/fd") {
                Path::new(&format!("/proc/{}/fd", self.pid)).join(rest)
            } else {
                at.join(name)
            }
        };
        let file = rustix::fs::open(at, flags, Mode::empty())?;
        let real = std::fs::read_link(own_path(&file))?;
        if real.starts_with(self.root) && real != self.root {
            Ok(file)
        } else {
            Err(not_permitted())
        }
    }

    fn set_mode(&self, file: &OwnedFd, mode: u64) -> io::Result<()> {
        let mode = Mode::from_raw_mode((mode & MODE_MASK) as u32);
        Ok(rustix::fs::chmod(own_path(file), mode)?)
    }

    fn set_times(&self, file: &OwnedFd, times: Times) -> io::Result<()> {
        let path = std::ffi::CString::new(own_path(file))?;
        let times = times
            .as_ref()
            .map_or(std::ptr::null(), |times| times.as_ptr());
        // SAFETY: the path is terminated, and the times are valid for the call.
        if unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), times, 0) } == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    fn memory(&self) -> io::Result<File> {
        File::open(format!("/proc/{}/mem", self.pid))
    }

    /// A string in the caller's memory, without its end.
    fn text(&self, address: u64) -> io::Result<Vec<u8>> {
        let memory = self.memory()?;
        let mut found = Vec::new();
        // Up to the next page at a time: what lies behind the string may not be there.
        while found.len() < PATH_BYTES_MAX {
            let at = address + found.len() as u64;
            let mut piece = vec![0; PAGE - at as usize % PAGE];
            let read = memory.read_at(&mut piece, at)?;
            if let Some(end) = piece[..read].iter().position(|byte| *byte == 0) {
                found.extend_from_slice(&piece[..end]);
                return Ok(found);
            }
            if read == 0 {
                break;
            }
            found.extend_from_slice(&piece[..read]);
        }
        Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
    }

    /// Numbers of 64 bits in the caller's memory; none at address 0.
    fn words<const N: usize>(&self, address: u64) -> io::Result<Option<[i64; N]>> {
        if address == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; N * 8];
        self.memory()?.read_exact_at(&mut bytes, address)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = i64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        Ok(Some(words))
    }

    #[cfg(target_arch = "x86_64")]
    fn micros(&self, address: u64) -> io::Result<Times> {
        let times = self.words::<4>(address)?;
        Ok(times.map(|[a, b, c, d]| [timespec(a, b * 1000), timespec(c, d * 1000)]))
    }
}

fn allowed_if(own: bool) -> Answer {
    if own {
        Answer::Go
    } else {
        Answer::Refused(libc::EPERM)
    }
}

fn not_permitted() -> io::Error {
    io::Error::from_raw_os_error(libc::EPERM)
}

fn timespec(seconds: i64, nanoseconds: i64) -> libc::timespec {
    libc::timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    }
}

/// The path by which a file is opened again, whatever it is called.
fn own_path(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

/// The process that a thread belongs to.
fn process_of(thread: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
    line.trim().parse().ok()
}

/// The group of a process, 0 for this one's own; 0 if there is none.
fn group_of(pid: i32) -> i32 {
    // SAFETY: only returns a number.
    unsafe { libc::getpgid(pid) }.max(0)
}
