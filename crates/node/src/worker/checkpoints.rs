//! Makes checkpoints of a running attempt: copies the files that the attempt renames into place.
//!
//! A file that is renamed into place is complete, and stays so if the task keeps the rule not to write to it any
//! more. Nothing else is ever copied, neither while the attempt runs nor after its end.

use super::Input;
use super::attempt::{Tools, lock};
use hedge_core::worker::Event;
use hedge_exec::{Advanced, RenameWatch, Scratch};
use hedge_model::msg::{Assignment, Body};
use hedge_model::spec::{CHECKPOINT_EVERY_MIN, CheckpointRule};
use hedge_model::units::show_bytes;
use hedge_model::{AttemptId, Checkpoint, CheckpointId, Data, FileEntry};
use std::fs::File;
use std::future::pending;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A checkpoint up to this many bytes is sent inside messages and its record. The journal keeps it, so it must be
/// small.
const INLINE_MAX: u64 = 4 << 10;
/// In [`Told`]: the attempt has not reported its progress.
const NO_SHARE: u32 = u32::MAX;

/// An attempt's reports that matter for its checkpoints.
#[derive(Debug)]
pub(super) struct Told {
    permille: AtomicU32,
    checkpoints: AtomicU32,
    asks: Notify,
}

impl Told {
    /// Records a progress report of the attempt.
    pub fn hear(&self, to: &Advanced) {
        let permille = to.permille.map_or(NO_SHARE, u32::from);
        self.permille.store(permille, Ordering::Relaxed);
        if self.checkpoints.swap(to.checkpoints, Ordering::Relaxed) != to.checkpoints {
            self.asks.notify_one();
        }
    }

    fn permille(&self) -> Option<u16> {
        u16::try_from(self.permille.load(Ordering::Relaxed)).ok()
    }
}

/// Saves the checkpoints of one attempt, if its task has any.
pub(super) struct Saver(Option<Saving>);

struct Saving {
    attempt: AttemptId,
    rule: Arc<CheckpointRule>,
    watch: RenameWatch,
    told: Arc<Told>,
    /// For each file whether it is complete, because it was renamed into place or staged.
    whole: Vec<bool>,
    /// Whether a file was renamed into place since the last checkpoint.
    changed: bool,
    /// Whether the attempt asked for a checkpoint now.
    asked: bool,
    /// How many checkpoints were tried, and when the last one was.
    number: u32,
    last: Option<Instant>,
}

impl Saver {
    /// Begins to watch the files of an attempt that is about to start.
    pub fn begin(
        tools: &Tools,
        body: &Body,
        order: &Assignment,
        scratch: &mut Scratch,
    ) -> (Self, Arc<Told>) {
        let told = Arc::new(Told {
            permille: AtomicU32::new(NO_SHARE),
            checkpoints: AtomicU32::new(0),
            asks: Notify::new(),
        });
        let Some(rule) = body.checkpoint.clone() else {
            return (Self(None), told);
        };
        let files: Vec<String> = rule.files.iter().map(ToString::to_string).collect();
        let watch = scratch.watch_renames(&files);
        let attempt = order.attempt;
        let watch = match watch {
            Ok(watch) => watch,
            Err(error) => {
                let why = format!("its worker cannot see when the files are renamed: {error}");
                let id = CheckpointId { attempt, number: 1 };
                _ = tools.inputs.try_send(unsaved(id, why));
                return (Self(None), told);
            }
        };
        let staged = |file: &Arc<str>| order.checkpoint().iter().any(|one| one.path == *file);
        let saving = Saving {
            attempt,
            whole: rule.files.iter().map(staged).collect(),
            rule,
            watch,
            told: told.clone(),
            changed: false,
            asked: false,
            number: 0,
            last: None,
        };
        (Self(Some(saving)), told)
    }

    /// Waits until a checkpoint is due, and saves it. Cancel-safe.
    pub async fn save_due(&mut self, tools: &Tools) {
        match &mut self.0 {
            Some(saving) => {
                saving.due().await;
                saving.save(tools).await;
            }
            None => pending().await,
        }
    }

    /// Saves the files that were renamed into place before the attempt ended.
    pub async fn save_last(&mut self, tools: &Tools) {
        if let Some(saving) = &mut self.0 {
            saving.look();
            if saving.ready() {
                saving.save(tools).await;
            }
        }
    }
}

impl Saving {
    /// Records which files were renamed into place.
    fn look(&mut self) {
        for place in self.watch.renamed() {
            self.whole[place] = true;
            self.changed = true;
        }
    }

    fn ready(&self) -> bool {
        self.changed && self.whole.iter().all(|whole| *whole)
    }

    async fn due(&mut self) {
        loop {
            self.look();
            // A task renames its files before it asks, so a request without renamed files is void.
            self.asked &= self.ready();
            let wait = match self.asked {
                true => CHECKPOINT_EVERY_MIN,
                false => self.rule.every,
            };
            let at = self.last.map_or_else(Instant::now, |last| last + wait);
            let ready = self.ready();
            tokio::select! {
                () = sleep_until(at), if ready => return,
                changed = self.watch.changed() => if changed.is_err() {
                    return pending().await;
                },
                () = self.told.asks.notified() => self.asked = true,
            }
        }
    }

    async fn save(&mut self, tools: &Tools) {
        let id = CheckpointId {
            attempt: self.attempt,
            number: self.number + 1,
        };
        let permille = self.told.permille();
        let news = match self.copy(tools).await {
            // A file is gone again.
            Ok(None) => None,
            Ok(Some(files)) => {
                let saved = Checkpoint {
                    id,
                    files,
                    permille,
                };
                let saved = Ok(Arc::new(saved));
                Some(Input::Core(Event::Checkpoint { id, saved }))
            }
            Err(why) => Some(unsaved(id, why)),
        };
        if let Some(news) = news {
            _ = tools.inputs.send(news).await;
        }
        (self.changed, self.asked) = (false, false);
        (self.number, self.last) = (id.number, Some(Instant::now()));
    }

    /// Copies the files into the store, or small ones into the checkpoint itself.
    async fn copy(&self, tools: &Tools) -> Result<Option<Vec<FileEntry>>, String> {
        let Some(open) = self.open()? else {
            return Ok(None);
        };
        let sizes = open.iter().map(|(about, _)| about.len());
        let bytes = sizes.fold(0, u64::saturating_add);
        self.check(bytes)?;
        let contents = match bytes <= INLINE_MAX {
            true => read(&open)?,
            false => {
                // By descriptor, because no other file can take the place of an open one.
                let path = |(_, file): &(_, File)| format!("/proc/self/fd/{}", file.as_raw_fd());
                let paths: Vec<PathBuf> = open.iter().map(|one| path(one).into()).collect();
                let (stored, attempt) = (tools.stored.clone(), self.attempt);
                let note = move |hash| lock(&stored).push((attempt, hash));
                let added = tools.store.add_files(paths, note).await;
                let added = added.map_err(|error| error.to_string())?;
                let blobs = added.into_iter();
                blobs
                    .map(|(hash, size)| Data::Blob { hash, size })
                    .collect()
            }
        };
        let copied = contents.iter().map(Data::size);
        self.check(copied.fold(0, u64::saturating_add))?;
        let files = self.rule.files.iter().zip(open).zip(contents);
        let entry = |((path, (about, _)), data): ((&Arc<str>, (std::fs::Metadata, File)), Data)| {
            let executable = about.permissions().mode() & 0o111 != 0;
            FileEntry {
                path: path.clone(),
                executable,
                data,
            }
        };
        Ok(Some(files.map(entry).collect()))
    }

    fn open(&self) -> Result<Option<Vec<(std::fs::Metadata, File)>>, String> {
        let mut open = Vec::with_capacity(self.rule.files.len());
        for (place, path) in self.rule.files.iter().enumerate() {
            let cannot = |error| format!("{path:?} cannot be read: {error}");
            let Some(file) = self.watch.open(place).map_err(cannot)? else {
                return Ok(None);
            };
            open.push((file.metadata().map_err(cannot)?, file));
        }
        Ok(Some(open))
    }

    fn check(&self, bytes: u64) -> Result<(), String> {
        let most = self.rule.bytes_max;
        match bytes <= most {
            true => Ok(()),
            false => Err(format!(
                "it takes {}, and at most {} are saved; make it smaller, or raise `size_limit` in the job file",
                show_bytes(bytes),
                show_bytes(most)
            )),
        }
    }
}

fn read(open: &[(std::fs::Metadata, File)]) -> Result<Vec<Data>, String> {
    let read = |(_, file): &(_, File)| {
        let mut bytes = Vec::new();
        // A file that grows meanwhile was not complete, and is then found to be too large.
        let read = file.take(INLINE_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| format!("it cannot be read: {error}"))?;
        Ok(Data::Inline(bytes.into()))
    };
    open.iter().map(read).collect()
}

/// Returns the input for a checkpoint that was not saved.
fn unsaved(id: CheckpointId, why: String) -> Input {
    tracing::warn!(attempt = %id.attempt, why, "a checkpoint was not saved");
    Input::Core(Event::Checkpoint {
        id,
        saved: Err(why),
    })
}
