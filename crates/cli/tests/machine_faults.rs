//! Faults of machines and mistakes in jobs, each told by its real name and charged to nobody else.

mod common;

use common::tasks::{attempts, count, submit_and_wait, task};
use common::{Grid, Place, json, text, told};
use std::fs;

#[test]
fn a_worker_short_of_descriptors_fails_no_task() {
    let folder = tempfile::tempdir().unwrap();
    let mut grid = Grid::start(folder.path(), 0);
    let ticket = grid.place.ticket("worker");
    let place = Place::behind(&["prlimit", "--nofile=200"], &grid.place.folder);
    let dir = grid.worker_dir(0);
    #[rustfmt::skip]
    let args = [
        "worker", "--join", &ticket, "--dir", dir.to_str().unwrap(), "--cpus", "100",
        "--listen", "127.0.0.1:0", "--task-priority", "normal",
    ];
    grid.workers.push(place.start(&args));
    grid.place.await_workers(1);
    let more = "array = \"0..100\"\nretries = 0\noutputs = [\"out-${index}\"]";
    let job = task("t", "sleep 0.2; echo made > out-${index}", more);
    let output = submit_and_wait(&grid.place, &job, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let view = json(&output);
    assert_eq!(
        (&view["done"], &view["attempts"]["failed"]),
        (&100.into(), &0.into())
    );
}

#[test]
fn a_disk_limit_is_named_whether_one_file_or_many_pass_it() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let more = "retries = 0\nresources = { disk = \"10 MiB\" }";
    for script in [
        "exec head -c 30000000 /dev/zero > big",
        "for i in 1 2 3 4 5 6 7 8; do head -c 4000000 /dev/zero > $i; done",
    ] {
        let output = submit_and_wait(&grid.place, &task("t", script, more), &["--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let why = json(&output)["why"].as_str().unwrap().to_owned();
        assert!(
            why.contains("disk limit of 10 MiB exceeded: it used "),
            "{why}"
        );
    }
}

/// Names of tasks, their scripts, further keys, and what is told of their end.
const CAUSES: [(&str, &str, &str, &str); 8] = [
    (
        "exits",
        "echo no licence >&2; exit 7",
        "",
        "it ended with exit code 7; it said: no licence",
    ),
    (
        "signalled",
        "kill -SEGV $$",
        "",
        "it was ended by signal 11 (SIGSEGV)",
    ),
    (
        "late",
        "sleep 60",
        "time_limit = \"200ms\"",
        "it ran longer than its time limit of 200ms",
    ),
    (
        "hungry",
        "exec python3 -c 'x = bytes(90 << 20) + b\"1\"; import time; time.sleep(60)'",
        "resources = { memory = \"40 MiB\" }",
        "memory limit of 40 MiB exceeded: it used ",
    ),
    (
        "wordy",
        "exec head -c 30000000 /dev/zero > big",
        "resources = { disk = \"10 MiB\" }",
        "disk limit of 10 MiB exceeded: it used ",
    ),
    // Files that have no name any more count while they are open.
    (
        "nameless",
        "for i in 3 4 5 6; do eval \"exec $i> x\"; head -c 4000000 /dev/zero >&$i; rm x; done; sleep 60",
        "resources = { disk = \"10 MiB\" }",
        "disk limit of 10 MiB exceeded: it used ",
    ),
    (
        "silent",
        "true",
        "outputs = [\"out\"]",
        "without making its output \"out\"",
    ),
    (
        "odd",
        "mkfifo pipe",
        "outputs = [\"pipe\"]",
        "its output \"pipe\" is a named pipe",
    ),
];

#[test]
fn each_cause_of_a_failure_is_told_by_its_name_and_with_what_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let tasks =
        CAUSES.map(|(id, script, more, _)| task(id, script, &format!("retries = 0\n{more}")));
    let absent = "[[task]]\nid = \"absent\"\ncommand = [\"no-such-program\"]\nretries = 0\n";
    let output = submit_and_wait(&grid.place, &(tasks.concat() + absent), &["--json"]);
    let view = json(&output);
    assert_eq!((&view["failed"], &view["lost"]), (&9.into(), &0.into()));
    assert_eq!(view["attempts"]["failed"], 9, "each began once: {view}");
    let job = view["job"].to_string();
    let why = |id: &str| grid.place.ask(&["explain", &job, id])["tasks"][0]["why"].to_string();
    for (id, _, _, what) in CAUSES {
        let (told, what) = (why(id), format!("{what:?}"));
        assert!(told.contains(what.trim_matches('"')), "{id}: {told}");
    }
    assert!(
        why("absent").contains("no-such-program"),
        "{}",
        why("absent")
    );
}

#[test]
fn outputs_that_cannot_be_taken_say_what_they_are_at_the_first_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    for (script, what) in [
        ("mkfifo out", "is a named pipe"),
        ("ln -s nowhere out", "is a link that leads nowhere"),
        ("mkdir out", "is an empty folder"),
        ("true", "without making its output"),
    ] {
        let job = task("t", script, "retries = 0\noutputs = [\"out\"]");
        let output = submit_and_wait(&grid.place, &job, &["--json"]);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        let why = json(&output)["why"].as_str().unwrap().to_owned();
        assert!(why.contains("\"out\"") && why.contains(what), "{why}");
        let job = json(&output)["job"].to_string();
        let attempts = attempts(&grid.place, &job, "t");
        assert_eq!(
            (attempts.len(), count(&attempts, "state", "failed")),
            (1, 1)
        );
    }
}

#[test]
fn shell_variables_survive_where_the_task_is_no_array() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let script = "for index in 1 2 3; do echo \"n=${index}\"; done";
    let output = grid
        .place
        .call(&["submit", "--wait", "--", "sh", "-c", script]);
    assert_eq!(text(&output.stdout), "n=1\nn=2\nn=3\n", "{}", told(&output));
    let script = "x=4; echo ${index} ${x} $${index} > out-${index}";
    let more = "array = \"7..8\"\nenv = { index = \"5\" }\noutputs = [\"out-${index}\"]";
    let output = submit_and_wait(&grid.place, &task("t", script, more), &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let made = json(&output)["results"][0].as_str().unwrap().to_owned();
    let made = fs::read_to_string(grid.place.folder.join(made)).unwrap();
    assert_eq!(made, "7 4 5\n");
}

#[test]
fn names_that_collide_are_refused_or_told_as_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let array = task("t", "true", "array = \"0..2\"\noutputs = [\"out\"]");
    let output = submit_and_wait(&grid.place, &array, &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(
        told(&output).contains("all tasks of the array"),
        "{}",
        told(&output)
    );
    let bad = task("t", "true", "outputs = [\"fine\", \"out[\"]");
    let output = submit_and_wait(&grid.place, &bad, &["--json"]);
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("is no pattern"), "{}", told(&output));
    // What patterns match is known only at the end.
    let make = |id| task(id, "echo made > made", "outputs = [\"m*\"]");
    let read = task("c", "true", "inputs = [{ task = \"a\" }, { task = \"b\" }]");
    let output = submit_and_wait(
        &grid.place,
        &[make("a"), make("b"), read].concat(),
        &["--json"],
    );
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    let why = json(&output)["why"].as_str().unwrap().to_owned();
    assert!(
        why.contains("two files at \"made\", left by a and b"),
        "{why}"
    );
}
