//! Runs the attempts of a worker: scratch directories, sandbox, limits, captured output.
//!
//! [`Runner`] is the boundary: a worker starts, suspends, resumes and ends attempts there, whatever executes them.
//!
//! # Processes
//!
//! A worker is a large process with many threads, which is slow to fork and hard to sandbox. It therefore starts small
//! *spawners*, its own program with a hidden first argument, and talks to each over an inherited socket. Each slot for
//! an attempt has its own spawner, which enters the sandbox once. An attempt then costs the `exec` itself, a Landlock
//! domain and three pipes.
//!
//! ```text
//! worker ──socket── watcher ──► spawner ──► attempt's process ──► …
//!                   (ends both  (pid 1 of its own
//!                    ways)       namespaces)
//! ```
//!
//! - When one of the three dies, even by `SIGKILL`, everything below it ends too.
//! - The sandbox shows read-only system folders, a few devices, its own `/proc` and the scratch directory of the slot;
//!   see [`Sandbox`]. [`Permissions`] add devices and folders for single attempts. Attempts that run at the same time
//!   have different slots. They share no processes, files, memory or sockets and, where the worker is root, no user.
//! - A filter allows the system calls that programs need. The spawner's main thread has it, and attempts inherit it.
//! - Every process below a spawner belongs to its attempt, so daemons of the attempt are ended too.
//! - The progress of an attempt is the CPU time and the bytes written of its processes, and what it reports on the
//!   descriptor that `HEDGE_PROGRESS_FD` names; see [`Advanced`].
//! - An attempt that is stopped gets SIGTERM and a grace period, in which it may save how far it is; [`RenameWatch`] tells
//!   which files it renamed into place.
//! - While the machine's owner is present, the kernel stops all attempts at once, in control groups that they are
//!   started in. Where no control group can be made, each process gets a signal. If the owner asks for it, their memory
//!   is then pushed out to swap.
//!
//! # Use
//!
//! The program calls [`spawner::main`] when its first argument is [`spawner::ARGUMENT`], before it sets anything else
//! up. The worker calls [`Runner::start_up`], makes a directory with [`Runner::scratch`] and passes it to
//! [`Runner::start`].

mod client;
mod disk;
mod error;
mod landlock;
mod launch;
mod memory;
mod permissions;
mod process;
mod reserve;
mod runner;
pub mod scratch;
mod seccomp;
mod shortage;
pub mod spawner;
mod user;
mod wire;

pub use client::{Output, Running, Spawner, SpawnerConfig};
pub use error::ExecError;
pub use launch::{
    Advanced, Exit, Launch, Limits, Priority, Report, Sandbox, Stdin, StreamKind, TAIL_BYTES, Tail,
    Usage, Warm, Weakness,
};
pub use permissions::{MountedFolder, Permissions, SharedFolder};
pub use runner::{Attempt, Runner};
pub use scratch::{OutputFile, OutputPatterns, RenameWatch, Scratch, ScratchPool, Source};
pub use shortage::{shortage, told_shortage};
pub use spawner::is_stopped;

/// Gives the calling thread, and what it starts from now on, the default priority of tasks: only time that no other
/// program wants. For measuring beside tasks. If the system refuses it, nothing changes.
pub fn lower_priority() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: a plain system call on the calling thread; the structure outlives it.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
}
