//! Which system calls attempts may make.

use super::{Checked, Rules, Sockets, Test, Verdict};
use libc::c_long;

/// Calls without constants in the `libc` crate.
const FUTEX_WAKE: c_long = 454;
const FUTEX_WAIT: c_long = 455;
const FUTEX_REQUEUE: c_long = 456;
const CACHESTAT: c_long = 451;
const FCHMODAT2: c_long = 452;
const MAP_SHADOW_STACK: c_long = 453;

/// Flags of `clone` that make a namespace.
const NAMESPACES: u32 = 0x7e02_0000;

/// Requests of `ioctl` that reach beyond the caller: input for a terminal, signals to others, marks of files.
const IOCTLS_REFUSED: [u32; 7] = [
    0x5412,      // TIOCSTI
    0x541c,      // TIOCLINUX
    0x8901,      // FIOSETOWN
    0x8902,      // SIOCSPGRP
    0x4008_6602, // FS_IOC_SETFLAGS
    0x401c_5820, // FS_IOC_FSSETXATTR
    0x4004_6602, // FS_IOC32_SETFLAGS
];
/// Commands of `fcntl` that have the kernel send signals, or hold up others who open a file.
const FCNTLS_REFUSED: [libc::c_int; 5] = [
    8,    // F_SETOWN
    10,   // F_SETSIG
    15,   // F_SETOWN_EX
    1024, // F_SETLEASE
    1026, // F_NOTIFY
];
const PRIO_USER: u32 = 2;
const IOPRIO_WHO_USER: u32 = 3;
const PR_SCHED_CORE: u32 = 62;

/// Calls that are refused with `EPERM`: of the system's administration, of debuggers, and those that reach other
/// processes or the kernel's shared tables. All that is named nowhere is unknown (`ENOSYS`).
const REFUSED: &[c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_msgget,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_semget,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_shmget,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Calls that change a file's mode or times: supervised, the spawner makes them in the caller's place.
const MARKS_OF_FILES: &[c_long] = &[
    FCHMODAT2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_utimensat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
];
/// Calls that change a file's owner.
const OWNERS_OF_FILES: &[c_long] = &[
    libc::SYS_fchown,
    libc::SYS_fchownat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
];
/// Calls that change a file's extended attributes.
const ATTRIBUTES_OF_FILES: &[c_long] = &[
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
];
/// Calls that send a signal.
const SIGNALS: &[c_long] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];
/// Calls whose first argument names a thread, of which the scheduling is changed.
const SCHEDULING: &[c_long] = &[
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
];

/// Calls that are treated alike whatever their arguments, and not simply allowed.
pub(super) fn special(rules: &Rules) -> Vec<(c_long, Verdict)> {
    let refused = REFUSED
        .iter()
        .map(|call| (*call, Verdict::Refuse(libc::EPERM)));
    let mut all: Vec<_> = refused.collect();
    if rules.supervised {
        let ask = MARKS_OF_FILES.iter().chain(SIGNALS);
        all.extend(ask.map(|call| (*call, Verdict::Ask)));
        let owners = OWNERS_OF_FILES.iter();
        all.extend(owners.map(|call| (*call, Verdict::Refuse(libc::EPERM))));
        let attributes = ATTRIBUTES_OF_FILES.iter();
        all.extend(attributes.map(|call| (*call, Verdict::Refuse(libc::EOPNOTSUPP))));
        // Programs then use `kill`.
        let newer = [libc::SYS_pidfd_open, libc::SYS_pidfd_send_signal];
        all.extend(newer.map(|call| (call, Verdict::Refuse(libc::ENOSYS))));
    }
    if !rules.clone3 {
        all.push((libc::SYS_clone3, Verdict::Refuse(libc::ENOSYS)));
    }
    all
}

/// Calls whose arguments decide.
pub(super) fn checked(rules: &Rules) -> Vec<Checked> {
    use Test::{HasAny, Is, IsNot, LowByteIs};
    use Verdict::{Allow, Refuse};
    let sigcont = libc::SIGCONT as u32;
    let (not_permitted, invalid) = (Refuse(libc::EPERM), Refuse(libc::EINVAL));
    let mut all = vec![
        Checked {
            call: libc::SYS_clone,
            tests: vec![
                (0, HasAny(NAMESPACES), not_permitted),
                // The end of a child would let a stopped parent go on.
                (0, LowByteIs(sigcont), not_permitted),
            ],
            otherwise: Allow,
        },
        Checked {
            call: libc::SYS_prlimit64,
            tests: vec![(0, Is(0), Allow)],
            otherwise: not_permitted,
        },
        Checked {
            call: libc::SYS_personality,
            tests: vec![(0, Is(0), Allow), (0, Is(u32::MAX), Allow)],
            otherwise: not_permitted,
        },
        Checked {
            call: libc::SYS_prctl,
            tests: vec![
                (0, Is(PR_SCHED_CORE), not_permitted),
                (0, IsNot(libc::PR_SET_PDEATHSIG as u32), Allow),
                (1, Is(sigcont), invalid),
            ],
            otherwise: Allow,
        },
        Checked {
            call: libc::SYS_ioctl,
            tests: IOCTLS_REFUSED.map(|one| (1, Is(one), not_permitted)).into(),
            otherwise: Allow,
        },
        Checked {
            call: libc::SYS_fcntl,
            tests: FCNTLS_REFUSED
                .map(|one| (1, Is(one as u32), not_permitted))
                .into(),
            otherwise: Allow,
        },
        Checked {
            call: libc::SYS_socket,
            tests: sockets(rules.sockets),
            otherwise: Refuse(libc::EACCES),
        },
    ];
    all.extend(scheduling(rules));
    all.extend(signals(rules));
    all
}

/// Calls that change how threads are scheduled, for the caller's own threads.
fn scheduling(rules: &Rules) -> Vec<Checked> {
    let refused = Verdict::Refuse(libc::EPERM);
    let otherwise = if rules.supervised {
        Verdict::Ask
    } else {
        Verdict::Allow
    };
    let named = |argument: u32| {
        let mut tests = vec![(argument, Test::Is(0), Verdict::Allow)];
        tests.extend(spared(rules, argument));
        tests
    };
    let by_thread = SCHEDULING.iter().map(|call| Checked {
        call: *call,
        tests: named(0),
        otherwise,
    });
    let mut all: Vec<Checked> = by_thread.collect();
    for (call, user) in [
        (libc::SYS_setpriority, PRIO_USER),
        (libc::SYS_ioprio_set, IOPRIO_WHO_USER),
    ] {
        let mut tests = vec![(0, Test::Is(user), refused)];
        tests.extend(named(1));
        all.push(Checked {
            call,
            tests,
            otherwise,
        });
    }
    all
}

/// Calls that send a signal, where the spawner does not check them: not to its own threads.
fn signals(rules: &Rules) -> Vec<Checked> {
    if rules.supervised {
        return Vec::new();
    }
    let checked = |call: &c_long| Checked {
        call: *call,
        tests: match *call {
            libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => {
                let first = spared(rules, 0).into_iter();
                first.chain(spared(rules, 1)).collect()
            }
            _ => spared(rules, 0),
        },
        otherwise: Verdict::Allow,
    };
    SIGNALS.iter().map(checked).collect()
}

/// Refuses the spawner's threads as an argument.
fn spared(rules: &Rules, argument: u32) -> Vec<(u32, Test, Verdict)> {
    let refused = Verdict::Refuse(libc::EPERM);
    let threads = rules.spared.iter();
    threads
        .map(|thread| (argument, Test::Is(*thread), refused))
        .collect()
}

fn sockets(allowed: Sockets) -> Vec<(u32, Test, Verdict)> {
    use Test::{Is, IsNot};
    let family = |family: i32| (0, Is(family as u32), Verdict::Allow);
    if allowed == Sockets::None {
        return Vec::new();
    }
    let mut tests = vec![family(libc::AF_INET), family(libc::AF_INET6)];
    if allowed == Sockets::All {
        tests.push(family(libc::AF_UNIX));
    }
    // Of netlink only what lists interfaces and routes, protocol 0.
    tests.push((2, IsNot(0), Verdict::Refuse(libc::EACCES)));
    tests.push(family(libc::AF_NETLINK));
    tests
}

/// Calls that are allowed, unless something else is said above.
pub(super) const ALLOWED: &[c_long] = &[
    CACHESTAT,
    FCHMODAT2,
    FUTEX_REQUEUE,
    FUTEX_WAIT,
    FUTEX_WAKE,
    MAP_SHADOW_STACK,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_chdir,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_clone3,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_connect,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fremovexattr,
    libc::SYS_fsetxattr,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_futex_waitv,
    libc::SYS_get_mempolicy,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_ioprio_get,
    libc::SYS_kill,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listen,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lremovexattr,
    libc::SYS_lseek,
    libc::SYS_lsetxattr,
    libc::SYS_madvise,
    libc::SYS_mbind,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mlockall,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_mseal,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munlockall,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_remap_file_pages,
    libc::SYS_removexattr,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_sendfile,
    libc::SYS_sendmmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setfsgid,
    libc::SYS_setfsuid,
    libc::SYS_setgid,
    libc::SYS_setgroups,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setregid,
    libc::SYS_setresgid,
    libc::SYS_setresuid,
    libc::SYS_setreuid,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_setuid,
    libc::SYS_setxattr,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_sysinfo,
    libc::SYS_tee,
    libc::SYS_tgkill,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_vmsplice,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Those of this processor alone: older forms of calls above.
#[cfg(target_arch = "x86_64")]
pub(super) const ALLOWED_HERE: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_getrlimit,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_mknod,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_setrlimit,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_sync_file_range,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
];
/// Those of this processor alone: `sync_file_range`, `getrlimit` and `setrlimit`.
#[cfg(target_arch = "aarch64")]
pub(super) const ALLOWED_HERE: &[c_long] = &[84, 163, 164];
