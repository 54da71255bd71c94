//! A disk that fails, or is slow.

use hedge_store::{Disk, SystemDisk};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How the disk fails.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// Each flush takes so much longer.
    SlowFlush(Duration),
    /// It is full once so many bytes have been written.
    FullAfter(u64),
    /// The write that reaches so many bytes stops half-way and fails.
    ShortWriteAt(u64),
}

/// The machine's disk with one failure.
#[derive(Debug)]
pub struct FaultyDisk {
    failure: Failure,
    written: AtomicU64,
}

impl FaultyDisk {
    pub fn with(failure: Failure) -> Arc<Self> {
        Arc::new(Self {
            failure,
            written: AtomicU64::new(0),
        })
    }

    /// How many of these bytes are written.
    fn allowed(&self, wanted: usize) -> usize {
        let before = self.written.fetch_add(wanted as u64, Ordering::Relaxed);
        let after = before + wanted as u64;
        let until = |limit: u64| limit.saturating_sub(before).min(wanted as u64) as usize;
        match self.failure {
            Failure::FullAfter(limit) if after > limit => until(limit),
            Failure::ShortWriteAt(limit) if before < limit && after >= limit => until(limit) / 2,
            _ => wanted,
        }
    }
}

impl Disk for FaultyDisk {
    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        // A full disk takes what goes over bytes that are there.
        let grows = offset + bytes.len() as u64 > file.metadata()?.len();
        let allowed = match self.failure {
            Failure::FullAfter(_) | Failure::ShortWriteAt(_) if grows => self.allowed(bytes.len()),
            _ => bytes.len(),
        };
        SystemDisk.write_at(file, &bytes[..allowed], offset)?;
        match allowed == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn flush(&self, file: &File) -> io::Result<()> {
        if let Failure::SlowFlush(longer) = self.failure {
            std::thread::sleep(longer);
        }
        SystemDisk.flush(file)
    }
}
