//! Folders that attempts see elsewhere, read-only.

mod common;

use common::{allow_namespaces, err, grid_with, out, sh};
use hedge_exec::{Launch, MountedFolder, Permissions};
use hedge_model::Ending;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with a file, a program and a link, which only its owner may enter from above.
fn tree(folder: &Path, text: &str) -> PathBuf {
    let root = folder.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::write(root.join("text"), text).unwrap();
    fs::write(
        root.join("bin/tool"),
        "#!/bin/sh\ncat \"$(dirname $0)/../link\"\n",
    )
    .unwrap();
    for path in [root.clone(), root.join("bin"), root.join("bin/tool")] {
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::symlink("text", root.join("link")).unwrap();
    root
}

fn with(script: &str, mounts: &[(&Path, &str)]) -> Launch {
    let mounts = mounts.iter().map(|(from, at)| MountedFolder {
        from: (*from).to_owned(),
        at: at.into(),
    });
    let permissions = Permissions {
        mounts: mounts.collect(),
        ..Permissions::default()
    };
    Launch {
        permissions,
        ..sh(script)
    }
}

#[tokio::test]
async fn an_attempt_sees_a_folder_elsewhere_and_cannot_change_it() {
    let folder = TempDir::new().unwrap();
    let root = tree(folder.path(), "sound");
    let grid = grid_with(|_| ()).await;
    for at in ["/ref", "/srv/project/.venv", "/tmp/project/.venv"] {
        let script = format!(
            "{at}/bin/tool; for file in {at}/new {at}/bin/tool; do echo rotten > $file; done; \
             rm -rf {at}/text; mv {at}/text {at}/other; chmod 777 {at}/text; \
             [ ! -e {} ] || echo shown twice",
            root.display()
        );
        let exit = grid
            .spawner
            .run(&grid.scratch(), with(&script, &[(&root, at)]))
            .await;
        assert_eq!(out(&exit), "sound", "{at}: {}", err(&exit));
        assert_eq!(fs::read_to_string(root.join("text")).unwrap(), "sound");
        assert!(!root.join("new").exists() && !root.join("other").exists());
        let exit = grid
            .spawner
            .run(&grid.scratch(), with(&format!("ls {at}"), &[]))
            .await;
        assert_eq!(
            out(&exit),
            "",
            "the next attempt does not see it: {}",
            err(&exit)
        );
    }
}

#[tokio::test]
async fn attempts_see_the_folders_that_they_name_and_no_others() {
    let folders = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let roots = [
        tree(folders[0].path(), "one"),
        tree(folders[1].path(), "two"),
    ];
    let grid = grid_with(|_| ()).await;
    let (one, two) = (&*roots[0], &*roots[1]);
    let script = "cat /a/text /b/c/text 2> /dev/null; true";
    for (mounts, printed) in [
        (vec![(one, "/a")], "one"),
        (vec![(two, "/a")], "two"),
        (vec![(one, "/a"), (two, "/b/c")], "onetwo"),
        (vec![], ""),
    ] {
        let exit = grid
            .spawner
            .run(&grid.scratch(), with(script, &mounts))
            .await;
        assert_eq!(out(&exit), printed, "{}", err(&exit));
    }
}

#[tokio::test]
async fn without_namespaces_an_attempt_with_a_folder_elsewhere_is_refused_and_the_next_one_runs() {
    let folder = TempDir::new().unwrap();
    let root = tree(folder.path(), "sound");
    let grid = grid_with(|config| allow_namespaces(config, false)).await;
    let exit = grid
        .spawner
        .run(&grid.scratch(), with("true", &[(&root, "/ref")]))
        .await;
    let Err(Ending::Worker { why }) = &exit.outcome else {
        panic!("{:?}", exit.outcome);
    };
    assert!(
        why.contains("trees are shown in a view of their own alone"),
        "{why}"
    );
    let exit = grid.sh("echo runs").await;
    assert_eq!(out(&exit), "runs\n", "{}", err(&exit));
}
