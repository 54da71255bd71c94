//! Watches the supervisor's disk: whether it has free space, and whether the supervisor's directory still exists.

use super::core_loop::{End, Loop};
use crate::NodeError;
use hedge_core::supervisor::Event;
use hedge_model::units::show_bytes;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Below this much free space, the supervisor accepts nothing more to store. The blob store refuses what would leave
/// less than half of it, and the journal, which fails with the first failed write, needs the rest.
const FREE_MIN: u64 = 8 << 20;
/// From this much free space on, the supervisor accepts data again.
const FREE_ENOUGH: u64 = 12 << 20;
/// How often the disk is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// The directories must be missing in this many checks in a row. A file system may not answer for a moment.
const MISSED_MIN: u32 = 2;
/// The delay between two attempts to hand over leadership. The group has a new leader long before.
const HAND_OVER_EVERY: Duration = Duration::from_secs(5);

/// A fault of the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// It is full, as a sentence.
    Full(String),
    /// The directory is gone or was replaced, so that a restart would find nothing that is written now.
    Gone(String),
}

/// Watches the disk of a supervisor's directory.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The directory and those in it that must exist, with device and inode at the start.
    folders: Vec<(PathBuf, (u64, u64))>,
    fault: Option<Fault>,
    /// How many checks in a row did not find the directories.
    missed: u32,
    check_at: Instant,
    hand_over_at: Instant,
}

impl Disk {
    /// Watches `dir`, the directory of a supervisor that has opened its journal and its blob store.
    pub fn watch(dir: &Path) -> Self {
        let folders = [dir.to_owned(), dir.join("journal"), dir.join("content")];
        let known = |path: PathBuf| Some((path.clone(), identity(&path)?));
        Self {
            folders: folders.into_iter().filter_map(known).collect(),
            ..Self::unwatched()
        }
    }

    /// For a supervisor whose state ends with its process.
    pub fn unwatched() -> Self {
        let now = Instant::now();
        Self {
            folders: Vec::new(),
            fault: None,
            missed: 0,
            check_at: now,
            hand_over_at: now,
        }
    }

    /// Checks the disk. Returns whether the kind of fault has changed.
    fn check(&mut self) -> bool {
        let before = self.fault.clone();
        self.fault = self.find();
        // The figures in the sentence may change each time.
        let kind = |fault: &Option<Fault>| fault.as_ref().map(std::mem::discriminant);
        kind(&before) != kind(&self.fault)
    }

    fn find(&mut self) -> Option<Fault> {
        let moved = |(path, known): &&(PathBuf, _)| identity(path) != Some(*known);
        let gone = self.folders.iter().find(moved);
        self.missed = gone.map_or(0, |_| self.missed + 1);
        if let Some((path, _)) = gone.filter(|_| self.missed >= MISSED_MIN) {
            return Some(Fault::Gone(format!(
                "its folder {} was deleted or replaced while it ran, so that nothing it writes lasts; stop it, and start \
                 it anew",
                path.display()
            )));
        }
        let (dir, _) = self.folders.first()?;
        let free = crate::worker::free_disk(dir);
        let enough = match &self.fault {
            Some(Fault::Full(_)) => FREE_ENOUGH,
            _ => FREE_MIN,
        };
        (free < enough).then(|| {
            Fault::Full(format!(
                "the disk of its folder {} has {} free, and at least {} are needed; make room there, or remove ended jobs \
                 with `hedge forget`",
                dir.display(),
                show_bytes(free),
                show_bytes(enough)
            ))
        })
    }
}

impl Loop {
    /// Checks the disk if that is due. A leader with a fault hands leadership to a member without one. A follower
    /// whose directory is gone ends, because it would vote and acknowledge records that it does not have.
    pub(super) fn check_disk(&mut self) -> Result<(), End> {
        let now = Instant::now();
        if now < self.setup.disk.check_at || self.setup.disk.folders.is_empty() {
            return Ok(());
        }
        self.setup.disk.check_at = now + CHECK_EVERY;
        if self.setup.disk.check() {
            let fault = self.setup.disk.fault.as_ref().map(|fault| match fault {
                Fault::Full(why) | Fault::Gone(why) => why.clone(),
            });
            match &fault {
                Some(why) => tracing::error!("this supervisor cannot store anything: {why}"),
                None => tracing::info!("this supervisor can store again"),
            }
            self.feed(Event::Disk(fault));
        }
        let Some(fault) = self.setup.disk.fault.clone() else {
            return Ok(());
        };
        let (leading, alone) = {
            let group = self.group.borrow();
            (group.leading, group.seats.len() <= 1)
        };
        match fault {
            _ if leading => {
                if now >= self.setup.disk.hand_over_at
                    && let Some(successor) = self.successor()
                {
                    self.setup.disk.hand_over_at = now + HAND_OVER_EVERY;
                    tracing::info!("leadership goes to a member that can store");
                    let journal = self.setup.journal.clone();
                    tokio::spawn(async move {
                        if let Err(error) = journal.transfer_leader(successor).await {
                            tracing::warn!(%error, "leadership was not handed over");
                        }
                    });
                }
                Ok(())
            }
            Fault::Gone(why) if !alone => Err(End::Failed(NodeError::Other(format!(
                "this supervisor ends, and the others of its group go on: {why}"
            )))),
            Fault::Gone(_) | Fault::Full(_) => Ok(()),
        }
    }
}

/// Returns device and inode of a directory, if it exists.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_deleted_or_replaced_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("supervisor");
        for name in ["journal", "content"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let mut disk = Disk::watch(&dir);
        assert!(!disk.check(), "{disk:?}");
        std::fs::rename(dir.join("journal"), dir.join("old")).unwrap();
        assert!(!disk.check());
        assert!(disk.check());
        assert!(matches!(&disk.fault, Some(Fault::Gone(why)) if why.contains("journal")));
        // Another directory of the same name is not the same.
        std::fs::create_dir(dir.join("journal")).unwrap();
        assert!(!disk.check());
        assert!(matches!(disk.fault, Some(Fault::Gone(_))));
    }
}
