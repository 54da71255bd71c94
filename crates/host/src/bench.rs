//! Benchmark tasks: four small kernels, each on one core and in a tenth of a second, whose scores let machines be
//! compared before anything else is known of them.

use hedge_model::capacity::BenchScores;
use std::hint::black_box;
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long each kernel runs.
const SPAN: Duration = Duration::from_millis(100);
/// Rounds between two looks at the clock.
const ROUNDS: u64 = 20_000;
/// Copied back and forth: larger than a core's share of most caches.
const MEMORY_BYTES: usize = 32 << 20;
/// Written before each time that the disk is made to keep it.
const DISK_BYTES: usize = 1 << 20;
/// Most that is written in all.
const DISK_BYTES_MAX: u64 = 64 << 20;

/// Runs all kernels, one after the other; `dir` is where the disk is written to. A kernel that cannot run scores
/// nothing. Once `end` is set it stops, within some milliseconds, and says nothing.
pub fn run(dir: &Path, end: &AtomicBool) -> Option<BenchScores> {
    Some(BenchScores {
        integer: integer(end)?,
        float: float(end)?,
        memory: memory(end)?,
        disk: disk(dir, end).unwrap_or(Some(0))?,
    })
}

/// Repeats `work`, which says how much it did, for [`SPAN`]; gives the amount per second.
fn per_second(end: &AtomicBool, mut work: impl FnMut() -> u64) -> Option<f64> {
    let since = Instant::now();
    let mut done = 0;
    while since.elapsed() < SPAN {
        if end.load(Ordering::Relaxed) {
            return None;
        }
        done += work();
    }
    Some(done as f64 / since.elapsed().as_secs_f64())
}

/// Millions of rounds per second of multiplying, shifting and looking up, each waiting for the last, as in
/// hashing and parsing.
fn integer(end: &AtomicBool) -> Option<u64> {
    let table: Vec<u64> = (0..1024u64)
        .map(|at| at.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .collect();
    let mut state = black_box(1u64);
    let rounds = per_second(end, || {
        for _ in 0..ROUNDS {
            state ^= state << 13;
            state ^= state >> 7;
            state = state.wrapping_add(table[(state & 1023) as usize]);
        }
        ROUNDS
    })?;
    black_box(state);
    Some((rounds / 1e6) as u64)
}

/// Millions of multiplications and additions per second, in eight chains that do not wait for each other.
fn float(end: &AtomicBool) -> Option<u64> {
    let mut chains = black_box([1.0f64, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]);
    let rounds = per_second(end, || {
        for _ in 0..ROUNDS {
            for chain in &mut chains {
                *chain = *chain * 0.999_999 + 1e-6;
            }
        }
        ROUNDS * chains.len() as u64
    })?;
    black_box(chains);
    Some((rounds / 1e6) as u64)
}

/// MiB copied per second, within memory.
fn memory(end: &AtomicBool) -> Option<u64> {
    let (mut from, mut to) = (vec![1u8; MEMORY_BYTES], vec![0u8; MEMORY_BYTES]);
    // Pages are given at the first touch: that is not to be measured.
    to.copy_from_slice(&from);
    let bytes = per_second(end, || {
        to.copy_from_slice(black_box(&from));
        std::mem::swap(&mut from, &mut to);
        MEMORY_BYTES as u64
    })?;
    black_box((&from, &to));
    Some((bytes / f64::from(1 << 20)) as u64)
}

/// MiB per second that the disk takes and keeps.
fn disk(dir: &Path, end: &AtomicBool) -> std::io::Result<Option<u64>> {
    let path = dir.join(".hedge-bench");
    let mut file = std::fs::File::create(&path)?;
    // It lasts no longer than this, however this process ends.
    std::fs::remove_file(&path)?;
    // Not all alike: some disks make light of that.
    let mut state = 1u64;
    let block: Vec<u8> = (0..DISK_BYTES)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 56) as u8
        })
        .collect();
    let since = Instant::now();
    let mut written = 0u64;
    while since.elapsed() < SPAN && written < DISK_BYTES_MAX {
        if end.load(Ordering::Relaxed) {
            return Ok(None);
        }
        file.rewind()?;
        file.write_all(&block)?;
        file.sync_data()?;
        written += DISK_BYTES as u64;
    }
    let seconds = since.elapsed().as_secs_f64();
    Ok(Some(
        (written as f64 / f64::from(1 << 20) / seconds).ceil() as u64
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_scores() {
        let folder = tempfile::tempdir().unwrap();
        let go_on = AtomicBool::new(false);
        let scores = run(folder.path(), &go_on).unwrap();
        println!("{scores:?}");
        assert!(scores.integer > 0 && scores.float > 0 && scores.memory > 0 && scores.disk > 0);
        assert!(
            std::fs::read_dir(folder.path()).unwrap().next().is_none(),
            "nothing is left"
        );
        assert!(disk(Path::new("/proc/nowhere"), &go_on).is_err());
    }

    #[test]
    fn kernels_that_are_to_end_say_nothing() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(run(folder.path(), &AtomicBool::new(true)), None);
    }
}
