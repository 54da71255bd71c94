//! What single attempts are given: devices, shared folders, the network.

mod common;

use common::{Grid, allow_namespaces, err, grid_with, out, sh};
use hedge_exec::{Exit, Launch, Permissions, SharedFolder};
use hedge_model::spec::Network;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::TempDir;

/// Nodes of the devices that give zeros and that are always full, as GPUs would have them.
fn nodes(folder: &Path) -> Option<[PathBuf; 2]> {
    let made = [("gpu0", 5), ("gpu1", 7)].map(|(name, minor)| {
        let path = folder.join(name);
        let device = rustix::fs::makedev(1, minor);
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, device).ok()?;
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .ok()?;
        Some(path)
    });
    match made {
        [Some(first), Some(second)] => Some([first, second]),
        _ => None,
    }
}

fn with(script: &str, permissions: Permissions) -> Launch {
    Launch {
        permissions,
        ..sh(script)
    }
}

async fn run(grid: &Grid, script: &str, permissions: Permissions) -> Exit {
    grid.spawner
        .run(&grid.scratch(), with(script, permissions))
        .await
}

#[tokio::test]
async fn an_attempt_opens_its_devices_and_no_others() {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let Some([first, second]) = nodes(folder.path()) else {
        return eprintln!("this user may make no device nodes");
    };
    let read = |path: &Path| format!("head -c 4 {} | od -An -tx1; ", path.display());
    let script = format!("{}{}", read(&first), read(&second));
    let zeros = " 00 00 00 00\n";
    for namespaces in [true, false] {
        let grid = grid_with(|config| allow_namespaces(config, namespaces)).await;
        let devices = |all: &[&PathBuf]| Permissions {
            devices: all.iter().map(|path| (*path).clone()).collect(),
            ..Permissions::default()
        };
        let process = grid.spawner.process();
        let exit = run(&grid, &script, devices(&[])).await;
        assert_eq!(out(&exit), "", "namespaces {namespaces}: {}", err(&exit));
        assert_eq!(grid.spawner.process(), process);
        let exit = run(&grid, &script, devices(&[&first])).await;
        assert_eq!(out(&exit), zeros, "namespaces {namespaces}: {}", err(&exit));
        let exit = run(&grid, &script, devices(&[&first, &second])).await;
        assert_eq!(out(&exit), zeros.repeat(2), "{}", err(&exit));
        let since = Instant::now();
        let exit = run(&grid, &script, devices(&[])).await;
        println!(
            "namespaces {namespaces}: other permissions took {:?}",
            since.elapsed()
        );
        assert_eq!(out(&exit), "", "{}", err(&exit));
    }
}

#[tokio::test]
async fn attempts_with_different_permissions_run_side_by_side() {
    let folder = TempDir::new().unwrap();
    std::fs::set_permissions(
        folder.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    let Some(nodes) = nodes(folder.path()) else {
        return eprintln!("this user may make no device nodes");
    };
    let grid = grid_with(|_| ()).await;
    let wait = "while [ ! -e go ]; do sleep 0.01; done; ls ";
    let script = format!(
        "{wait}{} {} 2>/dev/null",
        nodes[0].display(),
        nodes[1].display()
    );
    let scratches = nodes.each_ref().map(|_| grid.scratch());
    let mut running = Vec::new();
    for (node, scratch) in nodes.iter().zip(&scratches) {
        let permissions = Permissions {
            devices: vec![node.clone()],
            ..Permissions::default()
        };
        running.push(
            grid.spawner
                .launch(scratch, with(&script, permissions))
                .await,
        );
    }
    scratches
        .iter()
        .for_each(|scratch| std::fs::write(scratch.folder().join("go"), "").unwrap());
    for (running, node) in running.into_iter().zip(&nodes) {
        let exit = running.wait().await;
        assert_eq!(
            out(&exit),
            format!("{}\n", node.display()),
            "{}",
            err(&exit)
        );
    }
}

#[tokio::test]
async fn a_shared_folder_is_seen_at_its_place_and_nothing_beside_it() {
    let outside = TempDir::new().unwrap();
    let open = |path: &Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    let outside = outside.path().canonicalize().unwrap();
    open(&outside, 0o755);
    let shared = outside.join("data");
    std::fs::create_dir(&shared).unwrap();
    open(&shared, 0o777);
    std::fs::write(shared.join("in"), "shared").unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    let path = shared.display();
    let script = format!(
        "cat {path}/in {}/secret; echo out > {path}/out && echo written; ls {path} > /dev/null && echo listed",
        outside.display()
    );
    for namespaces in [true, false] {
        let grid = grid_with(|config| allow_namespaces(config, namespaces)).await;
        for (share, printed) in [
            (None, ""),
            (Some(false), "sharedlisted\n"),
            (Some(true), "sharedwritten\nlisted\n"),
        ] {
            let shares = share.map(|writable| SharedFolder::new(&shared, writable).unwrap());
            let permissions = Permissions {
                shares: shares.into_iter().collect(),
                ..Permissions::default()
            };
            let exit = run(&grid, &script, permissions).await;
            let told = err(&exit);
            assert_eq!(out(&exit), printed, "{namespaces} {share:?}: {told}");
            assert_eq!(shared.join("out").exists(), share == Some(true));
        }
        std::fs::remove_file(shared.join("out")).unwrap();
    }
}

#[test]
fn folders_of_the_system_cannot_be_shared() {
    for path in [
        "/",
        "/usr/share",
        "/etc",
        "/proc/self",
        "/dev/shm",
        "/not/there",
    ] {
        let refused = SharedFolder::new(Path::new(path), false).map(|_| ());
        let why = refused.unwrap_err().to_string();
        assert!(why.contains("shared"), "{path}: {why}");
    }
}

#[tokio::test]
async fn a_worker_does_not_share_its_own_files() {
    let outside = TempDir::new().unwrap();
    let pool = hedge_exec::ScratchPool::open(outside.path().join("worker/scratch")).unwrap();
    let mut config = common::config(&pool);
    config.hidden = vec![outside.path().join("worker")];
    config.shares = vec![SharedFolder::new(outside.path(), true).unwrap()];
    let refused = hedge_exec::Spawner::start(config).await.map(|_| ());
    let why = refused.unwrap_err().to_string();
    assert!(why.contains("the worker's own files"), "{why}");
}

#[tokio::test]
async fn an_attempt_gets_no_more_network_than_it_asks_for_and_the_worker_allows() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = format!(
        "bash -c 'echo hi > /dev/tcp/127.0.0.1/{port}' 2> /dev/null && echo machine; \
         python3 -c 'import socket; l = socket.create_server((\"127.0.0.1\", 0)); \
         socket.create_connection(l.getsockname())' 2> /dev/null && echo loopback; true"
    );
    for (namespaces, allowed, asked, reaches) in [
        (true, false, None, ""),
        (true, false, Some(Network::Any), "loopback\n"),
        (true, false, Some(Network::None), ""),
        (true, true, None, "machine\nloopback\n"),
        (true, true, Some(Network::Loopback), "loopback\n"),
        (true, true, Some(Network::None), ""),
        (false, true, None, "machine\nloopback\n"),
        (false, true, Some(Network::Loopback), ""),
        (false, false, Some(Network::Any), ""),
    ] {
        let grid = grid_with(|config| {
            config.network = allowed;
            allow_namespaces(config, namespaces);
        })
        .await;
        let permissions = Permissions {
            network: asked,
            ..Permissions::default()
        };
        let exit = run(&grid, &script, permissions).await;
        let case = format!("{namespaces} {allowed} {asked:?}: {}", err(&exit));
        assert_eq!(out(&exit), reaches, "{case}");
    }
}
