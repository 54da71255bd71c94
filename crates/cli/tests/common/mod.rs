//! What tests of the command share: machines to run `hedge` on, processes that end with the test, bounded waits.
#![allow(dead_code)]

pub mod again;
pub mod browser;
pub mod buses;
pub mod desktop;
pub mod group;
pub mod http;
pub mod lab;
pub mod pty;
pub mod scene;
pub mod tasks;
pub mod wayland;

use serde_json::Value;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Longest time that anything here may take; machines under load are slow.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Commands that only ask: where a machine is so slow that the grid is not reached in time, they are given again.
const QUESTIONS: &[&str] = &["explain", "job", "jobs", "manifest", "members", "workers"];
/// The exit code that says so.
const UNREACHED: i32 = 3;
const ASKED_MAX: usize = 5;

/// A tool of a package registry that the tests need.
pub fn tool(path: &str) -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools");
    let found = tools.join(path);
    assert!(
        found.exists(),
        "{} is missing: `cargo xtask tools` installs it",
        found.display()
    );
    found
}

/// Where `hedge` is run: a folder that is the current one and holds all state, and a command in front that
/// says where and as whom, like `ip netns exec NAME`.
pub struct Place {
    pub folder: PathBuf,
    before: Vec<String>,
}

impl Place {
    /// This machine, this user.
    pub fn here(folder: &Path) -> Place {
        Place::behind(&[], folder)
    }

    /// Behind another command.
    pub fn behind(before: &[&str], folder: &Path) -> Place {
        fs::create_dir_all(folder).unwrap();
        let before = before.iter().map(|&word| word.to_owned()).collect();
        let folder = folder.to_owned();
        Place { folder, before }
    }

    /// Any program, to be run here.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.before.split_first() {
            None => Command::new(program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        command
            .current_dir(&self.folder)
            .env("HOME", &self.folder)
            .env("XDG_STATE_HOME", self.folder.join("state"))
            .env_remove("HEDGE_TICKET")
            .env("HEDGE_DEDICATED", "1")
            .stdin(Stdio::null());
        command
    }

    /// `hedge` with these arguments.
    pub fn hedge(&self, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_hedge"));
        command.args(args);
        command
    }

    /// A program with the arguments of `hedge` that is as an earlier version was: it knows no newer record format.
    pub fn earlier(&self, format: &str, args: &[&str]) -> Command {
        let mut command = self.program(env!("CARGO_BIN_EXE_hedge-earlier"));
        command.arg(format).args(args);
        command
    }

    /// Runs `hedge` to its end.
    pub fn call(&self, args: &[&str]) -> Output {
        let mut command = self.hedge(args);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        ended(command.spawn().unwrap(), &args.join(" "))
    }

    /// What `hedge … --json` prints; panics where it does not end with 0.
    pub fn ask(&self, args: &[&str]) -> Value {
        let all = [args, &["--json"]].concat();
        let mut output = self.call(&all);
        for _ in 1..ASKED_MAX {
            let question = QUESTIONS.contains(&args[0]) && !args.contains(&"remove");
            if !question || output.status.code() != Some(UNREACHED) {
                break;
            }
            output = self.call(&all);
        }
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", told(&output));
        json(&output)
    }

    /// Starts `hedge` and leaves it running.
    pub fn start(&self, args: &[&str]) -> Kept {
        Kept::start(self.hedge(args), &self.folder)
    }

    /// Starts a supervisor and waits until it listens.
    pub fn supervisor(&self, listen: &str) -> Kept {
        self.listening(self.hedge(&["supervisor", "--listen", listen, "--json"]))
    }

    /// Starts this supervisor and waits until it listens.
    pub fn listening(&self, command: Command) -> Kept {
        let mut supervisor = Kept::start(command, &self.folder);
        until("the supervisor to listen", || {
            assert!(supervisor.running(), "{}", supervisor.told());
            supervisor.out().contains("\"peer\"").then_some(())
        });
        supervisor
    }

    /// A ticket, asked for here.
    pub fn ticket(&self, role: &str) -> String {
        self.ask(&["ticket", role])["ticket"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The workers that the supervisor knows.
    pub fn workers(&self) -> Vec<Value> {
        self.ask(&["workers"]).as_array().unwrap().clone()
    }

    /// Waits until so many workers are live.
    pub fn await_workers(&self, count: usize) -> Vec<Value> {
        until("the workers", || {
            let workers = self.workers();
            let live = workers.iter().filter(|worker| worker["liveness"] == "live");
            (live.count() == count).then_some(workers)
        })
    }

    /// Submits a job file and gives its number.
    pub fn submit(&self, job: &str) -> String {
        self.ask(&["submit", job])["job"].to_string()
    }

    /// Waits for a job's end and gives its view.
    pub fn wait(&self, job: &str) -> Value {
        json(&self.call(&["wait", job, "--json"]))
    }
}

/// A supervisor and so many workers of one CPU each, in folders of their own on this machine.
pub struct Grid {
    pub place: Place,
    pub workers: Vec<Kept>,
    pub supervisor: Kept,
}

impl Grid {
    /// Starts all and waits until the workers are live.
    pub fn start(folder: &Path, workers: usize) -> Grid {
        Grid::with(folder, workers, &[])
    }

    /// With further arguments for the workers.
    pub fn with(folder: &Path, workers: usize, args: &[&str]) -> Grid {
        let place = Place::here(folder);
        let supervisor = place.supervisor("127.0.0.1:0");
        let mut grid = Grid {
            place,
            workers: Vec::new(),
            supervisor,
        };
        for _ in 0..workers {
            grid.add_worker(args);
        }
        grid.place.await_workers(workers);
        grid
    }

    /// Starts another worker; does not wait for it.
    pub fn add_worker(&mut self, args: &[&str]) {
        let ticket = self
            .place
            .folder
            .join("state/hedgerow/supervisor/worker.ticket");
        let ticket = fs::read_to_string(ticket).unwrap();
        let dir = self.worker_dir(self.workers.len());
        let cpus: &[&str] = if args.contains(&"--cpus") {
            &[]
        } else {
            &["--cpus", "1"]
        };
        let fixed = [
            "worker",
            "--listen",
            "127.0.0.1:0",
            "--task-priority",
            "normal",
        ];
        let own = ["--join", ticket.trim(), "--dir", dir.to_str().unwrap()];
        self.workers
            .push(self.place.start(&[&fixed[..], &own, cpus, args].concat()));
    }

    /// The folder of the worker with this number.
    pub fn worker_dir(&self, number: usize) -> PathBuf {
        self.place.folder.join(format!("worker-{number}"))
    }
}

/// A process that ends with the test; what it prints goes to files.
pub struct Kept {
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Kept {
    /// Starts a command; its output goes below `folder`.
    pub fn start(mut command: Command, folder: &Path) -> Kept {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file = |name: &str| folder.join(format!("{number}.{name}"));
        let (out, err) = (file("out"), file("err"));
        command
            .stdout(File::create(&out).unwrap())
            .stderr(File::create(&err).unwrap());
        let child = command.spawn().unwrap();
        Kept { child, out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap()
    }

    pub fn err(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// All that it printed, for messages of failing tests.
    pub fn told(&self) -> String {
        format!("{}{}", self.out(), self.err())
    }

    pub fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Sends a signal, like `-STOP`.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits until it has ended by itself.
    pub fn end(&mut self) -> ExitStatus {
        until("a process to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `hedge doctor` finds for an ordinary user with this environment, like the display to watch; `folder` must let
/// everybody in. Needs root.
pub fn doctor_as_nobody(folder: &Path, env: &[(&str, &str)]) -> Vec<Value> {
    const NOBODY: u32 = 65_534;
    let mut command = Place::here(folder).hedge(&["doctor", "--json"]);
    command.envs(env.iter().copied()).env("HOME", folder);
    let output = command.uid(NOBODY).gid(NOBODY).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", told(&output)))
}

/// Sends a signal, like `-STOP`, to a process that the test started.
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.unwrap().success(), "kill {name} {pid}");
}

/// Waits for a process that has to end by itself.
pub fn ended(child: Child, what: &str) -> Output {
    let pid = child.id();
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = receiver.recv_timeout(PATIENCE) else {
        signal(pid, "-9");
        panic!("this did not end: {what}");
    };
    output.unwrap()
}

/// Asks again and again until `done` gives something.
pub fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// All that a process printed, for messages of failing tests.
pub fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}{err}")
}

pub fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", told(output)))
}
