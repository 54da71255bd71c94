//! The spawner: a small process that starts, limits and ends the attempts of one slot, one after the other.
//!
//! It consists of two processes. The *watcher* only waits: when the worker dies it kills the spawner, and when the spawner
//! dies it kills what is left and exits. The *spawner* proper is pid 1 of a pid namespace if that is allowed, so that the
//! kernel kills every attempt with it.

mod advance;
mod attempt;
mod child;
mod engine;
mod environment;
mod freezer;
mod os;
mod stream;
mod supervise;
mod template;
pub(crate) mod tree;
mod view;

use crate::user::{self, TaskUsers};
use crate::wire::{self, Reply, Setup};
use freezer::Freezer;
pub use freezer::is_stopped;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The first argument that makes the program a spawner.
pub const ARGUMENT: &str = "spawner";

/// The watcher waits at most this long for left-over processes to die. Only one that hangs in the kernel takes longer than
/// a moment.
const DYING_MAX: Duration = Duration::from_secs(5);

/// Runs the spawner on the socket that is its standard input, until the worker closes it or dies. The program must call
/// this first, because the process must have no other thread.
///
/// Returns only if it was not started by a worker, with a sentence that says so.
pub fn main() -> String {
    match start() {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

enum Never {}

fn start() -> Result<Never, String> {
    let stranger = || "this command is for the worker, which starts it by itself".to_owned();
    let mut socket = take_socket().ok_or_else(stranger)?;
    let setup = read_setup(&mut socket).ok_or_else(stranger)?;
    let worker = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get() as u32);
    if worker != setup.worker {
        return Err("the worker is gone".to_owned());
    }
    calm_signals();
    os::leave_keyring();
    let _ = rustix::process::setsid();
    // When memory runs out the kernel should pick a task, not one of the owner's programs.
    let _ = std::fs::write("/proc/self/oom_score_adj", "900");

    // Made here, because control groups are not visible later.
    let freezer = Freezer::make(setup.processes_max, setup.memory_max).map(Rc::new);
    let users = TaskUsers::of_worker(worker).filter(|_| setup.sandbox);
    let mut user = users.map(|users| users.of_slot(setup.slot));
    let mut reduced = None;
    if setup.sandbox {
        let given = user::give(&setup.folder, user).map_err(|error| error.to_string());
        match given.and_then(|()| {
            environment::fork_into_namespaces(&setup, &socket, freezer.clone(), user)
        }) {
            Ok(pid) => watch(pid, socket, worker, freezer),
            Err(why) => reduced = Some(why),
        }
    }
    // Orphans of a dead spawner become children of this process, which kills them.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    // Without a view of their own, tasks name their folder by its path on this machine.
    let closed = user.and_then(|_| user::closed_above(&setup.folder));
    user = user.filter(|_| closed.is_none());
    let given = user::give(&setup.folder, user).map_err(|error| error.to_string());
    match given.and_then(|()| {
        environment::fork_plain(&setup, &socket, reduced, freezer.clone(), (user, closed))
    }) {
        Ok(pid) => watch(pid, socket, worker, freezer),
        Err(why) => {
            if let Some(freezer) = freezer {
                freezer.remove();
            }
            let mut frame = Vec::new();
            if wire::encode(&Reply::Refused { why }, &mut frame).is_ok() {
                let _ = socket.write_all(&frame);
            }
            std::process::exit(1)
        }
    }
}

/// Moves the socket away from standard input, where it leaves `/dev/null`, and closes all other inherited descriptors.
fn take_socket() -> Option<UnixStream> {
    let stdin = std::io::stdin();
    rustix::net::sockopt::socket_type(&stdin).ok()?;
    let socket = rustix::io::fcntl_dupfd_cloexec(&stdin, 3).ok()?;
    let null = std::fs::File::options().read(true).open("/dev/null").ok()?;
    // SAFETY: descriptor 0 is replaced, not closed; those from the socket's number on belong to nobody
    // here, because nothing else has been opened yet.
    unsafe {
        libc::dup2(null.as_raw_fd(), 0);
        drop(null);
        let kept = socket.as_raw_fd();
        if kept > 3 {
            libc::close_range(3, kept as u32 - 1, 0);
        }
        libc::close_range(kept as u32 + 1, u32::MAX, 0);
    }
    Some(UnixStream::from(socket))
}

fn read_setup(socket: &mut UnixStream) -> Option<Setup> {
    let mut frame = vec![0; 4];
    socket.read_exact(&mut frame).ok()?;
    let length = u32::from_le_bytes([frame[0], frame[1], frame[2], frame[3]]) as usize;
    if length > wire::FRAME_BYTES_MAX {
        return None;
    }
    frame.resize(4 + length, 0);
    socket.read_exact(&mut frame[4..]).ok()?;
    wire::decode(&frame, &mut 0).ok()?
}

/// Gives every signal its default action, which attempts inherit. Signals of the terminal do not arrive, because the
/// spawner has its own session.
fn calm_signals() {
    for signal in 1..32 {
        // SAFETY: sets default actions only; those of SIGKILL and SIGSTOP are refused, harmlessly.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Waits until the worker or the spawner dies, then kills the spawner and what is left, and exits.
fn watch(spawner: i32, socket: UnixStream, worker: u32, freezer: Option<Rc<Freezer>>) -> ! {
    // The socket must close when the spawner dies.
    drop(socket);
    let pidfd = |pid: i32| {
        // SAFETY: only returns a new descriptor.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        // SAFETY: the kernel has just given us this descriptor.
        (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd as i32) })
    };
    let fds = [pidfd(worker as i32), pidfd(spawner)];
    let mut polled = fds.each_ref().map(|fd| libc::pollfd {
        fd: fd.as_ref().map_or(-1, AsRawFd::as_raw_fd),
        events: libc::POLLIN,
        revents: 0,
    });
    let alive = || rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get() as u32);
    while alive() == Some(worker) && polled[1].revents == 0 && polled[0].revents == 0 {
        // SAFETY: `polled` is valid for its length.
        unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
    }
    // SAFETY: `spawner` is our child and not reaped yet, so the number is still its own.
    unsafe {
        libc::kill(spawner, libc::SIGKILL);
        libc::waitpid(spawner, std::ptr::null_mut(), 0);
    }
    end_children();
    if let Some(freezer) = freezer {
        freezer.remove();
    }
    std::process::exit(0)
}

/// Kills all children of this process until there is none.
fn end_children() {
    let since = Instant::now();
    let children = tree::Children::open();
    loop {
        let pids = children.list();
        for pid in &pids {
            // SAFETY: a child that is not reaped yet keeps its number.
            unsafe { libc::kill(*pid, libc::SIGKILL) };
        }
        // SAFETY: waits for children only.
        let waited = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
        if waited < 0 || since.elapsed() > DYING_MAX {
            return;
        }
        if waited == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Folders that every attempt may read; see [`view`].
pub(crate) fn system_folders() -> Vec<std::path::PathBuf> {
    view::system_folders()
}
