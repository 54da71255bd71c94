//! Snapshots: the core's state at one entry, in memory or in a file.

use crate::StoreError;
use crate::entry::SnapshotMeta;
use crate::event::WriteState;
use crate::files::{Appender, Files, TEMPORARY, damaged, file_error, read};
use crate::frame::{self, FILE_HEAD, FRAME_HEAD};
use bytes::Bytes;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"hedgsnap";

/// How much of the state goes in one frame.
const PIECE_BYTES: usize = 64 << 10;

/// How much is written between flushes: some milliseconds of a slow disk.
const FLUSH_EVERY: u64 = 1 << 20;

const META: u8 = 0;
const DATA: u8 = 1;
const END: u8 = 2;

/// Where a snapshot's state is.
#[derive(Clone, Debug)]
pub(crate) enum Image {
    /// Here.
    Memory(Bytes),
    /// In a file, whose checksums are tried whenever it is read.
    File(Arc<PathBuf>),
}

impl Image {
    /// The state. Blocks while a file is read.
    pub fn load(&self) -> Result<Bytes, StoreError> {
        match self {
            Self::Memory(state) => Ok(state.clone()),
            Self::File(path) => Ok(read_file(path)?.1),
        }
    }
}

/// A snapshot as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub meta: SnapshotMeta,
    pub image: Image,
    /// Bytes of state.
    pub bytes: u64,
}

/// The name of a snapshot that covers an entry.
pub(crate) fn file_name(index: u64) -> String {
    format!("snapshot-{index:020}")
}

/// The snapshots in a folder, oldest first.
pub(crate) fn list(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| file_error("read", folder, error))? {
        let path = entry
            .map_err(|error| file_error("read", folder, error))?
            .path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with("snapshot-") && !name.ends_with(TEMPORARY)) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

/// Writes a snapshot's file, under a name for unfinished ones. Returns its path and the state's length.
pub(crate) fn write_file(
    files: &Files,
    folder: &Path,
    meta: &SnapshotMeta,
    write: WriteState,
) -> Result<(PathBuf, u64), StoreError> {
    let index = meta.last_log_id.map_or(0, |id| id.index);
    let path = folder.join(format!("{}{TEMPORARY}", file_name(index)));
    let file = files.create(&path)?;
    let mut head = Vec::new();
    let chain = frame::put_head(&mut head, MAGIC);
    let meta = postcard::to_stdvec(meta).map_err(|error| StoreError::State {
        why: error.to_string(),
    })?;
    let chain = frame::put(&mut head, chain, &[&[META], &meta]);
    let mut out = Framing {
        out: Appender {
            files,
            file: &file,
            path: &path,
            offset: 0,
            flush_every: FLUSH_EVERY,
            unflushed: 0,
        },
        framed: head,
        piece: Vec::with_capacity(PIECE_BYTES),
        chain,
        bytes: 0,
    };
    // The first failure is what the system said; without one the state itself could not be written.
    let written = write(&mut out).and_then(|()| out.end());
    let bytes = written.map_err(|error| match error.downcast::<StoreError>() {
        Ok(error) => error,
        Err(error) => StoreError::State {
            why: error.to_string(),
        },
    })?;
    Ok((path, bytes))
}

/// Reads a snapshot's file and checks every byte of it.
pub(crate) fn read_file(path: &Path) -> Result<(SnapshotMeta, Bytes), StoreError> {
    let bytes = read(path)?;
    let mut chain = frame::take_head(path, &bytes, MAGIC)?;
    let mut at = FILE_HEAD;
    let mut meta = None;
    let mut state = Vec::with_capacity(bytes.len());
    loop {
        let bad = |what: &str| Err(damaged(path, at as u64, what));
        let Some((body, next)) = frame::take(&bytes[at..], chain) else {
            return bad("the snapshot is not what was written");
        };
        let after = at + FRAME_HEAD + body.len();
        match (body.split_first(), &meta) {
            (Some((&META, body)), None) => match postcard::from_bytes::<SnapshotMeta>(body) {
                Ok(found) => meta = Some(found),
                Err(error) => return bad(&format!("its first part cannot be read: {error}")),
            },
            (Some((&DATA, body)), Some(_)) => state.extend_from_slice(body),
            (Some((&END, _)), Some(_)) if after == bytes.len() => break,
            _ => return bad("a part of the snapshot is out of place"),
        }
        chain = next;
        at = after;
    }
    match meta {
        Some(meta) => Ok((meta, Bytes::from(state))),
        None => Err(damaged(path, FILE_HEAD as u64, "its first part is missing")),
    }
}

/// Cuts what is written into frames.
struct Framing<'a> {
    out: Appender<'a>,
    framed: Vec<u8>,
    piece: Vec<u8>,
    chain: u32,
    bytes: u64,
}

impl Framing<'_> {
    fn put(&mut self, kind: u8) -> io::Result<()> {
        self.chain = frame::put(&mut self.framed, self.chain, &[&[kind], &self.piece]);
        self.piece.clear();
        self.out.write_all(&self.framed)?;
        self.framed.clear();
        Ok(())
    }

    fn end(mut self) -> io::Result<u64> {
        if !self.piece.is_empty() {
            self.put(DATA)?;
        }
        self.put(END)?;
        self.out.flush()?;
        Ok(self.bytes)
    }
}

impl Write for Framing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        self.bytes += taken as u64;
        if self.piece.len() == PIECE_BYTES {
            self.put(DATA)?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
