//! Keeps what can be read of a damaged journal that no other supervisor has a copy of.

use crate::entry::{Entry, LogId, Term, Vote};
use crate::files::{Files, damaged, file_error, read};
use crate::frame::{self, FRAME_HEAD};
use crate::segment::{self, ENTRIES_AT, Segment};
use crate::tools::{self, Line, What};
use crate::{NodeId, StoreError, folder, snapshot};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use std::path::{Path, PathBuf};

/// What a repair did.
#[derive(Debug, Default)]
pub struct Repair {
    /// Where everything is as it was before.
    pub copy: PathBuf,
    /// What was damaged.
    pub damage: Vec<StoreError>,
    /// The last entry that is kept.
    pub last: Option<u64>,
    /// Entries that are lost and could be read: whatever they tell of did not happen any more.
    pub lost: Vec<Line>,
    /// Numbers of entries that are lost and could not be read.
    pub unreadable: Vec<u64>,
}

/// Cuts a folder's log before its first damage, after copying everything beside it. Only for a supervisor that
/// is alone: in a group the others have it all, and this one joins again with an empty folder.
///
/// # Errors
/// The folder is in use, several members vote in it, its snapshot is damaged and the log does not go back to
/// the beginning, or a file could not be written. At most the copy was made then.
pub fn repair(path: &Path) -> Result<Repair, StoreError> {
    // First of all: what is looked at must be what is cut.
    let _lock = folder::lock_existing(path)?;
    let report = tools::check_locked(path)?;
    alone(path)?;
    let copy = set_aside(path)?;
    let files = Files::default();
    let mut repair = Repair {
        copy,
        damage: report.damage,
        last: None,
        lost: Vec::new(),
        unreadable: Vec::new(),
    };
    let covered = keep_snapshot(&files, path)?;
    let kept = cut_log(&files, path, covered, &mut repair)?;
    keep_member(&files, path, kept)?;
    // What the snapshot holds is not lost.
    let covered = covered.map(|id| id.index);
    repair.lost.retain(|line| Some(line.index) > covered);
    repair.unreadable.retain(|index| Some(*index) > covered);
    repair.last = kept.map(|id| id.index);
    Ok(repair)
}

/// Copies all files into a new folder beside this one.
fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let target = (1..1000_u32)
        .map(|number| path.with_file_name(format!("{name}.damaged-{number}")))
        .find(|target| !target.exists())
        .ok_or_else(|| damaged(path, 0, "there are 999 copies of it already"))?;
    crate::files::create_folder(&target)?;
    let entries = std::fs::read_dir(path).map_err(|error| file_error("read", path, error))?;
    for entry in entries {
        let file = entry
            .map_err(|error| file_error("read", path, error))?
            .path();
        tools::copy(&file, &target)?;
    }
    Files::default().flush_folder(&target)?;
    Ok(target)
}

/// Removes a snapshot that is damaged, if the log holds everything.
fn keep_snapshot(files: &Files, path: &Path) -> Result<Option<LogId>, StoreError> {
    let mut covered = None;
    for file in snapshot::list(path)? {
        match snapshot::read_file(&file) {
            Ok((meta, _)) => covered = meta.last_log_id,
            Err(error) => {
                let first = segment::list(path)?.into_iter().next();
                if first.is_none_or(|first| first != path.join(segment::file_name(0))) {
                    return Err(error);
                }
                files.remove(&file)?;
            }
        }
    }
    Ok(covered)
}

/// Cuts the log before its first damage. Returns its last entry.
fn cut_log(
    files: &Files,
    path: &Path,
    covered: Option<LogId>,
    repair: &mut Repair,
) -> Result<Option<LogId>, StoreError> {
    let mut before: Option<segment::Scan> = None;
    let paths = segment::list(path)?;
    let mut left = paths.iter();
    for file in left.by_ref() {
        let chain = before.as_ref().map(|one| one.chain);
        let scan = Segment::scan(file, chain, |_, _| Ok(())).and_then(|scan| {
            folder::check_neighbours(&scan, before.as_ref(), covered, false)?;
            Ok(scan)
        });
        match scan {
            Ok(scan) => before = Some(scan),
            Err(_) => {
                let (scan, after) = salvage(file, before.as_ref(), repair)?;
                if let Some(scan) = scan {
                    let cut = scan.segment.file.set_len(u64::from(scan.segment.end));
                    cut.map_err(|error| file_error("cut", file, error))?;
                    before = Some(scan);
                } else {
                    files.remove(file)?;
                }
                read_lost(after, left.as_slice(), repair)?;
                break;
            }
        }
    }
    for file in left {
        files.remove(file)?;
    }
    let last = match &before {
        Some(scan) => {
            scan.segment.mark(files, false)?;
            files.flush(&scan.segment.file, &scan.segment.path)?;
            scan.last
        }
        None => covered,
    };
    if before.is_none() && covered.is_none() {
        Segment::create(files, path, None, 0)?;
    }
    files.flush_folder(path)?;
    Ok(last.max(covered))
}

/// Reads as much of a damaged segment as is whole, and what can be read behind the damage. Also returns the
/// number that the next file's first entry must have.
fn salvage(
    path: &Path,
    before: Option<&segment::Scan>,
    repair: &mut Repair,
) -> Result<(Option<segment::Scan>, u64), StoreError> {
    let bytes = read(path)?;
    let scan = Segment::scan_whole(path, &bytes, before.map(|one| one.chain)).ok();
    let (mut at, mut chain, mut next) = match &scan {
        Some(scan) => (
            scan.segment.end as usize,
            scan.chain,
            scan.last.map_or(0, |id| id.index + 1),
        ),
        // Its head is damaged: the entries may be whole, and their chain begins with the head's own checksum.
        None => (
            ENTRIES_AT as usize,
            first_chain(&bytes),
            before.and_then(|one| one.last).map_or(0, |id| id.index + 1),
        ),
    };
    while at < bytes.len() {
        let whole = frame::take(&bytes[at..], chain)
            .and_then(|(body, sum)| Some((segment::take_entry(body)?, body.len(), sum)));
        if let Some((entry, length, sum)) = whole {
            next = entry.log_id().index + 1;
            lose(entry, repair);
            (at, chain) = (at + FRAME_HEAD + length, sum);
            continue;
        }
        // Another entry goes on from the checksum that is stored with the damaged one.
        let Some((found, sum)) = find_next(&bytes, at, next + 1) else {
            break;
        };
        repair.unreadable.push(next);
        (at, chain) = (found, sum);
    }
    if at < bytes.len() {
        repair.unreadable.push(next);
        next += 1;
    }
    Ok((scan, next))
}

/// The checksum that a damaged head leaves to its first entry: the stored one, or where that is what was hit,
/// what the rest of the head gives.
fn first_chain(bytes: &[u8]) -> u32 {
    let goes_on = |chain: &u32| {
        let entries = bytes.get(ENTRIES_AT as usize..);
        entries.is_some_and(|entries| frame::take(entries, *chain).is_some())
    };
    let chains = [Segment::stored_chain(bytes), Segment::head_chain(bytes)];
    let mut known = chains.into_iter().flatten();
    known.find(goes_on).or(chains[0]).unwrap_or(0)
}

/// Looks behind a damaged frame for one that follows on it and has the right number.
fn find_next(bytes: &[u8], at: usize, index: u64) -> Option<(usize, u32)> {
    let stored = bytes.get(at + 4..)?.first_chunk::<4>().copied()?;
    let chain = u32::from_le_bytes(stored);
    let is_next = |from: &usize| {
        let body = bytes.get(from + FRAME_HEAD..);
        body.and_then(segment::entry_id)
            .is_some_and(|id| id.index == index)
            && frame::take(&bytes[*from..], chain).is_some()
    };
    (at + FRAME_HEAD..bytes.len())
        .find(is_next)
        .map(|found| (found, chain))
}

/// Reads whole files behind the damage: all they hold is lost.
fn read_lost(mut next: u64, left: &[PathBuf], repair: &mut Repair) -> Result<(), StoreError> {
    for path in left {
        let bytes = read(path)?;
        let Ok(scan) = Segment::scan_whole(path, &bytes, None) else {
            repair.unreadable.push(next);
            continue;
        };
        repair.unreadable.extend(next..scan.segment.first);
        let mut at = ENTRIES_AT as usize;
        let mut chain = scan.segment.start_chain;
        while let Some((body, sum)) = bytes.get(at..).and_then(|rest| frame::take(rest, chain)) {
            if let Some(entry) = segment::take_entry(body) {
                lose(entry, repair);
            }
            (at, chain) = (at + FRAME_HEAD + body.len(), sum);
        }
        next = scan.last.map_or(next, |id| id.index + 1);
    }
    Ok(())
}

fn lose(entry: Entry, repair: &mut Repair) {
    let index = entry.log_id().index;
    match tools::line(entry) {
        Ok(line) => repair.lost.push(line),
        Err(_) => repair.unreadable.push(index),
    }
}

/// Makes sure that nobody else has what is lost.
fn alone(path: &Path) -> Result<(), StoreError> {
    let voters = voters(path)?;
    if voters.len() > 1 {
        return Err(StoreError::Members {
            why: format!(
                "{} members vote here, so the others have what is lost: move the folder aside and join again",
                voters.len()
            ),
        });
    }
    Ok(())
}

/// Says who the folder's member is where that was damaged.
fn keep_member(files: &Files, path: &Path, last: Option<LogId>) -> Result<(), StoreError> {
    if matches!(folder::read_member(path), Ok(Some(_))) {
        return Ok(());
    }
    files.remove(&path.join(folder::MEMBER))?;
    let Some(&id) = voters(path)?.first() else {
        return Ok(());
    };
    let term = last.map_or(0, |id| id.leader_id.term);
    let vote = Vote {
        leader_id: Term { term, node_id: id },
        committed: false,
    };
    folder::write_member(files, path, id, Some(vote))
}

/// Who votes, by the last that can be read, also behind damage: a member that joined there holds what is lost here.
fn voters(path: &Path) -> Result<Vec<NodeId>, StoreError> {
    let mut voters = Vec::new();
    let mut before = None;
    if let Some(newest) = snapshot::list(path)?.pop()
        && let Ok((meta, _)) = snapshot::read_file(&newest)
    {
        voters = meta.last_membership.voter_ids().collect();
    }
    let paths = segment::list(path)?;
    let mut left = paths.iter();
    for file in left.by_ref() {
        let scan = Segment::scan(file, None, |_, body| {
            if let Some(entry) = segment::take_entry(body)
                && let EntryPayload::Membership(members) = entry.payload
            {
                voters = members.voter_ids().collect();
            }
            Ok(())
        });
        match scan {
            Ok(scan) => before = Some(scan),
            Err(_) => {
                let mut behind = Repair::default();
                let (_, next) = salvage(file, before.as_ref(), &mut behind)?;
                read_lost(next, left.as_slice(), &mut behind)?;
                let changes = behind.lost.into_iter().filter_map(|line| match line.what {
                    What::Members { voters, .. } => Some(voters),
                    _ => None,
                });
                voters = changes.last().unwrap_or(voters);
                break;
            }
        }
    }
    Ok(voters)
}
