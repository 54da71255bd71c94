//! One file of the log: a head, a mark of how far it is flushed, and entries.
//!
//! The mark is written after each flush, into the same file, so that the next flush makes it durable too. A
//! process that is killed leaves it exact; a machine that loses power leaves it at most one flush behind. What
//! is whole beyond the mark counts; what is torn beyond it was never acknowledged and is cut off.

use crate::StoreError;
use crate::entry::{Batch, Entry, Head, LogId, Term};
use crate::files::{Files, damaged, read};
use crate::frame::{self, FILE_HEAD, FRAME_HEAD};
use bytes::Bytes;
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"hedglogs";

/// The second frame of a segment, of fixed length: the entry before its first.
const BEFORE_BODY: usize = 29;
const MARK_AT: usize = FILE_HEAD + FRAME_HEAD + BEFORE_BODY;
/// Flushed length, whether another segment follows, checksum.
const MARK_BYTES: usize = 13;

/// Where the first entry is.
pub(crate) const ENTRIES_AT: u64 = (MARK_AT + MARK_BYTES) as u64;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// A segment as it is known in memory.
#[derive(Debug)]
pub(crate) struct Segment {
    /// The index of its first entry.
    pub first: u64,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Where each entry's frame begins.
    pub offsets: Vec<u32>,
    /// Where the next one will.
    pub end: u32,
    /// The checksum before its first entry.
    pub start_chain: u32,
}

/// What a segment's file holds, found by reading all of it.
pub(crate) struct Scan {
    pub segment: Segment,
    /// The entry before its first.
    pub before: Option<LogId>,
    pub last: Option<LogId>,
    /// The checksum after the last entry.
    pub chain: u32,
    /// Whether another segment must follow.
    pub sealed: bool,
    /// Bytes behind the last whole entry: torn, and never acknowledged.
    pub torn: u64,
}

/// The name of a segment.
pub(crate) fn file_name(first: u64) -> String {
    format!("log-{first:020}")
}

/// The segments in a folder, oldest first.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = std::fs::read_dir(folder)
        .and_then(Iterator::collect::<std::io::Result<Vec<_>>>)
        .map_err(|error| crate::files::file_error("read", folder, error))?;
    let is_segment = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix("log-"))
            .is_some_and(|number| number.len() == 20 && number.bytes().all(|b| b.is_ascii_digit()))
    };
    let mut paths: Vec<_> = entries
        .iter()
        .map(|entry| entry.path())
        .filter(is_segment)
        .collect();
    paths.sort();
    Ok(paths)
}

/// Whether another file follows on this one, as its mark says.
pub(crate) fn is_sealed(path: &Path) -> Result<bool, StoreError> {
    use std::io::Read;
    let mut head = Vec::new();
    File::open(path)
        .and_then(|file| file.take(ENTRIES_AT).read_to_end(&mut head))
        .map_err(|error| crate::files::file_error("read", path, error))?;
    take_mark(path, &head).map(|(_, sealed)| sealed)
}

impl Segment {
    /// Makes the file of an empty segment behind an entry; durable when this returns.
    pub fn create(
        files: &Files,
        folder: &Path,
        before: Option<LogId>,
        chain: u32,
    ) -> Result<Self, StoreError> {
        let first = before.map_or(0, |id| id.index + 1);
        let mut bytes = Vec::with_capacity(ENTRIES_AT as usize);
        let head = frame::put_head(&mut bytes, MAGIC);
        let mut body = [0; BEFORE_BODY];
        if let Some(id) = before {
            body[0] = 1;
            body[1..25].copy_from_slice(&put_id(id));
        }
        // The checksum of the segment before, so that none can be exchanged or left out.
        body[25..].copy_from_slice(&chain.to_le_bytes());
        let start_chain = frame::put(&mut bytes, head, &[&body]);
        bytes.extend_from_slice(&mark(ENTRIES_AT, false));
        let name = file_name(first);
        files.replace(folder, &name, &bytes)?;
        let path = folder.join(name);
        let file = open(&path)?;
        Ok(Self {
            first,
            path,
            file: Arc::new(file),
            offsets: Vec::new(),
            end: ENTRIES_AT as u32,
            start_chain,
        })
    }

    /// Writes the mark; durable with the next flush.
    pub fn mark(&self, files: &Files, sealed: bool) -> Result<(), StoreError> {
        files.write_at(
            &self.file,
            &self.path,
            &mark(u64::from(self.end), sealed),
            MARK_AT as u64,
        )
    }

    /// Reads a segment's file and checks all of it. `chain` is the checksum after the segment before.
    ///
    /// Damage before the mark is an error. `each` is shown every whole entry.
    pub fn scan(
        path: &Path,
        chain: Option<u32>,
        mut each: impl FnMut(u64, &[u8]) -> Result<(), StoreError>,
    ) -> Result<Scan, StoreError> {
        let bytes = read(path)?;
        let mut scan = Self::scan_whole(path, &bytes, chain)?;
        let mut at = ENTRIES_AT as usize;
        let end = scan.segment.end as usize;
        let mut sum = scan.segment.start_chain;
        while at < end
            && let Some((body, next)) = frame::take(&bytes[at..end], sum)
        {
            each(at as u64, body)?;
            sum = next;
            at += FRAME_HEAD + body.len();
        }
        let (flushed, sealed) = take_mark(path, &bytes)?;
        scan.sealed = sealed;
        let end = u64::from(scan.segment.end);
        if end < flushed || sealed && scan.torn > 0 {
            let what = format!(
                "an entry is not what was written, or is cut off; {flushed} bytes were acknowledged"
            );
            return Err(damaged(path, end, what));
        }
        Ok(scan)
    }

    /// Reads as many whole entries as follow on each other, whatever was acknowledged.
    pub fn scan_whole(path: &Path, bytes: &[u8], chain: Option<u32>) -> Result<Scan, StoreError> {
        let head = frame::take_head(path, bytes, MAGIC)?;
        let (before, start_chain) = take_before(path, bytes, head, chain)?;
        let first = before.map_or(0, |id| id.index + 1);
        if path
            .file_name()
            .is_some_and(|name| name != file_name(first).as_str())
        {
            return Err(damaged(
                path,
                FILE_HEAD as u64,
                "the file has another file's name",
            ));
        }
        let mut scan = Scan {
            segment: Self {
                first,
                path: path.to_owned(),
                file: Arc::new(open(path)?),
                offsets: Vec::new(),
                end: ENTRIES_AT as u32,
                start_chain,
            },
            before,
            last: before,
            chain: start_chain,
            sealed: false,
            torn: 0,
        };
        let mut at = ENTRIES_AT as usize;
        while let Some((body, next)) = bytes
            .get(at..)
            .and_then(|rest| frame::take(rest, scan.chain))
        {
            let expected = first + scan.segment.offsets.len() as u64;
            let Some(id) = entry_id(body).filter(|id| id.index == expected) else {
                return Err(damaged(path, at as u64, "an entry has the wrong number"));
            };
            scan.last = Some(id);
            scan.segment.offsets.push(at as u32);
            scan.chain = next;
            at += FRAME_HEAD + body.len();
        }
        scan.segment.end = at as u32;
        scan.torn = bytes.len().saturating_sub(at) as u64;
        Ok(scan)
    }

    /// The checksum that the first entry of a segment goes on from, as it is stored.
    pub fn stored_chain(bytes: &[u8]) -> Option<u32> {
        let sum = bytes.get(FILE_HEAD + 4..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*sum))
    }

    /// The same as it follows from the rest of the head, whatever is stored.
    pub fn head_chain(bytes: &[u8]) -> Option<u32> {
        let sum = bytes.get(..FILE_HEAD)?.last_chunk::<4>()?;
        let body = bytes.get(FILE_HEAD + FRAME_HEAD..MARK_AT)?;
        Some(frame::sum(u32::from_le_bytes(*sum), body))
    }

    /// The checksum after the last entry.
    pub fn last_chain(&self) -> Result<u32, StoreError> {
        let Some(&last) = self.offsets.last() else {
            return Ok(self.start_chain);
        };
        let mut sum = [0; 4];
        self.file
            .read_exact_at(&mut sum, u64::from(last) + 4)
            .map_err(|error| crate::files::file_error("read", &self.path, error))?;
        Ok(u32::from_le_bytes(sum))
    }

    /// Where an entry's frame begins and how long it is.
    pub fn place(&self, index: u64) -> Option<(u32, u32)> {
        let at = usize::try_from(index.checked_sub(self.first)?).ok()?;
        let begin = *self.offsets.get(at)?;
        let end = self.offsets.get(at + 1).copied().unwrap_or(self.end);
        Some((begin, end))
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .map_err(|error| crate::files::file_error("open", path, error))
}

fn mark(flushed: u64, sealed: bool) -> [u8; MARK_BYTES] {
    let mut mark = [0; MARK_BYTES];
    mark[..8].copy_from_slice(&flushed.to_le_bytes());
    mark[8] = sealed.into();
    let sum = crc32c::crc32c(&mark[..9]);
    mark[9..].copy_from_slice(&sum.to_le_bytes());
    mark
}

fn take_mark(path: &Path, bytes: &[u8]) -> Result<(u64, bool), StoreError> {
    let found = bytes
        .get(MARK_AT..)
        .and_then(|rest| rest.first_chunk::<MARK_BYTES>());
    let Some(found) = found else {
        return Err(damaged(path, bytes.len() as u64, "the file is cut off"));
    };
    let flushed = u64::from_le_bytes(*found.first_chunk().unwrap_or(&[0; 8]));
    let sealed = found[8] == 1;
    if mark(flushed, sealed) != *found {
        return Err(damaged(
            path,
            MARK_AT as u64,
            "the mark of what was acknowledged is not what was written",
        ));
    }
    Ok((flushed, sealed))
}

/// The entry before the segment's first, and the checksum to go on from.
fn take_before(
    path: &Path,
    bytes: &[u8],
    head: u32,
    chain: Option<u32>,
) -> Result<(Option<LogId>, u32), StoreError> {
    let bad = |what| damaged(path, FILE_HEAD as u64, what);
    let Some((body, start)) = frame::take(&bytes[FILE_HEAD..], head) else {
        return Err(bad("what comes before the segment is not what was written"));
    };
    let (Some(&has), Some(id), Some(follows)) = (
        body.first(),
        body.get(1..).and_then(read_id),
        body.last_chunk::<4>(),
    ) else {
        return Err(bad("what comes before the segment cannot be read"));
    };
    if chain.is_some_and(|chain| chain.to_le_bytes() != *follows) {
        return Err(bad("the segment does not follow on the one before it"));
    }
    Ok(((has == 1).then_some(id), start))
}

/// Reads an entry's name: term, leader, index.
fn read_id(bytes: &[u8]) -> Option<LogId> {
    let mut numbers = bytes
        .chunks_exact(8)
        .map(|chunk| chunk.try_into().map(u64::from_le_bytes));
    let mut next = || numbers.next()?.ok();
    let (term, node_id, index) = (next()?, next()?, next()?);
    Some(LogId {
        leader_id: Term { term, node_id },
        index,
    })
}

fn put_id(id: LogId) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&id.leader_id.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&id.leader_id.node_id.to_le_bytes());
    bytes[16..].copy_from_slice(&id.index.to_le_bytes());
    bytes
}

/// The name of the entry in a frame's body.
pub(crate) fn entry_id(body: &[u8]) -> Option<LogId> {
    body.get(1..).and_then(read_id)
}

/// Appends an entry as a frame. Returns the checksum to go on from.
pub(crate) fn put_entry(out: &mut Vec<u8>, chain: u32, entry: &Entry) -> Result<u32, StoreError> {
    let id = put_id(entry.log_id());
    let unwritable = |error: postcard::Error| StoreError::State {
        why: format!("an entry cannot be written: {error}"),
    };
    Ok(match &entry.payload {
        EntryPayload::Blank => frame::put(out, chain, &[&[BLANK], &id]),
        EntryPayload::Normal(batch) => {
            let head = postcard::to_stdvec(batch.head()).map_err(unwritable)?;
            let bytes = batch.bytes()?;
            if bytes.len() > frame::BODY_MAX - 1024 {
                return Err(StoreError::State {
                    why: format!("an entry of {} bytes is too long for the log", bytes.len()),
                });
            }
            frame::put(
                out,
                chain,
                &[&[NORMAL], &id, &[head.len() as u8], &head, &bytes],
            )
        }
        EntryPayload::Membership(members) => {
            let members = postcard::to_stdvec(members).map_err(unwritable)?;
            frame::put(out, chain, &[&[MEMBERSHIP], &id, &members])
        }
    })
}

/// Reads an entry from a frame's body.
pub(crate) fn take_entry(body: &[u8]) -> Option<Entry> {
    let log_id = entry_id(body)?;
    let rest = body.get(25..)?;
    let payload = match *body.first()? {
        BLANK => EntryPayload::Blank,
        NORMAL => {
            let (&length, rest) = rest.split_first()?;
            let (head, bytes) = rest.split_at_checked(usize::from(length))?;
            let head: Head = postcard::from_bytes(head).ok()?;
            EntryPayload::Normal(Batch::encoded(head, Bytes::copy_from_slice(bytes)))
        }
        MEMBERSHIP => EntryPayload::Membership(postcard::from_bytes(rest).ok()?),
        _ => return None,
    };
    Some(Entry { log_id, payload })
}
