//! The log as openraft sees it: recent entries in memory, the others in segments, all changes in order.

use crate::StoreError;
use crate::entry::{Entry, LogId, Types, Vote};
use crate::frame::{self, FRAME_HEAD};
use crate::segment::{self, Segment};
use crate::writer::{Command, Writer};
use futures_util::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use openraft::{EntryPayload, RaftTypeConfig};
use std::collections::VecDeque;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::oneshot;

/// How many bytes of flushed entries stay in memory for members that are a little behind; the others are read from their
/// segments. As values they take up to 30 times as much.
const RECENT_BYTES: u64 = 512 << 10;

/// How many bytes of entries go in one message; one entry always does.
const MESSAGE_BYTES: u64 = 1 << 20;

/// How many entries are read at a time when many are applied.
const APPLY_ENTRIES: u64 = 1024;

/// The known state of the log. Calls of openraft change it at once, the writer when it has written.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    pub last: Option<LogId>,
    /// The newest entries, without a gap up to the last.
    pub recent: VecDeque<Entry>,
    /// The lengths on disk of those that are there already, from the front.
    pub sizes: VecDeque<u32>,
    pub recent_bytes: u64,
    pub segments: VecDeque<Segment>,
    /// Increases when entries are removed from the end, so that a reader knows that it has to read again.
    pub cuts: u64,
}

/// The log. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Log {
    pub known: Arc<Mutex<Known>>,
    /// None in memory.
    pub writer: Option<Writer>,
}

impl Log {
    pub fn lock(&self) -> MutexGuard<'_, Known> {
        // No holder of the lock panics in the middle of a change.
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Bytes of entries on disk.
    pub fn bytes(&self) -> u64 {
        let known = self.lock();
        known.segments.iter().map(|one| u64::from(one.end)).sum()
    }

    async fn order<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<io::Result<T>>) -> Command,
    ) -> Option<io::Result<T>> {
        let writer = self.writer.as_ref()?;
        let (reply, answer) = oneshot::channel();
        if writer.send(command(reply)).await.is_err() {
            return Some(Err(writer_gone()));
        }
        Some(answer.await.unwrap_or_else(|_| Err(writer_gone())))
    }

    /// Entries from `start` until `end` or until they have `bytes`, but at least one.
    fn read(&self, start: u64, end: u64, bytes: u64) -> Result<Vec<Entry>, StoreError> {
        loop {
            let (plan, recent, cuts) = {
                let known = self.lock();
                let plan = known.plan(start, end, bytes);
                let recent = match plan.whole {
                    true => known.recent_entries(start, end, bytes.saturating_sub(plan.bytes)),
                    false => Vec::new(),
                };
                (plan, recent, known.cuts)
            };
            // Unknown lengths are found without holding the lock.
            let left = bytes.saturating_sub(plan.bytes);
            let mut entries = limited(recent, left, plan.pieces.is_empty());
            if plan.pieces.is_empty() {
                return Ok(entries);
            }
            let read: Result<Vec<_>, _> = plan.pieces.iter().map(Piece::read).collect();
            match read {
                Ok(older) => {
                    let mut all: Vec<_> = older.into_iter().flatten().collect();
                    all.append(&mut entries);
                    return Ok(all);
                }
                // They were removed or purged meanwhile: plan again.
                Err(_) if self.lock().cuts != cuts => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn writer_gone() -> io::Error {
    io::Error::other("the journal's writer has stopped")
}

/// Which entries have to be read from files.
struct Plan {
    pieces: Vec<Piece>,
    bytes: u64,
    /// Whether the limit leaves room for what comes after.
    whole: bool,
}

/// Entries that lie side by side in one file.
struct Piece {
    file: Arc<File>,
    path: std::path::PathBuf,
    begin: u32,
    end: u32,
    count: usize,
    first: u64,
    /// The checksum before the first, or where the frame before it is that holds it.
    chain: Result<u32, u32>,
}

impl Piece {
    fn read(&self) -> Result<Vec<Entry>, StoreError> {
        let mut bytes = vec![0; (self.end - self.begin) as usize];
        self.file
            .read_exact_at(&mut bytes, u64::from(self.begin))
            .map_err(|error| crate::files::file_error("read", &self.path, error))?;
        let mut chain = match self.chain {
            Ok(chain) => chain,
            Err(before) => {
                let mut sum = [0; 4];
                self.file
                    .read_exact_at(&mut sum, u64::from(before) + 4)
                    .map_err(|error| crate::files::file_error("read", &self.path, error))?;
                u32::from_le_bytes(sum)
            }
        };
        let mut entries = Vec::with_capacity(self.count);
        let mut at = 0;
        for index in self.first..self.first + self.count as u64 {
            let taken = bytes.get(at..).and_then(|rest| frame::take(rest, chain));
            let entry = taken.and_then(|(body, next)| {
                at += FRAME_HEAD + body.len();
                chain = next;
                segment::take_entry(body).filter(|entry| entry.log_id.index == index)
            });
            let Some(entry) = entry else {
                let at = u64::from(self.begin) + at as u64;
                return Err(crate::files::damaged(
                    &self.path,
                    at,
                    "an entry is not what was written",
                ));
            };
            entries.push(entry);
        }
        Ok(entries)
    }
}

impl Known {
    fn recent_first(&self) -> u64 {
        match self.recent.front() {
            Some(entry) => entry.log_id.index,
            None => self.next(),
        }
    }

    pub fn next(&self) -> u64 {
        self.last.map_or(0, |id| id.index + 1)
    }

    fn first(&self) -> u64 {
        self.purged.map_or(0, |id| id.index + 1)
    }

    /// Returns which entries of a range are in files only.
    fn plan(&self, start: u64, end: u64, limit: u64) -> Plan {
        let mut plan = Plan {
            pieces: Vec::new(),
            bytes: 0,
            whole: true,
        };
        let until = end.min(self.recent_first());
        let mut index = start.max(self.first());
        let mut at = self
            .segments
            .partition_point(|one| one.first <= index)
            .saturating_sub(1);
        while index < until
            && let Some(segment) = self.segments.get(at)
        {
            let Some((begin, _)) = segment.place(index) else {
                break;
            };
            let (first, mut stop) = (index, begin);
            while index < until
                && let Some((_, end)) = segment.place(index)
            {
                if plan.bytes >= limit {
                    plan.whole = false;
                    break;
                }
                plan.bytes += u64::from(end - stop);
                stop = end;
                index += 1;
            }
            if index > first {
                plan.pieces.push(Piece {
                    file: segment.file.clone(),
                    path: segment.path.clone(),
                    begin,
                    end: stop,
                    count: (index - first) as usize,
                    first,
                    chain: match first
                        .checked_sub(1)
                        .and_then(|before| segment.place(before))
                    {
                        Some((before, _)) => Err(before),
                        None => Ok(segment.start_chain),
                    },
                });
            }
            if !plan.whole {
                break;
            }
            at += 1;
        }
        plan
    }

    /// Entries in memory, with their lengths where these are known, and a few too many of them at most.
    fn recent_entries(&self, from: u64, end: u64, limit: u64) -> Vec<(Entry, Option<u32>)> {
        let skip = from.saturating_sub(self.recent_first()) as usize;
        let mut bytes = 0;
        let mut entries = Vec::new();
        for (at, entry) in self.recent.iter().enumerate().skip(skip) {
            if entry.log_id.index >= end || bytes > limit {
                break;
            }
            let size = self.sizes.get(at).copied();
            bytes += u64::from(size.unwrap_or(0));
            entries.push((entry.clone(), size));
        }
        entries
    }

    fn append(&mut self, entry: Entry) {
        let id = entry.log_id;
        self.last = Some(id);
        self.recent.push_back(entry);
    }

    /// Notes that entries are on disk, with these lengths. Some may be purged or taken back already. Returns
    /// those that need not stay in memory, to be dropped where nobody waits.
    #[must_use]
    pub fn written(&mut self, first: u64, sizes: &[u32]) -> Vec<Entry> {
        let mut gone = Vec::new();
        for (index, size) in (first..).zip(sizes) {
            let awaited = self.recent_first() + self.sizes.len() as u64;
            if index == awaited && self.sizes.len() < self.recent.len() {
                self.sizes.push_back(*size);
                self.recent_bytes += u64::from(*size);
            }
        }
        while self.recent_bytes > RECENT_BYTES && self.sizes.len() > 1 {
            gone.extend(self.forget_oldest());
        }
        gone
    }

    fn forget_oldest(&mut self) -> Option<Entry> {
        self.recent_bytes -= u64::from(self.sizes.pop_front().unwrap_or(0));
        self.recent.pop_front()
    }

    fn truncate(&mut self, after: Option<LogId>) {
        let next = after.map_or(0, |id| id.index + 1);
        self.cuts += 1;
        while self
            .recent
            .back()
            .is_some_and(|entry| entry.log_id.index >= next)
        {
            self.recent.pop_back();
        }
        while self.sizes.len() > self.recent.len() {
            self.recent_bytes -= u64::from(self.sizes.pop_back().unwrap_or(0));
        }
        self.last = after;
    }

    /// Forgets entries up to one. Returns them, to be dropped where nobody waits: there may be a million
    /// records in them.
    #[must_use]
    fn purge(&mut self, upto: LogId) -> Vec<Entry> {
        let mut gone = Vec::new();
        self.cuts += 1;
        while self
            .recent
            .front()
            .is_some_and(|entry| entry.log_id.index <= upto.index)
        {
            gone.extend(self.forget_oldest());
        }
        self.purged = Some(upto);
        self.last = self.last.max(Some(upto));
        gone
    }
}

/// As many entries as fit into a number of bytes, or one if there must be one.
fn limited(entries: Vec<(Entry, Option<u32>)>, limit: u64, at_least_one: bool) -> Vec<Entry> {
    let mut bytes = 0_u64;
    let mut taken = Vec::with_capacity(entries.len());
    for (entry, size) in entries {
        if limit < u64::MAX {
            bytes += size.map_or_else(|| payload_bytes(&entry), u64::from);
        }
        if bytes > limit && !(at_least_one && taken.is_empty()) {
            break;
        }
        taken.push(entry);
    }
    taken
}

/// About how long an entry is.
pub(crate) fn payload_bytes(entry: &Entry) -> u64 {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.bytes().map_or(0, |bytes| bytes.len() as u64),
        _ => 64,
    }
}

fn range_of(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let (start, end) = range_of(&range);
        self.read(start, end, u64::MAX).map_err(io::Error::other)
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, MESSAGE_BYTES)
            .map_err(io::Error::other)
    }

    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = io::Result<Entry>> + Send {
        let log = self.clone();
        let (start, end) = range_of(&range);
        let pieces = stream::unfold(start, move |next| {
            let until = end.min(next.saturating_add(APPLY_ENTRIES));
            let read = (next < end).then(|| log.read(next, until, u64::MAX));
            std::future::ready(read.and_then(|read| match read {
                // A missing entry ends the stream; openraft notices that the stream is short.
                Ok(entries) if entries.is_empty() => None,
                Ok(entries) => {
                    let next = next + entries.len() as u64;
                    Some((entries.into_iter().map(Ok).collect::<Vec<_>>(), next))
                }
                Err(error) => Some((vec![Err(io::Error::other(error))], u64::MAX)),
            }))
        });
        Box::pin(pieces.flat_map(stream::iter))
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let known = self.lock();
        Ok(LogState {
            last_purged_log_id: known.purged,
            last_log_id: known.last,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        if let Some(result) = self.order(|reply| Command::Vote(vote, reply)).await {
            result?;
        }
        self.lock().vote = Some(vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = <Types as RaftTypeConfig>::Entry> + Send,
        I::IntoIter: Send,
    {
        let Some(writer) = self.writer.clone() else {
            let mut known = self.lock();
            entries.into_iter().for_each(|entry| known.append(entry));
            drop(known);
            callback.io_completed(Ok(()));
            return Ok(());
        };
        let entries: Vec<Entry> = entries.into_iter().collect();
        {
            let mut known = self.lock();
            entries.iter().for_each(|entry| known.append(entry.clone()));
        }
        let command = Command::Append { entries, callback };
        writer.send(command).await.map_err(|_| writer_gone())
    }

    async fn truncate_after(&mut self, after: Option<LogId>) -> Result<(), io::Error> {
        // Behind the appends that wait: the writer does one thing after the other.
        self.lock().truncate(after);
        let done = self.order(|reply| Command::Truncate(after, reply)).await;
        // A reader that read while the files were cut reads again.
        self.lock().cuts += 1;
        done.unwrap_or(Ok(()))
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let gone = self.lock().purge(upto);
        tokio::task::spawn_blocking(move || drop(gone));
        self.order(|reply| Command::Purge(upto, reply))
            .await
            .unwrap_or(Ok(()))
    }
}
