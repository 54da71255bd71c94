//! A filter of system calls for machines that refuse namespaces.
//!
//! There Landlock alone would leave three ways out: sockets (a service on a Unix socket, such as the
//! session's bus, would run anything for the task), signals to the worker where the kernel's Landlock
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
/// Low half of the first argument, on little-endian machines.
const AT_FIRST: u32 = 16;
/// Numbers from here on belong to the x32 ABI, which would evade the filter.
const X32: u32 = 0x4000_0000;

/// Restricts this process and all that it starts, for good. `network` allows sockets other than Unix
/// ones; `protect` are processes that must not be signalled.
pub(crate) fn restrict(network: bool, protect: &[u32]) -> io::Result<()> {
    let program = program(network, protect);
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

fn program(network: bool, protect: &[u32]) -> Vec<libc::sock_filter> {
    let mut code = vec![
        step(LOAD, AT_ARCH),
        jump(EQUAL, AUDIT_ARCH, 1, 0),
        step(RETURN, KILL),
        step(LOAD, AT_NUMBER),
        jump(AT_LEAST, X32, 0, 1),
        step(RETURN, DENY),
    ];
    let mut denied = vec![libc::SYS_io_uring_setup, libc::SYS_pidfd_send_signal];
    if !network {
        denied.push(libc::SYS_socket);
    }
    for call in denied {
        code.extend([jump(EQUAL, call as u32, 0, 1), step(RETURN, DENY)]);
    }
    if network {
        code.extend(when_first_is(libc::SYS_socket, &[libc::AF_UNIX as u32]));
    }
    let mut targets: Vec<u32> = vec![-1i32 as u32];
    targets.extend(
        protect
            .iter()
            .flat_map(|pid| [*pid, (*pid as i32).wrapping_neg() as u32]),
    );
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
    code.push(step(RETURN, ALLOW));
    code
}

/// Denies `call` if its first argument is one of `values`; leaves the number loaded.
fn when_first_is(call: libc::c_long, values: &[u32]) -> Vec<libc::sock_filter> {
    let mut inside = vec![step(LOAD, AT_FIRST)];
    for value in values {
        inside.extend([jump(EQUAL, *value, 0, 1), step(RETURN, DENY)]);
    }
    inside.push(step(RETURN, ALLOW));
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
