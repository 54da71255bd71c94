//! Tasks that cannot run or fail, and workers that cannot run them: people are told what is wrong, what others
//! can do is done elsewhere, nothing is left behind.

mod common;

use common::tasks::{
    Marks, attempts, await_empty_scratch, count, submit_and_wait, task, workers_of,
};
use common::{Grid, Place, json, text, told, until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn submit(place: &Place, job: &str) -> String {
    fs::write(place.folder.join("job.toml"), job).unwrap();
    place.submit("job.toml")
}

fn await_clean(grid: &Grid) {
    for number in 0..grid.workers.len() {
        await_empty_scratch(&grid.worker_dir(number).join("worker"));
    }
}

fn only_task(place: &Place, job: &str, task: &str) -> Value {
    place.ask(&["explain", job, task])["tasks"][0].clone()
}

#[test]
fn a_task_that_asks_for_more_than_any_worker_has_says_so_and_waits() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 2);
    let job = task(
        "big",
        "echo hi > hi",
        "resources = { cpus = 64 }\noutputs = [\"hi\"]",
    );
    fs::write(grid.place.folder.join("job.toml"), job).unwrap();
    let mut client = grid.place.start(&["submit", "--wait", "job.toml"]);
    let why = "task \"big\" asks for cpus 64, and the most that any worker has is 1";
    until("the client to hear why its job waits", || {
        client.err().contains(why).then_some(())
    });
    let view = grid.place.ask(&["job", "1"]);
    assert_eq!(
        (&view["state"], &view["waits"][0]),
        (&"waiting".into(), &why.into())
    );
    let explained = only_task(&grid.place, "1", "big");
    assert_eq!(
        (&explained["state"], &explained["why"]),
        (&"ready".into(), &why.into())
    );
    // Others are not held up by it, and a worker that has enough makes it run.
    let output = grid
        .place
        .call(&["submit", "--wait", "--", "echo", "small"]);
    assert_eq!(text(&output.stdout), "small\n", "{}", told(&output));
    assert!(client.running());
    grid.add_worker(&["--cpus", "64"]);
    assert_eq!(client.end().code(), Some(0), "{}", client.told());
}

#[test]
fn a_job_can_ask_to_fail_where_no_worker_fits() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let fail = "[qos]\nunplaceable = \"fail\"\n";
    for (more, why) in [
        (
            "resources = { memory = \"900 TiB\" }",
            "asks for memory 900 TiB",
        ),
        ("resources = { gpus = 2 }", "asks for gpus 2"),
        (
            "labels = { room = \"12\" }",
            "needs a worker labelled room = \"12\"",
        ),
    ] {
        let job = [fail, &task("t", "true", more)].concat();
        let output = submit_and_wait(&grid.place, &job, &[]);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(text(&output.stdout).contains(why), "{}", told(&output));
    }
}

#[test]
fn a_command_that_does_not_exist_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let job = "[[task]]\nid = \"t\"\ncommand = [\"no-such-program\", \"x\"]\n";
    let output = submit_and_wait(&grid.place, job, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(
        told(&output).contains("program not found: no-such-program"),
        "{}",
        told(&output)
    );
    await_clean(&grid);
}

#[test]
fn a_declared_output_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let job = task("t", "echo x > made", "outputs = [\"made\", \"never-made\"]");
    let output = submit_and_wait(&grid.place, &job, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("never-made"), "{}", told(&output));
    // What the last line of a task's standard error says is what people look for first.
    let job = task("t", "echo first >&2; echo the reason >&2; exit 9", "");
    let output = submit_and_wait(&grid.place, &job, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    for part in ["exit code 9", "the reason"] {
        assert!(told(&output).contains(part), "{}", told(&output));
    }
    await_clean(&grid);
}

#[test]
fn a_failing_task_is_tried_again_on_another_worker_up_to_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 3, &["--no-sandbox"]);
    let third =
        "[ $(ls $MARKS | grep -c start.lucky@) -ge 3 ] || { : > \"$MARKS/end.$me\"; exit 7; }";
    let lucky = marks.task("lucky", third, "retries = 2");
    let unlucky = marks.task("unlucky", "exit 8", "retries = 1");
    marks.let_go("lucky");
    marks.let_go("unlucky");
    let no_copies = "[qos]\nredundancy = \"none\"\n";
    let job = submit(&grid.place, &[no_copies, &lucky].concat());
    let view = grid.place.wait(&job);
    assert_eq!(
        (&view["state"], &view["attempts"]["failed"]),
        (&"done".into(), &2.into()),
        "{view}"
    );
    let all = attempts(&grid.place, &job, "lucky");
    assert_eq!(workers_of(&all).len(), 3, "each time elsewhere: {all:?}");
    assert_eq!(marks.starts("lucky"), 3);
    let output = submit_and_wait(&grid.place, &[no_copies, &unlucky].concat(), &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("exit code 8"), "{}", told(&output));
    let all = attempts(&grid.place, "2", "unlucky");
    assert_eq!(count(&all, "state", "failed"), 2, "{all:?}");
    assert_eq!(workers_of(&all).len(), 2, "{all:?}");
    assert_eq!(marks.starts("unlucky"), 2);
    assert_eq!(only_task(&grid.place, "2", "unlucky")["failures"], 2);
    await_clean(&grid);
}

#[test]
fn a_task_over_its_time_limit_is_ended_with_all_its_processes() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 1, &["--no-sandbox"]);
    // Children of all kinds, one of them in a session of its own.
    let work = "setsid sh -c 'sleep 1000; :' \"$MARKS\" & (sleep 1000; :) & sleep 1000";
    marks.let_go("t");
    let job = marks.task("t", work, "time_limit = \"3s\"\nretries = 0");
    let output = submit_and_wait(&grid.place, &job, &[]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(
        told(&output).contains("it ran longer than its time limit of 3s"),
        "{}",
        told(&output)
    );
    assert_eq!(marks.starts("t"), 1);
    marks.await_no_processes();
    await_clean(&grid);
}

/// A worker whose folder is on a disk of 16 MiB that only it sees, and that ends with it.
fn start_cramped(grid: &mut Grid) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts a small disk, which only root may: run it with sudo"
    );
    let dir = grid.place.folder.join("cramped");
    fs::create_dir(&dir).unwrap();
    let dir = dir.to_str().unwrap();
    let ticket = grid.place.ticket("worker");
    let script = "mount -t tmpfs -o size=16m cramped \"$0\" && exec \"$@\"";
    let before = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        dir,
    ];
    let place = Place::behind(&before, &grid.place.folder);
    #[rustfmt::skip]
    let args = [
        "worker", "--join", &ticket, "--dir", dir, "--cpus", "4", "--memory", "64 GiB",
        "--listen", "127.0.0.1:0", "--task-priority", "normal",
    ];
    grid.workers.push(place.start(&args));
    grid.place.await_workers(grid.workers.len());
}

/// A grid of a worker with a small disk and another that is kept busy, so that work comes to the first.
fn cramped(folder: &Path) -> (Grid, Marks) {
    let marks = Marks::new(folder);
    let mut grid = Grid::with(folder, 1, &["--no-sandbox", "--label", "room=large"]);
    let busy = marks.task("busy", "", "labels = { room = \"large\" }");
    submit(&grid.place, &busy);
    marks.await_starts("busy", 1);
    start_cramped(&mut grid);
    (grid, marks)
}

/// Runs the second job of such a grid, whose only task `t` ends in this state on the small disk and then succeeds
/// elsewhere; says why it did not there.
fn fails_there_only(grid: &Grid, marks: &Marks, job: &str, state: &str) -> String {
    let job = submit(&grid.place, job);
    until("it to be tried on the small disk", || {
        (count(&attempts(&grid.place, &job, "t"), "state", state) > 0).then_some(())
    });
    marks.let_go("busy");
    let view = grid.place.wait(&job);
    assert_eq!(view["state"], "done", "{view}");
    let (there, elsewhere) = split(grid, attempts(&grid.place, &job, "t"));
    assert_eq!(count(&there, "state", state), there.len(), "{there:?}");
    assert_eq!(count(&elsewhere, "state", "won"), 1, "{elsewhere:?}");
    await_empty(grid);
    there[0]["why"].as_str().unwrap().to_owned()
}

fn cramped_name(grid: &Grid) -> String {
    let pid = grid.workers.last().unwrap().pid();
    let views = grid.place.workers();
    let view = views.iter().find(|view| view["pid"] == pid).unwrap();
    view["peer"].as_str().unwrap().to_owned()
}

/// The attempts at the worker with the small disk, and those elsewhere.
fn split(grid: &Grid, attempts: Vec<Value>) -> (Vec<Value>, Vec<Value>) {
    let name = cramped_name(grid);
    attempts.into_iter().partition(|attempt| {
        let worker = attempt["worker"].as_str().unwrap();
        name.starts_with(worker.split(' ').next().unwrap())
    })
}

#[test]
fn inputs_that_a_full_disk_cannot_hold_are_used_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (grid, marks) = cramped(folder.path());
    fs::write(grid.place.folder.join("big"), vec![9; 24 << 20]).unwrap();
    let job = task(
        "t",
        "wc -c < big > size",
        "retries = 0\ninputs = [\"big\"]\noutputs = [\"size\"]",
    );
    let why = fails_there_only(&grid, &marks, &job, "moved");
    assert!(why.contains("was short of disk space"), "{why}");
    assert!(why.contains("no space left on the disk"), "{why}");
}

#[test]
fn a_task_that_fills_the_disk_succeeds_elsewhere_if_it_may_fail_once() {
    let folder = tempfile::tempdir().unwrap();
    let (grid, marks) = cramped(folder.path());
    let script = "head -c 24000000 /dev/zero > out";
    let job = task("t", script, "retries = 1\noutputs = [\"out\"]");
    let why = fails_there_only(&grid, &marks, &job, "failed");
    assert!(
        why.contains("disk limit of ") && why.contains(" exceeded: it used "),
        "{why}"
    );
}

#[test]
fn a_disk_that_has_less_than_the_task_asked_for_is_the_machines_fault() {
    let folder = tempfile::tempdir().unwrap();
    let (grid, marks) = cramped(folder.path());
    fs::write(small_disk(&grid).join("fill"), vec![1; 8 << 20]).unwrap();
    let script = "head -c 12000000 /dev/zero > out";
    let more = "retries = 0\nresources = { disk = \"13 MiB\" }\noutputs = [\"out\"]";
    let why = fails_there_only(&grid, &marks, &task("t", script, more), "moved");
    assert!(why.contains("was short of disk space (ENOSPC)"), "{why}");
}

#[test]
fn outputs_that_a_full_disk_cannot_keep_are_made_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (grid, marks) = cramped(folder.path());
    // They fit once, but not beside a copy in the store, which a file with two names needs.
    let script = "head -c 10000000 /dev/urandom > out && ln out twin";
    let no_copies = "[qos]\nredundancy = \"none\"\n";
    let job = [no_copies, &task("t", script, "outputs = [\"out\"]")].concat();
    let why = fails_there_only(&grid, &marks, &job, "moved");
    assert!(why.contains("no space left on the disk"), "{why}");
}

#[test]
fn a_disk_that_others_fill_while_a_job_runs_costs_the_job_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 1);
    start_cramped(&mut grid);
    let script = "sleep 0.05; head -c 100000 /dev/urandom > out${index}";
    let more = "array = \"0..60\"\noutputs = [\"out${index}\"]";
    let job = submit(&grid.place, &task("t", script, more));
    until("some of the job to be done", || {
        (grid.place.ask(&["job", &job])["done"].as_u64()? >= 10).then_some(())
    });
    let fill = small_disk(&grid).join("fill");
    let error = fs::write(&fill, vec![1; 32 << 20]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    let view = grid.place.ask(&["wait", &job, "--out", "got"]);
    assert_eq!(view["state"], "done", "{view}");
    assert_eq!(fs::read_dir(folder.path().join("got")).unwrap().count(), 60);
    // Either it lives on without taking content, or it has ended and said why.
    let worker = grid.workers.last_mut().unwrap();
    if !worker.running() {
        assert!(
            worker.err().contains("make room on the disk"),
            "{}",
            worker.told()
        );
    }
}

/// The small disk, seen through its worker's own root.
fn small_disk(grid: &Grid) -> PathBuf {
    let pid = grid.workers.last().unwrap().pid();
    let root = Path::new("/proc").join(pid.to_string()).join("root");
    let folder = grid.place.folder.join("cramped");
    root.join(folder.strip_prefix("/").unwrap())
}

/// Attempts have left nothing on the small disk.
fn await_empty(grid: &Grid) {
    await_empty_scratch(&small_disk(grid).join("worker"));
}

#[test]
fn a_job_that_allows_no_failure_ends_with_the_first_and_the_rest_of_it_is_ended() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    let tasks = [
        marks.task("bad", "exit 1", "retries = 0"),
        marks.task("slow", "", ""),
        marks.task("later", "", "deps = [\"bad\"]"),
    ];
    let strict = "[qos]\nredundancy = \"none\"\nmax_failures = 0\n";
    let job = submit(&grid.place, &[strict, &tasks.concat()].concat());
    marks.await_starts("slow", 1);
    marks.let_go("bad");
    let output = grid.place.call(&["wait", &job, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let view = json(&output);
    assert_eq!(view["state"], "failed", "{view}");
    assert!(view["why"].as_str().unwrap().contains("bad"), "{view}");
    marks.await_no_processes();
    assert_eq!(marks.starts("later"), 0);
    await_clean(&grid);
}

#[test]
fn one_failing_task_of_sixty_costs_one_task_and_a_retry_does_it() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "").unwrap();
    let script = format!(
        "[ ${{index}} = 7 ] && [ -e {} ] && exit 3; echo ${{index}} > out-${{index}}",
        broken.display()
    );
    let job = format!(
        "[qos]\nredundancy = \"none\"\n[[task]]\nid = \"part\"\narray = \"0..60\"\nretries = 1\n\
         command = [\"sh\", \"-c\", {script:?}]\noutputs = [\"out-${{index}}\"]\n\
         [[task]]\nid = \"sum\"\ncommand = [\"sh\", \"-c\", \"cat out-* | wc -l > sum\"]\n\
         inputs = [{{ task = \"part\" }}]\noutputs = [\"sum\"]\n"
    );
    let job = submit(&grid.place, &job);
    let output = grid.place.call(&["wait", &job, "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let view = json(&output);
    let counts = ["done", "failed", "skipped"].map(|key| view[key].as_u64().unwrap());
    assert_eq!(
        (view["state"].as_str(), counts),
        (Some("failed"), [59, 1, 1]),
        "{view}"
    );
    let why = view["why"].as_str().unwrap();
    assert!(why.contains("part.7 failed 2 times"), "{why}");
    let tasks = told(&grid.place.call(&["tasks", &job]));
    assert!(tasks.contains("too much failed of part"), "{tasks}");
    // Once its reason is gone.
    std::fs::remove_file(&broken).unwrap();
    grid.place.ask(&["retry", &job]);
    let out = folder.path().join("results");
    let output = grid
        .place
        .call(&["wait", &job, "--json", "--out", out.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(json(&output)["done"], 61);
    let sum = std::fs::read_to_string(out.join("sum")).unwrap();
    assert_eq!(sum.trim(), "60");
    // Each other part was made once.
    let attempts = json(&output)["attempts"]["total"].as_u64().unwrap();
    assert_eq!(attempts, 59 + 3 + 1, "the other parts, that one, the sum");
    let again = grid.place.call(&["retry", &job]);
    assert_ne!(again.status.code(), Some(0));
    assert!(told(&again).contains("is done"), "{}", told(&again));
}
