//! The limit on the disk space that an attempt takes: checked while it runs, and again when it has ended.

use crate::Tail;
use crate::reserve;
use crate::scratch::{Scratch, holds, space_used};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Shells add this to the number of the signal that ended a program.
const SHELL_SIGNAL_BASE: i32 = 128;
/// Bytes at the end of the standard error that are searched for the message of a full disk.
const STDERR_SEARCHED_MAX: usize = 4 << 10;
/// A disk with fewer free bytes than this beyond its reserve counts as full: the last write that fits leaves some.
const FULL_BYTES: u64 = 64 << 10;

/// Who set a limit on disk space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetBy {
    /// The task's resources.
    Task,
    /// The worker, for a task that names no limit.
    Worker,
}

/// An attempt's folders and the limit on what it adds to them.
pub(crate) struct DiskLimit {
    folders: Vec<PathBuf>,
    limit: u64,
    set_by: SetBy,
    /// Bytes of the disk that must stay free.
    reserve: u64,
    /// Bytes in the folders before the attempt started.
    before: u64,
}

impl DiskLimit {
    /// Creates a limit of `limit` bytes beyond what is in the attempt's folders now. `reserve` bytes of the disk must
    /// stay free.
    pub(crate) async fn new(
        scratch: &Scratch,
        limit: u64,
        set_by: SetBy,
        reserve: u64,
    ) -> Arc<DiskLimit> {
        let mut disk = DiskLimit {
            folders: scratch.folders(),
            limit,
            set_by,
            reserve,
            before: 0,
        };
        if scratch.is_filled() {
            disk.before = disk.measure().await.0;
        }
        Arc::new(disk)
    }

    /// Measures the folders of a running attempt. Returns its ending if it exceeds its limit, and the duration of the
    /// measurement. `unlinked` are the bytes of its files without a name.
    pub(crate) async fn check(&self, unlinked: u64) -> (Option<Ending>, Duration) {
        let (used, took) = self.measure().await;
        let used = used + unlinked;
        ((used > self.limit).then(|| self.exceeded(used)), took)
    }

    /// Returns the ending of an attempt that is over, corrected for its disk space: an attempt that exceeds its limit
    /// has failed, and a failure that a full disk caused is named as such.
    pub(crate) async fn corrected(
        &self,
        outcome: Result<(), Ending>,
        stderr: &Tail,
    ) -> Result<(), Ending> {
        let failure = match &outcome {
            Ok(()) if self.set_by == SetBy::Worker => return outcome,
            Ok(()) => None,
            Err(failure @ (Ending::Exited { .. } | Ending::Signalled { .. })) => Some(failure),
            Err(_) => return outcome,
        };
        let (used, _) = self.measure().await;
        if used > self.limit {
            return Err(self.exceeded(used));
        }
        let Some(failure) = failure else {
            return outcome;
        };
        let free = self.free();
        let full = free < FULL_BYTES;
        let no_space = full && mentions(stderr, &["No space left on device"]);
        let met_limit = no_space || is_file_too_large(failure, stderr);
        // The most that the attempt could have used.
        let allowed = self.limit.min(used.saturating_add(free));
        match (self.set_by, met_limit) {
            // It kept to the limit of its task: the machine had less than its worker offered.
            (SetBy::Task, _) if full => Err(disk_shortage()),
            (SetBy::Task, true) if allowed < self.limit => Err(disk_shortage()),
            (_, true) => Err(Ending::DiskLimit {
                limit: allowed,
                used: used.max(allowed),
            }),
            (_, false) => outcome,
        }
    }

    /// Returns the free bytes of the disks beyond the reserve, as far as the system says.
    fn free(&self) -> u64 {
        let folders = self.folders.iter();
        let free = folders.filter_map(|folder| reserve::available(folder, self.reserve));
        free.min().unwrap_or(u64::MAX)
    }

    fn exceeded(&self, used: u64) -> Ending {
        Ending::DiskLimit {
            limit: self.limit,
            used,
        }
    }

    /// Returns the bytes that the attempt added, and the duration of the measurement. Measures on a thread of its own,
    /// because a large folder takes a while. Most attempts start with empty folders, and many leave them empty.
    async fn measure(&self) -> (u64, Duration) {
        if self.folders.iter().all(|folder| holds(folder, 0)) {
            return (0, Duration::ZERO);
        }
        let (folders, before) = (self.folders.clone(), self.before);
        let measured = tokio::task::spawn_blocking(move || {
            let since = Instant::now();
            let used = space_used(&folders).saturating_sub(before);
            (used, since.elapsed())
        });
        measured.await.unwrap_or_default()
    }
}

/// Returns whether an attempt failed because a file would have become too large. The kernel then sends a signal, which a
/// shell turns into an exit status, or refuses the write, which only the program's message shows.
fn is_file_too_large(failure: &Ending, stderr: &Tail) -> bool {
    match failure {
        Ending::Signalled { signal, .. } if *signal == libc::SIGXFSZ => true,
        Ending::Exited { status, .. } if *status == SHELL_SIGNAL_BASE + libc::SIGXFSZ => true,
        _ => mentions(stderr, &["File size limit exceeded", "File too large"]),
    }
}

/// Returns whether one of these texts is at the end of an attempt's standard error.
fn mentions(stderr: &Tail, texts: &[&str]) -> bool {
    let end = stderr.bytes.len().saturating_sub(STDERR_SEARCHED_MAX);
    let printed = String::from_utf8_lossy(&stderr.bytes[end..]);
    texts.iter().any(|text| printed.contains(text))
}

/// Returns the ending of an attempt that kept to its limit on a machine whose disk is full.
pub(crate) fn disk_shortage() -> Ending {
    Ending::Short {
        of: Shortage::Disk,
        doing: "hold what the task may write".to_owned(),
    }
}
