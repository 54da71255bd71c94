//! The same work for many files, on all processors.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads that work on files at a time, each with two files open and a buffer of 1 MiB at most.
pub(super) const THREADS_MAX: usize = 16;
/// Most items that a thread takes at once.
const TAKEN_MAX: usize = 16;

thread_local! {
    /// Whether this thread was started by [`map`]: what it maps itself it does alone.
    static STARTED: Cell<bool> = const { Cell::new(false) };
}

/// Applies `work` to each item on at most `threads_max` threads; the results are in the items' order. Each thread has a
/// buffer of its own. Blocks.
pub fn map<T: Sync, R: Send>(
    items: &[T],
    threads_max: usize,
    work: impl Fn(&T, &mut Vec<u8>) -> R + Sync,
) -> Vec<R> {
    // The system reads files to tell how many processors there are.
    let cores = || std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = match items.len() {
        0 | 1 => 1,
        _ if STARTED.get() => 1,
        count => cores().min(threads_max).min(count),
    };
    if threads <= 1 {
        let mut buffer = Vec::new();
        return items.iter().map(|item| work(item, &mut buffer)).collect();
    }
    let taken_at_once = (items.len() / (8 * threads)).clamp(1, TAKEN_MAX);
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                STARTED.set(true);
                let mut buffer = Vec::new();
                loop {
                    let at = next.fetch_add(taken_at_once, Ordering::Relaxed);
                    let Some(taken) = items.get(at..items.len().min(at + taken_at_once)) else {
                        return;
                    };
                    let results: Vec<R> =
                        taken.iter().map(|item| work(item, &mut buffer)).collect();
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push((at, results));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().flat_map(|(_, results)| results).collect()
}
