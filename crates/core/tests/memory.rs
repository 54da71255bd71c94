//! What waiting tasks cost the supervisor.

mod support;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;

/// Counts the bytes that are allocated.
struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator; only sums are kept.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const TASKS: u32 = 100_000;

#[test]
fn a_hundred_thousand_waiting_tasks_take_little_memory() {
    let measure = |name: &str, groups: fn() -> Vec<hedge_model::spec::Group>| {
        let mut rig = Rig::new();
        let before = BYTES.load(Ordering::Relaxed);
        rig.submit(1, 1, &plain(groups()));
        rig.commit();
        rig.expect(&["append accepted", "client 1 #1: accepted 1"]);
        let bytes = BYTES.load(Ordering::Relaxed) - before;
        let each = bytes / TASKS as usize;
        println!(
            "{name}: {TASKS} waiting tasks take {} KiB, {each} B each",
            bytes >> 10
        );
        bytes
    };
    let array_bytes = measure("one array", || vec![array(TASKS, group("a", &[]))]);
    let group_bytes = measure("single tasks", || {
        (0..TASKS).map(|at| group(&format!("t{at}"), &[])).collect()
    });
    assert!(array_bytes < 4 << 20, "{array_bytes} bytes");
    assert!(group_bytes < 72 << 20, "{group_bytes} bytes");
}
