//! A machine that refuses what workers would like to use.

use std::io;

/// Makes this process and what it starts find what is named refused: `namespaces`, and `groups` for control groups.
pub fn refuse(names: &[String]) {
    for name in names {
        let refused = match name.as_str() {
            "namespaces" => refuse_namespaces(),
            "groups" => refuse_groups(),
            other => panic!("{other} is nothing that can be refused"),
        };
        refused.unwrap();
    }
}

/// Has the kernel refuse new user namespaces, by a filter of system calls.
fn refuse_namespaces() -> io::Result<()> {
    const NUMBER: u32 = 0;
    const FIRST_ARGUMENT: u32 = 16;
    let load = |at: u32| instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, at);
    let skip_unless = |kind: u32, value: u32, skipped: u8| {
        instruction(libc::BPF_JMP | kind | libc::BPF_K, 0, skipped, value)
    };
    let give = |result: u32| instruction(libc::BPF_RET | libc::BPF_K, 0, 0, result);
    let mut filter = Vec::new();
    for call in [libc::SYS_clone, libc::SYS_unshare] {
        filter.extend([
            load(NUMBER),
            skip_unless(libc::BPF_JEQ, call as u32, 3),
            load(FIRST_ARGUMENT),
            skip_unless(libc::BPF_JSET, libc::CLONE_NEWUSER as u32, 1),
            give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        ]);
    }
    filter.push(give(libc::SECCOMP_RET_ALLOW));
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program is valid for the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        )
    };
    checked(done)
}

fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    let code = code as u16;
    libc::sock_filter { code, jt, jf, k }
}

/// Makes the control groups read-only in a mount namespace of this process's own. An ordinary user has none to write to
/// in most places, and may make no such namespace.
fn refuse_groups() -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let (root, groups) = (c"/".as_ptr(), c"/sys/fs/cgroup".as_ptr());
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let read_only = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let none = std::ptr::null();
    // SAFETY: all strings are terminated, and they and the attributes are valid for the calls.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWNS))?;
        checked(libc::mount(none, root, none, private, none.cast()))?;
        let done = libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            groups,
            libc::AT_RECURSIVE,
            &raw const read_only,
            size_of::<libc::mount_attr>(),
        );
        checked(done as i32)
    }
}

fn checked(done: i32) -> io::Result<()> {
    match done {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
