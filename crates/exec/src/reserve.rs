//! Free space that attempts leave to the machine's owner and to the worker.

use std::path::Path;

/// What is left free: a share of the disk, but no more than `RESERVE_MAX` bytes, and half of what is free at first.
const RESERVE_SHARE: u64 = 20;
const RESERVE_MAX: u64 = 1 << 30;

/// What of the disk that this folder is on should stay free, bytes.
pub(crate) fn reserve(folder: &Path) -> u64 {
    rustix::fs::statvfs(folder).map_or(0, |about| {
        let share = about.f_blocks * about.f_frsize / RESERVE_SHARE;
        share
            .min(RESERVE_MAX)
            .min(about.f_bavail * about.f_frsize / 2)
    })
}

/// How large a file may become before less than `reserve` is left, bytes.
pub(crate) fn room(folder: &Path, reserve: u64) -> Option<u64> {
    free(folder).map(|free| free.saturating_sub(reserve))
}

/// How much is missing of `reserve`, if any is, bytes.
pub(crate) fn short_of(folder: &Path, reserve: u64) -> Option<u64> {
    reserve
        .checked_sub(free(folder)?)
        .filter(|short| *short > 0)
}

fn free(folder: &Path) -> Option<u64> {
    let about = rustix::fs::statvfs(folder).ok()?;
    Some(about.f_bavail * about.f_frsize)
}
