//! The supervisor's disk: whether there is room, and whether its folder is still there.

use super::core_loop::{End, Loop};
use crate::NodeError;
use hedge_core::supervisor::Event;
use hedge_model::units::show_bytes;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Below this much free space, the supervisor is given nothing more to keep: the content store refuses what would
/// leave less than half of it, and the journal, which ends with the first write that fails, needs the rest.
const FREE_MIN: u64 = 8 << 20;
/// From this much free space on it is given something again.
const FREE_ENOUGH: u64 = 12 << 20;
/// How often the disk is checked.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Checks in a row that must not find the folders: one alone may meet a file system that does not answer for a moment.
const MISSED_MIN: u32 = 2;
/// Between two tries to hand over leadership: the members have a new leader long before.
const HAND_OVER_EVERY: Duration = Duration::from_secs(5);

/// What is wrong with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fault {
    /// It is full; a sentence.
    Full(String),
    /// The folder is gone or another: what is written reaches no file that a restart would find.
    Gone(String),
}

/// Watches the disk that a supervisor's folder is on.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The folder and those in it that must stay, with their devices and inodes when they were opened.
    folders: Vec<(PathBuf, (u64, u64))>,
    fault: Option<Fault>,
    /// Checks in a row that did not find the folders.
    missed: u32,
    check_at: Instant,
    hand_over_at: Instant,
}

impl Disk {
    /// Watches `dir`, the folder of a supervisor that has opened its journal and its content.
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

    /// Looks again; says whether anything has changed.
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
    /// Checks the disk where that is due. A leader that cannot store anything hands over leadership to a member that
    /// can. A follower whose folder is gone ends: it would vote and acknowledge records that it does not have.
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

/// Device and inode of a folder that is there.
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
        // Another folder of the same name is not the same.
        std::fs::create_dir(dir.join("journal")).unwrap();
        assert!(!disk.check());
        assert!(matches!(disk.fault, Some(Fault::Gone(_))));
    }
}
