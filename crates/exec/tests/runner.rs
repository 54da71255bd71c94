//! The boundary that workers know runtimes by.

mod common;

use common::{config, out, sh};
use hedge_exec::{Runner, ScratchPool};
use hedge_model::Ending;
use hedge_model::spec::Runtime;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

async fn runner(dir: &TempDir) -> Runner {
    let pool = ScratchPool::open(dir.path().join("scratch")).unwrap();
    let mut config = config(&pool);
    config.accept_weak = true;
    Runner::start_up(pool, config).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_started_suspended_resumed_and_ended_whatever_their_runtime() {
    let dir = TempDir::new().unwrap();
    let runner = runner(&dir).await;
    let (tell, progress) = mpsc::channel();
    runner.watch_progress(Duration::from_millis(5));
    let scratch = runner.scratch().unwrap();
    let script = "echo 0.5 >&$HEDGE_PROGRESS_FD; echo on; while :; do sleep 0.01; done";
    let mut attempt = runner
        .start(Runtime::Process, &scratch, sh(script), move |to| {
            _ = tell.send(to.permille);
        })
        .await;
    while progress.recv_timeout(common::PATIENCE).unwrap() != Some(500) {}
    runner.suspend();
    // It has not ended while it stands still.
    let ended = tokio::time::timeout(Duration::from_millis(100), attempt.ended()).await;
    assert!(ended.is_err());
    runner.resume();
    attempt.end();
    let exit = attempt.ended().await;
    assert_eq!(exit.outcome, Err(Ending::Cancelled));
    assert_eq!(out(&exit), "on\n");
    assert!(
        exit.usage.paused >= Duration::from_millis(50),
        "{:?}",
        exit.usage
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_does_nothing_has_ended_when_it_is_started() {
    let dir = TempDir::new().unwrap();
    let runner = runner(&dir).await;
    let scratch = runner.scratch().unwrap();
    let mut attempt = runner
        .start(Runtime::Noop, &scratch, sh("exit 1"), |_| ())
        .await;
    attempt.end();
    assert_eq!(attempt.ended().await.outcome, Ok(()));
}
