//! The thread that writes the log. It writes all waiting entries together and flushes once.

use crate::StoreError;
use crate::entry::{Entry, LogId, Types, Vote};
use crate::files::Files;
use crate::folder;
use crate::log::Known;
use crate::segment::{self, Segment};
use openraft::storage::IOFlushed;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::sync::{mpsc, oneshot};

/// The most commands that wait. Beyond it openraft waits, so that a slow disk slows it down.
const WAITING_MAX: usize = 1024;

/// About the most bytes that are written before a flush.
const BATCH_BYTES: usize = 4 << 20;

/// A command to the writer, which carries them out one after the other.
pub(crate) enum Command {
    Append {
        entries: Vec<Entry>,
        callback: IOFlushed<Types>,
    },
    Vote(Vote, oneshot::Sender<io::Result<()>>),
    Truncate(Option<LogId>, oneshot::Sender<io::Result<()>>),
    Purge(LogId, oneshot::Sender<io::Result<()>>),
    /// Answered when everything before is durable and nothing more is written: the writer's end.
    Stop(oneshot::Sender<io::Result<()>>),
}

/// The queue of commands to the writer.
pub(crate) type Writer = mpsc::Sender<Command>;

/// The first failure, which is reported.
pub(crate) type Failure = Arc<Mutex<Option<StoreError>>>;

/// Stores the first failure. Returns an error for callers that need one.
pub(crate) fn fail(failure: &Failure, error: StoreError) -> io::Error {
    let told = io::Error::other(error.to_string());
    failure
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .get_or_insert(error);
    told
}

/// The state of the writer.
pub(crate) struct Work {
    pub files: Files,
    pub folder: PathBuf,
    pub known: Arc<Mutex<Known>>,
    pub failure: Failure,
    pub segment_bytes: u64,
    /// The checksum after the last entry.
    pub chain: u32,
    pub id: crate::NodeId,
    /// Held as long as anything writes into the folder.
    pub _lock: std::fs::File,
}

/// Starts the writer.
pub(crate) fn start(mut work: Work) -> io::Result<Writer> {
    let (writer, mut commands) = mpsc::channel(WAITING_MAX);
    std::thread::Builder::new()
        .name("hedge-journal".to_owned())
        .spawn(move || {
            crate::journal::raise_priority();
            let mut next = commands.blocking_recv();
            while let Some(command) = next.take() {
                next = match command {
                    Command::Append { entries, callback } => {
                        work.appends(entries, callback, &mut commands)
                    }
                    Command::Stop(reply) => {
                        let sealed = work.stop();
                        drop(work);
                        let _ = reply.send(sealed);
                        return;
                    }
                    other => {
                        work.other(other);
                        None
                    }
                };
                if next.is_none() {
                    next = commands.blocking_recv();
                }
            }
        })?;
    Ok(writer)
}

impl Work {
    /// Appends these and all that wait behind them. Returns the command behind that is something else.
    fn appends(
        &mut self,
        entries: Vec<Entry>,
        callback: IOFlushed<Types>,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Option<Command> {
        let mut bytes = Vec::new();
        let mut batch = Batch::default();
        let mut callbacks = vec![callback];
        let mut failed = self.encode(&entries, &mut bytes, &mut batch).err();
        let mut next = None;
        while failed.is_none() && bytes.len() < BATCH_BYTES {
            match commands.try_recv() {
                Ok(Command::Append { entries, callback }) => {
                    callbacks.push(callback);
                    failed = self.encode(&entries, &mut bytes, &mut batch).err();
                }
                Ok(other) => {
                    next = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let done = match failed {
            None => self.write(&bytes, batch),
            Some(error) => Err(error),
        };
        match done {
            Ok(()) => callbacks
                .into_iter()
                .for_each(|one| one.io_completed(Ok(()))),
            Err(error) => {
                // One failure suffices: it stops openraft.
                let error = fail(&self.failure, error);
                callbacks.swap_remove(0).io_completed(Err(error));
            }
        }
        next
    }

    fn encode(
        &mut self,
        entries: &[Entry],
        bytes: &mut Vec<u8>,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        self.working()?;
        for entry in entries {
            batch.first.get_or_insert(entry.log_id.index);
            batch.last = Some(entry.log_id);
            let before = bytes.len();
            self.chain = segment::put_entry(bytes, self.chain, entry)?;
            batch.sizes.push((bytes.len() - before) as u32);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], batch: Batch) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (batch.first, batch.last) else {
            return Ok(());
        };
        let (file, path, end) = {
            let known = self.known();
            let segment = newest(&known, &self.folder)?;
            (segment.file.clone(), segment.path.clone(), segment.end)
        };
        self.files.write_at(&file, &path, bytes, u64::from(end))?;
        self.files.flush(&file, &path)?;
        let (full, gone) = {
            let mut known = self.known();
            if let Some(segment) = known.segments.back_mut() {
                for size in &batch.sizes {
                    segment.offsets.push(segment.end);
                    segment.end += size;
                }
                segment.mark(&self.files, false)?;
            }
            let gone = known.written(first, &batch.sizes);
            (
                u64::from(end) + bytes.len() as u64 >= self.segment_bytes,
                gone,
            )
        };
        drop(gone);
        match full {
            true => self.roll(last),
            false => Ok(()),
        }
    }

    /// Begins a new segment behind an entry.
    fn roll(&mut self, last: LogId) -> Result<(), StoreError> {
        let next = Segment::create(&self.files, &self.folder, Some(last), self.chain)?;
        self.chain = next.start_chain;
        let (file, path) = {
            let mut known = self.known();
            let old = newest(&known, &self.folder)?;
            old.mark(&self.files, true)?;
            let old = (old.file.clone(), old.path.clone());
            known.segments.push_back(next);
            old
        };
        self.files.flush(&file, &path)
    }

    fn other(&mut self, command: Command) {
        let working = self.working();
        let (done, reply) = match command {
            Command::Vote(vote, reply) => (working.and_then(|()| self.vote(vote)), reply),
            Command::Truncate(after, reply) => (working.and_then(|()| self.truncate(after)), reply),
            Command::Purge(upto, reply) => (working.and_then(|()| self.purge(upto)), reply),
            Command::Append { .. } | Command::Stop(_) => return,
        };
        // openraft may have stopped already.
        let _ = reply.send(done.map_err(|error| fail(&self.failure, error)));
    }

    fn vote(&self, vote: Vote) -> Result<(), StoreError> {
        folder::write_member(&self.files, &self.folder, self.id, Some(vote))
    }

    /// Removes entries from the end. It removes later files first, so that the rest never has a gap.
    fn truncate(&mut self, after: Option<LogId>) -> Result<(), StoreError> {
        let next = after.map_or(0, |id| id.index + 1);
        loop {
            let mut known = self.known();
            if known.segments.len() < 2
                || known.segments.back().is_some_and(|one| one.first <= next)
            {
                break;
            }
            let Some(gone) = known.segments.pop_back() else {
                break;
            };
            if let Some(segment) = known.segments.back() {
                segment.mark(&self.files, false)?;
                self.files.flush(&segment.file, &segment.path)?;
            }
            drop(known);
            self.files.remove(&gone.path)?;
            self.files.flush_folder(&self.folder)?;
        }
        let mut known = self.known();
        let folder = &self.folder;
        let segment = known
            .segments
            .back_mut()
            .ok_or_else(|| no_segment(folder))?;
        let keep = next.saturating_sub(segment.first) as usize;
        if let Some(&end) = segment.offsets.get(keep) {
            segment.end = end;
            segment.offsets.truncate(keep);
            // The mark is durable before the file is cut, so that nothing is ever missing below the mark.
            segment.mark(&self.files, false)?;
            self.files.flush(&segment.file, &segment.path)?;
            let cut = segment.file.set_len(u64::from(end));
            cut.map_err(|error| crate::files::file_error("cut", &segment.path, error))?;
            self.files.flush(&segment.file, &segment.path)?;
        }
        let chain = segment.last_chain()?;
        drop(known);
        self.chain = chain;
        Ok(())
    }

    /// Removes files whose entries all are in a snapshot, oldest first.
    fn purge(&mut self, upto: LogId) -> Result<(), StoreError> {
        loop {
            let mut known = self.known();
            let last = known
                .segments
                .back()
                .map_or(0, |one| one.first + one.offsets.len() as u64);
            let behind = last <= upto.index;
            let next = known.segments.get(1).map(|one| one.first);
            if !behind && next.is_none_or(|next| next > upto.index + 1) {
                return Ok(());
            }
            let Some(gone) = known.segments.pop_front() else {
                break;
            };
            drop(known);
            self.files.remove(&gone.path)?;
        }
        self.files.flush_folder(&self.folder)?;
        // The snapshot is ahead of the whole log, which begins anew behind it.
        let segment = Segment::create(&self.files, &self.folder, Some(upto), 0)?;
        self.chain = segment.start_chain;
        self.known().segments.push_back(segment);
        Ok(())
    }

    /// Makes the last mark durable.
    fn stop(&self) -> io::Result<()> {
        let known = self.known();
        let segment = newest(&known, &self.folder).map_err(io::Error::other)?;
        self.files
            .flush(&segment.file, &segment.path)
            .map_err(io::Error::other)
    }

    /// Returns an error after a failure. Nothing more is written then, because the content of the files is unknown.
    fn working(&self) -> Result<(), StoreError> {
        let failure = self.failure.lock();
        match *failure.unwrap_or_else(|poisoned| poisoned.into_inner()) {
            None => Ok(()),
            Some(_) => Err(StoreError::Closed),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[derive(Default)]
struct Batch {
    first: Option<u64>,
    last: Option<LogId>,
    sizes: Vec<u32>,
}

fn newest<'a>(known: &'a Known, folder: &std::path::Path) -> Result<&'a Segment, StoreError> {
    known.segments.back().ok_or_else(|| no_segment(folder))
}

fn no_segment(folder: &std::path::Path) -> StoreError {
    crate::files::damaged(folder, 0, "the folder holds no part of the log")
}
