//! Open jobs on real grids: they grow while they run, survive their leader, and end once they are closed.

mod common;

use common::group::Group;
use common::tasks::{Marks, task};
use common::{Grid, Place, json, text, told, until};
use serde_json::Value;
use std::fs;

fn write(place: &Place, name: &str, text: &str) {
    fs::write(place.folder.join(name), text).unwrap();
}

fn refused(place: &Place, args: &[&str], why: &str) {
    let output = place.call(args);
    assert_ne!(output.status.code(), Some(0), "{}", told(&output));
    assert!(told(&output).contains(why), "{}", told(&output));
}

/// Waits until so many tasks of the job are done.
fn await_done(ask: impl Fn() -> Value, done: u64) -> Value {
    until("the tasks to be done", || {
        let view = ask();
        (view["done"] == done).then_some(view)
    })
}

#[test]
fn a_job_grows_while_it_runs_and_its_results_are_fetched_once_it_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let marks = Marks::new(folder.path());
    let grid = Grid::with(folder.path(), 2, &["--no-sandbox"]);
    let place = &grid.place;
    let first = marks.task("first", "echo one > first.txt", "outputs = [\"first.txt\"]");
    write(place, "job.toml", &["name = \"grows\"\n", &first].concat());
    let job = place.ask(&["job", "open", "job.toml"])["job"].to_string();
    let view = place.ask(&["job", &job]);
    assert!(
        view["open"]["open"]["closes_in_ms"].as_f64() > Some(3e6),
        "{view}"
    );
    // Added while the first task runs, from a file and from standard input; with an input file of its own.
    write(place, "two.txt", "two");
    let reads = "cat first.txt two.txt > second.txt";
    let inputs = "inputs = [{ task = \"first\" }, \"two.txt\"]\noutputs = [\"second.txt\"]";
    write(place, "more.toml", &task("second", reads, inputs));
    let key = "00000000000000000000000000000001";
    let args = ["job", "extend", &job, "more.toml", "--key", key];
    let added = place.ask(&args);
    assert_eq!((&added["first"], &added["tasks"]), (&1.into(), &1.into()));
    assert_eq!(place.ask(&args), added, "a repeated extension adds nothing");
    let each = "array = \"0..3\"\ndeps = [\"second\"]\noutputs = [\"part-${index}\"]";
    write(
        place,
        "third.toml",
        &task("third", "echo $HEDGE_INDEX > part-$HEDGE_INDEX", each),
    );
    let mut from_stdin = place.hedge(&["job", "extend", "last", "-"]);
    from_stdin.stdin(fs::File::open(place.folder.join("third.toml")).unwrap());
    let output = from_stdin.output().unwrap();
    assert_eq!(
        text(&output.stdout),
        format!("job {job} has 3 tasks more, from number 2 on\n")
    );
    marks.let_go("first");
    await_done(|| place.ask(&["job", &job]), 5);
    // It stays open, and what was read already can be read again.
    write(
        place,
        "again.toml",
        &task("again", "cat first.txt", "inputs = [{ task = \"first\" }]"),
    );
    place.ask(&["job", "extend", &job, "again.toml"]);
    let view = await_done(|| place.ask(&["job", &job]), 6);
    assert_eq!(view["state"], "waiting");
    let listed = place.call(&["jobs"]);
    assert!(text(&listed.stdout).contains(" open "), "{}", told(&listed));
    let shown = place.call(&["job", &job]);
    assert!(
        text(&shown.stdout).contains("hedge job close"),
        "{}",
        told(&shown)
    );
    place.ask(&["fetch", &job, "--task", "second", "--out", "early"]);
    let early = fs::read_to_string(place.folder.join("early/second.txt")).unwrap();
    assert_eq!(early, "one\ntwo");
    place.ask(&["job", "close", &job]);
    assert_eq!(place.wait(&job)["state"], "done");
    place.ask(&["fetch", &job, "--out", "out"]);
    for index in 0..3 {
        let part = fs::read_to_string(place.folder.join(format!("out/part-{index}"))).unwrap();
        assert_eq!(part, format!("{index}\n"));
    }
    assert_eq!(place.ask(&["job", &job])["open"], "closed");
    refused(place, &["job", "extend", &job, "again.toml"], "has ended");
}

#[test]
fn what_cannot_be_added_is_refused_with_its_line_or_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let place = &grid.place;
    let bad = task("bad", "exit 1", "retries = 0");
    let kept = task("kept", "echo x > x", "outputs = [\"x\"]");
    write(place, "job.toml", &[kept, bad].concat());
    let job = place.ask(&["job", "open", "job.toml"])["job"].to_string();
    until("one task to be done and one to have failed", || {
        let view = place.ask(&["job", &job]);
        (view["done"] == 1 && view["failed"] == 1).then_some(())
    });
    let extend = ["job", "extend", &job, "more.toml"];
    let refuse = |text: &str, why: &str| {
        write(place, "more.toml", text);
        refused(place, &extend, why);
    };
    refuse(
        "[qos]\ncopies = 2\n\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n",
        "more.toml:1:1",
    );
    refuse(
        "[[task]]\nid = \"a\"\ncommand = [\"true\"]\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n",
        "more.toml:5:6",
    );
    refuse(
        &task("kept", "true", ""),
        "the job has a task with the id \"kept\"",
    );
    refuse(
        &task("a", "true", "deps = [\"kebt\"]"),
        "did you mean \"kept\"?",
    );
    refuse(
        &task("a", "true", "deps = [\"bad\"]"),
        "task \"a\" waits for \"bad\", which failed",
    );
    place.ask(&["job", "release", &job, "kept"]);
    refuse(
        &task("a", "true", "inputs = [{ task = \"kept\" }]"),
        "task \"a\" reads the outputs of \"kept\", which were released",
    );
    assert_eq!(place.ask(&["job", &job])["tasks"], 2);
    refused(
        place,
        &["job", "release", &job, "nobody"],
        "no task \"nobody\"",
    );
    place.ask(&["job", "close", &job]);
    let ended = place.call(&["wait", &job]);
    assert_eq!(ended.status.code(), Some(1), "{}", told(&ended));
    write(
        place,
        "open.toml",
        "[qos]\nopen_timeout = \"1h\"\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n",
    );
    refused(place, &["run", "open.toml"], "nobody can close it here");
    write(
        place,
        "open.toml",
        "[qos]\nopen_timeout = \"1ms\"\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n",
    );
    refused(place, &["job", "open", "open.toml"], "open.toml:2:16");
    refused(place, &["job", "close", "99"], "there is no job 99");
}

#[test]
fn an_open_job_closes_itself_once_its_client_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let place = &grid.place;
    let opened = ["job", "open", "--name", "left", "--timeout", "3s"];
    let job = place.ask(&opened)["job"].to_string();
    write(
        place,
        "more.toml",
        &task("a", "echo x > x", "outputs = [\"x\"]"),
    );
    place.ask(&["job", "extend", &job, "more.toml"]);
    // The list of jobs is not about this job: asking for it keeps nothing open.
    let view = until("the job to end", || {
        let listed = place.call(&["jobs", "--json"]);
        let all = json(&listed);
        let mut all = all.as_array().unwrap().iter();
        let number: u64 = job.parse().unwrap();
        let ended = |view: &&Value| view["id"] == number && view["state"] == "done";
        all.find(ended).cloned()
    });
    assert_eq!(
        (&view["open"], &view["done"]),
        (&"timedout".into(), &1.into())
    );
    let shown = place.call(&["job", &job]);
    assert!(
        text(&shown.stdout).contains("its client was gone for too long"),
        "{}",
        told(&shown)
    );
}

#[test]
fn an_open_job_survives_leaders_that_are_killed_between_its_extensions() {
    let folder = tempfile::tempdir().unwrap();
    let mut group = Group::start(folder.path(), 3, 2);
    let file = |group: &Group, text: &str| write(&group.client, "more.toml", text);
    let maker = task("t0", "echo 0 > out-0", "outputs = [\"out-0\"]");
    group.write_job(&[&maker]);
    let open = group.args(&["job", "open", "job.toml", "--json"]);
    let opened = group.client.call(&open);
    assert!(opened.status.success(), "{}", told(&opened));
    let job = json(&opened)["job"].to_string();
    for number in 1..=3 {
        let script = format!(
            "cat out-{} > out-{number}; echo {number} >> out-{number}",
            number - 1
        );
        let more = format!(
            "inputs = [{{ task = \"t{}\" }}]\noutputs = [\"out-{number}\"]",
            number - 1
        );
        file(&group, &task(&format!("t{number}"), &script, &more));
        if number < 3 {
            let leader = group.leader();
            group.kill(leader);
            group.restart(leader);
        }
        let key = format!("{number:032}");
        let extend = ["job", "extend", &job, "more.toml", "--key", &key, "--json"];
        // What is not known to be added is asked for again.
        let added = until("the next leader", || {
            let output = group.client.call(&group.args(&extend));
            output.status.success().then(|| json(&output))
        });
        assert_eq!(added["first"], number);
    }
    await_done(|| group.ask(&["job", &job]), 4);
    group.ask(&["job", "close", &job]);
    let out = group
        .client
        .call(&group.args(&["wait", &job, "--out", "out"]));
    assert!(out.status.success(), "{}", told(&out));
    let last = fs::read_to_string(group.client.folder.join("out/out-3")).unwrap();
    assert_eq!(last, "0\n1\n2\n3\n");
    assert_eq!(group.ask(&["job", &job])["tasks"], 4);
}
