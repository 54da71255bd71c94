//! What a hostile task tries, by the table in `table.rs`: as root's and as an ordinary user's task, in both kinds of
//! sandbox. The helper carries the attempts out.
#![allow(missing_docs)]

#[path = "../common/mod.rs"]
mod common;
mod table;

use common::{err, grid_with, out};
use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use table::{Found, TABLE};
use tempfile::TempDir;

/// An owner with secrets and services, for attempts to find.
struct Owner {
    home: PathBuf,
    tcp: TcpListener,
    udp: UdpSocket,
    name: String,
    memory: SharedMemory,
    shared_file: PathBuf,
    _services: [UnixListener; 2],
}

/// A segment that lives as long as the test.
struct SharedMemory(i32, i32);

impl SharedMemory {
    fn new() -> SharedMemory {
        let key = 0x5ec_0000 + std::process::id() as i32;
        // SAFETY: makes a segment, which is removed at the end.
        let id = unsafe { libc::shmget(key, 4096, libc::IPC_CREAT | 0o666) };
        assert!(id >= 0);
        SharedMemory(key, id)
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: removes what this test has made.
        unsafe { libc::shmctl(self.1, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.shared_file);
    }
}

impl Owner {
    fn new(dir: &Path) -> Owner {
        let home = dir.join("home");
        std::fs::create_dir_all(home.join(".ssh")).unwrap();
        for name in ["key", "open", ".ssh/id"] {
            std::fs::write(home.join(name), "secret").unwrap();
        }
        let mode = |name: &str, mode| {
            std::fs::set_permissions(home.join(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        // What others may read by its mode is not meant for tasks all the same.
        mode("open", 0o666);
        mode("key", 0o600);
        mode(".ssh", 0o700);
        let name = format!("hedge-test-{}-{}", std::process::id(), common::odd_sleep());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let services = [
            UnixListener::bind(home.join("socket")).unwrap(),
            UnixListener::bind_addr(&address).unwrap(),
        ];
        mode("socket", 0o777);
        let shared_file = Path::new("/dev/shm").join(&name);
        std::fs::write(&shared_file, "secret").unwrap();
        Owner {
            home,
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            udp: UdpSocket::bind("127.0.0.1:0").unwrap(),
            name,
            memory: SharedMemory::new(),
            shared_file,
            _services: services,
        }
    }

    /// A script that tries everything, or what is named.
    fn script(&self, helper: &Path, neighbour: &Path, only: &str) -> String {
        format!(
            "WORKER={} HOME_OF_OWNER={} NEIGHBOUR={} TCP={} UDP={} ABSTRACT={} SHM={} SHARED_FILE={} exec {} attack {only}",
            std::process::id(),
            self.home.display(),
            neighbour.display(),
            self.tcp.local_addr().unwrap().port(),
            self.udp.local_addr().unwrap().port(),
            self.name,
            self.memory.0,
            self.shared_file.display(),
            helper.display(),
        )
    }

    fn check(&self) {
        let mode = |name: &str| {
            let about = std::fs::metadata(self.home.join(name)).unwrap();
            about.permissions().mode() & 0o7777
        };
        assert_eq!(
            (mode("key"), mode("open"), mode(".ssh")),
            (0o600, 0o666, 0o700)
        );
        assert_eq!(
            std::fs::read_to_string(self.home.join("open")).unwrap(),
            "secret"
        );
    }
}

/// What was open, and why what was held was.
fn told(text: &str) -> BTreeMap<String, Option<String>> {
    assert!(text.contains("over"), "{text}");
    let line = |line: &str| {
        let (name, rest) = line.split_once(' ')?;
        match rest.strip_prefix("held: ") {
            Some(why) => Some((name.to_owned(), Some(why.to_owned()))),
            None => (rest == "open").then(|| (name.to_owned(), None)),
        }
    };
    text.lines().filter_map(line).collect()
}

/// Compares with the table; `kind` is 0 for a view and 1 for Landlock alone.
fn compare(text: &str, kind: usize, who: &str) {
    let told = told(text);
    let mut wrong = Vec::new();
    for row in TABLE {
        let expected = match row.stopped_by[kind] {
            Found::Held(_) => true,
            Found::Open(_) => false,
        };
        match told.get(row.name) {
            None => wrong.push(format!("{} was not tried", row.name)),
            Some(held) if held.is_some() != expected => {
                wrong.push(format!(
                    "{}: {held:?}, expected {:?}",
                    row.name, row.stopped_by[kind]
                ));
            }
            Some(_) => {}
        }
    }
    for name in told.keys() {
        if !TABLE.iter().any(|row| row.name == name) {
            wrong.push(format!("{name} is not in the table"));
        }
    }
    assert!(wrong.is_empty(), "{who}, kind {kind}: {wrong:#?}");
}

#[test]
fn the_table_says_what_is_tried_and_what_stops_it() {
    assert!(TABLE.len() >= 80, "{}", TABLE.len());
    for row in TABLE {
        assert!(!row.tries.is_empty());
        for Found::Held(what) | Found::Open(what) in row.stopped_by {
            assert!(!what.is_empty(), "{}", row.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_of_a_worker_that_is_root_are_stopped() {
    for kind in [0, 1] {
        let grid = grid_with(|config| common::allow_namespaces(config, kind == 0)).await;
        let owner = Owner::new(grid.dir.path());
        let neighbour = grid.scratch();
        let running = grid
            .spawner
            .launch(&neighbour, common::sh("echo x > secret; exec sleep 1000"))
            .await;
        common::until("the neighbour runs", || {
            neighbour.folder().join("secret").exists()
        });
        let script = owner.script(Path::new("./helper"), &neighbour.folder(), "");
        let process = grid.spawner.process();
        for _ in 0..3 {
            let scratch = grid.scratch_with_helper();
            let exit = grid.spawner.run(&scratch, common::sh(&script)).await;
            compare(&format!("{}{}", out(&exit), err(&exit)), kind, "root");
        }
        owner.check();
        running.cancel();
        assert_eq!(
            running.wait().await.outcome,
            Err(hedge_model::Ending::Cancelled)
        );
        assert_eq!(grid.spawner.process(), process, "no spawner died");
        assert_eq!(out(&grid.sh("echo still").await), "still\n");
    }
}

#[test]
fn tasks_of_an_ordinary_user_are_stopped() {
    for kind in [0, 1] {
        let dir = TempDir::new().unwrap();
        let helper = common::public_helper(&dir);
        let owner = Owner::new(dir.path());
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        let neighbour = scratch.join("s1/work");
        std::fs::create_dir_all(&neighbour).unwrap();
        let script = owner.script(&helper, &neighbour, "");
        let setting = if kind == 0 { "" } else { "no-namespaces" };
        let mut command = Command::new(&helper);
        // The neighbour's folder is made by an attempt that runs before and beside.
        command
            .arg("worker")
            .arg(&scratch)
            .args([&script, setting, "neighbour"])
            .current_dir("/");
        let own = ["", ".ssh", ".ssh/id", "key", "open"].map(|name| owner.home.join(name));
        let own = own.iter().chain([&scratch]).map(PathBuf::as_path);
        common::as_ordinary_user(&mut command, &own.collect::<Vec<_>>());
        std::fs::remove_dir_all(scratch.join("s1")).unwrap();
        let done = command.output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout);
        assert!(
            done.status.success(),
            "{text} {}",
            String::from_utf8_lossy(&done.stderr)
        );
        compare(&text, kind, "an ordinary user");
        owner.check();
    }
}

/// Shows that the attempts would succeed where nothing stops them.
#[tokio::test]
async fn without_a_sandbox_harmless_ones_succeed() {
    let grid = grid_with(|config| config.sandbox = false).await;
    let owner = Owner::new(grid.dir.path());
    let neighbour = grid.scratch();
    std::fs::write(neighbour.folder().join("secret"), "x").unwrap();
    let names = "read-key read-ssh read-open-file list-home chmod-by-old-call touch-key list-neighbour read-neighbour \
                 watch-home watch-neighbour stat-key see-worker read-command-line list-descriptors kill-worker \
                 limits-of-worker shared-memory-of-owner shared-file-of-owner tcp unix-socket abstract-socket \
                 memory-file timer-with-sigcont input-with-sigcont lease chmod-neighbour";
    let script = owner.script(Path::new("./helper"), &neighbour.folder(), names);
    let scratch = grid.scratch_with_helper();
    let exit = grid.spawner.run(&scratch, common::sh(&script)).await;
    let told = told(&out(&exit));
    let held: Vec<_> = told.iter().filter(|(_, held)| held.is_some()).collect();
    assert!(held.is_empty(), "{held:?}");
    assert_eq!(
        told.len(),
        names.split_whitespace().count(),
        "{}",
        err(&exit)
    );
}
