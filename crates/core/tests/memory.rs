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

/// What retention counts for a job (`JOB_BYTES` and its like) is to be no less than what the job takes.
#[test]
fn an_ended_job_takes_little_memory_and_none_once_it_is_removed() {
    const JOBS: u64 = 5_000;
    let mut state = hedge_core::supervisor::State::default();
    let before = BYTES.load(Ordering::Relaxed);
    for number in 1..=JOBS {
        small_job(number, &mut state);
    }
    let each = (BYTES.load(Ordering::Relaxed) - before) / JOBS as usize;
    println!("{JOBS} ended jobs of one task take {each} B each");
    assert!(each < 4 << 10, "{each} bytes, more than retention counts");
    for number in 1..=JOBS {
        let at = hedge_model::Time(number);
        let job = hedge_model::JobId(number);
        state.apply(&hedge_model::record::Record::JobForgotten { job, at });
    }
    let left = BYTES.load(Ordering::Relaxed) - before;
    println!("{left} B are left of them");
    assert!(left < 64 << 10, "{left} bytes");
}

fn small_job(number: u64, state: &mut hedge_core::supervisor::State) {
    use hedge_model::record::{JobEnd, Record};
    let at = hedge_model::Time(number);
    let job = hedge_model::JobId(number);
    let mut key = hedge_model::SubmitKey([0; 16]);
    key.0[..8].copy_from_slice(&number.to_le_bytes());
    let accepted = Record::JobAccepted {
        key,
        client: client(1),
        spec: plain(vec![group("a", &[])]),
        at,
    };
    let done = Record::TaskDone {
        attempt: hedge_model::AttemptId {
            task: hedge_model::TaskId { job, number: 0 },
            generation: 0,
            epoch: hedge_model::Epoch(1),
            number: 1,
        },
        redundant: false,
        worker: worker(1),
        outputs: [blob("out", number as u8)].into(),
        usage: Default::default(),
        class: hedge_model::capacity::Class::Normal,
        stopped: Vec::new(),
        log: None,
        at,
    };
    let ended = Record::JobEnded {
        job,
        end: JobEnd::Done,
        stopped: Vec::new(),
        at,
    };
    for record in [accepted, done, ended] {
        state.apply(&record);
    }
}
