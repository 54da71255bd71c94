//! What is too large for a message, a record or a disk: it is refused with a reason, and the grid goes on.

mod common;

use common::group::Group;
use common::tasks::Marks;
use common::{Grid, Kept, Place, text, told, until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Writes a job file and gives its name.
fn job_file(grid: &Grid, name: &str, job: &str) -> String {
    fs::write(grid.place.folder.join(name), job).unwrap();
    name.to_owned()
}

/// A script that leaves so many empty files below `out`, each with a path of about 940 bytes.
fn long_names(folder: &str, files: u32) -> String {
    let part = "d".repeat(240);
    format!(
        "d={folder}/{part}/{part}/{part}; mkdir -p $d; cd $d; i=0; \
         while [ $i -lt {files} ]; do : > $i-{}; i=$((i+1)); done",
        "f".repeat(200)
    )
}

/// What is wrong with the disk of some supervisor, as members are listed.
fn fault(members: &Value) -> String {
    let mut faults = members
        .as_array()
        .unwrap()
        .iter()
        .map(|member| &member["disk_fault"]);
    let fault = faults.find_map(Value::as_str);
    fault.unwrap_or_default().to_owned()
}

fn runs(grid: &Grid) {
    let after = grid.place.call(&["submit", "--wait", "--", "echo", "hi"]);
    assert_eq!(after.status.code(), Some(0), "{}", told(&after));
}

#[test]
fn a_job_whose_command_no_program_could_be_given_is_refused_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let job = format!(
        "[[task]]\nid = \"long\"\ncommand = [\"echo\", \"{}\"]\n",
        "x".repeat(20 << 20)
    );
    let name = job_file(&grid, "long.toml", &job);
    let refused = grid.place.call(&["submit", &name]);
    assert_eq!(refused.status.code(), Some(2));
    let why = text(&refused.stderr);
    assert!(
        why.contains("Linux gives a program at most 128 KiB"),
        "{}",
        &why[..why.len().min(2000)]
    );
    assert_eq!(grid.place.ask(&["jobs"]), json!([]));
    runs(&grid);
}

#[test]
fn a_task_that_leaves_more_names_than_a_report_carries_fails_with_a_reason_and_frees_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let job = format!(
        "[[task]]\nid = \"names\"\ncommand = [\"sh\", \"-c\", \"{}\"]\noutputs = [\"out\"]\nretries = 0\n",
        long_names("out", 20_000)
    );
    let name = job_file(&grid, "names.toml", &job);
    let id = grid.place.submit(&name);
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "failed", "{ended}");
    assert_eq!(ended["attempts"]["total"], 1, "{ended}");
    let why = ended["why"].as_str().unwrap();
    assert!(
        why.contains("left 20000 files") && why.contains("pack them"),
        "{why}"
    );
    runs(&grid);
}

#[test]
fn a_task_that_reads_more_names_than_a_message_carries_fails_its_job_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let task = |id: &str| {
        let script = long_names(id, 9_000);
        format!(
            "[[task]]\nid = \"{id}\"\ncommand = [\"sh\", \"-c\", \"{script}\"]\noutputs = [\"{id}\"]\n"
        )
    };
    let both = "[[task]]\nid = \"both\"\ncommand = [\"ls\"]\ninputs = [{ task = \"a\" }, { task = \"b\" }]\n";
    let job = [task("a"), task("b"), both.to_owned()].concat();
    let name = job_file(&grid, "both.toml", &job);
    let id = grid.place.submit(&name);
    let ended = grid.place.wait(&id);
    assert_eq!(ended["state"], "failed", "{ended}");
    let why = ended["why"].as_str().unwrap();
    assert!(why.contains("\"both\" reads 18000 files"), "{why}");
    runs(&grid);
}

/// A supervisor whose state is on a disk of its own, in a mount namespace that ends with it.
struct SmallDisk {
    supervisor: Kept,
    /// Clients that see the same disk.
    inside: Place,
    state: PathBuf,
}

impl SmallDisk {
    fn start(folder: &Path, size: &str) -> SmallDisk {
        let state = folder.join("state");
        fs::create_dir_all(&state).unwrap();
        let mount = format!(
            "mount -t tmpfs -o size={size} tmpfs {} && exec \"$@\"",
            state.display()
        );
        let before = ["unshare", "--mount", "sh", "-c", &mount, "sh"];
        let supervisor = Place::behind(&before, folder).supervisor("127.0.0.1:0");
        let pid = supervisor.pid().to_string();
        let before = ["nsenter", "--mount", "--target", &pid];
        SmallDisk {
            inside: Place::behind(&before, folder),
            supervisor,
            state,
        }
    }

    /// Runs a shell command where the disk is seen.
    fn shell(&self, script: &str) -> String {
        let mut command = self.inside.program("sh");
        let output = command
            .args(["-c", script])
            .current_dir("/")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", told(&output));
        text(&output.stdout).to_owned()
    }
}

#[test]
fn a_supervisor_whose_disk_is_full_says_so_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let disk = SmallDisk::start(folder.path(), "64m");
    let state = disk.state.display();
    let ticket = disk.shell(&format!("cat {state}/hedgerow/supervisor/worker.ticket"));
    let dir = folder.path().join("worker");
    let args = "worker --listen 127.0.0.1:0 --cpus 1 --no-sandbox";
    let args: Vec<&str> = args.split(' ').collect();
    let own = ["--join", ticket.trim(), "--dir", dir.to_str().unwrap()];
    let _worker = Place::here(&folder.path().join("at-worker")).start(&[&args[..], &own].concat());
    disk.inside.await_workers(1);
    let work = "head -c 6000000 /dev/urandom > out";
    let job = marks.task("big", work, "outputs = [\"out\"]");
    fs::write(folder.path().join("big.toml"), job).unwrap();
    let job = folder.path().join("big.toml");
    let job = disk.inside.submit(job.to_str().unwrap());
    marks.await_starts("big", 1);
    // Leaves 6 MiB, of which the content store keeps 4.
    disk.shell(&format!(
        "free=$(df --output=avail -k {state} | tail -1); fallocate -l $((free - 6144))K {state}/filler"
    ));
    marks.let_go("big");
    until("the job to say what it waits for", || {
        let view = disk.inside.ask(&["job", &job]);
        assert_ne!(view["state"], "done", "{view}");
        let why = view["waits"].to_string();
        why.contains("of its results cannot be stored yet")
            .then_some(())
    });
    let listed = disk.inside.call(&["jobs"]);
    assert!(
        text(&listed.stdout).contains("waits: 1 of its results"),
        "{}",
        told(&listed)
    );
    let explained = disk.inside.call(&["explain", &job]);
    assert!(
        text(&explained.stdout).contains("free"),
        "{}",
        told(&explained)
    );
    let members = disk.inside.ask(&["members"]);
    assert!(fault(&members).contains("make room there"), "{members}");
    let refused = disk.inside.call(&["submit", "--", "echo", "hi"]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("cannot keep a job"),
        "{}",
        told(&refused)
    );
    disk.shell(&format!("rm {state}/filler"));
    assert_eq!(
        disk.inside.wait(&job)["state"],
        "done",
        "{}",
        disk.supervisor.told()
    );
    until("the supervisor to notice", || {
        fault(&disk.inside.ask(&["members"]))
            .is_empty()
            .then_some(())
    });
    let after = disk.inside.call(&["submit", "--wait", "--", "echo", "hi"]);
    assert_eq!(after.status.code(), Some(0), "{}", told(&after));
}

#[test]
fn a_supervisor_whose_folder_is_deleted_hands_over_leadership_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 1);
    let leader = group.leader();
    for number in [leader, (leader + 1) % 3] {
        let dir = group.places[number]
            .folder
            .join("state/hedgerow/supervisor");
        fs::rename(&dir, dir.with_extension("moved")).unwrap();
        let mut kept = group.supervisors[number].take().unwrap();
        assert_ne!(kept.end().code(), Some(0));
        assert!(
            kept.err().contains("was deleted or replaced"),
            "{}",
            kept.told()
        );
        if number != leader {
            break;
        }
        let next = group.leader();
        assert_ne!(next, leader, "{}", group.told());
        group.write_job(&["[[task]]\nid = \"t\"\ncommand = [\"true\"]\n"]);
        let args = group.args(&["submit", "--wait", "job.toml"]);
        let after = group.client.call(&args);
        assert_eq!(after.status.code(), Some(0), "{}", told(&after));
    }
}

#[test]
fn a_supervisor_that_is_alone_and_whose_folder_is_deleted_refuses_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 0);
    let ticket = grid.place.ticket("admin");
    let client = Place::here(&folder.path().join("client"));
    let dir = folder.path().join("state/hedgerow/supervisor");
    fs::rename(&dir, dir.with_extension("moved")).unwrap();
    until("the supervisor to notice", || {
        let members = client.ask(&["members", "--join", &ticket]);
        fault(&members)
            .contains("was deleted or replaced")
            .then_some(())
    });
    let refused = client.call(&["submit", "--join", &ticket, "--", "echo", "hi"]);
    assert!(!refused.status.success());
    assert!(
        text(&refused.stderr).contains("cannot keep a job"),
        "{}",
        told(&refused)
    );
}
