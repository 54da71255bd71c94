//! A filter of system calls for attempts: what programs need is allowed, everything else is refused.
//!
//! [`calls`] holds the tables. The spawner's main thread installs the filter once; attempts inherit it.

mod calls;

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xC000_00B7;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const ABOVE: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;
/// Low half of the first argument, on little-endian machines.
const AT_ARGUMENTS: u32 = 16;
/// Numbers from here on belong to the x32 ABI, which would evade the filter.
const X32: u32 = 0x4000_0000;

/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`: a signal does not interrupt a call that the spawner has begun to answer.
const WAIT_KILLABLE: libc::c_ulong = 1 << 5;

/// What the filter depends on.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Which sockets programs may make.
    pub sockets: Sockets,
    /// Whether `clone3` is allowed, whose flags a filter cannot see. Needed to start attempts in a control group.
    pub clone3: bool,
    /// Threads of the spawner, as attempts would name them.
    pub spared: Vec<u32>,
    /// Whether the spawner checks calls that could reach the owner's files and processes: where attempts run
    /// as the owner's user and see all files and processes.
    pub supervised: bool,
}

/// Which sockets programs may make. Pairs of connected Unix sockets are always allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sockets {
    /// None.
    None,
    /// Those of the Internet.
    Internet,
    /// Those of the Internet and Unix sockets.
    All,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(i32),
    /// The spawner decides.
    Ask,
}

/// A test of the low half of one argument.
#[derive(Clone, Copy, Debug)]
enum Test {
    Is(u32),
    IsNot(u32),
    HasAny(u32),
    LowByteIs(u32),
}

/// How a call is treated whose arguments matter: the first test that holds decides.
struct Checked {
    call: libc::c_long,
    tests: Vec<(u32, Test, Verdict)>,
    otherwise: Verdict,
}

/// Restricts this thread and all that it starts, for good. Returns the descriptor on which the kernel asks about
/// supervised calls, if there are any.
pub(crate) fn restrict(rules: &Rules) -> io::Result<Option<OwnedFd>> {
    let program = program(rules);
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the program is valid for the time of the call, which copies it.
    let install = |flags: libc::c_ulong| unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            &raw const filter,
        )
    };
    let mut done = match rules.supervised {
        true => install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE),
        false => install(0),
    };
    if done < 0 && rules.supervised {
        // Before Linux 5.19 there is no such flag.
        done = install(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    }
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: with this flag the kernel has just given us this descriptor; it is close-on-exec.
    Ok(rules
        .supervised
        .then(|| unsafe { OwnedFd::from_raw_fd(done as i32) }))
}

fn program(rules: &Rules) -> Vec<libc::sock_filter> {
    let mut code = vec![
        step(LOAD, AT_ARCH),
        jump(EQUAL, AUDIT_ARCH, 1, 0),
        step(RETURN, libc::SECCOMP_RET_KILL_PROCESS),
        step(LOAD, AT_NUMBER),
        jump(AT_LEAST, X32, 0, 1),
        give(Verdict::Refuse(libc::ENOSYS)),
    ];
    let checked = calls::checked(rules);
    let mut decided: Vec<libc::c_long> = checked.iter().map(|checked| checked.call).collect();
    for one in &checked {
        code.extend(check(one));
    }
    for (call, verdict) in calls::special(rules) {
        code.extend([jump(EQUAL, call as u32, 0, 1), give(verdict)]);
        decided.push(call);
    }
    let all = calls::ALLOWED.iter().chain(calls::ALLOWED_HERE);
    let mut allowed: Vec<u32> = all
        .filter(|call| !decided.contains(call))
        .map(|call| *call as u32)
        .collect();
    allowed.sort_unstable();
    for (first, last) in ranges(&allowed) {
        code.extend([
            jump(AT_LEAST, first, 0, 2),
            jump(ABOVE, last, 1, 0),
            give(Verdict::Allow),
        ]);
    }
    // As if the kernel did not know it: programs then do without.
    code.push(give(Verdict::Refuse(libc::ENOSYS)));
    code
}

fn check(checked: &Checked) -> Vec<libc::sock_filter> {
    let mut inside = Vec::new();
    for (argument, test, verdict) in &checked.tests {
        inside.push(step(LOAD, AT_ARGUMENTS + 8 * argument));
        match test {
            Test::Is(value) => inside.push(jump(EQUAL, *value, 0, 1)),
            Test::IsNot(value) => inside.push(jump(EQUAL, *value, 1, 0)),
            Test::HasAny(bits) => inside.push(jump(ANY_BIT, *bits, 0, 1)),
            Test::LowByteIs(value) => {
                inside.extend([step(AND, 0xff), jump(EQUAL, *value, 0, 1)]);
            }
        }
        inside.push(give(*verdict));
    }
    inside.push(give(checked.otherwise));
    let mut code = vec![jump(EQUAL, checked.call as u32, 0, inside.len() as u8)];
    code.extend(inside);
    code
}

/// Runs of consecutive numbers, as first and last.
fn ranges(sorted: &[u32]) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    for number in sorted {
        match found.last_mut() {
            Some((_, last)) if *number <= *last + 1 => *last = *number,
            _ => found.push((*number, *number)),
        }
    }
    found
}

fn give(verdict: Verdict) -> libc::sock_filter {
    let value = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Refuse(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
        Verdict::Ask => libc::SECCOMP_RET_USER_NOTIF,
    };
    step(RETURN, value)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    fn run(code: &[libc::sock_filter], call: libc::c_long, args: [u32; 6]) -> u32 {
        let (mut at, mut loaded) = (0, 0u32);
        loop {
            let one = code[at];
            at += 1;
            let mut branch = |yes: bool| at += usize::from(if yes { one.jt } else { one.jf });
            match one.code {
                LOAD => {
                    loaded = match one.k {
                        AT_NUMBER => call as u32,
                        AT_ARCH => AUDIT_ARCH,
                        place => args[((place - AT_ARGUMENTS) / 8) as usize],
                    }
                }
                AND => loaded &= one.k,
                EQUAL => branch(loaded == one.k),
                ABOVE => branch(loaded > one.k),
                AT_LEAST => branch(loaded >= one.k),
                ANY_BIT => branch(loaded & one.k != 0),
                RETURN => return one.k,
                code => panic!("{code:#x}"),
            }
        }
    }

    fn rules() -> Rules {
        Rules {
            sockets: Sockets::None,
            clone3: false,
            spared: vec![1, 2],
            supervised: true,
        }
    }

    #[test]
    fn each_call_gets_its_verdict() {
        let code = program(&rules());
        let refuse = |errno: i32| libc::SECCOMP_RET_ERRNO | errno as u32;
        let allow = libc::SECCOMP_RET_ALLOW;
        let ask = libc::SECCOMP_RET_USER_NOTIF;
        let flags = (libc::CLONE_NEWUSER | libc::SIGCHLD) as u32;
        for (call, args, expected) in [
            (libc::SYS_read, [0; 6], allow),
            (libc::SYS_exit_group, [0; 6], allow),
            (libc::SYS_prlimit64, [0; 6], allow),
            (libc::SYS_prlimit64, [1, 0, 0, 0, 0, 0], refuse(libc::EPERM)),
            (libc::SYS_clone, [17, 0, 0, 0, 0, 0], allow),
            (libc::SYS_clone, [flags, 0, 0, 0, 0, 0], refuse(libc::EPERM)),
            (
                libc::SYS_clone,
                [libc::SIGCONT as u32, 0, 0, 0, 0, 0],
                refuse(libc::EPERM),
            ),
            (libc::SYS_clone3, [0; 6], refuse(libc::ENOSYS)),
            (libc::SYS_fchmodat, [0; 6], ask),
            (libc::SYS_kill, [7, 9, 0, 0, 0, 0], ask),
            (
                libc::SYS_sched_setaffinity,
                [1, 0, 0, 0, 0, 0],
                refuse(libc::EPERM),
            ),
            (libc::SYS_sched_setaffinity, [0; 6], allow),
            (libc::SYS_sched_setaffinity, [9, 0, 0, 0, 0, 0], ask),
            (libc::SYS_socket, [1, 1, 0, 0, 0, 0], refuse(libc::EACCES)),
            (libc::SYS_keyctl, [0; 6], refuse(libc::EPERM)),
            (libc::SYS_timer_create, [0; 6], refuse(libc::ENOSYS)),
            (9999, [0; 6], refuse(libc::ENOSYS)),
            (X32 as libc::c_long + 1, [0; 6], refuse(libc::ENOSYS)),
        ] {
            assert_eq!(run(&code, call, args), expected, "{call} {args:?}");
        }
    }

    #[test]
    fn a_filter_fits_the_kernels_limit() {
        for supervised in [true, false] {
            let code = program(&Rules {
                supervised,
                ..rules()
            });
            assert!(code.len() < 4096, "{}", code.len());
        }
    }
}
