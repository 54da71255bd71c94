//! How the process of an attempt begins, and why it may not.

use crate::Launch;
use crate::reserve;
use crate::spawner::child::{Failure, PAGE, Starting};
use crate::spawner::environment::Slot;
use crate::spawner::template::{self, Began};
use hedge_model::Ending;
use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;

/// How the process of an attempt begins.
pub(super) enum Beginning {
    /// It executes its program.
    Executed(Starting),
    /// It is forked from a template.
    Forked(Channel),
}

/// Why a process did not begin.
pub(super) enum NotBegun {
    Failed(Failure),
    /// Its template ended before it had forked the process, or that process ended before it knew what to run.
    Lost,
}

impl Beginning {
    /// Returns why the process did not begin, if that is known.
    pub fn failure(&self) -> Option<NotBegun> {
        match self {
            Beginning::Executed(starting) => starting.failure().map(NotBegun::Failed),
            Beginning::Forked(channel) if channel.lost => Some(NotBegun::Lost),
            Beginning::Forked(channel) => match template::beginning(&channel.socket) {
                Began::Yes => None,
                Began::No(failure) => Some(NotBegun::Failed(failure)),
                Began::Silent => Some(NotBegun::Lost),
            },
        }
    }

    /// Returns the path of its program; empty for a forked process.
    pub fn program(&self) -> &CStr {
        match self {
            Beginning::Executed(starting) => starting.program(),
            Beginning::Forked(_) => c"",
        }
    }
}

/// Why an attempt is not started now.
pub(super) enum NotNow {
    Ended(Ending),
    /// It waits for a template that it cannot use to end.
    TemplateEnds,
}

impl From<Ending> for NotNow {
    fn from(ending: Ending) -> NotNow {
        NotNow::Ended(ending)
    }
}

/// The connection to an attempt's process that is forked from a template.
pub(super) struct Channel {
    pub socket: OwnedFd,
    /// The part of the process's command and environment that did not fit into the socket at once.
    pub unsent: Vec<u8>,
    /// Whether the template ended before it had forked the process.
    pub lost: bool,
}

impl Channel {
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            unsent: Vec::new(),
            lost: false,
        }
    }
}

/// Returns the largest size of a file of an attempt in bytes; none if it has no limit.
pub(super) fn file_bytes_max(launch: &Launch, slot: &Slot, disk_reserve: u64) -> Option<u64> {
    let room = reserve::available(Path::new(&slot.work_path), disk_reserve);
    // A little more than the limit, so that the next measurement shows that the attempt exceeds it.
    launch.limits.disk.map(|limit| {
        let above = limit.saturating_add(PAGE as u64);
        room.map_or(above, |room| room.min(above))
    })
}
