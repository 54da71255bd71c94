//! Trims the heap, so that the process returns free memory to the system.

use std::time::{Duration, Instant};

/// Interval between trims. A trim walks all free lists and takes about 1 ms for each MB that it returns.
const TRIM_EVERY: Duration = Duration::from_secs(30);

/// Trims the heap at intervals; does nothing with other allocators than glibc's. A supervisor's state is many small
/// blocks, and jobs end in any order: once jobs are removed, the allocator keeps the free pages between blocks in use.
#[derive(Debug)]
pub(crate) struct HeapTrimmer {
    next: Instant,
}

impl HeapTrimmer {
    pub fn new() -> Self {
        Self {
            next: Instant::now() + TRIM_EVERY,
        }
    }

    /// Trims, on a blocking thread, if it is time.
    pub fn trim_if_due(&mut self) {
        let now = Instant::now();
        if cfg!(target_env = "gnu") && now >= self.next {
            self.next = now + TRIM_EVERY;
            tokio::task::spawn_blocking(trim);
        }
    }
}

fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: any argument is valid; the call returns only pages without a block in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
