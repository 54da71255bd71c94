//! A worker that is killed, frozen or cut off while a task's inputs are on their way to it, while the task
//! runs, and while its report is on its way back: the job ends, nothing is lost, no finished task runs again.

mod common;

use common::lab::Lab;
use common::tasks::{Marks, attempts, await_empty_scratch, count, processes_below};
use common::{Kept, Place, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long a worker is frozen or cut off: longer than the supervisor waits for it.
const AWAY: Duration = Duration::from_secs(5);
/// The workers' machines in the lab. Bad luck befalls the one that is given the task, whichever it is.
const MACHINES: [usize; 2] = [1, 2];

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    Killed,
    Frozen,
    CutOff,
}

use Fault::{CutOff, Frozen, Killed};

struct Scene {
    marks: Marks,
    place: Place,
    supervisor: Kept,
    workers: Vec<Kept>,
    lab: Lab,
    folder: TempDir,
}

impl Scene {
    /// A supervisor and two workers, each on a machine of its own.
    fn new() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        let marks = Marks::new(folder.path());
        let lab = Lab::new(3);
        let place = lab.place(0, &folder.path().join("supervisor"));
        let supervisor = place.supervisor(&format!("{}:0", lab.address(0)));
        let mut scene = Scene {
            marks,
            place,
            supervisor,
            workers: Vec::new(),
            lab,
            folder,
        };
        for machine in MACHINES {
            let worker = scene.start_worker(machine);
            scene.workers.push(worker);
        }
        scene.place.await_workers(2);
        scene
    }

    fn start_worker(&self, machine: usize) -> Kept {
        let place = self.lab.place(machine, &self.machine(machine));
        let listen = format!("{}:0", self.lab.address(machine));
        let ticket = self.place.ticket("worker");
        #[rustfmt::skip]
        let args = [
            "worker", "--join", &ticket, "--cpus", "2", "--listen", &listen,
            "--no-sandbox", "--task-priority", "normal",
        ];
        place.start(&args)
    }

    fn machine(&self, machine: usize) -> PathBuf {
        self.folder.path().join(format!("machine-{machine}"))
    }

    fn worker(&self, machine: usize) -> &Kept {
        &self.workers[machine - 1]
    }

    /// A worker as `hedge workers` shows it.
    fn view(&self, machine: usize) -> Value {
        let pid = self.worker(machine).pid();
        let mut views = self.place.workers().into_iter();
        views.find(|view| view["pid"] == pid).unwrap()
    }

    /// Submits the job: two early tasks, the one whose worker has bad luck, and one that reads what all left.
    fn submit(&self, hit_inputs: &str) -> String {
        let tasks = [
            self.marks.task(
                "early",
                "head -c 200000 /dev/urandom > early-$HEDGE_INDEX",
                "array = \"0..2\"\noutputs = [\"early-${index}\"]",
            ),
            self.marks.task(
                "hit",
                "head -c 1000000 /dev/urandom > hit",
                &format!("deps = [\"early\"]\ninputs = [{hit_inputs}]\noutputs = [\"hit\"]"),
            ),
            self.marks.task(
                "after",
                "cat early-* hit | wc -c > size",
                "inputs = [{ task = \"early\" }, { task = \"hit\" }]\noutputs = [\"size\"]",
            ),
        ];
        let job = ["[qos]\nredundancy = \"none\"\n", &tasks.concat()].concat();
        fs::write(self.place.folder.join("job.toml"), job).unwrap();
        for index in 0..2 {
            self.marks.let_go(&format!("early.{index}"));
        }
        self.marks.let_go("after");
        self.place.submit("job.toml")
    }

    fn strike(&self, hit: usize, fault: Fault) {
        match fault {
            Killed => self.worker(hit).signal("-9"),
            Frozen => {
                self.worker(hit).signal("-STOP");
                std::thread::sleep(AWAY);
                self.worker(hit).signal("-CONT");
            }
            CutOff => {
                self.lab.cut(hit);
                std::thread::sleep(AWAY);
                self.lab.mend(hit);
            }
        }
    }

    fn attempts(&self, job: &str, task: &str) -> Vec<Value> {
        attempts(&self.place, job, task)
    }

    /// The machine that the only attempt of the task so far is at, and the attempt's name.
    fn hit(&self, job: &str) -> (usize, String) {
        let all = until("the task to be at a worker", || {
            Some(self.attempts(job, "hit")).filter(|all| !all.is_empty())
        });
        assert_eq!(all.len(), 1, "{all:?}");
        let worker = all[0]["worker"].as_str().unwrap();
        let short = worker.split(' ').next().unwrap();
        let is_it = |machine: &usize| {
            self.view(*machine)["peer"]
                .as_str()
                .unwrap()
                .starts_with(short)
        };
        let machine = MACHINES.into_iter().find(is_it);
        let attempt = all[0]["attempt"].as_str().unwrap().to_owned();
        (
            machine.unwrap_or_else(|| panic!("{worker} is none of the two")),
            attempt,
        )
    }

    fn await_back(&self, hit: usize) {
        until("the worker to be back", || {
            (self.view(hit)["liveness"] == "live").then_some(())
        });
    }

    /// The job ends as it should, and nothing is left of it.
    fn expect_all_well(mut self, job: &str, hit: usize, fault: Fault) {
        let view = self.place.wait(job);
        assert_eq!(view["state"], "done", "{view}");
        let fetched = self.place.ask(&["fetch", job, "--out", "got"]);
        assert_eq!(
            fs::read_to_string(self.place.folder.join("got/size")).unwrap(),
            "1400000\n",
            "{fetched}"
        );
        for task in ["early.0", "early.1", "after"] {
            let told = self.place.ask(&["explain", job, task]);
            let made_again = told["tasks"][0]["generation"].as_u64().unwrap() as usize;
            let lost = count(&self.attempts(job, task), "state", "lost");
            assert!(
                self.marks.starts(task) <= 1 + made_again + lost,
                "{task} ran again though it was done: {told}"
            );
        }
        self.marks.await_no_processes();
        if fault == Killed {
            self.workers[hit - 1] = self.start_worker(hit);
            self.place.await_workers(2);
        }
        for machine in MACHINES {
            let worker = self.machine(machine).join("state/hedgerow/worker");
            await_empty_scratch(&worker);
        }
        self.workers.clear();
        self.supervisor.signal("-TERM");
        assert_eq!(self.supervisor.end().code(), Some(0));
        until("all processes to end", || {
            processes_below(self.folder.path()).is_empty().then_some(())
        });
    }
}

fn random_file(path: &Path, size: usize) {
    let mut bytes = vec![0; size];
    let mut random = fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut random, &mut bytes).unwrap();
    fs::write(path, bytes).unwrap();
}

fn while_staging(fault: Fault) {
    let scene = Scene::new();
    random_file(&scene.place.folder.join("big"), 8 << 20);
    scene.marks.let_go("hit");
    // 8 MiB take 8 s.
    for machine in MACHINES {
        scene.lab.slow(machine, "8mbit");
    }
    let job = scene.submit("\"big\"");
    for index in 0..2 {
        scene.marks.await_starts(&format!("early.{index}"), 1);
    }
    let (hit, attempt) = scene.hit(&job);
    let (before, _) = scene.lab.traffic(hit);
    until("the input to be on its way", || {
        (scene.lab.traffic(hit).0 > before + 1_000_000).then_some(())
    });
    assert_eq!(scene.marks.starts("hit"), 0);
    scene.strike(hit, fault);
    let started = scene.marks.await_starts("hit", 1);
    assert!(fault != Killed || !started.contains(&attempt));
    scene.expect_all_well(&job, hit, fault);
}

fn while_running(fault: Fault) {
    let scene = Scene::new();
    let job = scene.submit("");
    scene.marks.await_starts("hit", 1);
    let (hit, attempt) = scene.hit(&job);
    scene.strike(hit, fault);
    scene.marks.await_starts("hit", 2);
    if fault == Killed {
        scene.marks.let_go("hit");
        scene.expect_all_well(&job, hit, fault);
        return;
    }
    // The worker kept its attempt, which wins where it ends first.
    scene.await_back(hit);
    scene.marks.let_one_go("hit", &attempt);
    let view = scene.place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(scene.marks.finished()["hit"], [attempt]);
    scene.expect_all_well(&job, hit, fault);
}

/// The task ends while its worker cannot reach the supervisor.
fn while_reporting(fault: Fault) {
    let scene = Scene::new();
    let job = scene.submit("");
    scene.marks.await_starts("hit", 1);
    let (hit, attempt) = scene.hit(&job);
    let finish = || {
        scene.marks.let_one_go("hit", &attempt);
        until("the task to end", || {
            let ended = scene.marks.finished().contains_key("hit");
            (ended && scene.marks.processes().is_empty()).then_some(())
        });
    };
    match fault {
        Killed => {
            scene.supervisor.signal("-STOP");
            finish();
            scene.strike(hit, Killed);
            scene.supervisor.signal("-CONT");
            scene.marks.let_go("hit");
        }
        Frozen => {
            scene.lab.cut(hit);
            finish();
            scene.worker(hit).signal("-STOP");
            scene.lab.mend(hit);
            std::thread::sleep(AWAY);
            scene.worker(hit).signal("-CONT");
        }
        CutOff => {
            scene.lab.cut(hit);
            finish();
            std::thread::sleep(AWAY);
            scene.lab.mend(hit);
        }
    }
    if fault != Killed {
        // The report that was held up counts; the attempt that the other worker began meanwhile is ended.
        let view = scene.place.wait(&job);
        assert_eq!(view["state"], "done", "{view}");
        assert_eq!(scene.marks.finished()["hit"], [attempt]);
    }
    scene.expect_all_well(&job, hit, fault);
}

#[test]
fn a_worker_killed_while_staging() {
    while_staging(Killed);
}

#[test]
fn a_worker_frozen_while_staging() {
    while_staging(Frozen);
}

#[test]
fn a_worker_cut_off_while_staging() {
    while_staging(CutOff);
}

#[test]
fn a_worker_killed_while_running() {
    while_running(Killed);
}

#[test]
fn a_worker_frozen_while_running() {
    while_running(Frozen);
}

#[test]
fn a_worker_cut_off_while_running() {
    while_running(CutOff);
}

#[test]
fn a_worker_killed_while_reporting() {
    while_reporting(Killed);
}

#[test]
fn a_worker_frozen_while_reporting() {
    while_reporting(Frozen);
}

#[test]
fn a_worker_cut_off_while_reporting() {
    while_reporting(CutOff);
}
