//! The boundary that workers know runtimes by.

mod common;

use common::{config, out, sh};
use hedge_exec::{Launch, Runner, ScratchPool};
use hedge_model::msg::{Body, Offsets};
use hedge_model::spec::Runtime;
use hedge_model::{Ending, JobId, Resources};
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

async fn runner(dir: &TempDir) -> Runner {
    let pool = ScratchPool::open(dir.path().join("scratch")).unwrap();
    let mut config = config(&pool);
    config.accept_weak = true;
    Runner::start_up(pool, config).await.unwrap()
}

fn body(runtime: Runtime) -> Body {
    Body {
        job: JobId(1),
        group: 0,
        version: 1,
        id: "a".into(),
        runtime,
        preload: vec!["decimal".into()],
        parameters: Vec::new(),
        command: Vec::new(),
        env: Vec::new(),
        stdin: None,
        inputs: Vec::new(),
        outputs: Vec::new(),
        inline_max: 0,
        printed_max: 0,
        resources: Resources::default(),
        time_limit: None,
        shares: Vec::new(),
        cwd: String::new(),
        network: None,
        checkpoint: None,
        mounts: Vec::new(),
        sources: Vec::new(),
    }
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
        .start(&body(Runtime::Process), &scratch, sh(script), move |to| {
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
async fn what_an_attempt_prints_is_read_while_it_runs_and_not_after() {
    let dir = TempDir::new().unwrap();
    let runner = runner(&dir).await;
    let scratch = runner.scratch().unwrap();
    // More than is kept in memory, then more than is kept at all.
    let (first, second) = (200_000, 300_000);
    let script = format!(
        "head -c {first} /dev/zero; echo err >&2; while ! [ -e go ]; do sleep 0.01; done; head -c {second} /dev/zero; \
         while :; do sleep 0.01; done"
    );
    let launch = Launch {
        kept_bytes: Some(first + second / 2),
        ..sh(&script)
    };
    let mut attempt = runner
        .start(&body(Runtime::Process), &scratch, launch, |_| ())
        .await;
    let output = attempt.output().unwrap();
    let mut at = Offsets::default();
    let read_until = async |bytes: u64, at: &mut Offsets| {
        while at.stdout < bytes {
            // Nothing can be read before the program begins.
            let Some(pieces) = output.read(*at).await else {
                continue;
            };
            assert!(pieces.stdout.answers(at.stdout) && pieces.stderr.answers(at.stderr));
            at.stdout = pieces.stdout.from + pieces.stdout.bytes.len() as u64;
            at.stderr = pieces.stderr.from + pieces.stderr.bytes.len() as u64;
        }
    };
    read_until(first, &mut at).await;
    let mut err = Default::default();
    while err != *b"err\n" {
        let pieces = output.read(Offsets::default()).await.unwrap();
        err = pieces.stderr.bytes.to_vec();
        assert!(b"err\n".starts_with(&err));
    }
    std::fs::write(scratch.folder().join("go"), "").unwrap();
    read_until(first + second, &mut at).await;
    let oldest = output.read(Offsets::default()).await.unwrap().stdout;
    assert_eq!((oldest.from, oldest.total), (second / 2, first + second));
    attempt.end();
    attempt.ended().await;
    assert_eq!(output.read(at).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_does_nothing_has_ended_when_it_is_started() {
    let dir = TempDir::new().unwrap();
    let runner = runner(&dir).await;
    let scratch = runner.scratch().unwrap();
    let mut attempt = runner
        .start(&body(Runtime::Noop), &scratch, sh("exit 1"), |_| ())
        .await;
    attempt.end();
    assert_eq!(attempt.ended().await.outcome, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_is_forked_from_an_interpreter_if_its_runtime_says_so() {
    let dir = TempDir::new().unwrap();
    let runner = runner(&dir).await;
    let code = "import sys; print('decimal' in sys.modules)";
    for (runtime, preloaded) in [(Runtime::Process, "False\n"), (Runtime::Python, "True\n")] {
        let scratch = runner.scratch().unwrap();
        let launch = Launch::new("python3", ["-c", code]);
        let body = body(runtime);
        let started = runner.start(&body, &scratch, launch, |_| ());
        let exit = started.await.ended().await;
        assert_eq!((&*out(&exit), &exit.outcome), (preloaded, &Ok(())));
    }
}
