//! What Hedgerow promises of critical tasks and their copies, on real processes; docs/claims.md lists each
//! promise with its tests.

mod common;

use common::tasks::{Marks, attempts, count, workers_of};
use common::{Grid, Place, json, told, until};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Copies of the tasks that are marked, and no others.
const MARKED_ALONE: &str = "[qos]\nredundancy = \"critical\"\n[critical]\nby = []\n";

struct Scene {
    marks: Marks,
    grid: Grid,
    _folder: TempDir,
}

/// A grid of so many workers, each with one CPU, for gated tasks.
fn scene(workers: usize) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), workers, &["--no-sandbox"]);
    Scene {
        marks,
        grid,
        _folder: folder,
    }
}

/// A grid that suspects nobody: on a machine that is busy with tests workers are silent for a moment now and then, and
/// what they run would be copied.
fn patient(workers: usize) -> Scene {
    let scene = scene(workers);
    for (name, value) in [
        ("dead_heartbeats", "10000"),
        ("dead_min", "1min"),
        ("suspect_heartbeats", "1000"),
        ("suspect_max", "1min"),
    ] {
        scene.place().ask(&["config", "set", name, value]);
    }
    scene
}

impl Scene {
    fn submit(&self, job: &str) -> String {
        fs::write(self.grid.place.folder.join("job.toml"), job).unwrap();
        self.grid.place.submit("job.toml")
    }

    fn attempts(&self, job: &str, task: &str) -> Vec<Value> {
        attempts(&self.grid.place, job, task)
    }

    fn place(&self) -> &Place {
        &self.grid.place
    }
}

fn start(command: &mut Command) -> std::process::Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn critical_tasks_run_twice_and_the_job_ends_when_each_task_is_done_once() {
    let scene = patient(4);
    let Scene { marks, .. } = &scene;
    for winner in ["primary", "redundant"] {
        let [critical, normal] = [format!("c-{winner}"), format!("n-{winner}")];
        let tasks = [
            marks.task(&critical, "", "critical = true"),
            marks.task(&normal, "", "array = \"0..2\""),
        ];
        let job = scene.submit(&[MARKED_ALONE, &tasks[0], &tasks[1]].concat());
        marks.await_starts(&critical, 2);
        let running = scene.attempts(&job, &critical);
        assert_eq!(workers_of(&running).len(), 2, "{running:?}");
        assert_eq!(count(&running, "kind", "redundant"), 1, "{running:?}");
        let one = running.iter().find(|one| one["kind"] == winner).unwrap();
        for index in 0..2 {
            marks.await_starts(&format!("{normal}.{index}"), 1);
            marks.let_go(&format!("{normal}.{index}"));
        }
        marks.let_one_go(&critical, one["attempt"].as_str().unwrap());
        let view = scene.place().wait(&job);
        assert_eq!(
            (
                &view["state"],
                &view["tasks"],
                &view["critical"],
                &view["attempts"]["total"],
                &view["attempts"]["redundant"]
            ),
            (&"done".into(), &3.into(), &1.into(), &4.into(), &1.into()),
            "{view}"
        );
        let ended = scene.attempts(&job, &critical);
        let won = ended.iter().find(|one| one["state"] == "won").unwrap();
        assert_eq!(won["kind"], winner, "{ended:?}");
        assert_eq!(marks.finished()[&critical].len(), 1);
        assert_eq!(marks.starts(&critical), 2);
        for index in 0..2 {
            assert_eq!(marks.starts(&format!("{normal}.{index}")), 1);
        }
        // The attempt that did not win was never let go: it is ended instead.
        marks.await_no_processes();
    }
}

#[test]
fn supervisor_monitors_workers_and_assigns_critical_tasks_again() {
    let scene = scene(4);
    let Scene { marks, grid, .. } = &scene;
    let pids: Vec<u32> = grid.workers.iter().map(common::Kept::pid).collect();
    let job = scene.submit(&[MARKED_ALONE, &marks.task("c", "", "critical = true")].concat());
    marks.await_starts("c", 2);
    let busy = |pid: u32| {
        let workers = scene.place().workers();
        let mut of = workers.into_iter().filter(|worker| worker["pid"] == pid);
        of.next().unwrap()
    };
    until("all workers to be watched as closely as is needed", || {
        let workers = scene.place().workers();
        let watched = |worker: &Value| {
            let interval = if worker["in_hand"] == 1 { 20.0 } else { 500.0 };
            worker["heartbeat_interval_ms"] == interval
                && worker["silent_ms"].as_f64() < Some(1000.0)
        };
        workers.iter().all(watched).then_some(())
    });
    let frozen = until("a busy worker", || {
        pids.iter().copied().find(|pid| busy(*pid)["in_hand"] == 1)
    });
    common::signal(frozen, "-STOP");
    until("the supervisor to notice the frozen worker", || {
        (busy(frozen)["liveness"] == "dead").then_some(())
    });
    marks.await_starts("c", 3);
    let view = scene.place().ask(&["job", &job]);
    assert_eq!(view["state"], "running", "{view}");
    let ran = scene.attempts(&job, "c");
    assert!(count(&ran, "state", "lost") >= 1, "{ran:?}");
    assert!(workers_of(&ran).len() >= 3, "a further worker: {ran:?}");
    until("the network to be up", || {
        let mut others = pids.iter().filter(|pid| **pid != frozen);
        let up = others.all(|pid| busy(*pid)["liveness"] == "live");
        up.then_some(())
    });
    common::signal(frozen, "-CONT");
    until("the worker to be back", || {
        (busy(frozen)["liveness"] == "live").then_some(())
    });
    marks.let_go("c");
    let view = scene.place().wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    marks.await_no_processes();
}

#[test]
fn completion_is_reported_over_the_network() {
    let scene = patient(4);
    let Scene { marks, grid, .. } = &scene;
    let folder = grid.place.folder.join("client");
    // A client that shares nothing with the supervisor but a ticket.
    let client = Place::here(&folder);
    let ticket = scene.place().ticket("client");
    let tasks = ["a", "b"].map(|id| marks.task(id, "", "critical = true"));
    fs::write(
        folder.join("job.toml"),
        [MARKED_ALONE, &tasks[0], &tasks[1]].concat(),
    )
    .unwrap();
    let args = ["submit", "job.toml", "--wait", "--json", "--join", &ticket];
    let mut waiting = start(&mut client.hedge(&args));
    let [a, b] = ["a", "b"].map(|id| {
        marks.await_starts(id, 2);
        scene.attempts("1", id)
    });
    for attempts in [&a, &b] {
        assert_eq!(count(attempts, "kind", "primary"), 1, "{attempts:?}");
    }
    let all = [a, b].concat();
    assert_eq!(workers_of(&all).len(), 4, "each attempt elsewhere: {all:?}");
    marks.let_go("a");
    until("the first task to be done", || {
        (scene.place().ask(&["job", "1"])["done"] == 1).then_some(())
    });
    assert!(
        waiting.try_wait().unwrap().is_none(),
        "the client was told too early"
    );
    marks.let_go("b");
    let output = common::ended(waiting, "submit --wait");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let view = json(&output);
    assert_eq!(
        (&view["state"], &view["done"]),
        (&"done".into(), &2.into()),
        "{view}"
    );
}

#[test]
fn only_critical_tasks_are_repeated() {
    let scene = patient(4);
    let Scene { marks, .. } = &scene;
    let tasks = [
        marks.task("first", "", ""),
        marks.task("wide", "", "array = \"0..4\"\ndeps = [\"first\"]"),
        marks.task("last", "", "critical = true\ndeps = [\"wide\"]"),
    ];
    let rule = "[qos]\nredundancy = \"critical\"\n[critical]\nby = [\"precedence\"]\ntop = 2\n";
    let job = scene.submit(&[rule, &tasks.concat()].concat());
    let told = scene.place().ask(&["explain", &job]);
    let critical: Vec<&str> = told["critical"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["task"].as_str().unwrap())
        .collect();
    assert_eq!(critical, ["first", "last"]);
    marks.await_starts("first", 2);
    marks.let_go("first");
    for index in 0..4 {
        marks.await_starts(&format!("wide.{index}"), 1);
    }
    for index in 0..4 {
        marks.let_go(&format!("wide.{index}"));
    }
    marks.await_starts("last", 2);
    marks.let_go("last");
    let view = scene.place().wait(&job);
    assert_eq!(
        (
            &view["state"],
            &view["tasks"],
            &view["critical"],
            &view["attempts"]["total"],
            &view["attempts"]["redundant"]
        ),
        (&"done".into(), &6.into(), &2.into(), &8.into(), &2.into()),
        "{view}"
    );
    for (task, started) in marks.started() {
        let copied = critical.contains(&&*task);
        assert_eq!(started.len(), 1 + usize::from(copied), "{task}");
        let ran = scene.attempts(&job, &task);
        assert_eq!(workers_of(&ran).len(), started.len(), "{task}: {ran:?}");
        assert_eq!(count(&ran, "kind", "redundant"), usize::from(copied));
        let shown = scene.place().ask(&["explain", &job, &task]);
        assert_eq!(shown["tasks"][0]["critical"], copied, "{task}");
    }
}

#[test]
fn results_are_compiled_while_some_but_not_all_tasks_are_repeated() {
    let scene = patient(4);
    let Scene { marks, .. } = &scene;
    let tasks = [
        marks.task(
            "head",
            "echo head > head.txt",
            "critical = true\noutputs = [\"head.txt\"]",
        ),
        marks.task(
            "part",
            "echo $HEDGE_INDEX > part-$HEDGE_INDEX.txt",
            "array = \"0..4\"\noutputs = [\"part-${index}.txt\"]",
        ),
    ];
    let job = [MARKED_ALONE, &tasks.concat()].concat();
    fs::write(scene.place().folder.join("job.toml"), job).unwrap();
    let args = ["submit", "job.toml", "--wait", "--out", "got", "--json"];
    let waiting = start(&mut scene.place().hedge(&args));
    marks.await_starts("head", 2);
    marks.let_go("head");
    for index in 0..4 {
        marks.let_go(&format!("part.{index}"));
    }
    let output = common::ended(waiting, "submit --wait");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let view = json(&output);
    assert_eq!(
        (
            &view["state"],
            &view["tasks"],
            &view["attempts"]["total"],
            &view["attempts"]["redundant"]
        ),
        (&"done".into(), &5.into(), &6.into(), &1.into()),
        "{view}"
    );
    assert_eq!(view["results"].as_array().unwrap().len(), 5, "{view}");
    let got = scene.place().folder.join("got");
    assert_eq!(read(&got.join("head.txt")), "head\n");
    for index in 0..4 {
        let path = got.join(format!("part-{index}.txt"));
        assert_eq!(read(&path), format!("{index}\n"));
    }
}

#[test]
fn a_critical_task_runs_on_two_additional_workers() {
    let scene = patient(4);
    let Scene { marks, .. } = &scene;
    let marked = MARKED_ALONE.replace("[critical]", "copies = 3\n[critical]");
    let task = marks.task("c", "", "critical = true");
    let job = scene.submit(&[&marked[..], &task].concat());
    marks.await_starts("c", 3);
    let running = scene.attempts(&job, "c");
    assert_eq!(workers_of(&running).len(), 3, "{running:?}");
    assert_eq!(count(&running, "kind", "primary"), 1, "{running:?}");
    assert_eq!(count(&running, "kind", "redundant"), 2, "{running:?}");
    marks.let_one_go("c", running[2]["attempt"].as_str().unwrap());
    let view = scene.place().wait(&job);
    assert_eq!(
        (&view["state"], &view["attempts"]["total"]),
        (&"done".into(), &3.into()),
        "{view}"
    );
    assert_eq!(marks.finished()["c"].len(), 1);
    marks.await_no_processes();
}

#[test]
fn an_idle_workers_speed_is_found_by_benchmark_tasks() {
    let scene = scene(1);
    let worker = until("scores of benchmark tasks", || {
        let workers = scene.place().workers();
        let from = workers[0]["score_from"].as_str().unwrap();
        from.contains("benchmarks").then(|| workers[0].clone())
    });
    assert!(worker["score"].as_f64().unwrap() > 0.0, "{worker}");
}

#[test]
fn workers_that_a_small_job_leaves_idle_are_filled_and_given_back_at_once() {
    let scene = scene(8);
    let Scene { marks, .. } = &scene;
    let fill = "[qos]\nredundancy = \"fill\"\n";
    let job = scene.submit(&[fill, &marks.task("part", "", "array = \"0..3\"")].concat());
    until("all workers to have something", || {
        let workers = scene.place().workers();
        let busy = workers.iter().filter(|worker| worker["in_hand"] != 0);
        (busy.count() == 8).then_some(())
    });
    let other = scene.submit(
        &[
            "[qos]\nredundancy = \"none\"\n",
            &marks.task("real", "", ""),
        ]
        .concat(),
    );
    marks.await_starts("real", 1);
    marks.let_go("real");
    assert_eq!(scene.place().wait(&other)["state"], "done");
    (0..3).for_each(|index| marks.let_go(&format!("part.{index}")));
    let view = scene.place().wait(&job);
    assert_eq!(
        (&view["state"], &view["done"]),
        (&"done".into(), &3.into()),
        "{view}"
    );
    marks.await_no_processes();
}

#[test]
fn a_plan_for_the_grid_counts_in_its_tariff_and_the_end_of_a_job_tells_its_cost() {
    let scene = scene(1);
    let place = scene.place();
    let job = "[[task]]\nid = \"t\"\ncommand = [\"true\"]\nestimate = { cpu_time = \"10s\" }\n";
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let cost = || {
        let plan = place.ask(&["plan", "job.toml", "--runs", "20"]);
        plan["levels"][0]["cost_micro"].as_f64().unwrap()
    };
    let before = cost();
    for name in ["price_cpu_second", "price_higher_cpu_second"] {
        place.ask(&["config", "set", name, "1000000"]);
    }
    let after = cost();
    assert!(after > before * 10.0, "{before}, then {after}");
    // What it then costs is known with its end.
    let ended = place.ask(&["submit", "--wait", "job.toml"]);
    let cost = place.ask(&["cost", "1"]);
    assert_eq!(ended["cost"], cost);
    assert!(cost["useful"]["micro"].as_u64() > Some(0), "{cost}");
    assert_eq!(cost["total_micro"], cost["useful"]["micro"], "{cost}");
}
