//! A captured stream of an attempt. Its end is kept in memory, and a longer part in a file beside the attempt's folder.

use crate::{TAIL_BYTES, Tail};
use hedge_model::msg::{PIECE_BYTES_MAX, Piece};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The most bytes that are read when the attempt has ended: more than any pipe holds.
const DRAIN_BYTES_MAX: usize = 2 << 20;

/// The most reads of a pipe without a pause. A program that prints without a break must then wait at times; otherwise it
/// would keep the spawner as busy as itself.
const READS_AT_ONCE: u32 = 16;
/// A pipe from which nothing was read for this long counts as quiet.
const QUIET_AFTER: Duration = Duration::from_millis(50);

/// A captured stream. Its writing end stays open here, so that the pipe never reports an end: that would wake the spawner
/// twice for each attempt and add nothing to the process's end.
pub(crate) struct Stream {
    pub read: OwnedFd,
    pub write: OwnedFd,
    /// Bytes to keep in all.
    keep: u64,
    /// Bytes to keep in memory.
    in_memory: usize,
    tail: Tail,
    spill: Spill,
    pub flow: Flow,
}

/// Counts recent reads of a pipe.
#[derive(Default)]
pub(crate) struct Flow {
    /// Reads since it was last quiet.
    reads: u32,
    last: Option<Instant>,
}

impl Flow {
    /// Counts a read. Returns whether the attempt prints without a break, so that it has to wait.
    pub(crate) fn is_busy(&mut self, now: Instant) -> bool {
        if self.last.is_none_or(|last| now - last > QUIET_AFTER) {
            self.reads = 0;
        }
        self.last = Some(now);
        self.reads = self.reads.saturating_add(1);
        self.reads > READS_AT_ONCE
    }
}

/// The file for the part of a stream that is not kept in memory.
enum Spill {
    /// Not needed yet; its path.
    Unused(PathBuf),
    /// A ring: the byte at position `p` of the stream is at `p` modulo the bytes to keep.
    Open(File, PathBuf),
    /// Nothing more is written, because the disk was full or the attempt is over.
    Closed,
}

impl Stream {
    /// Creates a stream of which the last `keep` bytes are kept, by default [`TAIL_BYTES`]. What is not kept in memory goes to
    /// a file at `spill`.
    pub(crate) fn new(keep: Option<u64>, spill: PathBuf) -> io::Result<Stream> {
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let keep = keep.unwrap_or(TAIL_BYTES);
        let spill = match keep > TAIL_BYTES {
            true => Spill::Unused(spill),
            false => Spill::Closed,
        };
        Ok(Stream {
            read,
            write,
            keep,
            in_memory: keep.min(TAIL_BYTES) as usize,
            tail: Tail::default(),
            spill,
            flow: Flow::default(),
        })
    }

    /// Reads a bounded amount of what is there, so that an attempt that prints much does not block other work.
    pub(crate) fn read_some(&mut self, buffer: &mut [u8]) -> usize {
        let read = rustix::io::read(&self.read, &mut *buffer).unwrap_or(0);
        self.take(&buffer[..read]);
        read
    }

    /// Returns the part of the stream that begins at `from`, or the oldest kept part.
    pub(crate) fn piece(&self, from: u64) -> Piece {
        let total = self.tail.total;
        let in_memory = total - self.tail.bytes.len() as u64;
        let oldest = match &self.spill {
            Spill::Open(..) => total.saturating_sub(self.keep).min(in_memory),
            Spill::Unused(_) | Spill::Closed => in_memory,
        };
        let from = from.max(oldest);
        let bytes = match &self.spill {
            _ if from >= in_memory => self.in_memory_from(from),
            Spill::Open(file, _) => {
                let wanted = (in_memory - from).min(PIECE_BYTES_MAX as u64) as usize;
                match read_round(file, from, self.keep, wanted) {
                    Ok(bytes) => bytes,
                    Err(_) => {
                        return Piece {
                            from: in_memory,
                            bytes: self.in_memory_from(in_memory).into(),
                            total,
                        };
                    }
                }
            }
            Spill::Unused(_) | Spill::Closed => Vec::new(),
        };
        let bytes = bytes.into();
        Piece { from, bytes, total }
    }

    fn in_memory_from(&self, from: u64) -> Vec<u8> {
        let in_memory = self.tail.total - self.tail.bytes.len() as u64;
        let at = usize::try_from(from - in_memory).unwrap_or(usize::MAX);
        let rest = self.tail.bytes.get(at..).unwrap_or_default();
        rest[..rest.len().min(PIECE_BYTES_MAX)].to_vec()
    }

    /// Reads the rest without blocking.
    pub(crate) fn finish(&mut self, buffer: &mut [u8]) -> Tail {
        let mut drained = 0;
        while drained < DRAIN_BYTES_MAX {
            match self.read_some(buffer) {
                0 => break,
                // Less than asked for: the pipe is empty.
                read if read < buffer.len() => break,
                read => drained += read,
            }
        }
        self.trim();
        if let Spill::Open(..) = std::mem::replace(&mut self.spill, Spill::Closed) {
            self.tail.spilled = Some(self.tail.total.min(self.keep));
        }
        std::mem::take(&mut self.tail)
    }

    fn take(&mut self, bytes: &[u8]) {
        let from = self.tail.total;
        self.tail.total += bytes.len() as u64;
        self.tail.bytes.extend_from_slice(bytes);
        match &self.spill {
            // Nothing was trimmed yet.
            Spill::Unused(path) if self.tail.bytes.len() > self.in_memory => {
                let path = path.clone();
                self.spill = match create(&path) {
                    Ok(file) => Spill::Open(file, path),
                    Err(_) => Spill::Closed,
                };
                let all = std::mem::take(&mut self.tail.bytes);
                self.spill(0, &all);
                self.tail.bytes = all;
            }
            Spill::Open(..) => self.spill(from, bytes),
            Spill::Unused(_) | Spill::Closed => {}
        }
        if self.tail.bytes.len() > 2 * self.in_memory {
            self.trim();
        }
    }

    /// Writes the part of the stream that begins at `from` to the file. If that fails, removes the file, because the disk is
    /// short, and keeps only the end in memory.
    fn spill(&mut self, mut from: u64, mut bytes: &[u8]) {
        let Spill::Open(file, path) = &self.spill else {
            return;
        };
        while !bytes.is_empty() {
            let at = from % self.keep;
            let fits = usize::try_from(self.keep - at).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(fits.min(bytes.len()));
            if file.write_all_at(now, at).is_err() {
                let _ = std::fs::remove_file(path);
                self.spill = Spill::Closed;
                return;
            }
            from += now.len() as u64;
            bytes = later;
        }
    }

    fn trim(&mut self) {
        let surplus = self.tail.bytes.len().saturating_sub(self.in_memory);
        self.tail.bytes.drain(..surplus);
    }
}

/// Reads from the file, which is a ring of `keep` bytes.
fn read_round(file: &File, from: u64, keep: u64, wanted: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; wanted];
    let at = from % keep;
    let straight = usize::try_from(keep - at).unwrap_or(usize::MAX);
    let (end, start) = bytes.split_at_mut(straight.min(wanted));
    file.read_exact_at(end, at)?;
    file.read_exact_at(start, 0)?;
    Ok(bytes)
}

fn create(path: &PathBuf) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that can be read of a stream, piece by piece, and where it begins.
    fn read_on(stream: &Stream, from: u64) -> (u64, Vec<u8>) {
        let first = stream.piece(from);
        let (begin, mut all) = (first.from, first.bytes.to_vec());
        loop {
            let piece = stream.piece(begin + all.len() as u64);
            assert!(piece.answers(begin + all.len() as u64));
            if piece.bytes.is_empty() {
                return (begin, all);
            }
            assert_eq!(piece.from, begin + all.len() as u64);
            all.extend_from_slice(&piece.bytes);
        }
    }

    #[test]
    fn what_is_kept_can_be_read_from_anywhere_while_more_is_written() {
        let folder = std::env::temp_dir().join(format!("hedge-pieces-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let keep = 3 * TAIL_BYTES;
        let mut stream = Stream::new(Some(keep), folder.join("spill")).unwrap();
        assert_eq!(
            stream.piece(7),
            Piece {
                from: 7,
                ..Piece::default()
            }
        );
        let byte = |at: u64| (at % 251) as u8;
        let mut all = Vec::new();
        for part in [10, 60_000, 90_000, 50_001, 200_000, 50_001] {
            let more: Vec<u8> = (all.len()..all.len() + part)
                .map(|at| byte(at as u64))
                .collect();
            stream.take(&more);
            all.extend(more);
            let total = all.len() as u64;
            for from in [
                0,
                9,
                total.saturating_sub(keep),
                total / 2,
                total - 1,
                total,
            ] {
                let (begin, read) = read_on(&stream, from);
                assert_eq!(begin, from.max(total.saturating_sub(keep)));
                assert!(read == all[begin as usize..], "{total} bytes from {from}");
            }
        }
        // Without a file the end in memory is all there is.
        stream.spill = Spill::Closed;
        let (begin, read) = read_on(&stream, 0);
        assert!(all.ends_with(&read) && begin == (all.len() - read.len()) as u64);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_long_stream_is_kept_in_a_file_and_its_end_in_memory() {
        let folder = std::env::temp_dir().join(format!("hedge-stream-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let (keep, path) = (3 * TAIL_BYTES, folder.join("spill"));
        let mut stream = Stream::new(Some(keep), path.clone()).unwrap();
        let byte = |at: u64| (at % 251) as u8;
        let total = 10 * TAIL_BYTES + 7;
        let all: Vec<u8> = (0..total).map(byte).collect();
        all.chunks(50_001).for_each(|part| stream.take(part));
        let tail = stream.finish(&mut [0; 1024]);
        assert_eq!((tail.total, tail.spilled), (total, Some(keep)));
        assert!(all.ends_with(&tail.bytes) && tail.bytes.len() as u64 == TAIL_BYTES);
        let file = std::fs::read(&path).unwrap();
        let cut = (total % keep) as usize;
        assert!([&file[cut..], &file[..cut]].concat() == all[(total - keep) as usize..]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
