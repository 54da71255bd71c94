//! The limit on what an attempt adds to its folders: looked at while it runs, and measured once it has ended.

use crate::reserve;
use crate::scratch::{holds, space_used};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Time between two looks, at least; and how many times longer than the look itself.
const SAMPLE_MIN: Duration = Duration::from_millis(200);
const SAMPLE_FACTOR: u32 = 10;

/// A disk with less room than this beside its reserve is full, bytes: the last write that fits leaves some.
const FULL_BYTES: u64 = 64 << 10;

/// An attempt's folders and their limit.
pub(crate) struct DiskLimit {
    folders: Vec<PathBuf>,
    limit: u64,
    /// Whether the attempt asked for so much; otherwise it may use what the worker offers.
    asked: bool,
    /// What is to stay free, bytes.
    reserve: u64,
    /// What was there before it started, bytes.
    before: u64,
}

impl DiskLimit {
    /// A limit of bytes beside what is in the folders now, on a disk of which `reserve` bytes are to stay free.
    /// `filled` says that there may be something in the folders.
    pub(crate) async fn new(
        folders: Vec<PathBuf>,
        limit: u64,
        asked: bool,
        reserve: u64,
        filled: bool,
    ) -> Arc<DiskLimit> {
        let before = 0;
        let mut it = DiskLimit {
            folders,
            limit,
            asked,
            reserve,
            before,
        };
        if filled {
            it.before = it.look().await.0;
        }
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
        if outcome.is_ok() && !self.asked {
            return outcome;
        }
        let too_large = match &outcome {
            Ok(()) | Err(Ending::Exited { .. }) => false,
            // What the kernel sends for a file that grows too large.
            Err(Ending::Signalled { signal, .. }) => *signal == libc::SIGXFSZ,
            Err(_) => return outcome,
        };
        let (used, _) = self.look().await;
        if used > self.limit {
            return Err(self.passed(used));
        }
        if outcome.is_err() && self.folders.iter().any(|folder| self.is_full(folder)) {
            return match (self.asked, too_large) {
                // It kept to what it had asked for: the machine had less than it offered.
                (true, _) => Err(short()),
                // What the disk had left was its limit.
                (false, true) => Err(Ending::DiskLimit { limit: used, used }),
                (false, false) => outcome,
            };
        }
        if too_large {
            return Err(self.passed(self.limit));
        }
        outcome
    }

    /// Whether the disk of a folder has no room; `false` where the system does not say.
    fn is_full(&self, folder: &Path) -> bool {
        reserve::short_of(folder, self.reserve.saturating_add(FULL_BYTES)).is_some()
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

/// How an attempt ended that kept to its limit on a machine whose disk is full.
pub(crate) fn short() -> Ending {
    Ending::Short {
        of: Shortage::Disk,
        doing: "hold what the task may write".to_owned(),
    }
}
