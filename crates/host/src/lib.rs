//! What this machine is, and what its owner is doing.
//!
//! [`Watch::start`] starts every source of activity that the machine offers, each on a thread of its own that
//! sleeps until something happens. What a source noticed leaves it as a [`Notice`]: the kind and the time, never
//! a key, a sound or a title. A source that cannot start says why and what would mend it, and tries again: the
//! desktop may come after the worker.
//!
//! Nothing is decided here: what an activity means for running tasks is the core's.

pub mod bench;
mod bus;
mod clock;
mod evdev;
mod gpus;
mod inventory;
mod load;
mod logind;
mod microphone;
mod mutter;
mod network;
mod poll;
mod power;
mod screensaver;
mod sessions;
mod source;
mod voice;
mod watch;
mod wayland;
mod x11;

pub use clock::minute_of_week;
pub use gpus::{Gpu, GpuVendor, gpus};
pub use inventory::{cores, hardware, memory};
pub use source::{Notice, Options, State, Trouble};
pub use watch::{Found, Watch, covering};
