//! Starting one process, as cheaply as the kernel can.
//!
//! `vfork`-like: the child borrows the spawner's memory until it executes, so nothing is copied however
//! large the spawner is. Measured on 2 virtual cores: the same as `posix_spawn` (370 µs with the exec of
//! `/usr/bin/true`), with room for what `posix_spawn` cannot do. In the child only system calls are made:
//! no allocation, no lock, no panic.

use std::ffi::{CStr, CString, c_char, c_void};
use std::io;
use std::os::fd::RawFd;

/// Enough for the child's few frames; it lies in a mapping of its own with a guard page below.
const STACK_BYTES: usize = 64 << 10;
/// Size of a page, bytes.
pub(crate) const PAGE: usize = 4096;
/// Where a program may say how far it is.
pub(crate) const PROGRESS_FD: RawFd = 3;

/// All that a child needs, prepared by the parent.
pub(crate) struct Command<'a> {
    pub program: &'a CStr,
    pub args: &'a [CString],
    pub env: &'a [CString],
    pub folder: RawFd,
    pub stdin: RawFd,
    pub stdout: RawFd,
    pub stderr: RawFd,
    /// Becomes descriptor [`PROGRESS_FD`].
    pub progress: RawFd,
    pub ruleset: Option<RawFd>,
    pub file_bytes_max: Option<u64>,
    pub files_max: libc::rlimit,
    /// The folder of the control group that it starts in, instead of the spawner's.
    pub group: Option<RawFd>,
    /// The user that the starting thread has already, but for the right to become root again.
    pub user: Option<u32>,
}

/// Why a process could not be started.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Failure {
    pub step: Step,
    pub errno: i32,
}

impl Failure {
    /// Whether the process might have been started outside of a control group.
    pub(crate) fn refuses_group(self) -> bool {
        self.step == Step::Clone && !matches!(self.errno, libc::EAGAIN | libc::ENOMEM)
    }
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Clone,
    Streams,
    Folder,
    Limits,
    Sandbox,
    Execute,
}

/// Makes children on a stack that is used again and again.
pub(crate) struct Cloner {
    stack: *mut c_void,
}

struct Shared<'a> {
    command: &'a Command<'a>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    failure: Option<Failure>,
}

impl Cloner {
    pub(crate) fn new() -> io::Result<Cloner> {
        // SAFETY: a new private mapping; its lowest page is then made inaccessible.
        unsafe {
            let stack = libc::mmap(
                std::ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            );
            if stack == libc::MAP_FAILED || libc::mprotect(stack, PAGE, libc::PROT_NONE) != 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Cloner { stack })
        }
    }

    /// Starts the command; returns its process id once it is executing.
    pub(crate) fn start(&mut self, command: &Command<'_>) -> Result<i32, Failure> {
        let mut shared = Shared {
            command,
            argv: pointers(command.args),
            envp: pointers(command.env),
            failure: None,
        };
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        let argument = (&raw mut shared).cast::<c_void>();
        // SAFETY: this thread sleeps until the child has executed or ended (CLONE_VFORK), so the stack and `shared`
        // stay valid and unshared; `run` only makes system calls.
        let pid = unsafe {
            match command.group {
                Some(group) => clone_into(group, flags, self.stack, argument),
                None => libc::clone(run, self.stack.byte_add(STACK_BYTES), flags, argument),
            }
        };
        if pid < 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            return Err(Failure {
                step: Step::Clone,
                errno,
            });
        }
        // SAFETY: the child has written here, behind the compiler's back.
        match unsafe { std::ptr::read_volatile(&raw const shared.failure) } {
            None => Ok(pid),
            Some(failure) => {
                // SAFETY: reaps exactly that child, which has ended or is about to.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
                Err(failure)
            }
        }
    }
}

impl Drop for Cloner {
    fn drop(&mut self) {
        // SAFETY: no child runs on it: `start` returns only when the child has left it.
        unsafe { libc::munmap(self.stack, STACK_BYTES) };
    }
}

/// Like `clone`, into a control group, which the C library has no function for: only so does the kernel put a process
/// there without the milliseconds that moving it takes.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_into(group: RawFd, flags: i32, stack: *mut c_void, argument: *mut c_void) -> i32 {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // SAFETY: all zeroes is a valid value.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = (flags & !libc::SIGCHLD) as u64 | CLONE_INTO_CGROUP;
    wanted.exit_signal = libc::SIGCHLD as u64;
    wanted.stack = stack as u64;
    wanted.stack_size = STACK_BYTES as u64;
    wanted.cgroup = group as u64;
    let mut done = libc::SYS_clone3;
    // SAFETY: the child begins on the new stack, whose end is aligned, and calls `run`, which never returns; the
    // parent goes on as after any system call.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inout("rax") done,
            in("rdi") &raw mut wanted,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") argument,
            in("r13") run as extern "C" fn(*mut c_void) -> libc::c_int,
            lateout("rcx") _,
            lateout("r11") _,
        );
        if done < 0 {
            *libc::__errno_location() = -done as i32;
            return -1;
        }
    }
    done as i32
}

/// Not written for this processor: the caller does without.
#[cfg(not(target_arch = "x86_64"))]
unsafe fn clone_into(_: RawFd, _: i32, _: *mut c_void, _: *mut c_void) -> i32 {
    // SAFETY: the place of this thread's own error number.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|s| s.as_ptr())
        .chain([std::ptr::null()])
        .collect()
}

extern "C" fn run(shared: *mut c_void) -> libc::c_int {
    let shared = shared.cast::<Shared<'_>>();
    // SAFETY: `start` passes a valid pointer and sleeps meanwhile.
    unsafe {
        let step = child(&*shared);
        let failure = Some(Failure {
            step,
            errno: *libc::__errno_location(),
        });
        std::ptr::write_volatile(&raw mut (*shared).failure, failure);
        libc::_exit(127)
    }
}

/// Becomes the program; returns what failed, with `errno` set, if it cannot.
unsafe fn child(shared: &Shared<'_>) -> Step {
    let c = shared.command;
    // SAFETY: plain system calls on descriptors and pointers that the parent keeps valid.
    unsafe {
        // A group, not a session: sessions would each get an equal share of the processor where the
        // kernel has `sched_autogroup`, whatever their priority.
        libc::setpgid(0, 0);
        if libc::dup2(c.stdin, 0) < 0 || libc::dup2(c.stdout, 1) < 0 || libc::dup2(c.stderr, 2) < 0
        {
            return Step::Streams;
        }
        if libc::fchdir(c.folder) != 0 {
            return Step::Folder;
        }
        if let Some(bytes) = c.file_bytes_max {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            if libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) != 0 {
                return Step::Limits;
            }
        }
        libc::setrlimit(libc::RLIMIT_NOFILE, &raw const c.files_max);
        // By the system call itself: the C library's function would change all threads of the spawner.
        if let Some(user) = c.user
            && libc::syscall(libc::SYS_setresuid, user, user, user) != 0
        {
            return Step::Sandbox;
        }
        // Behind the change of user, which resets it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
        if let Some(ruleset) = c.ruleset
            && libc::syscall(crate::landlock::RESTRICT_SELF, ruleset, 0) != 0
        {
            return Step::Sandbox;
        }
        // Last: it may take the place of a descriptor that was needed until here.
        let passed = if c.progress == PROGRESS_FD {
            libc::fcntl(c.progress, libc::F_SETFD, 0)
        } else {
            libc::dup2(c.progress, PROGRESS_FD)
        };
        if passed < 0 {
            return Step::Streams;
        }
        libc::execve(
            c.program.as_ptr(),
            shared.argv.as_ptr(),
            shared.envp.as_ptr(),
        );
    }
    Step::Execute
}
