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
/// The worker that bad luck befalls, and the other one: their machines in the lab.
const HIT: usize = 1;
const OTHER: usize = 2;

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
    /// A supervisor and two workers, each on a machine of its own; the first has room for more.
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
        for machine in [HIT, OTHER] {
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
        let cpus = if machine == HIT { "2" } else { "1" };
        #[rustfmt::skip]
        let args = [
            "worker", "--join", &ticket, "--cpus", cpus, "--listen", &listen,
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

    fn strike(&self, fault: Fault) {
        match fault {
            Killed => self.worker(HIT).signal("-9"),
            Frozen => {
                self.worker(HIT).signal("-STOP");
                std::thread::sleep(AWAY);
                self.worker(HIT).signal("-CONT");
            }
            CutOff => {
                self.lab.cut(HIT);
                std::thread::sleep(AWAY);
                self.lab.mend(HIT);
            }
        }
    }

    fn attempts(&self, job: &str, task: &str) -> Vec<Value> {
        attempts(&self.place, job, task)
    }

    /// The name of the only attempt of a task so far, which is at the worker that is to have bad luck.
    fn attempt_at_hit(&self, job: &str, task: &str) -> String {
        let all = self.attempts(job, task);
        assert_eq!(all.len(), 1, "{all:?}");
        let peer = self.view(HIT)["peer"].as_str().unwrap().to_owned();
        let worker = all[0]["worker"].as_str().unwrap();
        let short = worker.split(' ').next().unwrap();
        assert!(peer.starts_with(short), "{worker} is not {peer}");
        all[0]["attempt"].as_str().unwrap().to_owned()
    }

    fn await_back(&self) {
        until("the worker to be back", || {
            (self.view(HIT)["liveness"] == "live").then_some(())
        });
    }

    /// The job ends as it should, and nothing is left of it.
    fn expect_all_well(mut self, job: &str, fault: Fault) {
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
            self.workers[HIT - 1] = self.start_worker(HIT);
            self.place.await_workers(2);
        }
        for machine in [HIT, OTHER] {
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
    scene.lab.slow(HIT, "8mbit");
    let job = scene.submit("\"big\"");
    for index in 0..2 {
        scene.marks.await_starts(&format!("early.{index}"), 1);
    }
    let (before, _) = scene.lab.traffic(HIT);
    until("the input to be on its way", || {
        (scene.lab.traffic(HIT).0 > before + 1_000_000).then_some(())
    });
    let attempt = scene.attempt_at_hit(&job, "hit");
    assert_eq!(scene.marks.starts("hit"), 0);
    scene.strike(fault);
    let started = scene.marks.await_starts("hit", 1);
    assert!(fault != Killed || !started.contains(&attempt));
    scene.expect_all_well(&job, fault);
}

fn while_running(fault: Fault) {
    let scene = Scene::new();
    let job = scene.submit("");
    scene.marks.await_starts("hit", 1);
    let attempt = scene.attempt_at_hit(&job, "hit");
    scene.strike(fault);
    scene.marks.await_starts("hit", 2);
    if fault == Killed {
        scene.marks.let_go("hit");
        scene.expect_all_well(&job, fault);
        return;
    }
    // The worker kept its attempt, which wins where it ends first.
    scene.await_back();
    scene.marks.let_one_go("hit", &attempt);
    let view = scene.place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(scene.marks.finished()["hit"], [attempt]);
    scene.expect_all_well(&job, fault);
}

/// The task ends while its worker cannot reach the supervisor.
fn while_reporting(fault: Fault) {
    let scene = Scene::new();
    let job = scene.submit("");
    scene.marks.await_starts("hit", 1);
    let attempt = scene.attempt_at_hit(&job, "hit");
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
            scene.strike(Killed);
            scene.supervisor.signal("-CONT");
            scene.marks.let_go("hit");
        }
        Frozen => {
            scene.lab.cut(HIT);
            finish();
            scene.worker(HIT).signal("-STOP");
            scene.lab.mend(HIT);
            std::thread::sleep(AWAY);
            scene.worker(HIT).signal("-CONT");
        }
        CutOff => {
            scene.lab.cut(HIT);
            finish();
            std::thread::sleep(AWAY);
            scene.lab.mend(HIT);
        }
    }
    if fault != Killed {
        // The report that was held up counts; the attempt that the other worker began meanwhile is ended.
        let view = scene.place.wait(&job);
        assert_eq!(view["state"], "done", "{view}");
        assert_eq!(scene.marks.finished()["hit"], [attempt]);
    }
    scene.expect_all_well(&job, fault);
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
