//! Tasks that write more than they may: each is told the limit, and some of the disk stays free.
#![allow(missing_docs)]

mod common;

use common::{err, grid_with, sh};
use hedge_exec::{Exit, Launch, Limits, ScratchPool, Spawner};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: u64 = 1 << 20;

/// Ways to write more than `LIMIT`: what a program does about it differs.
const WAYS: &[(&str, &str)] = &[
    ("the signal ends it", "exec head -c 3000000 /dev/zero > big"),
    (
        "the signal ends its child",
        "head -c 3000000 /dev/zero > big",
    ),
    (
        "the same, cleaned up",
        "head -c 3000000 /dev/zero > big; code=$?; rm big; exit $code",
    ),
    (
        "the same, in the middle of a pipe",
        "set -o pipefail; yes | head -c 3000000 | dd of=big bs=64k 2> /dev/null",
    ),
    (
        "an error that it does not handle",
        "exec python3 -c 'open(\"big\", \"wb\").write(bytes(3000000))'",
    ),
    (
        "an error that it handles",
        "exec python3 -c '
import os, sys
try: open(\"big\", \"wb\").write(bytes(3000000))
except OSError as error: os.unlink(\"big\"); sys.exit(str(error))'",
    ),
    ("a file with a hole", "exec truncate -s 3000000 big"),
    (
        "many files",
        "for i in 1 2 3 4; do head -c 900000 /dev/zero > $i; done",
    ),
    (
        "many files, and it fails",
        "for i in 1 2 3 4; do head -c 900000 /dev/zero > $i; done; exit 3",
    ),
    (
        "files that have no name any more, and it goes on",
        "for i in 3 4 5 6; do eval \"exec $i> x\"; head -c 900000 /dev/zero >&$i; rm x; done; sleep 1000",
    ),
    (
        "many files, and it goes on",
        "for i in 1 2 3 4; do head -c 900000 /dev/zero > $i; done; sleep 1000",
    ),
];

fn bash(script: &str) -> Launch {
    Launch::new("bash", ["-c", script])
}

fn asking(launch: Launch, disk: u64) -> Launch {
    let limits = Limits {
        disk: Some(disk),
        ..Limits::default()
    };
    Launch { limits, ..launch }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_writes_too_much_is_told_the_limit() {
    for namespaces in [true, false] {
        let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
        for (way, script) in WAYS {
            let scratch = grid.scratch();
            let exit = grid
                .spawner
                .run(&scratch, asking(bash(script), LIMIT))
                .await;
            let told = match &exit.outcome {
                Err(ending @ Ending::DiskLimit { limit, used }) => {
                    assert!(*limit == LIMIT && used >= limit, "{way}: {ending:?}");
                    ending.to_string()
                }
                other => panic!("{way}: {other:?} {}", err(&exit)),
            };
            assert!(
                told.starts_with("disk limit of 1 MiB exceeded: it used "),
                "{told}"
            );
        }
        // A failure of another kind stays what it is.
        let exit = grid
            .spawner
            .run(&grid.scratch(), asking(sh("exit 3"), LIMIT))
            .await;
        assert_eq!(exit.outcome, common::exited(3));
    }
}

/// Runs the rest of the named test on a disk of 16 MiB, in a mount namespace; `None` in the process outside.
fn small_disk(test: &str) -> Option<std::path::PathBuf> {
    if let Some(base) = std::env::var_os("HEDGE_TEST_SMALL_DISK") {
        return Some(base.into());
    }
    let dir = TempDir::new().unwrap();
    let script = "mount -t tmpfs -o size=16m none \"$HEDGE_TEST_SMALL_DISK\" && exec \"$0\" --exact \"$1\" --nocapture";
    let status = Command::new("unshare")
        .args(["-Urm", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env("HEDGE_TEST_SMALL_DISK", dir.path())
        .status();
    assert!(status.unwrap().success());
    None
}

fn free(folder: &Path) -> u64 {
    let about = rustix::fs::statvfs(folder).unwrap();
    about.f_bavail * about.f_frsize
}

/// A worker that offers all of its disk to each attempt.
async fn worker(base: &Path) -> (ScratchPool, Spawner) {
    let pool = ScratchPool::open(base.join("scratch")).unwrap();
    let mut config = common::config(&pool);
    config.disk_max = Some(16 << 20);
    config.accept_weak = true;
    let spawner = Spawner::start(config).await.unwrap();
    (pool, spawner)
}

fn assert_told(exit: &Exit) {
    let Err(ending @ Ending::DiskLimit { limit, used }) = &exit.outcome else {
        panic!("{:?} {}", exit.outcome, err(exit));
    };
    assert!(*used >= *limit && *limit < 16 << 20, "{ending:?}");
    assert!(ending.to_string().starts_with("disk limit of "), "{ending}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_disk_stays_free_for_its_owner() {
    let Some(base) = small_disk("a_part_of_the_disk_stays_free_for_its_owner") else {
        return;
    };
    let (pool, spawner) = worker(&base).await;
    // Files are made of whole pages.
    let reserve = (16 << 20) / 20 - 4096;
    // One file is stopped before the disk is full, whatever the program does then.
    for script in [
        "exec head -c 20000000 /dev/zero > big",
        "head -c 20000000 /dev/zero > big",
        "exec python3 -c 'open(\"big\", \"wb\").write(bytes(20000000))'",
    ] {
        let scratch = pool.create().unwrap();
        let exit = spawner.run(&scratch, bash(script)).await;
        assert!(free(&base) >= reserve, "{script}: {}", free(&base));
        assert_told(&exit);
        drop(scratch);
        common::until("the files are removed", || {
            pool.cleaning() == 0 && free(&base) > 15 << 20
        });
    }
    // Many files reach into the reserve for a moment: the task that has most is ended, and no other.
    let (greedy, modest) = (pool.create().unwrap(), pool.create().unwrap());
    let script =
        "head -c 100000 /dev/zero > some; until [ -e go ]; do sleep 0.01; done; cat some > more";
    let modest_one = spawner.launch(&modest, sh(script)).await;
    let script = "i=0; while :; do head -c 1000000 /dev/zero > $i 2> /dev/null; i=$((i+1)); [ $i -lt 30 ] || sleep 1000; done";
    let exit = spawner.run(&greedy, bash(script)).await;
    assert_told(&exit);
    drop(greedy);
    common::until("the files are removed", || free(&base) >= reserve);
    std::fs::write(modest.folder().join("go"), "").unwrap();
    let exit = modest_one.wait().await;
    assert_eq!(exit.outcome, Ok(()), "{}", err(&exit));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_less_than_a_task_asked_for_is_the_machines_fault() {
    let Some(base) = small_disk("a_disk_with_less_than_a_task_asked_for_is_the_machines_fault")
    else {
        return;
    };
    let (pool, spawner) = worker(&base).await;
    std::fs::write(base.join("of the owner"), vec![1; 8 << 20]).unwrap();
    for script in [
        "exec head -c 10000000 /dev/zero > big",
        "head -c 10000000 /dev/zero > big; code=$?; rm big; exit $code",
        "exec python3 -c 'open(\"big\", \"wb\").write(bytes(10000000))'",
        "i=0; while :; do head -c 1000000 /dev/zero > $i 2> /dev/null; i=$((i+1)); [ $i -lt 30 ] || sleep 1000; done",
    ] {
        let scratch = pool.create().unwrap();
        let exit = spawner.run(&scratch, asking(bash(script), 12 << 20)).await;
        assert!(
            matches!(
                exit.outcome,
                Err(Ending::Short {
                    of: Shortage::Disk,
                    ..
                })
            ),
            "{script}: {:?} {}",
            exit.outcome,
            err(&exit)
        );
        drop(scratch);
        let since = std::time::Instant::now();
        while free(&base) < 7 << 20 && since.elapsed() < common::PATIENCE {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
