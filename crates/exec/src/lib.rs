//! Runs one attempt of a task: scratch folder, sandbox, limits, captured output.
//!
//! # How it is made
//!
//! A worker is a large process with many threads, which is slow to fork and awkward to put into a
//! sandbox. So it starts small *spawners*, its own program again with a hidden first argument, and talks to each over
//! an inherited socket. Each slot for an attempt has a spawner of its own, which enters its sandbox once; what an
//! attempt then costs is the `exec` itself, a Landlock domain and three pipes.
//!
//! ```text
//! worker ──socket── watcher ──► spawner ──► attempt's process ──► …
//!                   (ends both  (pid 1 of its own
//!                    ways)       namespaces)
//! ```
//!
//! - Whichever of the three dies, even by `SIGKILL`, takes everything below with it.
//! - The sandbox is a view of the file system that holds nothing but system folders (read-only), a few
//!   devices, `/proc` of its own and the slot's own scratch folders; see [`Sandbox`]. Attempts that run at the same
//!   time have different slots, and so share neither processes nor files, memory, sockets and, where the worker is
//!   root, users.
//! - A filter of system calls allows what programs need. The spawner's main thread has it, and attempts inherit it.
//! - All processes below a spawner are of its attempt. So processes that made themselves daemons are ended too.
//! - An attempt's progress is the CPU time and the bytes written of its processes, and what it says itself on
//!   the descriptor that `HEDGE_PROGRESS_FD` names; see [`Advanced`].
//! - While the machine's owner is there, the kernel stops all attempts at once, in control groups of their own that
//!   they are started in; where none can be made, each process is sent a signal. Their memory is pushed out then, if
//!   the owner asks for that.
//!
//! # Use
//!
//! The program calls [`spawner::main`] when its first argument is [`spawner::ARGUMENT`], before it sets
//! anything else up. The worker calls [`Spawner::start`], makes a folder with [`ScratchPool::create`],
//! and hands both to [`Spawner::launch`].

mod client;
mod disk;
mod error;
mod landlock;
mod launch;
mod memory;
mod process;
mod reserve;
pub mod scratch;
mod seccomp;
mod shortage;
pub mod spawner;
mod user;
mod wire;

pub use client::{Running, Spawner, SpawnerConfig};
pub use error::ExecError;
pub use launch::{
    Advanced, Exit, Launch, Limits, Priority, Report, Sandbox, Stdin, StreamKind, TAIL_BYTES, Tail,
    Usage, Weakness,
};
pub use scratch::{OutputFile, OutputPatterns, Scratch, ScratchPool, Source};
pub use shortage::{shortage, told_shortage};
pub use spawner::is_stopped;

/// Gives the calling thread, and what it starts from now on, the priority that tasks have by default:
/// only time that nobody else wants. For measuring beside tasks; refused, it changes nothing.
pub fn lower_priority() {
    let none = libc::sched_param { sched_priority: 0 };
    // SAFETY: a plain system call on the calling thread; the structure outlives it.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const none) };
}
