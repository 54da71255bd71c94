//! The limit on what an attempt adds to its folders: looked at while it runs, and measured once it has ended.

use crate::Tail;
use crate::reserve;
use crate::scratch::{holds, space_used};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A shell's exit status for a signal, less the signal.
const SHELLS_SIGNAL: i32 = 128;
/// The end of the standard error in which a reason is looked for, bytes.
const SAID_BYTES_MAX: usize = 4 << 10;

/// A disk with less room than this beside its reserve is full, bytes: the last write that fits leaves some.
const FULL_BYTES: u64 = 64 << 10;

/// An attempt's folders and their limit.
pub(crate) struct DiskLimit {
    folders: Vec<PathBuf>,
    limit: u64,
    /// Whether the limit is the attempt's own; otherwise it is what the worker offers.
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

    /// Looks at the folders while the attempt runs; gives its ending if it has passed its limit, and how long the look
    /// took. `unlinked` is what its files without a name take, bytes.
    pub(crate) async fn check(&self, unlinked: u64) -> (Option<Ending>, Duration) {
        let (used, took) = self.look().await;
        let used = used + unlinked;
        ((used > self.limit).then(|| self.passed(used)), took)
    }

    /// How an attempt ended, what it left in its folders and on its standard error considered.
    pub(crate) async fn judge(
        &self,
        outcome: Result<(), Ending>,
        stderr: &Tail,
    ) -> Result<(), Ending> {
        let failure = match &outcome {
            Ok(()) if !self.asked => return outcome,
            Ok(()) => None,
            Err(failure @ (Ending::Exited { .. } | Ending::Signalled { .. })) => Some(failure),
            Err(_) => return outcome,
        };
        let (used, _) = self.look().await;
        if used > self.limit {
            return Err(self.passed(used));
        }
        let Some(failure) = failure else {
            return outcome;
        };
        let room = self.room();
        let full = room < FULL_BYTES;
        let met_limit =
            too_large(failure, stderr) || full && says(stderr, &["No space left on device"]);
        // What it could have used in all.
        let allowed = self.limit.min(used.saturating_add(room));
        match (self.asked, met_limit) {
            // It kept to what it had asked for: the machine had less than it offered.
            (true, _) if full => Err(short()),
            (true, true) if allowed < self.limit => Err(short()),
            (_, true) => Err(Ending::DiskLimit {
                limit: allowed,
                used: used.max(allowed),
            }),
            (_, false) => outcome,
        }
    }

    /// What the disks of its folders have left beside their reserve, bytes, as far as the system says.
    fn room(&self) -> u64 {
        let folders = self.folders.iter();
        let rooms = folders.filter_map(|folder| reserve::room(folder, self.reserve));
        rooms.min().unwrap_or(u64::MAX)
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

/// Whether an attempt failed because a file would have grown too large: the kernel then sends a signal, which a shell
/// turns into an exit status, or refuses to write, of which only the program can tell.
fn too_large(failure: &Ending, stderr: &Tail) -> bool {
    match failure {
        Ending::Signalled { signal, .. } if *signal == libc::SIGXFSZ => true,
        Ending::Exited { status, .. } if *status == SHELLS_SIGNAL + libc::SIGXFSZ => true,
        _ => says(stderr, &["File size limit exceeded", "File too large"]),
    }
}

/// Whether one of these is at the end of what an attempt printed.
fn says(stderr: &Tail, texts: &[&str]) -> bool {
    let end = stderr.bytes.len().saturating_sub(SAID_BYTES_MAX);
    let said = String::from_utf8_lossy(&stderr.bytes[end..]);
    texts.iter().any(|text| said.contains(text))
}

/// How an attempt ended that kept to its limit on a machine whose disk is full.
pub(crate) fn short() -> Ending {
    Ending::Short {
        of: Shortage::Disk,
        doing: "hold what the task may write".to_owned(),
    }
}
