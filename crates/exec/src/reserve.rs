//! The part of the disk that attempts must leave free for the machine's owner and the worker.

use std::path::Path;

/// The reserve is this fraction of the disk, but at most `RESERVE_MAX` bytes and half of what is free at the start.
const RESERVE_SHARE: u64 = 20;
const RESERVE_MAX: u64 = 1 << 30;

/// Returns the bytes that should stay free on the disk of this folder.
pub(crate) fn reserve(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |about| {
        let share = about.f_blocks * about.f_frsize / RESERVE_SHARE;
        share
            .min(RESERVE_MAX)
            .min(about.f_bavail * about.f_frsize / 2)
    })
}

/// Returns the bytes that can be written to the disk of this folder before less than `reserve` is free.
pub(crate) fn available(folder: &Path, reserve: u64) -> Option<u64> {
    free(folder).map(|free| free.saturating_sub(reserve))
}

/// Returns the bytes that are missing from `reserve`; none if it is free.
pub(crate) fn short_of(folder: &Path, reserve: u64) -> Option<u64> {
    reserve
        .checked_sub(free(folder)?)
        .filter(|short| *short > 0)
}

fn free(folder: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(folder).ok()?;
    Some(about.f_bavail * about.f_frsize)
}
