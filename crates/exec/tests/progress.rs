//! How far attempts are: what they use, write and say.

mod common;

use common::{Grid, grid, grid_with, sh, until};
use hedge_exec::Advanced;
use hedge_model::Ending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(1);

async fn work_is_seen_while_it_goes_on(grid: &Grid) {
    let script = "while [ ! -e stop ]; do echo something; done > out & \
                  (i=0; while [ ! -e stop ]; do i=$((i+1)); done) & wait";
    let scratch = grid.scratch();
    let last = Arc::new(Mutex::new(Advanced::default()));
    let hear = last.clone();
    grid.spawner.look_every(EVERY);
    let observer = move |to: Advanced| {
        let before = std::mem::replace(&mut *hear.lock().unwrap(), to);
        assert!(to.cpu >= before.cpu && to.written >= before.written);
    };
    let running = grid
        .spawner
        .launch_observed(&scratch, sh(script), observer)
        .await;
    until("a tenth of a second of work and 10 kB are seen", || {
        let last = last.lock().unwrap();
        last.cpu >= Duration::from_millis(100) && last.written >= 10_000
    });
    std::fs::write(scratch.folder().join("stop"), "").unwrap();
    let exit = running.wait().await;
    let last = last.lock().unwrap();
    let rounding = Duration::from_millis(50);
    assert!(last.cpu <= exit.usage.cpu + rounding, "{last:?} {exit:?}");
    assert_eq!((last.permille, last.waiting), (None, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_seen_in_the_sandbox() {
    work_is_seen_while_it_goes_on(&grid().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_seen_without_namespaces() {
    work_is_seen_while_it_goes_on(
        &grid_with(|config| common::allow_namespaces(config, false)).await,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_seen_without_a_sandbox() {
    work_is_seen_while_it_goes_on(&grid_with(|config| config.sandbox = false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_says_how_far_it_is_and_that_it_waits() {
    let grid = grid().await;
    // Each line is heard of before the next is written.
    let script = "say() { echo \"$1\" >&\"$HEDGE_PROGRESS_FD\"; read -r _ < answer; }; \
                  mkfifo answer; say 0.25; say 'waiting for a licence'; say on; say 1";
    let scratch = grid.scratch();
    let heard = Arc::new(Mutex::new(Vec::<Advanced>::new()));
    let hear = heard.clone();
    grid.spawner.look_every(EVERY);
    let running = grid
        .spawner
        .launch_observed(&scratch, sh(script), move |to| {
            hear.lock().unwrap().push(to)
        })
        .await;
    let answer = scratch.folder().join("answer");
    for (notes, permille, waiting) in [
        (1, Some(250), false),
        (2, Some(250), true),
        (3, Some(250), false),
        (4, Some(1000), false),
    ] {
        until("the line is heard of", || {
            let heard = heard.lock().unwrap();
            let with = |to: &&Advanced| to.notes == notes;
            heard
                .iter()
                .any(|to| with(&to) && (to.permille, to.waiting) == (permille, waiting))
        });
        std::fs::write(&answer, "go\n").unwrap();
    }
    assert_eq!(running.wait().await.outcome, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_gets_nowhere_is_not_spoken_of_and_a_paused_one_waits() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let heard = Arc::new(Mutex::new(Vec::<Advanced>::new()));
    let hear = heard.clone();
    grid.spawner.look_every(EVERY);
    let running = grid
        .spawner
        .launch_observed(&scratch, sh("echo > there; exec sleep 1000"), move |to| {
            hear.lock().unwrap().push(to);
        })
        .await;
    until("it runs", || scratch.folder().join("there").exists());
    // It gets nowhere when nothing is heard for as long as hundreds of looks take.
    let mut before = 0;
    loop {
        std::thread::sleep(EVERY * 300);
        let now = heard.lock().unwrap().len();
        if now == before {
            break;
        }
        before = now;
    }
    grid.spawner.pause(true).await.unwrap();
    until("it is said to wait", || {
        heard.lock().unwrap().last().is_some_and(|to| to.waiting)
    });
    grid.spawner.pause(false).await.unwrap();
    until("it is said to go on", || {
        heard.lock().unwrap().last().is_some_and(|to| !to.waiting)
    });
    running.cancel();
    assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_may_say_more_than_is_understood() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let last = Arc::new(Mutex::new(Advanced::default()));
    let hear = last.clone();
    grid.spawner.look_every(EVERY);
    let script = "yes 'a long line that says nothing' | head -n 100000 >&\"$HEDGE_PROGRESS_FD\"; \
                  echo 0.5 >&\"$HEDGE_PROGRESS_FD\"; while [ ! -e stop ]; do sleep 0.01; done";
    let observer = move |to| *hear.lock().unwrap() = to;
    let running = grid
        .spawner
        .launch_observed(&scratch, sh(script), observer)
        .await;
    until("all of it is heard", || {
        let last = last.lock().unwrap();
        (last.permille, last.notes) == (Some(500), 100_001)
    });
    std::fs::write(scratch.folder().join("stop"), "").unwrap();
    assert_eq!(running.wait().await.outcome, Ok(()));
}
