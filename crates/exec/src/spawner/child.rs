//! Starting one process, as cheaply as the kernel can.
//!
//! The child borrows the spawner's memory until it executes, so nothing is copied however large the spawner is. The
//! spawner does not wait for it: what went wrong before the program runs is in [`Starting`] once the child has ended.
//! In the child only system calls are made: no allocation, no lock, no panic, no use of the thread's own variables,
//! which it shares with the spawner's thread.

use crate::user::TaskUser;
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::RawFd;

/// Enough for the child's few frames; it lies in a mapping of its own with a guard page below.
const STACK_BYTES: usize = 64 << 10;
/// Size of a page, bytes.
pub(crate) const PAGE: usize = 4096;
/// Where a program may say how far it is.
pub(crate) const PROGRESS_FD: RawFd = 3;

/// All that a child needs, prepared by the parent. The child has descriptors of its own from its first moment.
pub(crate) struct Command {
    pub program: CString,
    pub args: Vec<CString>,
    pub env: Vec<CString>,
    pub folder: RawFd,
    /// The path that it enters once the rules for it hold.
    pub cwd: Option<CString>,
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
    /// The user that it becomes. Groups beside his own the spawner has left.
    pub user: Option<TaskUser>,
    /// Whether it has idle priority when its program begins.
    pub idle: bool,
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
    Cwd,
    Limits,
    Sandbox,
    Execute,
}

/// Makes children on a stack that is used again and again, one after the other.
pub(crate) struct Cloner {
    stack: *mut c_void,
}

/// What a child shares with the spawner until it executes. To be kept until then.
pub(crate) struct Starting {
    shared: Box<Shared>,
}

/// A command that no child was made for, and why.
pub(crate) struct NotStarted {
    pub failure: Failure,
    pub command: Box<Command>,
}

struct Shared {
    command: Command,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    failure: Option<Failure>,
    /// The kernel makes it 0 when the child executes or ends.
    borrowed: libc::pid_t,
}

impl Starting {
    /// Why the program did not begin. To be called when the child has ended.
    pub(crate) fn failure(&self) -> Option<Failure> {
        // SAFETY: the child has written here, behind the compiler's back.
        unsafe { std::ptr::read_volatile(&raw const self.shared.failure) }
    }

    /// Whether the child has memory of its own by now, or has ended.
    pub(crate) fn is_over(&self) -> bool {
        // SAFETY: the kernel writes here, behind the compiler's back.
        unsafe { std::ptr::read_volatile(&raw const self.shared.borrowed) == 0 }
    }

    /// The program's path.
    pub(crate) fn program(&self) -> &CString {
        &self.shared.command.program
    }
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

    /// Starts the command; returns its process id. The child before must have ended.
    pub(crate) fn start(&mut self, command: Command) -> Result<(i32, Starting), NotStarted> {
        let group = command.group;
        let mut shared = Box::new(Shared {
            argv: pointers(&command.args),
            envp: pointers(&command.env),
            command,
            failure: None,
            borrowed: 1,
        });
        let flags = libc::CLONE_VM | libc::CLONE_CHILD_CLEARTID | libc::SIGCHLD;
        let argument = (&raw mut *shared).cast::<c_void>();
        // SAFETY: the caller keeps `shared` until the child has executed or ended, and uses the stack for no other
        // child before that; `run` only makes system calls.
        let pid = unsafe {
            let borrowed = &raw mut (*argument.cast::<Shared>()).borrowed;
            match group {
                Some(group) => clone_into(group, flags, self.stack, argument, borrowed),
                None => {
                    let top = self.stack.byte_add(STACK_BYTES);
                    let none = std::ptr::null_mut::<c_void>();
                    libc::clone(run, top, flags, argument, none, none, borrowed)
                }
            }
        };
        if pid < 0 {
            let errno = io::Error::last_os_error().raw_os_error().unwrap_or(0);
            let step = Step::Clone;
            let failure = Failure { step, errno };
            let command = Box::new(shared.command);
            return Err(NotStarted { failure, command });
        }
        Ok((pid, Starting { shared }))
    }
}

impl Drop for Cloner {
    fn drop(&mut self) {
        // SAFETY: the spawner ends now, and a child that has not executed yet with it.
        unsafe { libc::munmap(self.stack, STACK_BYTES) };
    }
}

/// Like `clone`, into a control group, which the C library has no function for: only so does the kernel put a process
/// there without the milliseconds that moving it takes.
#[cfg(target_arch = "x86_64")]
unsafe fn clone_into(
    group: RawFd,
    flags: i32,
    stack: *mut c_void,
    argument: *mut c_void,
    borrowed: *mut libc::pid_t,
) -> i32 {
    const CLONE_INTO_CGROUP: u64 = 1 << 33;
    // SAFETY: all zeroes is a valid value.
    let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
    wanted.flags = (flags & !libc::SIGCHLD) as u64 | CLONE_INTO_CGROUP;
    wanted.exit_signal = libc::SIGCHLD as u64;
    wanted.stack = stack as u64;
    wanted.stack_size = STACK_BYTES as u64;
    wanted.cgroup = group as u64;
    wanted.child_tid = borrowed as u64;
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
unsafe fn clone_into(_: RawFd, _: i32, _: *mut c_void, _: *mut c_void, _: *mut libc::pid_t) -> i32 {
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
    let shared = shared.cast::<Shared>();
    // SAFETY: `start` passes a valid pointer, which the spawner keeps and does not use meanwhile.
    unsafe {
        let failure = Some(child(&raw const *shared));
        std::ptr::write_volatile(&raw mut (*shared).failure, failure);
        loop {
            let _ = call(libc::SYS_exit_group, [127, 0, 0, 0]);
        }
    }
}

/// Becomes the program; returns what failed if it cannot.
unsafe fn child(shared: *const Shared) -> Failure {
    // SAFETY: as in `run`.
    match unsafe { become_program(&*shared) } {
        Err((step, errno)) => Failure { step, errno },
        Ok(()) => Failure {
            step: Step::Execute,
            errno: libc::ENOEXEC,
        },
    }
}

unsafe fn become_program(shared: &Shared) -> Result<(), (Step, i32)> {
    let c = &shared.command;
    let at = |step: Step| move |errno: i32| (step, errno);
    // SAFETY: plain system calls on descriptors and pointers that the parent keeps valid.
    unsafe {
        // A group, not a session: sessions would each get an equal share of the processor where the
        // kernel has `sched_autogroup`, whatever their priority.
        let _ = call(libc::SYS_setpgid, [0; 4]);
        for (from, to) in [(c.stdin, 0), (c.stdout, 1), (c.stderr, 2)] {
            call(libc::SYS_dup3, [from as usize, to, 0, 0]).map_err(at(Step::Streams))?;
        }
        call(libc::SYS_fchdir, [c.folder as usize, 0, 0, 0]).map_err(at(Step::Folder))?;
        if let Some(bytes) = c.file_bytes_max {
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            limit_to(libc::RLIMIT_FSIZE, &limit).map_err(at(Step::Limits))?;
        }
        let _ = limit_to(libc::RLIMIT_NOFILE, &c.files_max);
        if let Some(user) = c.user {
            let (uid, gid) = (user.uid as usize, user.gid as usize);
            call(libc::SYS_setresgid, [gid, gid, gid, 0]).map_err(at(Step::Sandbox))?;
            call(libc::SYS_setresuid, [uid, uid, uid, 0]).map_err(at(Step::Sandbox))?;
        }
        // Behind the change of user, which resets it.
        let death = [
            libc::PR_SET_PDEATHSIG as usize,
            libc::SIGKILL as usize,
            0,
            0,
        ];
        let _ = call(libc::SYS_prctl, death);
        let none = 0u64;
        let unblock = [libc::SIG_SETMASK as usize, (&raw const none) as usize, 0, 8];
        let _ = call(libc::SYS_rt_sigprocmask, unblock);
        if let Some(ruleset) = c.ruleset {
            let number = crate::landlock::RESTRICT_SELF;
            call(number, [ruleset as usize, 0, 0, 0]).map_err(at(Step::Sandbox))?;
        }
        if let Some(cwd) = &c.cwd {
            call(libc::SYS_chdir, [cwd.as_ptr() as usize, 0, 0, 0]).map_err(at(Step::Cwd))?;
        }
        // Before the program runs: it could start others that a later change would miss.
        if c.idle {
            let none = libc::sched_param { sched_priority: 0 };
            let idle = [0, libc::SCHED_IDLE as usize, (&raw const none) as usize, 0];
            call(libc::SYS_sched_setscheduler, idle).map_err(at(Step::Limits))?;
        }
        // Last: it may take the place of a descriptor that was needed until here.
        let progress = c.progress as usize;
        let passed = if c.progress == PROGRESS_FD {
            call(libc::SYS_fcntl, [progress, libc::F_SETFD as usize, 0, 0])
        } else {
            call(libc::SYS_dup3, [progress, PROGRESS_FD as usize, 0, 0])
        };
        passed.map_err(at(Step::Streams))?;
        let program = [
            c.program.as_ptr() as usize,
            shared.argv.as_ptr() as usize,
            shared.envp.as_ptr() as usize,
            0,
        ];
        call(libc::SYS_execve, program).map_err(at(Step::Execute))
    }
}

unsafe fn limit_to(resource: libc::__rlimit_resource_t, limit: &libc::rlimit) -> Result<(), i32> {
    let limit = std::ptr::from_ref(limit) as usize;
    // SAFETY: the structure is valid for the call, for this process.
    unsafe { call(libc::SYS_prlimit64, [0, resource as usize, limit, 0]) }
}

/// Makes a system call without the C library, whose error number belongs to the spawner's thread.
unsafe fn call(number: libc::c_long, args: [usize; 4]) -> Result<(), i32> {
    let result: isize;
    // SAFETY: the caller passes what the call wants.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") args[0] as isize => result,
            in("x1") args[1],
            in("x2") args[2],
            in("x3") args[3],
        );
    }
    if result < 0 {
        Err(-result as i32)
    } else {
        Ok(())
    }
}
