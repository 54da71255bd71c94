//! A filter of system calls for everything that tasks start.
//!
//! In every sandbox it keeps tasks from what neither namespaces nor Landlock restrict: the limits, priority and
//! processors of the processes that serve all attempts, the keyrings of the worker's owner, and parts of the kernel
//! that few programs need and that have been ways out of sandboxes.
//!
//! Where namespaces are refused, Landlock alone would leave three ways out more: sockets (a service on a Unix socket,
//! such as the session's bus, would run anything for the task), signals to the worker where the kernel's Landlock
//! does not know them yet, and `io_uring`, which opens sockets without the calls that are filtered.

use std::io;

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0000 | libc::EACCES as u32;
const KILL: u32 = 0x8000_0000;
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
/// Low halves of the first and second argument, on little-endian machines.
const AT_FIRST: u32 = 16;
const AT_SECOND: u32 = 24;
/// Numbers from here on belong to the x32 ABI, which would evade the filter.
const X32: u32 = 0x4000_0000;

/// System calls that no task gets, whatever their arguments.
const DENIED: &[libc::c_long] = &[
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_io_uring_setup,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_open_by_handle_at,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

const IOPRIO_WHO_PROCESS: u32 = 1;

/// What a filter keeps tasks from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a> {
    /// Processes that serve all attempts: tasks change neither their priority nor their processors, and where the
    /// filter stands for namespaces, send them no signals.
    pub protect: &'a [u32],
    /// Whether it also stands for namespaces.
    pub instead_of_namespaces: bool,
    /// Whether tasks may use the network.
    pub network: bool,
}

/// Restricts this process and all that it starts, for good.
///
/// # Errors
/// The kernel takes no filter.
pub(crate) fn restrict(filter: Filter<'_>) -> io::Result<()> {
    let program = program(filter);
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program is valid for the time of the call, which copies it.
    let done = unsafe {
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
            0,
            0,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn program(filter: Filter<'_>) -> Vec<libc::sock_filter> {
    let mut code = vec![
        step(LOAD, AT_ARCH),
        jump(EQUAL, AUDIT_ARCH, 1, 0),
        step(RETURN, KILL),
        step(LOAD, AT_NUMBER),
        jump(AT_LEAST, X32, 0, 1),
        step(RETURN, DENY),
    ];
    for call in DENIED {
        code.extend([jump(EQUAL, *call as u32, 0, 1), step(RETURN, DENY)]);
    }
    // A process changes its own limits alone: of other processes it could take all files and all time.
    code.extend(unless_first_is(libc::SYS_prlimit64, 0));
    for call in [
        libc::SYS_sched_setaffinity,
        libc::SYS_sched_setattr,
        libc::SYS_sched_setparam,
        libc::SYS_sched_setscheduler,
    ] {
        code.extend(when_first_is(call, filter.protect));
    }
    for (call, one_process) in [
        (libc::SYS_setpriority, libc::PRIO_PROCESS),
        (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS),
    ] {
        code.extend(unless_one_other_process(call, one_process, filter.protect));
    }
    match (filter.instead_of_namespaces, filter.network) {
        (true, false) => code.extend([
            jump(EQUAL, libc::SYS_socket as u32, 0, 1),
            step(RETURN, DENY),
        ]),
        (true, true) => code.extend(when_first_is(
            libc::SYS_socket,
            &[libc::AF_UNIX as u32, libc::AF_VSOCK as u32],
        )),
        // The namespace of the network does not hold sockets to the host of a virtual machine.
        (false, _) => code.extend(when_first_is(libc::SYS_socket, &[libc::AF_VSOCK as u32])),
    }
    if filter.instead_of_namespaces {
        code.extend(no_signals(filter.protect));
    }
    code.push(step(RETURN, ALLOW));
    code
}

/// Denies signals to these processes, to their groups, and to all processes at once.
fn no_signals(protect: &[u32]) -> Vec<libc::sock_filter> {
    let mut targets: Vec<u32> = vec![-1i32 as u32];
    targets.extend(
        protect
            .iter()
            .flat_map(|pid| [*pid, (*pid as i32).wrapping_neg() as u32]),
    );
    let mut code = vec![
        jump(EQUAL, libc::SYS_pidfd_send_signal as u32, 0, 1),
        step(RETURN, DENY),
    ];
    for call in [
        libc::SYS_kill,
        libc::SYS_tkill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        libc::SYS_pidfd_open,
    ] {
        code.extend(when_first_is(call, &targets));
    }
    code
}

/// Denies `call` if its first argument is one of `values`; leaves the number loaded.
fn when_first_is(call: libc::c_long, values: &[u32]) -> Vec<libc::sock_filter> {
    let mut inside = vec![step(LOAD, AT_FIRST)];
    for value in values {
        inside.extend([jump(EQUAL, *value, 0, 1), step(RETURN, DENY)]);
    }
    inside.push(step(RETURN, ALLOW));
    only_for(call, inside)
}

/// Denies `call` unless its first argument is `value`; leaves the number loaded.
fn unless_first_is(call: libc::c_long, value: u32) -> Vec<libc::sock_filter> {
    let inside = vec![
        step(LOAD, AT_FIRST),
        jump(EQUAL, value, 1, 0),
        step(RETURN, DENY),
        step(RETURN, ALLOW),
    ];
    only_for(call, inside)
}

/// Denies `call` unless its first argument says that the second is a process, and that is none of `protect`; leaves
/// the number loaded.
fn unless_one_other_process(
    call: libc::c_long,
    one_process: u32,
    protect: &[u32],
) -> Vec<libc::sock_filter> {
    let mut inside = vec![
        step(LOAD, AT_FIRST),
        jump(EQUAL, one_process, 1, 0),
        step(RETURN, DENY),
        step(LOAD, AT_SECOND),
    ];
    for pid in protect {
        inside.extend([jump(EQUAL, *pid, 0, 1), step(RETURN, DENY)]);
    }
    inside.push(step(RETURN, ALLOW));
    only_for(call, inside)
}

/// Runs steps that end with a verdict if the number is that of `call`.
fn only_for(call: libc::c_long, inside: Vec<libc::sock_filter>) -> Vec<libc::sock_filter> {
    let mut code = vec![jump(EQUAL, call as u32, 0, inside.len() as u8)];
    code.extend(inside);
    code
}

fn step(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(code: u16, k: u32, yes: u8, no: u8) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: yes,
        jf: no,
        k,
    }
}
