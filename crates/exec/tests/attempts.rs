//! What an attempt gets, what it may use, and what is reported of it.
#![allow(missing_docs)]

mod common;

use common::{err, grid, grid_with, out, sh};
use hedge_exec::{Launch, Limits, Source, Stdin};
use hedge_model::Ending;
use std::time::{Duration, Instant};

#[tokio::test]
async fn exit_codes_and_signals_are_reported() {
    let grid = grid().await;
    assert_eq!(grid.sh("exit 0").await.outcome, Ok(()));
    assert_eq!(grid.sh("exit 7").await.outcome, common::exited(7));
    assert_eq!(
        grid.sh("kill -TERM $$").await.outcome,
        common::signalled(15)
    );
    assert_eq!(grid.sh("kill -KILL $$").await.outcome, common::signalled(9));
}

#[tokio::test]
async fn both_streams_are_captured_and_usage_is_measured() {
    let grid = grid().await;
    let exit = grid
        .sh("echo to out; echo to err >&2; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
        .await;
    assert_eq!(
        (out(&exit).as_str(), err(&exit).as_str()),
        ("to out\n", "to err\n")
    );
    assert_eq!((exit.stdout.total, exit.stderr.total), (7, 7));
    assert!(
        exit.usage.cpu > Duration::from_millis(1),
        "{:?}",
        exit.usage
    );
    assert!(exit.usage.elapsed >= exit.usage.cpu / 2, "{:?}", exit.usage);
    assert!(exit.usage.memory_peak > 100 << 10, "{:?}", exit.usage);
}

#[tokio::test]
async fn the_tail_of_long_output_is_kept() {
    let grid = grid().await;
    let mut launch = sh("yes 0123456789 | head -n 300000; echo end");
    launch.kept_bytes = Some(1000);
    let exit = grid.spawner.run(&grid.scratch(), launch).await;
    assert_eq!(exit.outcome, Ok(()));
    assert_eq!(exit.stdout.total, 300_000 * 11 + 4);
    assert_eq!(exit.stdout.bytes.len(), 1000);
    assert!(out(&exit).ends_with("0123456789\nend\n"));
}

#[tokio::test]
async fn standard_input_is_nothing_or_a_file() {
    let grid = grid().await;
    assert_eq!(out(&grid.sh("cat | wc -c").await).trim(), "0");

    let mut launch = Launch::new("cat", Vec::<String>::new());
    launch.stdin = Stdin::Placed;
    let mut scratch = grid.scratch();
    scratch.place_stdin(Source::Bytes(b"from a file")).unwrap();
    assert_eq!(
        out(&grid.spawner.run(&scratch, launch).await),
        "from a file"
    );
}

#[tokio::test]
async fn environment_folder_and_tmpdir_are_the_attempts_own() {
    let grid = grid_with(|config| config.env.push(("FROM_WORKER".into(), "base".into()))).await;
    let scratch = grid.scratch();
    let mut launch = sh(
        "pwd; echo $HOME; echo $FROM_WORKER $FROM_TASK; t=$(mktemp); echo $t; env | grep -c CARGO",
    );
    launch.env = vec![("FROM_TASK".into(), "own".into())];
    let exit = grid.spawner.run(&scratch, launch).await;
    let text = out(&exit);
    let lines: Vec<&str> = text.lines().collect();
    let folder = scratch.folder();
    assert_eq!(lines[0], folder.to_str().unwrap(), "{text} {}", err(&exit));
    assert_eq!(lines[1], folder.to_str().unwrap());
    assert_eq!(lines[2], "base own");
    let slot = folder.parent().unwrap().join("tmp");
    assert!(
        lines[3].starts_with(slot.to_str().unwrap()),
        "{text} {}",
        err(&exit)
    );
    assert_eq!(lines[4], "0", "the worker's environment must not leak");
}

#[tokio::test]
async fn programs_that_cannot_start_say_why() {
    let grid = grid().await;
    let mut scratch = grid.scratch();
    scratch
        .place("data.txt", false, Source::Bytes(b"text"))
        .unwrap();
    scratch
        .place("junk", true, Source::Bytes(b"\x00\x01\x02"))
        .unwrap();
    scratch
        .place("orphan", true, Source::Bytes(b"#!/no/such/interpreter\n"))
        .unwrap();
    let cases = [
        (
            "no-such-program-here",
            "program not found: no-such-program-here; is it installed on this worker, or should it be an input?",
        ),
        ("./missing", "program not found: ./missing"),
        ("./data.txt", "executable bit"),
        ("./junk", "not a program for this machine"),
        ("", "the command is empty"),
        ("/var/log/x", "may not be executed"),
        ("or\0phan", "NUL"),
    ];
    for (program, wanted) in cases {
        let launch = Launch::new(program, ["x"]);
        match grid.spawner.run(&scratch, launch).await.outcome {
            Err(Ending::NotStarted { why: reason }) => {
                // Where the path is not in the view at all, it is not found.
                let hidden = program.starts_with("/var/log") && reason.contains("not found");
                assert!(reason.contains(wanted) || hidden, "{program:?}: {reason}");
            }
            other => panic!("{program:?}: {other:?}"),
        }
    }
    let full = scratch.folder().join("orphan");
    let launch = Launch::new(full.to_str().unwrap(), ["x"]);
    let Err(Ending::NotStarted { why: reason }) = grid.spawner.run(&scratch, launch).await.outcome
    else {
        panic!("it started")
    };
    assert!(reason.contains("interpreter"), "{reason}");
}

#[tokio::test]
async fn an_input_can_be_the_program() {
    let grid = grid().await;
    let mut scratch = grid.scratch();
    scratch
        .place(
            "tools/hello",
            true,
            Source::Bytes(b"#!/bin/sh\necho hello $1\n"),
        )
        .unwrap();
    scratch
        .place("greet", true, Source::Bytes(b"#!/bin/sh\necho greet\n"))
        .unwrap();
    let exit = grid
        .spawner
        .run(&scratch, Launch::new("tools/hello", ["you"]))
        .await;
    assert_eq!(out(&exit), "hello you\n", "{exit:?}");
    let exit = grid
        .spawner
        .run(&scratch, Launch::new("greet", Vec::<String>::new()))
        .await;
    assert_eq!(out(&exit), "greet\n", "{exit:?}");
}

#[tokio::test]
async fn files_that_the_owner_offers_are_found_by_name() {
    let offered = tempfile::TempDir::new().unwrap();
    let tool = offered.path().join("offered-tool");
    // Not `fs::copy`: see `common::public_helper`.
    let copied = std::process::Command::new("cp")
        .arg("/bin/echo")
        .arg(&tool)
        .status();
    assert!(copied.unwrap().success());
    let grid = grid_with(|config| config.read_only = vec![tool.clone()]).await;
    let exit = grid
        .spawner
        .run(&grid.scratch(), Launch::new("offered-tool", ["here"]))
        .await;
    assert_eq!(out(&exit), "here\n", "{exit:?}");
}

#[tokio::test]
async fn the_time_limit_ends_an_attempt() {
    let grid = grid().await;
    // Long enough for a busy machine to get as far as the first word.
    let limit = Duration::from_secs(3);
    let mut launch = sh("echo begun; sleep 1000 & sleep 1000");
    launch.limits = Limits {
        time: Some(limit),
        ..Limits::default()
    };
    let since = Instant::now();
    let exit = grid.spawner.run(&grid.scratch(), launch).await;
    assert_eq!(exit.outcome, Err(Ending::TimeLimit { limit }));
    assert_eq!(out(&exit), "begun\n");
    assert!(exit.usage.elapsed >= limit, "{:?}", exit.usage);
    assert!(since.elapsed() < common::PATIENCE);
}

#[tokio::test]
async fn the_memory_limit_counts_all_processes_of_an_attempt() {
    let grid = grid().await;
    let limit = 60 << 20;
    let mut launch = sh(
        "for i in 1 2 3; do (x=$(head -c 40000000 /dev/zero | tr '\\0' x); sleep 1000) & done; wait",
    );
    launch.limits = Limits {
        memory: Some(limit),
        ..Limits::default()
    };
    let exit = grid.spawner.run(&grid.scratch(), launch.clone()).await;
    match exit.outcome {
        Err(Ending::MemoryLimit { limit: said, used }) => {
            assert_eq!(said, limit);
            assert!(used > limit);
            assert!(exit.usage.memory_peak >= used);
        }
        ref other => panic!("{other:?} {}", err(&exit)),
    }
    let mut modest = sh("x=$(head -c 1000000 /dev/zero | tr '\\0' x); sleep 0.2");
    modest.limits = launch.limits;
    let exit = grid.spawner.run(&grid.scratch(), modest).await;
    assert_eq!(exit.outcome, Ok(()));
}

#[tokio::test]
async fn the_disk_limit_counts_all_files_and_bounds_each() {
    let grid = grid().await;
    let limit = 1 << 20;
    let mut launch = sh(
        "i=0; while [ $i -lt 30 ]; do head -c 100000 /dev/zero > $TMPDIR/$i; i=$((i+1)); done; sleep 1000",
    );
    launch.limits = Limits {
        disk: Some(limit),
        ..Limits::default()
    };
    let exit = grid.spawner.run(&grid.scratch(), launch).await;
    match exit.outcome {
        Err(Ending::DiskLimit { limit: said, used }) => assert!(said == limit && used > limit),
        ref other => panic!("{other:?} {}", err(&exit)),
    }
    let mut single = sh("head -c 2000000 /dev/zero > big");
    single.limits = Limits {
        disk: Some(limit),
        ..Limits::default()
    };
    let scratch = grid.scratch();
    let exit = grid.spawner.run(&scratch, single).await;
    let file = std::fs::metadata(scratch.folder().join("big"))
        .unwrap()
        .len();
    drop(scratch);
    assert!(file > limit && file <= limit + 4096, "{exit:?}");
    assert_disk_limit(&exit, limit);
    // Also where its own program ends by the kernel's signal, and where it is over before anybody looks.
    let mut signalled = sh("exec head -c 2000000 /dev/zero > big");
    signalled.limits = single_limits(limit);
    assert_disk_limit(&grid.spawner.run(&grid.scratch(), signalled).await, limit);
    let mut quick = sh("for i in 1 2 3; do head -c 900000 /dev/zero > $i; done");
    quick.limits = single_limits(limit);
    assert_disk_limit(&grid.spawner.run(&grid.scratch(), quick).await, limit);
    // What was there before does not count.
    let mut scratch = grid.scratch();
    let input = vec![1; 2 << 20];
    scratch.place("in", false, Source::Bytes(&input)).unwrap();
    let mut reads = sh("wc -c < in > size; cat size");
    reads.limits = single_limits(limit);
    let exit = grid.spawner.run(&scratch, reads).await;
    assert!(
        exit.outcome.is_ok() && out(&exit) == "2097152\n",
        "{exit:?}"
    );
    drop(scratch);
    assert!(grid.left_over().is_empty());
}

fn single_limits(limit: u64) -> Limits {
    Limits {
        disk: Some(limit),
        ..Limits::default()
    }
}

fn assert_disk_limit(exit: &hedge_exec::Exit, limit: u64) {
    match exit.outcome {
        Err(Ending::DiskLimit { limit: said, used }) => assert!(said == limit && used > limit),
        ref other => panic!("{other:?} {}", err(exit)),
    }
}

#[tokio::test]
async fn closing_the_streams_does_not_hold_up_the_report() {
    let grid = grid().await;
    let since = Instant::now();
    let exit = grid.sh("exec 1>&- 2>&-; exit 3").await;
    assert_eq!(exit.outcome, common::exited(3));
    // A process that keeps the pipes open ends with the attempt.
    let exit = grid.sh("sleep 1000 & echo left").await;
    assert_eq!(
        (exit.outcome.clone(), out(&exit).as_str()),
        (Ok(()), "left\n")
    );
    assert!(since.elapsed() < common::PATIENCE);
}

#[tokio::test]
async fn attempts_run_at_idle_priority_unless_told_otherwise() {
    // Also what was started before the spawner came round to lowering the priority.
    let script = "sleep 1000 & early=$!
        for try in $(seq 2000); do
            case $(chrt -p $$)$(chrt -p $early) in *SCHED_IDLE*SCHED_IDLE*) echo both; break;; esac
        done; (chrt -p $$; sh -c 'chrt -p $$') | grep -c SCHED_IDLE";
    let grid = grid().await;
    assert_eq!(out(&grid.sh(script).await), "both\n2\n");
    let grid = grid_with(|config| config.priority = hedge_exec::Priority::Normal).await;
    let exit = grid.sh("chrt -p $$; sh -c 'chrt -p $$'").await;
    assert_eq!(out(&exit).matches("SCHED_OTHER").count(), 2);
}

#[tokio::test]
async fn many_attempts_at_once_keep_apart() {
    let grid = std::sync::Arc::new(grid_with(|config| config.running_max = 16).await);
    let mut all = tokio::task::JoinSet::new();
    for number in 0..200 {
        let grid = grid.clone();
        all.spawn(async move {
            let exit = grid
                .sh(&format!(
                    "ls | wc -l; echo {number} > f; cat f; exit {}",
                    number % 100
                ))
                .await;
            let wanted = match number % 100 {
                0 => Ok(()),
                status => common::exited(status),
            };
            assert_eq!(exit.outcome, wanted, "{exit:?}");
            assert_eq!(out(&exit), format!("0\n{number}\n"), "{exit:?}");
        });
    }
    while let Some(done) = all.join_next().await {
        done.unwrap();
    }
    assert!(grid.left_over().is_empty());
}
