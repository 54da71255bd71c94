//! What a hostile task may try. Each attempt succeeds (`Ok`) where nothing stops it. Environment: `WORKER`, a process
//! of the owner; `HOME_OF_OWNER`, a folder with what he has; `NEIGHBOUR`, the folder of another task; `TCP`, `UDP` and
//! `ABSTRACT`, where services of the owner listen; `SHM`, the key of a shared memory segment.

use std::ffi::CString;
use std::io;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

type Tried = io::Result<()>;
type Attempt = (&'static str, fn() -> Tried);

/// Tries everything and says for each how it ended, a line `NAME open` or `NAME held: WHY`.
pub fn run(only: &[String]) {
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let all = [FILES, PROCESSES, SHARED, KERNEL, OWN].concat();
    for (name, attempt) in all.into_iter().filter(|(name, _)| wanted(name)) {
        match attempt() {
            Ok(()) => println!("{name} open"),
            Err(error) => println!("{name} held: {error}"),
        }
    }
    println!("over");
}

fn var(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

fn number(name: &str) -> libc::c_long {
    var(name).parse().unwrap_or(0)
}

fn home(path: &str) -> PathBuf {
    PathBuf::from(var("HOME_OF_OWNER")).join(path)
}

fn neighbour(path: &str) -> PathBuf {
    PathBuf::from(var("NEIGHBOUR")).join(path)
}

fn parent() -> libc::c_long {
    // SAFETY: only returns a number.
    libc::c_long::from(unsafe { libc::getppid() })
}

fn worker() -> libc::c_long {
    number("WORKER")
}

fn text(path: impl Into<PathBuf>) -> CString {
    let path: PathBuf = path.into();
    CString::new(path.into_os_string().into_encoded_bytes()).unwrap()
}

fn call(number: libc::c_long, args: &[libc::c_long]) -> io::Result<libc::c_long> {
    let arg = |at: usize| args.get(at).copied().unwrap_or(0);
    // SAFETY: this program ends soon after; pointers among the arguments are valid for the call.
    let done = unsafe { libc::syscall(number, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(done)
    }
}

fn done(number: libc::c_long, args: &[libc::c_long]) -> Tried {
    call(number, args).map(drop)
}

fn at(path: &CString) -> libc::c_long {
    path.as_ptr() as libc::c_long
}

/// Room for whatever a call writes or reads.
fn room() -> libc::c_long {
    Box::leak(Box::new([0u8; 4096])).as_mut_ptr() as libc::c_long
}

fn mode(path: PathBuf, mode: u32) -> Tried {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode))
}

fn read(path: impl Into<PathBuf>) -> Tried {
    std::fs::read(path.into()).map(drop)
}

fn list(path: impl Into<PathBuf>) -> Tried {
    std::fs::read_dir(path.into()).map(drop)
}

fn write(path: impl Into<PathBuf>) -> Tried {
    std::fs::write(path.into(), "x")
}

fn watch(path: impl Into<PathBuf>) -> Tried {
    let watcher = call(libc::SYS_inotify_init1, &[0])?;
    done(
        libc::SYS_inotify_add_watch,
        &[watcher, at(&text(path)), 0xfff],
    )
}

fn limit(pid: libc::c_long, resource: u32, most: u64) -> Tried {
    let limit = [most, most];
    done(
        libc::SYS_prlimit64,
        &[pid, resource.into(), limit.as_ptr() as libc::c_long, 0],
    )
}

fn affinity(pid: libc::c_long) -> Tried {
    let first = 1u64;
    done(
        libc::SYS_sched_setaffinity,
        &[pid, 8, &raw const first as libc::c_long],
    )
}

fn scheduler(pid: libc::c_long, policy: i32, priority: i32) -> Tried {
    done(
        libc::SYS_sched_setscheduler,
        &[pid, policy.into(), &raw const priority as libc::c_long],
    )
}

fn socket(family: i32, kind: i32, protocol: i32) -> Tried {
    done(
        libc::SYS_socket,
        &[family.into(), kind.into(), protocol.into()],
    )
}

const CWD: libc::c_long = libc::AT_FDCWD as libc::c_long;

const FILES: &[Attempt] = &[
    ("read-key", || read(home("key"))),
    ("read-ssh", || read(home(".ssh/id"))),
    ("read-open-file", || read(home("open"))),
    ("list-home", || list(home(""))),
    ("write-home", || write(home("new"))),
    ("write-open-file", || write(home("open"))),
    ("truncate-file", || {
        done(libc::SYS_truncate, &[at(&text(home("open"))), 0])
    }),
    ("rename-file", || {
        std::fs::rename(home("open"), home("moved"))
    }),
    ("take-file", || std::fs::rename(home("open"), "taken")),
    ("link-file", || std::fs::hard_link(home("open"), "linked")),
    ("remove-file", || std::fs::remove_file(home("open"))),
    ("make-folder", || std::fs::create_dir(home("folder"))),
    ("chmod-home", || mode(home(""), 0o777)),
    ("chmod-ssh", || mode(home(".ssh"), 0o755)),
    ("chmod-key", || mode(home("key"), 0o666)),
    ("chmod-by-old-call", || {
        #[cfg(target_arch = "x86_64")]
        return done(libc::SYS_chmod, &[at(&text(home("key"))), 0o666]);
        #[cfg(not(target_arch = "x86_64"))]
        done(libc::SYS_fchmodat, &[CWD, at(&text(home("key"))), 0o666])
    }),
    ("chmod-through-link", || {
        _ = std::os::unix::fs::symlink(home("key"), "to-key");
        mode("to-key".into(), 0o666)
    }),
    ("chmod-by-fchmodat2", || {
        done(452, &[CWD, at(&text(home("key"))), 0o666, 0])
    }),
    ("chmod-program", || mode("/usr/bin/env".into(), 0o4755)),
    ("chmod-device", || mode("/dev/null".into(), 0)),
    ("chmod-base", || mode(neighbour("../.."), 0)),
    ("chmod-neighbour", || mode(neighbour(""), 0o777)),
    ("chown-key", || {
        std::os::unix::fs::chown(home("key"), Some(1), Some(1))
    }),
    ("touch-key", || {
        let path = text(home("key"));
        done(libc::SYS_utimensat, &[CWD, at(&path), 0, 0])
    }),
    ("mark-key", || {
        let (path, name) = (text(home("key")), text("user.x"));
        done(libc::SYS_setxattr, &[at(&path), at(&name), room(), 1, 0])
    }),
    ("read-shadow", || read("/etc/shadow")),
    ("read-gshadow", || read("/etc/gshadow")),
    ("write-etc", || write("/etc/hedge-escape")),
    ("write-usr", || write("/usr/hedge-escape")),
    ("write-sysctl", || write("/proc/sys/kernel/hostname")),
    ("write-sysrq", || write("/proc/sysrq-trigger")),
    ("read-kcore", || read("/proc/kcore")),
    ("write-cgroup", || write("/sys/fs/cgroup/hedge-escape")),
    ("list-neighbour", || list(neighbour(""))),
    ("read-neighbour", || read(neighbour("secret"))),
    ("write-neighbour", || write(neighbour("new"))),
    ("watch-home", || watch(home(""))),
    ("watch-etc", || watch("/etc")),
    ("watch-neighbour", || watch(neighbour(""))),
    ("fanotify", || done(libc::SYS_fanotify_init, &[0x200, 0])),
    ("name-to-handle", || {
        let path = text("/etc/passwd");
        done(
            libc::SYS_name_to_handle_at,
            &[CWD, at(&path), room(), room(), 0],
        )
    }),
    ("open-by-handle", || {
        done(libc::SYS_open_by_handle_at, &[CWD, room(), 0])
    }),
    ("make-character-device", || {
        device(libc::S_IFCHR, libc::makedev(1, 3))
    }),
    ("make-block-device", || {
        device(libc::S_IFBLK, libc::makedev(254, 0))
    }),
    ("stat-key", || std::fs::metadata(home("key")).map(drop)),
];

fn device(kind: u32, device: u64) -> Tried {
    let path = text("device");
    done(
        libc::SYS_mknodat,
        &[
            CWD,
            at(&path),
            (kind | 0o600).into(),
            device as libc::c_long,
        ],
    )
}

fn of_worker(name: &str) -> String {
    format!("/proc/{}/{name}", worker())
}

const PROCESSES: &[Attempt] = &[
    ("see-worker", || std::fs::metadata(of_worker("")).map(drop)),
    ("read-command-line", || read(of_worker("cmdline"))),
    ("read-environment", || read(of_worker("environ"))),
    ("read-memory", || read(of_worker("mem"))),
    ("list-descriptors", || list(of_worker("fd"))),
    ("list-root", || list(of_worker("root/"))),
    ("oom-score", || write(of_worker("oom_score_adj"))),
    ("kill-worker", || done(libc::SYS_kill, &[worker(), 0])),
    ("wake-worker", || {
        done(libc::SYS_kill, &[worker(), libc::SIGCONT.into()])
    }),
    ("kill-workers-group", || {
        done(libc::SYS_kill, &[-worker(), 0])
    }),
    ("kill-worker-by-thread", || {
        done(libc::SYS_tkill, &[worker(), 0])
    }),
    ("queue-signal", || {
        done(
            libc::SYS_rt_sigqueueinfo,
            &[worker(), libc::SIGCONT.into(), room()],
        )
    }),
    ("signal-by-descriptor", || {
        let pidfd = call(libc::SYS_pidfd_open, &[worker(), 0])?;
        done(libc::SYS_pidfd_send_signal, &[pidfd, 0, 0, 0])
    }),
    ("files-of-worker", || {
        limit(worker(), libc::RLIMIT_NOFILE, 0)
    }),
    ("files-of-spawner", || {
        limit(parent(), libc::RLIMIT_NOFILE, 0)
    }),
    ("time-of-spawner", || limit(parent(), libc::RLIMIT_CPU, 1)),
    ("limits-of-worker", || {
        done(libc::SYS_prlimit64, &[worker(), 7, 0, room()])
    }),
    ("renice-worker", || {
        done(libc::SYS_setpriority, &[0, worker(), 19])
    }),
    ("renice-spawner", || {
        done(libc::SYS_setpriority, &[0, parent(), 19])
    }),
    ("renice-user", || done(libc::SYS_setpriority, &[2, 0, 19])),
    ("pin-worker", || affinity(worker())),
    ("pin-spawner", || affinity(parent())),
    ("idle-spawner", || scheduler(parent(), libc::SCHED_IDLE, 0)),
    ("idle-worker", || scheduler(worker(), libc::SCHED_IDLE, 0)),
    ("io-priority-of-spawner", || {
        done(libc::SYS_ioprio_set, &[1, parent(), 3 << 13])
    }),
    ("io-priority-of-user", || {
        done(libc::SYS_ioprio_set, &[3, 0, 3 << 13])
    }),
    ("trace-worker", || {
        done(libc::SYS_ptrace, &[16, worker(), 0, 0])
    }),
    ("trace-spawner", || {
        done(libc::SYS_ptrace, &[16, parent(), 0, 0])
    }),
    ("memory-of-worker", || {
        let vector = [room(), 64];
        let vector = vector.as_ptr() as libc::c_long;
        done(
            libc::SYS_process_vm_readv,
            &[worker(), vector, 1, vector, 1, 0],
        )
    }),
    ("descriptor-of-spawner", || {
        let pidfd = call(libc::SYS_pidfd_open, &[parent(), 0])?;
        done(libc::SYS_pidfd_getfd, &[pidfd, 0, 0])
    }),
    ("pages-of-worker", || {
        done(libc::SYS_move_pages, &[worker(), 0, 0, 0, 0, 0])
    }),
    ("compare-worker", || {
        done(libc::SYS_kcmp, &[worker(), parent(), 0, 0, 0])
    }),
];

const USER: libc::c_long = -4;
const SESSION: libc::c_long = -3;

const SHARED: &[Attempt] = &[
    ("keyring-id", || done(libc::SYS_keyctl, &[0, SESSION, 0])),
    ("keyring-revoke", || done(libc::SYS_keyctl, &[3, SESSION])),
    ("keyring-search", || {
        let (kind, name) = (text("user"), text("hedge-test"));
        done(libc::SYS_keyctl, &[10, SESSION, at(&kind), at(&name), 0])
    }),
    ("keyring-of-user", || {
        let (kind, name) = (text("user"), text("hedge-test"));
        done(libc::SYS_keyctl, &[10, USER, at(&kind), at(&name), 0])
    }),
    ("keyring-add", || {
        let (kind, name) = (text("user"), text("hedge-task"));
        done(
            libc::SYS_add_key,
            &[at(&kind), at(&name), room(), 3, SESSION],
        )
    }),
    ("key-request", || {
        let (kind, name) = (text("user"), text("hedge-test"));
        done(libc::SYS_request_key, &[at(&kind), at(&name), 0, 0])
    }),
    ("shared-memory-of-owner", || {
        done(libc::SYS_shmget, &[number("SHM"), 0, 0])
    }),
    ("shared-memory-new", || {
        done(libc::SYS_shmget, &[0, 4096, 0o1666])
    }),
    ("semaphores", || done(libc::SYS_semget, &[0, 1, 0o1666])),
    ("messages", || done(libc::SYS_msgget, &[0, 0o1666])),
    ("message-queue", || {
        let name = text("hedge-task");
        done(libc::SYS_mq_open, &[at(&name), 0o102, 0o600, 0])
    }),
    ("shared-file-of-owner", || read(var("SHARED_FILE"))),
    ("tcp", || {
        TcpStream::connect(("127.0.0.1", number("TCP") as u16)).map(drop)
    }),
    ("udp", || {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.send_to(b"x", ("127.0.0.1", number("UDP") as u16))?;
        // In a network of its own the packet is sent, and nobody is there.
        socket.connect(("127.0.0.1", number("UDP") as u16))?;
        std::thread::sleep(std::time::Duration::from_millis(20));
        socket.send(b"x").and_then(|_| socket.send(b"x")).map(drop)
    }),
    ("mptcp", || {
        let socket = call(libc::SYS_socket, &[2, 1, 262])?;
        let port = (number("TCP") as u16).to_be_bytes();
        let address = [
            2, 0, port[0], port[1], 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0u8,
        ];
        done(
            libc::SYS_connect,
            &[socket, address.as_ptr() as libc::c_long, 16],
        )
    }),
    ("unix-socket", || {
        UnixStream::connect(home("socket")).map(drop)
    }),
    ("abstract-socket", || {
        use std::os::linux::net::SocketAddrExt;
        let name = var("ABSTRACT");
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        UnixStream::connect_addr(&address).map(drop)
    }),
    ("socket-vsock", || socket(40, 1, 0)),
    ("socket-packet", || socket(17, 3, 0)),
    ("socket-raw", || socket(2, 3, 1)),
    ("socket-crypto", || socket(38, 5, 0)),
    ("socket-netlink-events", || socket(16, 3, 15)),
    ("socket-bluetooth", || socket(31, 3, 0)),
    ("socket-can", || socket(29, 3, 0)),
];

const KERNEL: &[Attempt] = &[
    ("io-uring", || done(425, &[4, room()])),
    ("userfaultfd", || done(libc::SYS_userfaultfd, &[1])),
    ("bpf", || done(libc::SYS_bpf, &[0, room(), 128])),
    ("perf", || {
        done(libc::SYS_perf_event_open, &[room(), 0, -1, -1, 0])
    }),
    ("mount", || {
        let (kind, at_path) = (text("tmpfs"), text("."));
        done(libc::SYS_mount, &[at(&kind), at(&at_path), at(&kind), 0, 0])
    }),
    ("unmount", || {
        done(libc::SYS_umount2, &[at(&text("/proc/sys")), 2])
    }),
    ("open-tree", || {
        done(libc::SYS_open_tree, &[CWD, at(&text("/")), 1])
    }),
    ("new-user-namespace", || {
        done(libc::SYS_unshare, &[libc::CLONE_NEWUSER.into()])
    }),
    ("new-network", || {
        done(libc::SYS_unshare, &[libc::CLONE_NEWNET.into()])
    }),
    ("clone-user-namespace", || {
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        match call(libc::SYS_clone, &[flags.into(), 0, 0, 0, 0])? {
            // SAFETY: the child ends at once.
            0 => unsafe { libc::_exit(0) },
            _ => Ok(()),
        }
    }),
    ("set-namespace", || {
        let own = std::fs::File::open("/proc/self/ns/net")?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&own);
        done(libc::SYS_setns, &[fd.into(), 0])
    }),
    ("chroot", || done(libc::SYS_chroot, &[at(&text("."))])),
    ("pivot-root", || {
        let here = text(".");
        done(libc::SYS_pivot_root, &[at(&here), at(&here)])
    }),
    ("become-root", || done(libc::SYS_setuid, &[0])),
    ("set-groups", || done(libc::SYS_setgroups, &[0, 0])),
    ("host-name", || {
        done(libc::SYS_sethostname, &[at(&text("x")), 1])
    }),
    ("set-clock", || done(libc::SYS_settimeofday, &[room(), 0])),
    ("kernel-log", || done(libc::SYS_syslog, &[3, room(), 4096])),
    ("kexec", || done(libc::SYS_kexec_load, &[0, 0, 0, 0])),
    ("kernel-module", || {
        done(libc::SYS_init_module, &[room(), 0, room()])
    }),
    ("swap", || done(libc::SYS_swapon, &[at(&text("x")), 0])),
    ("accounting", || done(libc::SYS_acct, &[at(&text("x"))])),
    ("quota", || {
        done(libc::SYS_quotactl, &[0x0080_0007 << 8, 0, 0, 0])
    }),
    ("personality", || {
        done(libc::SYS_personality, &[0x0004_0000])
    }),
    ("hang-up", || done(libc::SYS_vhangup, &[])),
    ("segments", || {
        #[cfg(target_arch = "x86_64")]
        return done(libc::SYS_modify_ldt, &[0, room(), 64]);
        #[cfg(not(target_arch = "x86_64"))]
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }),
    ("ports", || {
        #[cfg(target_arch = "x86_64")]
        return done(libc::SYS_iopl, &[3]);
        #[cfg(not(target_arch = "x86_64"))]
        Err(io::Error::from_raw_os_error(libc::ENOSYS))
    }),
    ("memory-file", || {
        done(libc::SYS_memfd_create, &[at(&text("x")), 0])
    }),
    ("secret-memory", || done(libc::SYS_memfd_secret, &[0])),
    ("aio", || done(libc::SYS_io_setup, &[1000, room()])),
    ("terminal-input", || {
        done(libc::SYS_ioctl, &[0, 0x5412, room()])
    }),
];

const OWN: &[Attempt] = &[
    ("leave-idle", || {
        // SAFETY: only returns a number.
        if unsafe { libc::sched_getscheduler(0) } != libc::SCHED_IDLE {
            return Err(io::Error::other("it is not idle"));
        }
        scheduler(0, libc::SCHED_OTHER, 0)
    }),
    ("real-time", || scheduler(0, libc::SCHED_FIFO, 1)),
    ("real-time-io", || {
        done(libc::SYS_ioprio_set, &[1, 0, 1 << 13])
    }),
    ("negative-nice", || done(libc::SYS_setpriority, &[0, 0, -5])),
    ("more-processes", || {
        let mut limit = libc::rlimit {
            rlim_cur: 0,
            rlim_max: 0,
        };
        // SAFETY: valid for the call.
        unsafe { libc::getrlimit(libc::RLIMIT_NPROC, &raw mut limit) };
        if limit.rlim_max == libc::RLIM_INFINITY {
            return Ok(());
        }
        self::limit(0, libc::RLIMIT_NPROC, limit.rlim_max + 1)
    }),
    ("core-files", || limit(0, libc::RLIMIT_CORE, 1 << 20)),
    ("timer-with-sigcont", || {
        let mut event = [0u32; 16];
        event[2] = libc::SIGCONT as u32;
        done(
            libc::SYS_timer_create,
            &[
                libc::CLOCK_MONOTONIC.into(),
                event.as_ptr() as libc::c_long,
                room(),
            ],
        )
    }),
    ("input-with-sigcont", || {
        done(libc::SYS_fcntl, &[0, 10, libc::SIGCONT.into()])
    }),
    ("input-signals-others", || {
        done(libc::SYS_fcntl, &[0, 8, worker()])
    }),
    ("input-signals-others-by-ioctl", || {
        done(libc::SYS_ioctl, &[0, 0x8901, room()])
    }),
    ("parents-end-with-sigcont", || {
        done(libc::SYS_prctl, &[1, libc::SIGCONT.into()])
    }),
    ("childs-end-with-sigcont", || {
        match call(libc::SYS_clone, &[libc::SIGCONT.into(), 0, 0, 0, 0])? {
            // SAFETY: the child ends at once.
            0 => unsafe { libc::_exit(0) },
            _ => Ok(()),
        }
    }),
    ("lease", || {
        let file = std::fs::File::create("leased")?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&file);
        done(libc::SYS_fcntl, &[fd.into(), 1024, 1])
    }),
    ("folder-signals", || {
        let folder = std::fs::File::open(".")?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&folder);
        done(libc::SYS_fcntl, &[fd.into(), 1026, 1])
    }),
];
