//! The limit on what an attempt adds to its folders: looked at while it runs, and measured once it has ended.

use crate::scratch::{holds, space_used};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks, at least; and how many times longer than the look itself.
const SAMPLE_MIN: Duration = Duration::from_millis(200);
const SAMPLE_FACTOR: u32 = 10;

/// A disk with less room than this is full, bytes: the last write that fits leaves some.
const FULL_BYTES: u64 = 64 << 10;

/// An attempt's folders and their limit.
pub(crate) struct DiskLimit {
    folders: Vec<PathBuf>,
    limit: u64,
    /// What was there before it started, bytes.
    before: u64,
}

impl DiskLimit {
    /// A limit of bytes beside what is in the folders now.
    pub(crate) async fn new(folders: Vec<PathBuf>, limit: u64) -> Arc<DiskLimit> {
        let before = 0;
        let mut it = DiskLimit {
            folders,
            limit,
            before,
        };
        it.before = it.look().await.0;
        Arc::new(it)
    }

    /// Looks at the folders until the attempt is over; gives its ending if it passes its limit. `unlinked` says what its
    /// files without a name take, bytes, while it runs.
    pub(crate) async fn watch(&self, unlinked: impl Fn() -> Option<u64>) -> Option<Ending> {
        let mut pause = SAMPLE_MIN;
        loop {
            tokio::time::sleep(pause).await;
            let unlinked = unlinked()?;
            let (used, took) = self.look().await;
            let used = used + unlinked;
            if used > self.limit {
                return Some(self.passed(used));
            }
            pause = SAMPLE_MIN.max(took * SAMPLE_FACTOR);
        }
    }

    /// How an attempt ended, what it left in its folders considered.
    pub(crate) async fn judge(&self, outcome: Result<(), Ending>) -> Result<(), Ending> {
        let too_large = match &outcome {
            Ok(()) | Err(Ending::Exited { .. }) => false,
            // What the kernel sends for a file that grows too large.
            Err(Ending::Signalled { signal, .. }) => *signal == libc::SIGXFSZ,
            Err(_) => return outcome,
        };
        let (used, _) = self.look().await;
        if used > self.limit || too_large {
            return Err(self.passed(used.max(self.limit)));
        }
        // It failed, kept to what it had asked for, and the disk is full: the machine had less than it offered.
        if outcome.is_err() && self.folders.iter().any(|folder| is_full(folder)) {
            return Err(Ending::Short {
                of: Shortage::Disk,
                doing: "hold what the task may write".to_owned(),
            });
        }
        outcome
    }

    fn passed(&self, used: u64) -> Ending {
        Ending::DiskLimit {
            limit: self.limit,
            used,
        }
    }

    /// What was added, and how long the look took. On another thread, since a large folder takes a while; most attempts
    /// start in empty folders, and many leave them so.
    async fn look(&self) -> (u64, Duration) {
        if self.folders.iter().all(|folder| holds(folder, 0)) {
            return (0, Duration::ZERO);
        }
        let (folders, before) = (self.folders.clone(), self.before);
        let looked = tokio::task::spawn_blocking(move || {
            let since = Instant::now();
            let used = space_used(&folders).saturating_sub(before);
            (used, since.elapsed())
        });
        looked.await.unwrap_or_default()
    }
}

/// Whether the disk of a folder has no room; `false` where the system does not say.
fn is_full(folder: &Path) -> bool {
    let free = |disk: rustix::fs::StatVfs| disk.f_bavail.saturating_mul(disk.f_frsize);
    rustix::fs::statvfs(folder).is_ok_and(|disk| free(disk) < FULL_BYTES)
}
