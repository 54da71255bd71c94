//! What a user sees of a grid through the command line: output, results, exit codes, Ctrl-C.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest time that anything here may take; machines under load are slow.
const PATIENCE: Duration = Duration::from_secs(240);

fn hedge(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedge"));
    command
        .args(args)
        .current_dir(folder)
        .env("XDG_STATE_HOME", folder.join("state"))
        .env_remove("HEDGE_TICKET")
        .env("HEDGE_DEDICATED", "1")
        .stdin(Stdio::null());
    command
}

fn call(folder: &Path, args: &[&str]) -> Output {
    let mut command = hedge(folder, args);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    bounded(command.spawn().unwrap(), args)
}

/// Waits for a process that has to end by itself.
fn bounded(child: Child, args: &[&str]) -> Output {
    let pid = child.id().to_string();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        let _ = Command::new("kill").args(["-9", &pid]).status();
        panic!("{args:?} did not end");
    };
    output.unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}{}", text(&output.stdout), text(&output.stderr)))
}

/// Asks again and again until `done` gives something.
fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([name, &pid])
            .status()
            .unwrap()
            .success()
    );
}

/// A process that ends with the test.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A supervisor and a worker on this machine.
fn grid(folder: &Path) -> [Kept; 2] {
    let start = |args: &[&str]| {
        Kept(
            hedge(folder, args)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    };
    let supervisor = start(&["supervisor", "--listen", "127.0.0.1:0"]);
    until("the supervisor", || {
        call(folder, &["jobs"]).status.success().then_some(())
    });
    let worker = start(&[
        "worker",
        "--listen",
        "127.0.0.1:0",
        "--task-priority",
        "normal",
    ]);
    until("the worker", || {
        let workers = json(&call(folder, &["workers", "--json"]));
        (workers.as_array()?.len() == 1).then_some(())
    });
    [supervisor, worker]
}

#[test]
fn run_prints_what_the_program_prints_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let output = call(folder.path(), &["run", "--", "echo", "hi"]);
    assert_eq!(
        (
            output.status.code(),
            text(&output.stdout),
            text(&output.stderr)
        ),
        (Some(0), "hi\n", "")
    );
    let output = call(
        folder.path(),
        &[
            "run",
            "--array",
            "1..4",
            "--",
            "sh",
            "-c",
            "echo $HEDGE_INDEX ${index}",
        ],
    );
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "1 1\n2 2\n3 3\n")
    );
    let output = call(folder.path(), &["run", "--json", "--", "echo", "hi"]);
    let told = json(&output);
    assert_eq!(
        (&told["state"], &told["stdout"], &told["tasks"]),
        (&"done".into(), &"hi\n".into(), &1.into())
    );
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "nothing is left behind"
    );
}

#[test]
fn a_program_that_fails_or_is_missing_fails_the_run_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let output = call(
        folder.path(),
        &["run", "--", "sh", "-c", "echo broken >&2; exit 3"],
    );
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(
        told.contains("broken") && told.contains("exit code 3"),
        "{told}"
    );
    let output = call(folder.path(), &["run", "--", "no-such-program"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("program not found: no-such-program"));
}

#[test]
fn results_never_touch_those_of_an_earlier_run_unless_a_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    fs::write(here.join("in.txt"), "x").unwrap();
    fs::write(here.join("big.bin"), vec![5; 1 << 20]).unwrap();
    let job = r#"
name = "copy"
[[task]]
id = "copy"
command = ["sh", "-c", "cp in.txt out.txt; mkdir deep; cp big.bin deep/big.bin; chmod +x out.txt"]
inputs = ["*.txt", "big.bin"]
outputs = ["out.txt", "deep"]
"#;
    fs::write(here.join("job.toml"), job).unwrap();
    for folder in ["copy-results", "copy-results-2"] {
        let output = call(here, &["run", "job.toml", "--json"]);
        let told = json(&output);
        assert_eq!(told["state"], "done", "{told}");
        let paths: Vec<String> = serde_json::from_value(told["results"].clone()).unwrap();
        assert_eq!(
            paths,
            [
                format!("{folder}/deep/big.bin"),
                format!("{folder}/out.txt")
            ]
        );
        assert_eq!(fs::read(here.join(&paths[0])).unwrap(), vec![5; 1 << 20]);
    }
    fs::write(here.join("in.txt"), "new").unwrap();
    fs::write(here.join("copy-results/mine"), "kept").unwrap();
    let output = call(here, &["run", "job.toml", "--out", "copy-results"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("copy-results/out.txt"));
    assert_eq!(fs::read(here.join("copy-results/out.txt")).unwrap(), b"new");
    assert_eq!(fs::read_dir(here.join("copy-results")).unwrap().count(), 3);
}

#[test]
fn ctrl_c_cancels_a_run_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let run = hedge(folder.path(), &["run", "--", "sleep", "1000"])
        .env("TMPDIR", &temporary)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the run's folder", || {
        fs::read_dir(&temporary).unwrap().next().map(drop)
    });
    signal(&run, "-INT");
    let output = bounded(run, &["run"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{told}");
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "{told}");
}

#[test]
fn a_run_whose_workers_cannot_work_here_ends_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    // Tasks may read all devices, so that nothing can be hidden from them there.
    let run = hedge(folder.path(), &["run", "--", "true"])
        .env("TMPDIR", "/dev/shm")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let output = bounded(run, &["run"]);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    let (why, end) = ("must be hidden from tasks", "no worker can work here");
    assert!(told.contains(why) && told.contains(end), "{told}");
}

#[test]
fn a_job_on_the_grid_is_submitted_watched_explained_and_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let _grid = grid(here);
    let job = "[[task]]\nid = \"a\"\ncommand = [\"sh\", \"-c\", \"echo said; echo made > made\"]\noutputs = [\"made\"]\n";
    fs::write(here.join("job.toml"), job).unwrap();
    let key = "00112233445566778899aabbccddeeff";
    let numbers = [(); 2].map(|()| {
        json(&call(here, &["submit", "job.toml", "--key", key, "--json"]))["job"].clone()
    });
    assert_eq!(
        numbers[0], numbers[1],
        "the second submission of a key is the first"
    );
    let id = numbers[0].to_string();
    let waited = call(here, &["wait", &id, "--json"]);
    assert_eq!(
        (waited.status.code(), &json(&waited)["state"]),
        (Some(0), &"done".into())
    );
    let fetched = call(here, &["fetch", &id, "--out", "out"]);
    assert_eq!(text(&fetched.stdout), "out/made\n");
    assert_eq!(fs::read(here.join("out/made")).unwrap(), b"made\n");
    let logs = call(here, &["logs", &id, "a"]);
    assert_eq!(text(&logs.stdout), "said\n");
    assert_eq!(
        json(&call(here, &["logs", &id, "a", "--json"]))["stdout_total_bytes"],
        5
    );
    let explained = call(here, &["explain", &id, "a"]);
    assert!(
        text(&explained.stdout).starts_with("a is done"),
        "{}",
        text(&explained.stdout)
    );
    assert!(text(&call(here, &["jobs"]).stdout).contains("1/1"));
    assert_eq!(json(&call(here, &["job", &id, "--json"]))["state"], "done");
    let watched = call(here, &["job", &id, "--watch"]);
    assert!(text(&watched.stdout).contains("done after"));
    let output = call(here, &["submit", "--wait", "--", "echo", "hi"]);
    assert_eq!(
        (output.status.code(), text(&output.stdout)),
        (Some(0), "hi\n")
    );
    for args in [
        &["job", "99"][..],
        &["logs", &id, "b"],
        &["drain", "nobody"],
    ] {
        assert_eq!(call(here, args).status.code(), Some(2), "{args:?}");
    }
    let ended = call(here, &["cancel", &id, "last"]);
    assert_eq!(ended.status.code(), Some(0), "{}", text(&ended.stderr));
    assert_eq!(
        text(&ended.stdout)
            .matches("had ended already: done")
            .count(),
        2
    );
}

#[test]
fn ctrl_c_leaves_a_submitted_job_running_and_says_how_to_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let _grid = grid(here);
    let submit = hedge(here, &["submit", "--wait", "--", "sleep", "1000"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the job", || {
        let job = json(&call(here, &["jobs", "--json"])).get(0)?.clone();
        (job["running"] == 1).then_some(())
    });
    signal(&submit, "-INT");
    let output = bounded(submit, &["submit"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(
        text(&output.stderr).contains("hedge wait 1"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(
        json(&call(here, &["job", "1", "--json"]))["state"],
        "running"
    );
    assert_eq!(call(here, &["cancel", "1"]).status.code(), Some(0));
    let waited = call(here, &["wait", "1", "--json"]);
    assert_eq!(
        (waited.status.code(), &json(&waited)["state"]),
        (Some(5), &"cancelled".into())
    );
}

#[test]
fn tickets_let_in_by_their_role_alone() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let _grid = grid(here);
    let ticket = |role: &str| {
        let output = call(here, &["ticket", role]);
        text(&output.stdout).trim().to_owned()
    };
    let (client, worker) = (ticket("client"), ticket("worker"));
    let other = here.join("other").display().to_string();
    let with = |ticket: &str| call(here, &["jobs", "--dir", &other, "--join", ticket]);
    assert_eq!(with(&client).status.code(), Some(0));
    let output = with(&worker);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let output = with("hedge-client-madeup");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let output = hedge(here, &["jobs", "--dir", &other])
        .env("HEDGE_TICKET", &client)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = call(here, &["worker", "--dir", &other, "--join", &client]);
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
}

#[test]
fn a_drained_worker_leaves_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let [_supervisor, mut worker] = grid(here);
    let name = json(&call(here, &["workers", "--json"]))[0]["peer"]
        .as_str()
        .unwrap()[..12]
        .to_owned();
    assert_eq!(call(here, &["drain", &name]).status.code(), Some(0));
    let status = until("the worker's end", || worker.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn what_a_failing_program_printed_is_shown_like_that_of_one_that_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let program = "echo counted; echo broken >&2; exit 3";
    let output = call(folder.path(), &["run", "--", "sh", "-c", program]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), "counted\n");
    let told = text(&output.stderr);
    assert!(
        told.contains("broken") && told.contains("exit code 3"),
        "{told}"
    );
}
