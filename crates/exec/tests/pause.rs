//! Attempts stopped where they are, and let go on.

mod common;

use common::{grid, grid_with, out, sh, until};
use hedge_exec::{Launch, Limits, Outcome};
use std::time::{Duration, Instant};

/// Counts in a file of its folder, a child and a daemon beside it.
const COUNTING: &str = "count() { while :; do echo >> $1; done; }; \
                        count a & setsid -f sh -c 'while :; do echo >> b; done'; \
                        while [ ! -e stop ]; do echo >> c; done; wc -l < c";

/// Sizes of the files that [`COUNTING`] writes.
fn sizes(folder: &std::path::Path) -> [u64; 3] {
    ["a", "b", "c"].map(|name| std::fs::metadata(folder.join(name)).map_or(0, |about| about.len()))
}

async fn whole_tree_stops_and_goes_on(grid: &common::Grid) {
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh(COUNTING)).await;
    let folder = scratch.folder().to_owned();
    until("all three write", || {
        sizes(&folder).iter().all(|size| *size > 100)
    });
    grid.spawner.pause(true).await.unwrap();
    let stopped = sizes(&folder);
    // Nothing can show that nothing happens but a while in which it does not.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(sizes(&folder), stopped, "a process went on");
    grid.spawner.pause(false).await.unwrap();
    until("all three go on", || {
        sizes(&folder)
            .iter()
            .zip(stopped)
            .all(|(now, then)| *now > then)
    });
    std::fs::write(folder.join("stop"), "").unwrap();
    let exit = running.wait().await;
    assert_eq!(exit.outcome, Outcome::Exited(0));
    assert!(
        exit.usage.paused >= Duration::from_millis(300),
        "{:?}",
        exit.usage
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_stops_and_goes_on() {
    whole_tree_stops_and_goes_on(&grid().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_tree_stops_and_goes_on_without_namespaces() {
    whole_tree_stops_and_goes_on(&grid_with(|config| config.namespaces = false).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_time_does_not_count_towards_the_limit() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let limit = Duration::from_secs(5);
    let launch = Launch {
        limits: Limits {
            time: Some(limit),
            ..Limits::default()
        },
        ..sh("while [ ! -e stop ]; do sleep 0.01; done")
    };
    let since = Instant::now();
    let running = grid.spawner.launch(&scratch, launch.clone()).await;
    grid.spawner.pause(true).await.unwrap();
    std::thread::sleep(limit + Duration::from_millis(500));
    grid.spawner.pause(false).await.unwrap();
    std::fs::write(scratch.folder().join("stop"), "").unwrap();
    let exit = running.wait().await;
    assert_eq!(exit.outcome, Outcome::Exited(0));
    assert!(exit.usage.elapsed + exit.usage.paused <= since.elapsed());
    assert!(exit.usage.elapsed < limit, "{:?}", exit.usage);
    let scratch = grid.scratch();
    let exit = grid.spawner.run(&scratch, launch).await;
    assert_eq!(
        exit.outcome,
        Outcome::TimeLimit { limit },
        "the limit still holds"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_attempt_can_be_ended_and_none_starts() {
    let grid = grid().await;
    let (first, second) = (grid.scratch(), grid.scratch());
    let running = grid
        .spawner
        .launch(&first, sh("echo > there; sleep 1000"))
        .await;
    until("it runs", || first.folder().join("there").exists());
    grid.spawner.pause(true).await.unwrap();
    let waiting = grid.spawner.launch(&second, sh("echo started")).await;
    running.cancel();
    assert_eq!(running.wait().await.outcome, Outcome::Cancelled);
    grid.spawner.pause(false).await.unwrap();
    assert_eq!(out(&waiting.wait().await), "started\n");
}
