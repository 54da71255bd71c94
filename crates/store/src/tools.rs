//! What can be done with a journal's folder without taking part in its group: look, check, copy, and start
//! again alone.

use crate::entry::{Entry, LogId, Membership, Term, Vote};
use crate::files::{Files, file_error};
use crate::segment::{self, Segment};
use crate::{GroupMember, NodeId, StoreError, folder, snapshot};
use hedge_model::record::Record;
use openraft::EntryPayload;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How often a copy of a journal that is being written is tried: files go and come with each snapshot.
const COPY_TRIES: usize = 20;
/// New files of the log that are followed while it is copied.
const FOLLOWED_MAX: usize = 1000;

/// One entry of a log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Its number.
    pub index: u64,
    /// The term of the leader that wrote it.
    pub term: u64,
    /// That leader.
    pub leader: NodeId,
    /// What it says.
    pub what: What,
}

/// What an entry says.
#[derive(Clone, Debug)]
pub enum What {
    /// A leader began.
    Began,
    /// Records.
    Records {
        /// Their format.
        level: u32,
        /// The records.
        records: Arc<[Record]>,
    },
    /// Who is a member from here on.
    Members {
        /// All of them.
        members: BTreeMap<NodeId, GroupMember>,
        /// Those with a vote.
        voters: Vec<NodeId>,
    },
}

/// A log's entries, one after the other, file by file.
pub struct Dump {
    /// The last entry that the snapshot covers, if there is one. Entries before may be gone.
    pub snapshot: Option<u64>,
    paths: VecDeque<PathBuf>,
    chain: Option<u32>,
    waiting: VecDeque<Line>,
}

/// Reads a folder's log, which may be in use.
///
/// # Errors
/// The folder cannot be read, or its snapshot is damaged. Damage of the log comes as an item.
pub fn dump(folder: &Path) -> Result<Dump, StoreError> {
    let newest = snapshot::list(folder)?.pop();
    let snapshot = newest.map(|path| snapshot::read_file(&path)).transpose()?;
    Ok(Dump {
        snapshot: snapshot.and_then(|(meta, _)| Some(meta.last_log_id?.index)),
        paths: segment::list(folder)?.into(),
        chain: None,
        waiting: VecDeque::new(),
    })
}

impl Iterator for Dump {
    type Item = Result<Line, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some(Ok(line));
            }
            let path = self.paths.pop_front()?;
            let waiting = &mut self.waiting;
            let scan = Segment::scan(&path, self.chain, |at, body| {
                let line = segment::take_entry(body).map(line).transpose()?;
                let bad = || crate::files::damaged(&path, at, "an entry cannot be read");
                waiting.push_back(line.ok_or_else(bad)?);
                Ok(())
            });
            match scan {
                Ok(scan) => self.chain = Some(scan.chain),
                Err(error) => {
                    // What comes before the damage is shown; it is said where the reading ended.
                    self.paths.clear();
                    return Some(Err(error));
                }
            }
        }
    }
}

pub(crate) fn line(entry: Entry) -> Result<Line, StoreError> {
    let id = entry.log_id;
    let what = match entry.payload {
        EntryPayload::Blank => What::Began,
        EntryPayload::Normal(batch) => What::Records {
            level: batch.head().level,
            records: batch.records()?,
        },
        EntryPayload::Membership(members) => What::Members {
            members: members
                .nodes()
                .map(|(id, node)| (*id, node.clone()))
                .collect(),
            voters: members.voter_ids().collect(),
        },
    };
    Ok(Line {
        index: id.index,
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        what,
    })
}

/// What a check of a folder found.
#[derive(Debug, Default)]
pub struct Report {
    /// Everything that is damaged, the first place in each file.
    pub damage: Vec<StoreError>,
    /// The first entry that is in the log.
    pub first: Option<u64>,
    /// The last.
    pub last: Option<u64>,
    /// The last entry that the snapshot covers.
    pub snapshot: Option<u64>,
}

/// Reads everything in a folder that nobody uses, and changes nothing.
///
/// # Errors
/// The folder is in use, or cannot be read at all.
pub fn check(path: &Path) -> Result<Report, StoreError> {
    let _lock = folder::lock_existing(path)?;
    check_locked(path)
}

/// The same for the holder of the folder's lock.
pub(crate) fn check_locked(path: &Path) -> Result<Report, StoreError> {
    let mut report = Report::default();
    if let Err(error) = folder::read_member(path) {
        report.damage.push(error);
    }
    let mut covered = None;
    for path in snapshot::list(path)? {
        match snapshot::read_file(&path) {
            Ok((meta, _)) => covered = meta.last_log_id,
            Err(error) => report.damage.push(error),
        }
    }
    report.snapshot = covered.map(|id| id.index);
    let mut before = None;
    let paths = segment::list(path)?;
    for (at, path) in paths.iter().enumerate() {
        let chain = before.as_ref().map(|one: &segment::Scan| one.chain);
        let scan = Segment::scan(path, chain, |_, _| Ok(())).and_then(|scan| {
            folder::check_neighbours(&scan, before.as_ref(), covered, at + 1 == paths.len())?;
            Ok(scan)
        });
        match scan {
            Ok(scan) => {
                if !scan.segment.offsets.is_empty() {
                    report.first.get_or_insert(scan.segment.first);
                    report.last = scan.last.map(|id| id.index);
                }
                before = Some(scan);
            }
            Err(error) => {
                report.damage.push(error);
                break;
            }
        }
    }
    Ok(report)
}

/// Makes the member of a folder the only one of a group of its own: what is left when most voters are gone for
/// good. Log and state stay; what the others knew and this one did not is lost. The member gets a new name,
/// which is returned, so that the others cannot take it for the old one: they must join anew.
///
/// # Errors
/// The folder is in use, damaged, or never belonged to a group.
pub fn recover(path: &Path, me: GroupMember) -> Result<NodeId, StoreError> {
    let _lock = folder::lock_existing(path)?;
    let files = Files::default();
    let found = folder::open(&files, path, 0)?;
    let Some(last) = found.known.last else {
        return Err(StoreError::Members {
            why: "the folder never belonged to a group: there is nothing to recover".to_owned(),
        });
    };
    let id = crate::open::random()?;
    let term = last
        .leader_id
        .term
        .max(found.known.vote.map_or(0, |vote| vote.leader_id.term))
        + 1;
    let leader_id = Term { term, node_id: id };
    let members = Membership::new(vec![[id].into()], BTreeMap::from([(id, me)]));
    let entry = Entry {
        log_id: LogId {
            leader_id,
            index: last.index + 1,
        },
        payload: EntryPayload::Membership(members.map_err(|error| StoreError::Members {
            why: error.to_string(),
        })?),
    };
    let mut bytes = Vec::new();
    segment::put_entry(&mut bytes, found.chain, &entry)?;
    let mut known = found.known;
    let Some(mut segment) = known.segments.pop_back() else {
        return Err(crate::files::damaged(
            path,
            0,
            "the folder holds no part of the log",
        ));
    };
    // The name first: an old member with a group of its own would be worse than a new one that waits.
    let vote = Vote {
        leader_id,
        committed: false,
    };
    folder::write_member(&files, path, id, Some(vote))?;
    files.write_at(&segment.file, &segment.path, &bytes, u64::from(segment.end))?;
    files.flush(&segment.file, &segment.path)?;
    segment.end += bytes.len() as u32;
    segment.mark(&files, false)?;
    files.flush(&segment.file, &segment.path)?;
    Ok(id)
}

/// Copies a journal into an empty folder, also while it is in use, and checks the copy. To start from it, use
/// [`recover`] on it: a member that came back with an older log under its old name could undo what its group
/// has agreed on since.
///
/// # Errors
/// The target is not empty, a file could not be copied, or the journal is damaged.
pub fn backup(from: &Path, to: &Path) -> Result<(), StoreError> {
    crate::files::create_folder(to)?;
    let mut there = std::fs::read_dir(to).map_err(|error| file_error("read", to, error))?;
    if there.next().is_some() {
        let error = std::io::ErrorKind::DirectoryNotEmpty.into();
        return Err(file_error("write", to, error));
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let copied = copy_all(from, to).and_then(|()| {
            let report = check(to)?;
            report.damage.into_iter().next().map_or(Ok(()), Err)
        });
        match copied {
            Ok(()) => return Files::default().flush_folder(to),
            Err(error) if tries == COPY_TRIES => return Err(error),
            // A snapshot was made meanwhile, or entries were taken back: once more.
            Err(_) => empty(to)?,
        }
    }
}

/// The log first, then a snapshot, then what the log has grown by: the snapshot may be newer than the log was.
fn copy_all(from: &Path, to: &Path) -> Result<(), StoreError> {
    let last = copy_log(from, to, None)?;
    for path in snapshot::list(from)? {
        copy(&path, to)?;
    }
    copy_log(from, to, last)?;
    copy(&from.join(folder::MEMBER), to)
}

/// Copies the log's files from this one on, oldest first, each from its mark on, up to one that none followed
/// when it was copied; that one's path is returned.
fn copy_log(from: &Path, to: &Path, first: Option<PathBuf>) -> Result<Option<PathBuf>, StoreError> {
    let mut next = first;
    for _ in 0..FOLLOWED_MAX {
        let mut paths = segment::list(from)?;
        paths.retain(|path| next.as_ref().is_none_or(|next| path >= next));
        for path in &paths {
            match copy(path, to) {
                // A snapshot has taken its place, and that of all before it.
                Err(error) if is_gone(&error) => remove_log(to)?,
                copied => copied?,
            }
        }
        let Some(last) = paths.pop() else {
            return Ok(next);
        };
        let copied = to.join(last.file_name().unwrap_or_default());
        if next.as_ref() == Some(&last) || copied.exists() && !segment::is_sealed(&copied)? {
            return Ok(Some(last));
        }
        next = Some(last);
    }
    Ok(next)
}

fn remove_log(folder: &Path) -> Result<(), StoreError> {
    let files = Files::default();
    let mut paths = segment::list(folder)?.into_iter();
    paths.try_for_each(|path| files.remove(&path))
}

fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

pub(crate) fn copy(path: &Path, to: &Path) -> Result<(), StoreError> {
    let target = to.join(path.file_name().unwrap_or_default());
    std::fs::copy(path, &target)
        .and_then(|_| std::fs::File::open(&target)?.sync_all())
        .map_err(|error| file_error("copy", path, error))
}

fn empty(folder: &Path) -> Result<(), StoreError> {
    let entries = std::fs::read_dir(folder).map_err(|error| file_error("read", folder, error))?;
    for entry in entries {
        let path = entry
            .map_err(|error| file_error("read", folder, error))?
            .path();
        Files::default().remove(&path)?;
    }
    Ok(())
}
