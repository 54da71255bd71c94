//! Attempts that are asked to end, and the files that they rename into place.

mod common;

use common::{Grid, grid, grid_with, sh, until};
use hedge_exec::Scratch;
use hedge_model::Ending;
use std::fs;
use std::io::Read;
use std::time::{Duration, Instant};

/// Longer than any test waits.
const LONG: Duration = Duration::from_secs(3600);

async fn await_file(scratch: &Scratch, name: &str) {
    let file = scratch.folder().join(name);
    until("the script to begin", || file.exists());
}

async fn stopped(grid: &Grid, script: &str, grace: Duration) -> (Scratch, Result<(), Ending>) {
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh(script)).await;
    await_file(&scratch, "begun").await;
    running.stop(grace);
    let exit = running.wait().await;
    (scratch, exit.outcome)
}

async fn what_is_asked_to_end_has_time_to_save(grid: &Grid) {
    // Its shell ends at once, and has ended well.
    let script = "sh -c 'trap \"sleep 0.3; echo 7 > new; mv new state; exit 0\" TERM; : > begun; \
                  while :; do sleep 0.01; done' & trap 'exit 0' TERM; while :; do sleep 0.01; done";
    let (scratch, outcome) = stopped(grid, script, LONG).await;
    assert_eq!(outcome, Err(Ending::Vacated));
    assert_eq!(
        fs::read_to_string(scratch.folder().join("state")).unwrap(),
        "7\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_to_end_has_time_to_save_in_the_sandbox() {
    what_is_asked_to_end_has_time_to_save(&grid().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_to_end_has_time_to_save_without_namespaces() {
    let grid = grid_with(|config| common::allow_namespaces(config, false)).await;
    what_is_asked_to_end_has_time_to_save(&grid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_by_itself_is_ended() {
    let grid = grid().await;
    let deaf = "trap '' TERM; : > begun; while :; do sleep 0.01; done";
    let since = Instant::now();
    let (_, outcome) = stopped(&grid, deaf, Duration::from_millis(200)).await;
    assert_eq!(outcome, Err(Ending::Vacated));
    assert!(since.elapsed() >= Duration::from_millis(200));
    // One that is not wanted any more is not waited for.
    let scratch = grid.scratch();
    let running = grid.spawner.launch(&scratch, sh(deaf)).await;
    await_file(&scratch, "begun").await;
    running.stop(LONG);
    running.cancel();
    assert_eq!(running.wait().await.outcome, Err(Ending::Cancelled));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_was_renamed_into_place_counts() {
    let grid = grid().await;
    let mut scratch = grid.scratch();
    let files = ["state".to_owned(), "sub/deep".to_owned(), "link".to_owned()];
    let watch = scratch.watch_renames(&files).unwrap();
    // Written in place, or renamed to another name, nothing is whole.
    let exit = grid
        .spawner
        .run(&scratch, sh("echo 1 > state; echo 1 > x; mv x y"))
        .await;
    assert_eq!(exit.outcome, Ok(()));
    assert!(watch.renamed().is_empty());
    let script = "echo 22 > x; mv x state; echo 3 > x; mv x sub/deep; ln -s /etc/passwd x; mv x link; mkfifo z";
    assert_eq!(grid.spawner.run(&scratch, sh(script)).await.outcome, Ok(()));
    assert_eq!(watch.renamed(), [0_usize, 1, 2]);
    assert!(watch.renamed().is_empty(), "told once");
    let read = |place| {
        let mut text = String::new();
        let file = watch.open(place).unwrap();
        file.unwrap().read_to_string(&mut text).unwrap();
        text
    };
    assert_eq!((&*read(0), &*read(1)), ("22\n", "3\n"));
    assert!(watch.open(2).is_err(), "a link may lead anywhere");
    let script = "rm state; mv z sub/deep";
    assert_eq!(grid.spawner.run(&scratch, sh(script)).await.outcome, Ok(()));
    assert!(watch.open(0).unwrap().is_none());
    assert!(watch.open(1).is_err(), "a pipe is no file");
    assert!(scratch.watch_renames(&["../out".to_owned()]).is_err());
}
