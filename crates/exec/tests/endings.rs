//! Whatever dies, what hangs below it ends too, and nothing is left behind.
#![allow(missing_docs)]

mod common;

use common::{HELPER, able_with, grid, grid_with, odd_sleep, out, processes_with, sh, until};
use hedge_exec::Launch;
use hedge_model::Ending;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The promise is 50 ms, which only a quiet machine shows: the tests print what it was, and fail where something waits
/// that should not.
const CANCEL_MAX: Duration = Duration::from_secs(10);

/// A tree of five processes, three of which make themselves daemons in different ways.
fn tree(sleep: &str) -> String {
    format!(
        "setsid sleep {sleep} & (setsid sh -c 'sleep {sleep} & sleep {sleep}' &) ; (sleep {sleep} &) ; \
         env -i /usr/bin/setsid /usr/bin/sleep {sleep} & sleep {sleep}"
    )
}

const TREE_SIZE: usize = 6;

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_ends_a_tree_with_daemons_within_50_ms() {
    for (sandbox, namespaces) in [(true, true), (true, false), (false, false)] {
        let grid = grid_with(|config| {
            config.sandbox = sandbox;
            common::allow_namespaces(config, namespaces);
        })
        .await;
        let sleep = odd_sleep();
        let scratch = grid.scratch();
        let running = grid.spawner.launch(&scratch, sh(&tree(&sleep))).await;
        // The shell's own command line holds the number too.
        until("the tree stands", || sleepers(&sleep) >= TREE_SIZE);
        let since = Instant::now();
        running.cancel();
        let exit = running.wait().await;
        let took = since.elapsed();
        println!("cancel, sandbox {sandbox}, namespaces {namespaces}: {took:?}");
        assert_eq!(exit.outcome, Err(Ending::Cancelled));
        assert_eq!(
            able_with(&sleep),
            Vec::<i32>::new(),
            "{sandbox} {namespaces}"
        );
        assert!(took < CANCEL_MAX, "{took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_attempt_leaves_behind_ends_before_its_report() {
    let grid = grid().await;
    let sleep = odd_sleep();
    let other = odd_sleep();
    let kept_scratch = grid.scratch();
    let kept = grid.spawner.launch(&kept_scratch, sh(&tree(&other))).await;
    until("the other tree stands", || sleepers(&other) >= TREE_SIZE);
    for _ in 0..5 {
        let script = format!("setsid sleep {sleep} & (setsid sleep {sleep} &); exit 4");
        assert_eq!(grid.sh(&script).await.outcome, common::exited(4));
        assert_eq!(able_with(&sleep), Vec::<i32>::new());
    }
    assert!(
        sleepers(&other) >= TREE_SIZE,
        "another attempt's daemons must live on"
    );
    kept.cancel();
    assert_eq!(kept.wait().await.outcome, Err(Ending::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_keeps_forking_is_ended() {
    let grid = grid().await;
    let sleep = odd_sleep();
    let scratch = grid.scratch();
    let script = format!(
        "f() {{ while :; do (setsid sh -c 'sleep 0.01; : {sleep}' &) ; done; }}; f & f & f"
    );
    let running = grid.spawner.launch(&scratch, sh(&script)).await;
    until("it forks", || processes_with(&sleep).len() > 10);
    running.cancel();
    assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
    until("all have ended", || processes_with(&sleep).is_empty());
}

/// A killed process at idle priority dies only when it gets the processor; the report does not wait.
#[tokio::test(flavor = "multi_thread")]
async fn cancelling_is_quick_on_a_busy_machine() {
    let grid = grid().await;
    let busy = Arc::new(AtomicBool::new(true));
    let count = std::thread::available_parallelism().unwrap().get();
    for _ in 0..count {
        let busy = busy.clone();
        std::thread::spawn(move || while busy.load(Ordering::Relaxed) {});
    }
    let mut took = Vec::new();
    for _ in 0..8 {
        let scratch = grid.scratch();
        let running = grid
            .spawner
            .launch(&scratch, sh("touch begun; while :; do :; done"))
            .await;
        until("it runs", || scratch.folder().join("begun").exists());
        let since = Instant::now();
        running.cancel();
        let exit = running.wait().await;
        took.push(since.elapsed());
        assert_eq!(exit.outcome, Err(Ending::Cancelled));
        drop(scratch);
    }
    busy.store(false, Ordering::Relaxed);
    println!("cancel on a busy machine: {took:?}");
    took.sort();
    assert!(took[took.len() / 2] < CANCEL_MAX, "{took:?}");
    assert!(grid.left_over().is_empty());
}

/// Where the kernel's mark is not to be had, which is for an ordinary user without namespaces.
#[test]
fn an_ordinary_users_daemons_end_with_their_attempt_too() {
    for setting in ["", "no-namespaces", "no-sandbox"] {
        let dir = TempDir::new().unwrap();
        let base = dir.path().join("base");
        std::fs::create_dir(&base).unwrap();
        let (sleep, shed) = (odd_sleep(), odd_sleep());
        let script = format!(
            "setsid sleep {sleep} & (setsid sleep {sleep} &); env -i setsid sleep {shed} & exit 4"
        );
        let mut command = Command::new(common::public_helper(&dir));
        command
            .arg("worker")
            .arg(&base)
            .args([&script, "linger", setting])
            .current_dir("/");
        common::as_ordinary_user(&mut command, &[&base]);
        let mut worker = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(worker.stdout.take().unwrap()).lines();
        let told: Vec<String> = lines
            .map_while(Result::ok)
            .take_while(|line| line != "lingering")
            .collect();
        assert!(
            told.contains(&"outcome it ended with exit code 4".to_owned()),
            "{told:?}"
        );
        // The worker's own command line holds the number.
        let able = able_with(&sleep);
        assert_eq!(able, [worker.id() as i32], "{setting}");
        // Without a mark that cannot be shed it takes a moment.
        until("the one that hid has ended", || sleepers(&shed) == 0);
        drop(worker.stdin.take());
        assert!(worker.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_are_cancelled_at_once() {
    let grid = grid().await;
    let sleep = odd_sleep();
    let mut all = Vec::new();
    for _ in 0..200 {
        let scratch = grid.scratch();
        let launch = sh(&format!("setsid sleep {sleep} & sleep {sleep}"));
        all.push((grid.spawner.launch(&scratch, launch).await, scratch));
    }
    until("all run", || sleepers(&sleep) == 400);
    let since = Instant::now();
    all.iter().for_each(|(running, _)| running.cancel());
    for (running, _scratch) in all {
        assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
    }
    println!("200 attempts cancelled: {:?}", since.elapsed());
    assert_eq!(able_with(&sleep), Vec::<i32>::new());
    assert!(since.elapsed() < CANCEL_MAX * 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_before_the_start_and_after_the_end_is_harmless() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh("sleep 1000")).await;
    running.cancel();
    running.cancel();
    assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
    let running = grid.spawner.launch(&scratch, sh("exit 0")).await;
    let id = running.id();
    assert_eq!(running.wait().await.outcome, Ok(()));
    grid.spawner.cancel(id);
    grid.spawner.cancel(id + 1000);
    assert_eq!(grid.sh("exit 5").await.outcome, common::exited(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_an_attempt_ends_it() {
    let grid = grid().await;
    let sleep = odd_sleep();
    let scratch = grid.scratch();
    let running = grid
        .spawner
        .launch(&scratch, Launch::new("sleep", [sleep.clone()]))
        .await;
    until("it runs", || !processes_with(&sleep).is_empty());
    drop(running);
    until("it has ended", || processes_with(&sleep).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_not_used_again_while_an_attempt_runs_in_it() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let folder = scratch.folder();
    let running = grid
        .spawner
        .launch(&scratch, sh("echo x > f; sleep 1000"))
        .await;
    until("it runs", || folder.join("f").exists());
    drop(scratch);
    assert_ne!(grid.scratch().folder(), folder);
    assert!(folder.join("f").exists());
    running.cancel();
    running.wait().await;
    assert!(grid.left_over().is_empty());
}

#[test]
fn a_killed_worker_takes_its_attempts_along() {
    for setting in ["", "no-namespaces", "no-sandbox"] {
        let sleep = odd_sleep();
        let dir = TempDir::new().unwrap();
        let mut worker = worker(&dir, &tree(&sleep), setting);
        until("the tree stands", || sleepers(&sleep) >= TREE_SIZE);
        let since = Instant::now();
        worker.kill().unwrap();
        worker.wait().unwrap();
        // The worker's own command line held the number; it is gone now.
        until("all have ended", || processes_with(&sleep).is_empty());
        println!("worker killed, {setting:?}: {:?}", since.elapsed());
        // Nothing keeps the folder: another worker can take it over, and finds it empty.
        until("the folder is free", || {
            hedge_exec::ScratchPool::open(dir.path().join("base")).is_ok()
        });
        assert!(common::files_below(&dir.path().join("base")).is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_spawner_is_reported_and_replaced() {
    for namespaces in [true, false] {
        for outer in [true, false] {
            let grid = grid_with(|config| common::allow_namespaces(config, namespaces)).await;
            let sleep = odd_sleep();
            let scratch = grid.scratch();
            let running = grid.spawner.launch(&scratch, sh(&tree(&sleep))).await;
            until("the tree stands", || sleepers(&sleep) >= TREE_SIZE);
            let watcher = grid.spawner.process() as i32;
            let target = if outer { watcher } else { child_of(watcher) };
            let since = Instant::now();
            kill(target);
            let exit = running.wait().await;
            println!(
                "spawner killed, namespaces {namespaces}, outer {outer}: {:?}",
                since.elapsed()
            );
            assert!(
                matches!(exit.outcome, Err(Ending::Worker { .. })),
                "{exit:?}"
            );
            // Without namespaces nobody is left to end daemons when the watcher is the one that dies.
            if namespaces || !outer {
                until("all have ended", || processes_with(&sleep).is_empty());
            } else {
                processes_with(&sleep).into_iter().for_each(kill);
            }
            drop(scratch);
            let exit = grid.sh("echo again").await;
            assert_eq!(out(&exit), "again\n", "{exit:?}");
            assert_ne!(grid.spawner.process() as i32, watcher);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_the_spawner_ends_everything() {
    let grid = grid().await;
    let sleep = odd_sleep();
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh(&tree(&sleep))).await;
    until("the tree stands", || sleepers(&sleep) >= TREE_SIZE);
    grid.spawner.stop().await;
    assert_eq!(able_with(&sleep), Vec::<i32>::new());
    assert!(matches!(
        running.wait().await.outcome,
        Err(Ending::Worker { .. })
    ));
}

#[test]
fn the_spawner_refuses_to_run_without_a_worker() {
    let done = Command::new(HELPER)
        .arg(hedge_exec::spawner::ARGUMENT)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("for the worker"));
}

/// Starts a worker that runs a script, and returns when it has begun.
fn worker(dir: &TempDir, script: &str, setting: &str) -> Child {
    let mut worker = Command::new(HELPER)
        .arg("worker")
        .arg(dir.path().join("base"))
        .args([script, setting])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(worker.stdout.as_mut().unwrap()).lines();
    let begun = lines
        .map_while(Result::ok)
        .any(|line| line.starts_with("folder"));
    assert!(begun, "the worker did not begin");
    worker
}

/// How many processes sleep for that long: programs, not the shells that name it.
fn sleepers(sleep: &str) -> usize {
    let is_sleep = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.trim() == "sleep")
    };
    processes_with(sleep)
        .iter()
        .filter(|pid| is_sleep(pid))
        .count()
}

fn child_of(pid: i32) -> i32 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    text.trim().parse().unwrap()
}

fn kill(pid: i32) {
    let status = Command::new("kill")
        .args(["-KILL", &pid.to_string()])
        .status()
        .unwrap();
    assert!(status.success());
}
