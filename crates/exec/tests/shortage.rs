//! A machine that is short of descriptors or processes: attempts wait for others to end, or are given back as the
//! machine's fault; none fails.
#![allow(missing_docs)]

mod common;

use common::{grid, grid_with, sh};
use hedge_exec::{Running, Spawner};
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use rustix::process::{Pid, Resource, Rlimit};
use std::sync::Arc;
use tempfile::TempDir;

/// The process that starts attempts, below the spawner's watcher.
fn starter(spawner: &Spawner) -> Pid {
    let watcher = spawner.process();
    let children = std::fs::read_to_string(format!("/proc/{watcher}/task/{watcher}/children"));
    let first = children.unwrap().split(' ').next().unwrap().parse();
    Pid::from_raw(first.unwrap()).unwrap()
}

/// Sets the limit that counts; gives the one before.
fn set(pid: Pid, resource: Resource, current: Option<u64>) -> Option<u64> {
    let old = rustix::process::prlimit(
        Some(pid),
        resource,
        Rlimit {
            current,
            maximum: rustix::process::getrlimit(resource).maximum,
        },
    );
    old.unwrap().current
}

/// Leaves so many descriptors to the process.
fn leave_files(pid: Pid, count: u64) {
    let open = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    set(pid, Resource::Nofile, Some(open.count() as u64 + count));
}

fn is_short(ending: &Ending, wanted: Shortage) -> bool {
    matches!(ending, Ending::Short { of, .. } if *of == wanted)
}

#[tokio::test]
async fn attempts_wait_for_the_descriptors_of_others() {
    let grid = Arc::new(grid().await);
    leave_files(starter(&grid.spawner), 40);
    let mut all = tokio::task::JoinSet::new();
    for number in 1..=40 {
        let grid = grid.clone();
        all.spawn(async move {
            // On a busy machine some may wait for too long, and then are given back.
            loop {
                let exit = grid.sh(&format!("sleep 0.02; exit {number}")).await;
                match &exit.outcome {
                    Err(ending) if is_short(ending, Shortage::Files) => {}
                    outcome => return assert_eq!(*outcome, common::exited(number)),
                }
            }
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert!(grid.left_over().is_empty());
}

#[tokio::test]
async fn what_finds_no_descriptors_is_given_back_and_the_rest_can_be_ended() {
    let grid = grid().await;
    leave_files(starter(&grid.spawner), 40);
    let sleep = common::odd_sleep();
    let mut running: Vec<(hedge_exec::Scratch, Running)> = Vec::new();
    for _ in 0..8 {
        let scratch = grid.scratch();
        let attempt = grid
            .spawner
            .launch(&scratch, sh(&format!("sleep {sleep}")))
            .await;
        running.push((scratch, attempt));
    }
    // They start in order: the last is the first that nothing is left for.
    let (_scratch, last) = running.pop().unwrap();
    match last.wait().await.outcome {
        Err(ending) => assert!(is_short(&ending, Shortage::Files), "{ending:?}"),
        Ok(()) => panic!("it slept for nothing"),
    }
    for (_scratch, attempt) in running {
        attempt.cancel();
        let ended = attempt.wait().await.outcome;
        assert!(
            matches!(&ended, Err(Ending::Cancelled | Ending::Short { .. })),
            "{ended:?}"
        );
    }
    common::until("all are gone", || common::able_with(&sleep).is_empty());
    assert_eq!(grid.sh("exit 0").await.outcome, Ok(()));
}

#[test]
fn a_machine_without_processes_gives_attempts_back_until_it_has_some() {
    let dir = TempDir::new().unwrap();
    let helper = common::public_helper(&dir);
    let base = dir.path().join("base");
    std::fs::create_dir(&base).unwrap();
    // The kernel does not limit root.
    common::without_privileges(&base, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let pool = hedge_exec::ScratchPool::open(base.join("scratch")).unwrap();
            let mut config = common::config(&pool);
            config.program.0 = helper;
            let spawner = Spawner::start(config).await.unwrap();
            let starter = starter(&spawner);
            let before = set(starter, Resource::Nproc, Some(0));
            let scratch = pool.create().unwrap();
            let exit = spawner.run(&scratch, sh("exit 0")).await;
            match &exit.outcome {
                Err(ending) => assert!(is_short(ending, Shortage::Processes), "{ending:?}"),
                Ok(()) => panic!("it ran"),
            }
            // One that waits runs as soon as there are some.
            let waiting = spawner.launch(&scratch, sh("exit 3")).await;
            set(starter, Resource::Nproc, before);
            assert_eq!(waiting.wait().await.outcome, common::exited(3));
        });
    });
}

#[tokio::test]
async fn a_spawner_that_died_is_the_workers_fault() {
    let grid = grid_with(|_| {}).await;
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh("sleep 1000")).await;
    rustix::process::kill_process(starter(&grid.spawner), rustix::process::Signal::KILL).unwrap();
    let ended = running.wait().await.outcome;
    assert!(matches!(&ended, Err(Ending::Worker { .. })), "{ended:?}");
    assert_eq!(grid.sh("exit 0").await.outcome, Ok(()));
}
