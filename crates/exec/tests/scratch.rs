//! Scratch folders: what goes in, what comes out, what is left.
#![allow(missing_docs)]

mod common;

use common::{grid, out};
use hedge_exec::{ExecError, Scratch, ScratchPool, Source};
use hedge_model::Ending;
use hedge_model::ending::OutputFault;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn names(scratch: &Scratch, patterns: &[&str]) -> Result<Vec<String>, Ending> {
    Ok(scratch
        .collect(patterns)?
        .into_iter()
        .map(|file| file.path)
        .collect())
}

#[tokio::test]
async fn outputs_are_found_by_name_folder_and_pattern() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let script = "mkdir -p d/e; echo 1 > a.png; echo 22 > b.png; echo 3 > d/e/c.png; echo 4 > d/x; chmod +x d/x; echo 5 > 'odd[1].txt'; ln -s a.png l.png; echo 6 > other";
    let exit = grid.spawner.run(&scratch, common::sh(script)).await;
    assert!(exit.outcome.is_ok(), "{exit:?}");
    assert_eq!(names(&scratch, &["a.png"]).unwrap(), ["a.png"]);
    assert_eq!(names(&scratch, &["d"]).unwrap(), ["d/e/c.png", "d/x"]);
    assert_eq!(names(&scratch, &["d/"]).unwrap(), ["d/e/c.png", "d/x"]);
    assert_eq!(
        names(&scratch, &["*.png"]).unwrap(),
        ["a.png", "b.png", "l.png"]
    );
    assert_eq!(
        names(&scratch, &["**/*.png", "a.png"]).unwrap(),
        ["a.png", "b.png", "d/e/c.png", "l.png"]
    );
    assert_eq!(names(&scratch, &["{a,b}.png"]).unwrap(), ["a.png", "b.png"]);
    assert_eq!(names(&scratch, &["?/e"]).unwrap(), ["d/e/c.png"]);
    assert_eq!(names(&scratch, &["odd[1].txt"]).unwrap(), ["odd[1].txt"]);
    assert_eq!(names(&scratch, &["."]).unwrap().len(), 7);
    let files = scratch.collect(&["d/x", "b.png"]).unwrap();
    assert!(!files[0].executable && files[0].size == 3);
    assert!(files[1].executable && std::fs::read(&files[1].file).unwrap() == b"4\n");
}

#[tokio::test]
async fn a_missing_output_is_named() {
    let grid = grid().await;
    let scratch = grid.scratch();
    grid.spawner
        .run(&scratch, common::sh("echo 1 > made"))
        .await;
    for pattern in ["frame-7.png", "*.png", "made/deeper"] {
        match names(&scratch, &["made", pattern]) {
            Err(Ending::Output {
                path,
                fault: OutputFault::Missing,
            }) => assert_eq!(path, pattern),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn outputs_that_lead_out_of_the_folder_or_are_special_are_refused() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let script = "ln -s /etc/passwd out; ln -s / root; ln -s ../../.. up; ln -s nowhere dangling; mkdir d; ln -s /etc/passwd d/deep; ln -s d folder; mkfifo pipe; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'";
    let exit = grid.spawner.run(&scratch, common::sh(script)).await;
    assert!(exit.outcome.is_ok(), "{exit:?}");
    for pattern in [
        "out",
        "root",
        "up",
        "dangling",
        "d",
        "d/*",
        "folder",
        "pipe",
        "sock",
        "root/etc/passwd",
        "up/key",
        "*",
    ] {
        match names(&scratch, &[pattern]) {
            Err(Ending::Output {
                fault: OutputFault::Odd { .. },
                ..
            }) => {}
            other => panic!("{pattern}: {other:?}"),
        }
    }
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let dir = TempDir::new().unwrap();
    let pool = ScratchPool::open(dir.path().join("base")).unwrap();
    let mut scratch = pool.create().unwrap();
    for path in ["../x", "/etc/x", "a/../../x", "", "a\0b"] {
        assert!(matches!(
            scratch.place(path, false, Source::Bytes(b"")),
            Err(ExecError::BadPath { .. })
        ));
        assert!(matches!(
            scratch.collect(&[path]),
            Err(Ending::Output {
                fault: OutputFault::BadPath { .. },
                ..
            })
        ));
    }
    scratch.place("a/b", false, Source::Bytes(b"1")).unwrap();
    for path in ["a/b", "a", "a/b/c"] {
        let again = scratch.place(path, false, Source::Bytes(b"2"));
        assert!(
            matches!(again, Err(ExecError::AlreadyThere { .. })),
            "{path}: {again:?}"
        );
    }
    assert!(matches!(
        scratch.collect(&["a["]),
        Err(Ending::Output {
            fault: OutputFault::BadPath { .. },
            ..
        })
    ));
}

#[tokio::test]
async fn an_empty_folder_is_an_output_only_where_a_folder_is_declared() {
    let grid = grid().await;
    let scratch = grid.scratch();
    let script = "mkdir -p empty/deep full; echo 1 > full/a";
    let exit = grid.spawner.run(&scratch, common::sh(script)).await;
    assert!(exit.outcome.is_ok(), "{exit:?}");
    for pattern in ["empty", "e*", "empty/*"] {
        let found = names(&scratch, &["full", pattern]);
        assert!(
            matches!(&found, Err(Ending::Output { path, .. }) if path == pattern),
            "{pattern}: {found:?}"
        );
    }
    assert_eq!(names(&scratch, &["empty/", "full"]).unwrap(), ["full/a"]);
    assert_eq!(names(&scratch, &["*/"]).unwrap(), ["full/a"]);
    assert_eq!(names(&scratch, &["*"]).unwrap(), ["full/a"]);
}

#[test]
fn an_output_that_cannot_be_read_is_the_tasks_fault() {
    let dir = TempDir::new().unwrap();
    let mut scratch = ScratchPool::open(dir.path().join("base"))
        .unwrap()
        .create()
        .unwrap();
    let closed = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o000))
            .unwrap();
    };
    scratch.place("file", false, Source::Bytes(b"1")).unwrap();
    scratch.place("d/e", false, Source::Bytes(b"2")).unwrap();
    closed(&scratch.folder().join("file"));
    closed(&scratch.folder().join("d"));
    let found = common::without_privileges(dir.path(), || {
        ["file", "d", "f*", "d/"].map(|pattern| names(&scratch, &[pattern]))
    });
    for found in found {
        assert!(
            matches!(
                &found,
                Err(Ending::Output {
                    fault: OutputFault::Unreadable { .. },
                    ..
                })
            ),
            "{found:?}"
        );
    }
}

#[test]
fn inputs_are_copies_and_keep_the_executable_bit() {
    let dir = TempDir::new().unwrap();
    let pool = ScratchPool::open(dir.path().join("base")).unwrap();
    let original = dir.path().join("original");
    std::fs::write(&original, "content").unwrap();
    let mut scratch = pool.create().unwrap();
    scratch
        .place("x/tool", true, Source::File(&original))
        .unwrap();
    scratch
        .place("data", false, Source::Reader(&mut &b"read"[..]))
        .unwrap();
    let mode = |path: &str| {
        scratch
            .folder()
            .join(path)
            .metadata()
            .unwrap()
            .permissions()
            .mode()
            & 0o111
            != 0
    };
    assert!(mode("x/tool") && !mode("data"));
    std::fs::write(scratch.folder().join("x/tool"), "changed").unwrap();
    assert_eq!(std::fs::read_to_string(&original).unwrap(), "content");
    assert_eq!(
        std::fs::read(scratch.folder().join("data")).unwrap(),
        b"read"
    );
}

#[tokio::test]
async fn everything_is_removed_whatever_the_attempt_did_to_it() {
    let grid = grid().await;
    let spoil = "mkdir -p a/b/c; echo 1 > a/b/c/f; chmod 000 a/b/c a/b a; echo 2 > $TMPDIR/t; ln -s /usr/bin keep; ln -s . loop; chmod 000 . $TMPDIR";
    for _ in 0..3 {
        assert!(grid.sh(spoil).await.outcome.is_ok());
    }
    assert!(grid.left_over().is_empty());
    assert!(Path::new("/usr/bin/env").exists());
    // The folders are as good as new.
    let exit = grid
        .sh("ls -A . $TMPDIR | wc -l; stat -c %a . $TMPDIR; echo x > y && cat y")
        .await;
    assert_eq!(out(&exit), "3\n700\n700\nx\n");
}

#[test]
fn an_earlier_lifes_folders_are_removed_and_others_left_alone() {
    let dir = TempDir::new().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir_all(base.join("s3/work/deep")).unwrap();
    std::fs::write(base.join("s3/work/deep/f"), "x").unwrap();
    std::fs::set_permissions(base.join("s3/work/deep"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::write(base.join("something-else"), "x").unwrap();
    let pool = ScratchPool::open(&base).unwrap();
    assert!(!base.join("s3").exists() && base.join("something-else").exists());
    assert!(matches!(
        ScratchPool::open(&base),
        Err(ExecError::ScratchInUse { .. })
    ));
    drop(pool);
    ScratchPool::open(&base).unwrap();
}

/// Needs a file system of its own that is small: one in a mount namespace, where that is allowed.
#[test]
fn a_full_disk_is_said_and_nothing_is_left() {
    let inner = std::env::var_os("HEDGE_TEST_SMALL_DISK");
    let Some(base) = inner else {
        let dir = TempDir::new().unwrap();
        let script = "mount -t tmpfs -o size=1m none \"$HEDGE_TEST_SMALL_DISK\" && exec \"$0\" --exact a_full_disk_is_said_and_nothing_is_left --nocapture";
        let status = Command::new("unshare")
            .args(["-Urm", "sh", "-c", script])
            .arg(std::env::current_exe().unwrap())
            .env("HEDGE_TEST_SMALL_DISK", dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        return;
    };
    let pool = ScratchPool::open(&base).unwrap();
    let mut scratch = pool.create().unwrap();
    let big = vec![1; 2 << 20];
    match scratch.place("big", false, Source::Bytes(&big)) {
        Err(error @ ExecError::DiskFull { .. }) => assert!(error.to_string().contains("no space")),
        other => panic!("{other:?}"),
    }
    assert!(common::files_below(Path::new(&base)).is_empty());
    scratch
        .place("small", false, Source::Bytes(&big[..1000]))
        .unwrap();
}
