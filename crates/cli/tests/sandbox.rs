//! What a task may do to the machine that runs it, through a real worker: nothing beyond its own folder, unless
//! the machine's owner says otherwise.

mod common;

use common::{Grid, Kept, Place, ended, text, told, until};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tempfile::TempDir;

/// Owns nothing.
const NOBODY: u32 = 65534;

/// What a task tries; each ends with a line `BROKEN name` where it succeeded.
const ATTACKS: [&str; 9] = [
    "key",
    "content",
    "ssh",
    "list",
    "neighbour",
    "write-home",
    "write-dir",
    "signal",
    "network",
];

/// A supervisor, a worker whose owner has secrets, and a neighbour's task that runs on it.
struct Scene {
    worker: Kept,
    /// The worker's folder, and its owner's home.
    dir: PathBuf,
    home: PathBuf,
    service: TcpListener,
    grid: Grid,
    _folder: TempDir,
}

impl Scene {
    /// Starts a worker with these arguments, as this user or as nobody.
    fn start(as_nobody: bool, args: &[&str]) -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let grid = Grid::start(folder.path(), 0);
        let owner = Owner::new(&folder, as_nobody);
        let ticket = grid.place.ticket("worker");
        let dir = owner.place.folder.join("dir");
        #[rustfmt::skip]
        let fixed = [
            "worker", "--join", &ticket, "--dir", dir.to_str().unwrap(), "--cpus", "2",
            "--listen", "127.0.0.1:0", "--task-priority", "normal",
        ];
        let mut command = owner.place.program(&owner.hedge);
        command.args(fixed).args(args);
        let worker = Kept::start(command, folder.path());
        grid.place.await_workers(1);
        let scene = Scene {
            worker,
            dir: dir.join("worker"),
            home: owner.place.folder,
            service: TcpListener::bind("127.0.0.1:0").unwrap(),
            grid,
            _folder: folder,
        };
        scene.start_neighbour();
        scene
    }

    fn start_neighbour(&self) {
        let job = "[[task]]\nid = \"neighbour\"\ncommand = [\"sh\", \"-c\", \
                   \"echo secret > neighbours-secret; exec sleep 1000\"]\n";
        fs::write(self.grid.place.folder.join("neighbour.toml"), job).unwrap();
        let id = self.grid.place.submit("neighbour.toml");
        until("the neighbour's task to write its secret", || {
            (self.grid.place.ask(&["job", &id])["running"] == 1).then_some(())?;
            let found = walk(&self.dir).into_iter();
            found
                .filter(|path| path.ends_with("neighbours-secret"))
                .find_map(|path| fs::metadata(path).ok().filter(|told| told.len() > 0))
        });
    }

    /// Runs all attacks in one task and gives the names of those that succeeded.
    fn broken(&self) -> Vec<String> {
        let (dir, home) = (self.dir.display(), self.home.display());
        let worker = self.worker.pid();
        let port = self.service.local_addr().unwrap().port();
        let script = format!(
            r#"
            try() {{ name=$1; shift; if "$@" > /dev/null 2>&1; then echo BROKEN $name; else echo held $name; fi; }}
            try key grep -q . {dir}/identity
            try content ls {dir}/content
            try ssh grep -q private {home}/.ssh/id_ed25519
            try list ls {home}
            try neighbour sh -c 'find {dir} / -name neighbours-secret 2> /dev/null | grep -q .'
            try write-home touch {home}/new
            try write-dir touch {dir}/new
            try signal kill -0 {worker}
            try network bash -c 'echo hi > /dev/tcp/127.0.0.1/{port}'
            echo own > own && cat own
            "#
        );
        let output = self
            .grid
            .place
            .call(&["submit", "--wait", "--", "sh", "-c", &script]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let out = text(&output.stdout);
        assert!(
            out.ends_with("own\n"),
            "the task's own folder is its own: {out}"
        );
        let lines = || out.lines().filter_map(|line| line.split_once(' '));
        let tried: Vec<&str> = lines().map(|(_, name)| name).collect();
        assert_eq!(tried, ATTACKS, "{}", told(&output));
        let broken = lines().filter(|(how, _)| *how == "BROKEN");
        broken.map(|(_, name)| name.to_owned()).collect()
    }

    fn expect(mut self, broken: &[&str]) {
        assert_eq!(self.broken(), broken);
        assert!(self.worker.running(), "{}", self.worker.told());
        let workers = self.grid.place.workers();
        assert_eq!(workers[0]["liveness"], "live", "{workers:?}");
    }
}

/// Who runs a worker: a home with a key, and a `hedge` that can be executed from there.
struct Owner {
    place: Place,
    hedge: PathBuf,
}

impl Owner {
    fn new(folder: &TempDir, as_nobody: bool) -> Owner {
        let home = folder.path().join("owner");
        let hedge = PathBuf::from(env!("CARGO_BIN_EXE_hedge"));
        if !as_nobody {
            let place = Place::here(&home);
            write_key(&home);
            return Owner { place, hedge };
        }
        assert!(
            rustix::process::geteuid().is_root(),
            "this test becomes another user, which only root may: run it with sudo"
        );
        let id = NOBODY.to_string();
        #[rustfmt::skip]
        let become_nobody = ["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"];
        let place = Place::behind(&become_nobody, &home);
        write_key(&home);
        // Where this was built others may not look.
        let own = folder.path().join("bin-hedge");
        fs::hard_link(&hedge, &own)
            .or_else(|_| fs::copy(&hedge, &own).map(drop))
            .unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        for path in walk(&home).iter().chain([&home]) {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        Owner { place, hedge: own }
    }
}

fn write_key(home: &Path) {
    fs::create_dir(home.join(".ssh")).unwrap();
    fs::write(home.join(".ssh/id_ed25519"), "private").unwrap();
}

/// Everything below a folder.
fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                waiting.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

#[test]
fn a_task_reaches_nothing_of_the_workers_owner() {
    Scene::start(false, &[]).expect(&[]);
}

#[test]
fn a_task_reaches_nothing_of_an_ordinary_user() {
    Scene::start(true, &[]).expect(&[]);
}

#[test]
fn a_task_has_the_network_where_the_owner_allows_it_and_nothing_else() {
    Scene::start(false, &["--allow-network"]).expect(&["network"]);
    Scene::start(true, &["--allow-network"]).expect(&["network"]);
}

/// Shows also that the attacks would succeed where nothing keeps them from it.
#[test]
fn without_a_sandbox_a_task_may_do_what_the_owner_may() {
    Scene::start(true, &["--no-sandbox"]).expect(&ATTACKS);
}

/// Starts what follows without namespaces and Landlock, but for what `KEEP` names.
const WITHOUT_MEANS: &str = r#"
import ctypes, os, platform, struct, sys
arm = platform.machine() == "aarch64"
unshare, clone = (97, 220) if arm else (272, 56)
clone3, landlock, never = 435, 444, 0xffff
keep = os.environ.get("KEEP", "")
if keep == "namespaces": unshare = clone = clone3 = never
if keep == "landlock": landlock = never
LOAD, EQUAL, ANY, RETURN, ALLOW, DENY, NONE = 0x20, 0x15, 0x45, 0x06, 0x7fff0000, 0x50001, 0x50026
steps = [
    (LOAD, 0, 0, 0),
    (EQUAL, 5, 0, landlock),
    (EQUAL, 4, 0, clone3),
    (EQUAL, 4, 0, unshare),
    (EQUAL, 0, 4, clone),
    (LOAD, 0, 0, 16),
    (ANY, 1, 2, 0x7e020000),
    (RETURN, 0, 0, NONE),
    (RETURN, 0, 0, DENY),
    (RETURN, 0, 0, ALLOW),
]
code = b"".join(struct.pack("HBBI", *step) for step in steps)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(steps), code)), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn the_doctor_says_what_is_guaranteed_here() {
    let folder = tempfile::tempdir().unwrap();
    let (view, landlock) = (
        "tasks cannot reach the owner's",
        "tasks cannot read or change",
    );
    let names = "not guaranteed: tasks can look up names";
    for (kept, says, not) in [
        ("namespaces", [view, "a view of its own"], [landlock, names]),
        ("landlock", [landlock, names], [view, "a view of its own"]),
        ("", ["no sandbox", "BAD"], [view, landlock]),
    ] {
        let keep = format!("KEEP={kept}");
        let before = ["env", &keep, "python3", "-c", WITHOUT_MEANS];
        let place = Place::behind(&before, &folder.path().join(format!("kept-{kept}")));
        let output = place.hedge(&["doctor"]).output().unwrap();
        let found = text(&output.stdout);
        assert!(
            says.iter().all(|text| found.contains(text)),
            "{kept}: {found}"
        );
        assert!(
            !not.iter().any(|text| found.contains(text)),
            "{kept}: {found}"
        );
    }
}

#[test]
fn a_worker_without_any_means_for_a_sandbox_refuses_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 0);
    let ticket = grid.place.ticket("worker");
    let place = Place::behind(
        &["python3", "-c", WITHOUT_MEANS],
        &folder.path().join("bare"),
    );
    let args = ["worker", "--join", &ticket, "--listen", "127.0.0.1:0"];
    let mut command = place.hedge(&args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ended(command.spawn().unwrap(), "a worker without means");
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let why = text(&output.stderr);
    assert!(
        why.contains("sandbox") && why.contains("--no-sandbox"),
        "{why}"
    );
    assert_eq!(grid.place.workers().len(), 0);
    let _worker = place.start(&[&args[..], &["--no-sandbox"]].concat());
    grid.place.await_workers(1);
    let output = grid.place.call(&["submit", "--wait", "--", "echo", "hi"]);
    assert_eq!(text(&output.stdout), "hi\n", "{}", told(&output));
}
