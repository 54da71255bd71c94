//! A journal's folder: who the member is, its vote, and the log and snapshot that are there at start.

use crate::entry::{LogId, Vote};
use crate::files::{Files, TEMPORARY, damaged, file_error};
use crate::frame;
use crate::log::Known;
use crate::segment::{self, Scan, Segment};
use crate::snapshot::{self, Image, Kept};
use crate::{NodeId, StoreError};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"hedgmemb";
pub(crate) const MEMBER: &str = "member";
const LOCK: &str = "lock";

/// What a folder holds.
pub(crate) struct Found {
    pub id: NodeId,
    pub known: Known,
    pub snapshot: Option<Kept>,
    /// The checksum after the last entry.
    pub chain: u32,
}

/// Makes sure that nobody else uses the folder, for as long as the file is open.
pub(crate) fn lock(folder: &Path) -> Result<File, StoreError> {
    crate::files::create_folder(folder)?;
    let path = folder.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| file_error("open", &path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse {
            path: folder.to_owned(),
        }),
        Err(error) => Err(file_error("lock", &path, error.into())),
    }
}

/// As [`lock`], but only where a journal is.
pub(crate) fn lock_existing(folder: &Path) -> Result<File, StoreError> {
    if segment::list(folder)?.is_empty() && !folder.join(MEMBER).exists() {
        return Err(file_error(
            "find",
            folder,
            std::io::ErrorKind::NotFound.into(),
        ));
    }
    lock(folder)
}

/// Reads and checks everything. A folder without a member gets a new one and an empty log.
pub(crate) fn open(files: &Files, folder: &Path, new_id: NodeId) -> Result<Found, StoreError> {
    remove_unfinished(files, folder)?;
    let Some((id, vote)) = read_member(folder)? else {
        return begin(files, folder, new_id);
    };
    let snapshot = read_snapshot(files, folder)?;
    let mut known = Known {
        vote,
        ..Known::default()
    };
    let covered = snapshot.as_ref().and_then(|kept| kept.meta.last_log_id);
    let mut chain = scan_log(files, folder, covered, &mut known)?;
    if known.segments.is_empty() {
        // Its last file was being replaced behind this snapshot.
        let segment = Segment::create(files, folder, covered, 0)?;
        chain = segment.start_chain;
        known.purged = covered;
        known.last = covered;
        known.segments.push_back(segment);
    }
    Ok(Found {
        id,
        known,
        snapshot,
        chain,
    })
}

fn begin(files: &Files, folder: &Path, id: NodeId) -> Result<Found, StoreError> {
    // Without the file that says who wrote them, log and snapshot are nobody's.
    let orphans = segment::list(folder)?
        .into_iter()
        .chain(snapshot::list(folder)?);
    for orphan in orphans {
        if has_entries(&orphan)? {
            return Err(damaged(&folder.join(MEMBER), 0, "the file is missing"));
        }
    }
    let segment = Segment::create(files, folder, None, 0)?;
    let chain = segment.start_chain;
    write_member(files, folder, id, None)?;
    let mut known = Known::default();
    known.segments.push_back(segment);
    Ok(Found {
        id,
        known,
        snapshot: None,
        chain,
    })
}

/// Whether a file is more than a log just begun, as every snapshot is.
fn has_entries(path: &Path) -> Result<bool, StoreError> {
    let length = std::fs::metadata(path)
        .map_err(|error| file_error("read", path, error))?
        .len();
    Ok(length > segment::ENTRIES_AT)
}

fn read_snapshot(files: &Files, folder: &Path) -> Result<Option<Kept>, StoreError> {
    let mut paths = snapshot::list(folder)?;
    let Some(newest) = paths.pop() else {
        return Ok(None);
    };
    let (meta, state) = snapshot::read_file(&newest)?;
    let named = snapshot::file_name(meta.last_log_id.map_or(0, |id| id.index));
    if newest
        .file_name()
        .is_some_and(|name| name != named.as_str())
    {
        return Err(damaged(&newest, 0, "the file has another file's name"));
    }
    // Only the newest is needed; older ones are left over from an end in the middle.
    paths.iter().try_for_each(|path| files.remove(path))?;
    Ok(Some(Kept {
        meta,
        image: Image::File(Arc::new(newest)),
        bytes: state.len() as u64,
    }))
}

/// Reads the segments. Returns the checksum after the last entry.
fn scan_log(
    files: &Files,
    folder: &Path,
    covered: Option<LogId>,
    known: &mut Known,
) -> Result<u32, StoreError> {
    let paths = segment::list(folder)?;
    if paths.is_empty() && covered.is_none() {
        return Err(damaged(folder, 0, "the log's files are missing"));
    }
    let mut before: Option<Scan> = None;
    for (at, path) in paths.iter().enumerate() {
        let scan = Segment::scan(path, before.as_ref().map(|one| one.chain), |_, _| Ok(()))?;
        let last = at + 1 == paths.len();
        check_neighbours(&scan, before.as_ref(), covered, last)?;
        if scan.torn > 0 {
            tracing::warn!(
                file = %path.display(),
                bytes = scan.torn,
                "cutting off what was being written when the process ended; none of it was acknowledged"
            );
            let cut = scan.segment.file.set_len(u64::from(scan.segment.end));
            cut.map_err(|error| file_error("cut", path, error))?;
        }
        if last || !scan.sealed {
            // What is whole beyond the mark may be relied on from now on.
            scan.segment.mark(files, !last)?;
            files.flush(&scan.segment.file, path)?;
        }
        if let Some(before) = before.replace(scan) {
            known.segments.push_back(before.segment);
        } else {
            known.purged = before.as_ref().and_then(|first| first.before);
        }
    }
    let Some(last) = before else {
        return Ok(0);
    };
    known.last = last.last;
    known.segments.push_back(last.segment);
    Ok(last.chain)
}

pub(crate) fn check_neighbours(
    scan: &Scan,
    before: Option<&Scan>,
    covered: Option<LogId>,
    last: bool,
) -> Result<(), StoreError> {
    let path = &scan.segment.path;
    match before {
        Some(before) if before.last != scan.before => {
            return Err(damaged(path, 0, "entries are missing before this file"));
        }
        None if scan.before > covered => {
            return Err(damaged(
                path,
                0,
                "the snapshot of what came before this file is missing",
            ));
        }
        _ => {}
    }
    if last && scan.sealed {
        return Err(damaged(
            path,
            u64::from(scan.segment.end),
            "the file that follows is missing",
        ));
    }
    if !last && scan.torn > 0 {
        return Err(damaged(
            path,
            u64::from(scan.segment.end),
            "an entry is not what was written",
        ));
    }
    Ok(())
}

pub(crate) fn write_member(
    files: &Files,
    folder: &Path,
    id: NodeId,
    vote: Option<Vote>,
) -> Result<(), StoreError> {
    let body = postcard::to_stdvec(&(id, vote)).map_err(|error| StoreError::State {
        why: error.to_string(),
    })?;
    files.replace(folder, MEMBER, &frame::small_file(MAGIC, &body))
}

pub(crate) fn read_member(folder: &Path) -> Result<Option<(NodeId, Option<Vote>)>, StoreError> {
    let path = folder.join(MEMBER);
    let Some(body) = frame::read_small_file(&path, MAGIC)? else {
        return Ok(None);
    };
    postcard::from_bytes(&body)
        .map(Some)
        .map_err(|error| damaged(&path, frame::FILE_HEAD as u64, error.to_string()))
}

fn remove_unfinished(files: &Files, folder: &Path) -> Result<(), StoreError> {
    let entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(|error| file_error("read", folder, error))?;
    let unfinished = |path: &PathBuf| path.to_str().is_some_and(|path| path.ends_with(TEMPORARY));
    entries
        .iter()
        .map(|entry| entry.path())
        .filter(unfinished)
        .try_for_each(|path| files.remove(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_new_member_begins_beside_the_snapshot_of_a_lost_one() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::default();
        assert_eq!(open(&files, folder.path(), 1).unwrap().id, 1);
        let member = folder.path().join(MEMBER);
        std::fs::remove_file(&member).unwrap();
        // Nothing is lost with a log just begun.
        assert_eq!(open(&files, folder.path(), 2).unwrap().id, 2);
        std::fs::remove_file(&member).unwrap();
        let snapshot = folder.path().join(snapshot::file_name(100));
        std::fs::write(&snapshot, [0; 200]).unwrap();
        let opened = open(&files, folder.path(), 3);
        assert!(matches!(opened, Err(StoreError::Damaged { .. })));
        assert!(!member.exists() && snapshot.exists());
    }
}
