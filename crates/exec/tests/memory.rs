//! The memory of stopped attempts, left to others while they are stopped.

mod common;

use common::{HELPER, grid_with, odd_sleep, out, processes_with, until};
use hedge_exec::{Launch, SpawnerConfig};
use std::fs::File;
use std::io::Write;
use std::path::Path;

/// What the task holds of a file, and as much again of its own, bytes.
const HELD: usize = 24 << 20;
/// Pages that may stay, KiB: of the program itself, and what the kernel is just busy with.
const STAY_KIB: u64 = 8 << 10;

/// Resident memory of a process, KiB: its own and of files.
fn resident(pid: i32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
    };
    (of("RssAnon:").unwrap_or(0), of("RssFile:").unwrap_or(0))
}

/// Whether these tests have what the kernel wants for it.
fn may_push_out() -> bool {
    const CAP_SYS_NICE: u64 = 1 << 23;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    u64::from_str_radix(held.unwrap().trim(), 16).unwrap() & CAP_SYS_NICE != 0
}

/// Whether there is swap with room to spare for what these tests hold.
fn has_swap() -> bool {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = memory
        .lines()
        .find_map(|line| line.strip_prefix("SwapFree:"));
    let free: u64 = free
        .and_then(|free| free.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0);
    free >> 10 >= 8 * (HELD as u64 >> 20)
}

/// Stops a task that holds memory; says what it held before and gives what is left the chance to be seen by `left`,
/// which is told how much that is.
async fn stopped(
    change: impl FnOnce(&mut SpawnerConfig),
    left: impl Fn(&common::Grid, (u64, u64), &dyn Fn() -> (u64, u64)),
) {
    // Where the target folder is, rather than where temporary files are, which may be memory itself.
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = folder.path().join("file");
    let mut written = File::create(&file).unwrap();
    written.write_all(&vec![7; HELD]).unwrap();
    written.sync_all().unwrap();
    let grid = grid_with(|config| {
        config.read_only = vec![HELPER.into(), file.clone()];
        change(config);
    })
    .await;
    let scratch = grid.scratch();
    let program = Path::new(HELPER).file_name().unwrap().to_str().unwrap();
    let mark = odd_sleep();
    let args = ["hold", file.to_str().unwrap(), &mark];
    let launch = Launch::new(program, args);
    let running = grid.spawner.launch(&scratch, launch).await;
    until("the task holds its memory", || {
        scratch.folder().join("held").exists()
    });
    let pid = *processes_with(&mark).first().unwrap();
    let held = resident(pid);
    let all = HELD as u64 >> 10;
    let enough = |kib: u64| kib + STAY_KIB >= all;
    assert!(enough(held.0) && enough(held.1), "{held:?} KiB");
    grid.spawner.pause(true).await.unwrap();
    left(&grid, held, &|| resident(pid));
    grid.spawner.pause(false).await.unwrap();
    std::fs::write(scratch.folder().join("stop"), "").unwrap();
    let exit = running.wait().await;
    assert_eq!(exit.outcome, Ok(()), "{exit:?}");
    assert_eq!(out(&exit), format!("{} {}", HELD * 7, HELD * 3));
}

async fn memory_is_freed_and_comes_back(namespaces: bool) {
    let asked = |config: &mut SpawnerConfig| {
        config.free_memory = true;
        common::allow_namespaces(config, namespaces);
    };
    let freed = |grid: &common::Grid, held: (u64, u64), now: &dyn Fn() -> (u64, u64)| {
        assert_eq!(grid.spawner.may_free_memory(), may_push_out());
        if !may_push_out() {
            eprintln!(
                "not freed here, for want of CAP_SYS_NICE: only that this is known is tested"
            );
            return;
        }
        until("the file's pages are dropped", || {
            now().1 <= (held.1 + STAY_KIB).saturating_sub(HELD as u64 >> 10)
        });
        if has_swap() {
            until("its own are in swap", || now().0 <= STAY_KIB);
        } else {
            eprintln!("this machine has not enough swap: pages of files alone are tested");
        }
    };
    stopped(asked, freed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_stopped_tasks_is_freed_where_the_owner_asks_for_it() {
    memory_is_freed_and_comes_back(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_stopped_tasks_is_freed_without_namespaces_too() {
    memory_is_freed_and_comes_back(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_stopped_tasks_is_left_alone_by_default() {
    let left = |_: &common::Grid, held: (u64, u64), now: &dyn Fn() -> (u64, u64)| {
        // Nothing can show that nothing happens but a while in which it does not.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(now().1 + STAY_KIB >= held.1, "{:?} of {held:?} KiB", now());
    };
    stopped(|_| {}, left).await;
}
