//! Output of tasks while they run: streamed, followed, moved to other workers, and read by nobody.

mod common;

use common::group::Group;
use common::{Grid, Kept, Place, ended, json, text, told, until};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

const NO_COPIES: &str = "[qos]\nredundancy = \"none\"\n";

/// Shell that waits for a file in this folder.
fn wait_for(folder: &Path, file: &str) -> String {
    let file = folder.join(file);
    format!("until [ -e {} ]; do sleep 0.02; done", file.display())
}

fn await_out(what: &str, kept: &Kept, expected: &str) {
    until(what, || {
        let out = kept.out();
        assert!(expected.starts_with(&out), "{}", kept.told());
        (out == expected).then_some(())
    });
}

fn await_err(what: &str, kept: &Kept, part: &str) {
    until(what, || kept.err().contains(part).then_some(()));
}

fn touch(folder: &Path, file: &str) {
    fs::write(folder.join(file), "").unwrap();
}

/// A job of one task that runs this line.
fn write_job(folder: &Path, id: &str, line: &str, more: &str) {
    let job =
        format!("{NO_COPIES}[[task]]\nid = {id:?}\ncommand = [\"sh\", \"-c\", {line:?}]\n{more}\n");
    fs::write(folder.join("job.toml"), job).unwrap();
}

#[test]
fn a_program_is_heard_while_it_runs() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let place = Place::here(here);
    let line = format!(
        "printf 'no line yet'; echo oh >&2; {}; echo; echo last",
        wait_for(here, "go")
    );
    let args = ["run", "--no-sandbox", "--", "sh", "-c", &line];
    let mut run = place.start(&args);
    await_out("the program's first words", &run, "no line yet");
    await_err("the program's standard error", &run, "oh\n");
    touch(here, "go");
    assert_eq!(run.end().code(), Some(0), "{}", run.told());
    assert_eq!(
        (run.out().as_str(), run.err().as_str()),
        ("no line yet\nlast\n", "oh\n")
    );
}

#[test]
fn programs_of_an_array_are_heard_in_order_and_whole() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let place = Place::here(here);
    let line = format!(
        "echo begin $HEDGE_INDEX; if [ $HEDGE_INDEX = 1 ]; then {}; fi; seq 30000; echo end $HEDGE_INDEX",
        wait_for(here, "go")
    );
    let args = [
        "run",
        "--no-sandbox",
        "--workers",
        "2",
        "--array",
        "0..3",
        "--",
        "sh",
        "-c",
        &line,
    ];
    let mut run = place.start(&args);
    let numbers: String = (1..=30_000).map(|number| format!("{number}\n")).collect();
    let of = |index: u32| format!("begin {index}\n{numbers}end {index}\n");
    await_out("the first program", &run, &of(0));
    touch(here, "go");
    assert_eq!(run.end().code(), Some(0), "{}", run.err());
    let whole: String = (0..3).map(of).collect();
    assert!(run.out() == whole, "{} bytes", run.out().len());
}

#[test]
fn a_program_that_is_run_again_is_heard_once_where_it_prints_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut grid = Grid::with(here, 1, &["--no-sandbox"]);
    let line = format!("echo one; echo two; {}; echo three", wait_for(here, "go"));
    let args = ["submit", "--wait", "--", "sh", "-c", &line];
    let mut same = grid.place.start(&args);
    await_out("the first attempt", &same, "one\ntwo\n");
    // Another worker starts from the beginning.
    grid.add_worker(&["--no-sandbox"]);
    grid.place.await_workers(2);
    grid.workers.remove(0);
    touch(here, "go");
    assert_eq!(same.end().code(), Some(0), "{}", same.told());
    assert_eq!(same.out(), "one\ntwo\nthree\n");
    assert_eq!(grid.place.ask(&["job", "1"])["attempts"]["lost"], 1);
}

#[test]
fn a_program_that_is_run_again_and_prints_something_else_is_said_to() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut grid = Grid::with(here, 1, &["--no-sandbox"]);
    let line = format!("echo $HEDGE_ATTEMPT; {}; echo end", wait_for(here, "go"));
    let mut other = grid
        .place
        .start(&["submit", "--wait", "--", "sh", "-c", &line]);
    let first = until("the first attempt", || {
        Some(other.out()).filter(|out| out.ends_with('\n'))
    });
    grid.add_worker(&["--no-sandbox"]);
    grid.place.await_workers(2);
    grid.workers.remove(0);
    touch(here, "go");
    // A pipe or a file has more than the task's output then.
    assert_eq!(other.end().code(), Some(1), "{}", other.told());
    let out = other.out();
    let second = out.strip_prefix(&first).unwrap();
    assert!(
        second.ends_with("\nend\n") && !second.starts_with(&first),
        "{out}"
    );
    assert!(
        other
            .err()
            .contains("printed something else to its standard output"),
        "{}",
        other.err()
    );
    // The grid keeps what counts.
    assert_eq!(text(&grid.place.call(&["logs", "1"]).stdout), second);
}

#[test]
fn a_program_whose_output_nobody_reads_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let mut command = place.program("sh");
    command.args([
        "-c",
        "\"$0\" run -- yes | head -n 2",
        env!("CARGO_BIN_EXE_hedge"),
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ended(command.spawn().unwrap(), "yes | head");
    assert_eq!(told(&output), "y\ny\n");
    // On a grid it goes on, and is found again.
    let grid = Grid::start(folder.path(), 1);
    let mut command = grid.place.program("sh");
    command.args([
        "-c",
        "\"$0\" submit --wait -- yes | head -n 2",
        env!("CARGO_BIN_EXE_hedge"),
    ]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = ended(command.spawn().unwrap(), "yes | head");
    assert_eq!(text(&output.stdout), "y\ny\n");
    assert!(
        text(&output.stderr).contains("`hedge wait 1`"),
        "{}",
        told(&output)
    );
    assert_eq!(grid.place.ask(&["job", "1"])["state"], "running");
}

#[test]
fn a_job_is_cancelled_while_nobody_takes_what_it_prints() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let mut command = place.hedge(&["run", "--", "sh", "-c", "echo begin; yes"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut first = [0; 6];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"begin\n");
    // The pipe is full by now, or soon.
    common::signal(child.id(), "-INT");
    let mut stderr = child.stderr.take().unwrap();
    let mut told = [0; 10];
    stderr.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"cancelling");
    common::signal(child.id(), "-INT");
    let output = ended(child, "a run that was interrupted twice");
    assert_eq!(output.status.code(), Some(5));
}

#[test]
fn output_that_was_not_read_in_time_is_said_to_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 1);
    let bytes: usize = 100_000_000;
    let line = format!("echo start; head -c {bytes} /dev/zero | tr '\\0' x; echo; echo end");
    let mut command = grid
        .place
        .hedge(&["submit", "--wait", "--", "sh", "-c", &line]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    until("the job to be there", || {
        let jobs = grid.place.ask(&["jobs"]);
        (!jobs.as_array().unwrap().is_empty()).then_some(())
    });
    assert_eq!(grid.place.wait("1")["state"], "done");
    let output = ended(child, "submit --wait");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(output.stdout.starts_with(b"start\nx") && output.stdout.ends_with(b"x\nend\n"));
    let told = text(&output.stderr);
    let missing: Vec<usize> = told
        .lines()
        .filter_map(|line| {
            line.strip_prefix("hedge: ")?
                .split_once(" bytes of the standard output")?
                .0
                .parse()
                .ok()
        })
        .collect();
    let whole = "start\n".len() + bytes + "\nend\n".len();
    assert_eq!(
        output.stdout.len() + missing.iter().sum::<usize>(),
        whole,
        "{told}"
    );
}

#[test]
fn logs_of_a_task_that_runs_are_what_it_has_printed_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let grid = Grid::with(here, 1, &["--no-sandbox"]);
    let line = format!("seq 3; echo oh >&2; {}; echo end", wait_for(here, "go"));
    write_job(here, "count", &line, "");
    let id = grid.place.submit("job.toml");
    let so_far = until("what the task has printed", || {
        let output = grid.place.call(&["logs", &id, "count"]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        text(&output.stderr).contains("oh\n").then_some(output)
    });
    assert_eq!(text(&so_far.stdout), "1\n2\n3\n");
    assert!(
        text(&so_far.stderr).contains("count runs"),
        "{}",
        told(&so_far)
    );
    let output = json(&grid.place.call(&["logs", &id, "count", "--json"]));
    assert_eq!(
        (&output["stdout"], &output["running"], &output["end"]),
        (&"1\n2\n3\n".into(), &true.into(), &Value::Null),
        "{output}"
    );
    touch(here, "go");
    assert_eq!(grid.place.wait(&id)["state"], "done");
    let output = json(&grid.place.call(&["logs", &id, "count", "--json"]));
    assert_eq!(
        (&output["stdout"], &output["running"], &output["end"]),
        (&"1\n2\n3\nend\n".into(), &false.into(), &"done".into()),
        "{output}"
    );
}

#[test]
fn an_array_is_followed_by_name_and_line_until_the_job_ends() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let grid = Grid::with(here, 2, &["--no-sandbox"]);
    let line = format!(
        "printf 'half of '; {}; echo $HEDGE_INDEX; test $HEDGE_INDEX != 2 || printf 'no end'",
        wait_for(here, "go.$HEDGE_INDEX")
    );
    write_job(here, "part", &line, "array = \"0..4\"");
    let id = grid.place.submit("job.toml");
    let mut follow = grid.place.start(&["logs", &id, "-f"]);
    let mut events = grid.place.start(&["logs", &id, "-f", "--json"]);
    touch(here, "go.1");
    await_out("the task that ends first", &follow, "part.1: half of 1\n");
    touch(here, "go.2");
    let two = "part.1: half of 1\npart.2: half of 2\npart.2: no end\n";
    await_out("the next", &follow, two);
    touch(here, "go.0");
    await_out("the next", &follow, &format!("{two}part.0: half of 0\n"));
    touch(here, "go.3");
    assert_eq!(follow.end().code(), Some(0), "{}", follow.told());
    assert_eq!(
        follow.out(),
        format!("{two}part.0: half of 0\npart.3: half of 3\n")
    );
    assert_eq!(events.end().code(), Some(0), "{}", events.told());
    let all: Vec<Value> = events
        .out()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for index in 0..4 {
        let of = |event: &&Value| event["task"] == format!("part.{index}");
        let printed: String = all
            .iter()
            .filter(of)
            .filter_map(|event| event["stdout"].as_str())
            .collect();
        let rest = if index == 2 { "no end" } else { "" };
        assert_eq!(printed, format!("half of {index}\n{rest}"), "{all:?}");
        assert!(
            all.iter().filter(of).any(|event| event["end"] == "done"),
            "{all:?}"
        );
    }
}

#[test]
fn a_followed_task_that_moves_to_another_worker_begins_another_output() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut grid = Grid::with(here, 1, &["--no-sandbox"]);
    let line = format!("echo same; {}; echo end", wait_for(here, "go"));
    write_job(here, "moves", &line, "");
    let id = grid.place.submit("job.toml");
    let mut follow = grid.place.start(&["logs", &id, "moves", "-f"]);
    await_out("the first attempt", &follow, "same\n");
    grid.add_worker(&["--no-sandbox"]);
    grid.place.await_workers(2);
    grid.workers.remove(0);
    await_out("the second attempt", &follow, "same\nsame\n");
    touch(here, "go");
    assert_eq!(follow.end().code(), Some(0), "{}", follow.told());
    assert_eq!(follow.out(), "same\nsame\nend\n");
    let told = follow.err();
    let lines: Vec<&str> = told
        .lines()
        .filter(|line| line.starts_with("moves: "))
        .collect();
    let (ends, begins) = (
        lines.iter().position(|line| line.contains("ends here")),
        lines
            .iter()
            .position(|line| line.contains("another output")),
    );
    assert!(ends.is_some() && ends < begins, "{told}");
}

#[test]
fn a_followed_task_goes_on_under_the_next_leader() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let mut group = Group::start(here, 3, 1);
    let line = format!(
        "echo one; {}; echo two; {}; echo three",
        wait_for(here, "first"),
        wait_for(here, "second")
    );
    let job = format!("{NO_COPIES}[[task]]\nid = \"t\"\ncommand = [\"sh\", \"-c\", {line:?}]\n");
    group.write_job(&[&job]);
    let id = group.ask(&["submit", "job.toml"])["job"].to_string();
    let mut follow = group.client.start(&group.args(&["logs", &id, "t", "-f"]));
    await_out("the first line", &follow, "one\n");
    let leader = group.leader();
    group.kill(leader);
    touch(here, "first");
    await_out("the line after the failover", &follow, "one\ntwo\n");
    touch(here, "second");
    assert_eq!(follow.end().code(), Some(0), "{}", follow.told());
    assert_eq!(follow.out(), "one\ntwo\nthree\n", "{}", follow.err());
}

#[test]
fn output_of_a_task_is_not_for_other_clients() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let grid = Grid::with(here, 1, &["--no-sandbox"]);
    let owner = Place::here(&here.join("owner"));
    let ticket = grid.place.ticket("client");
    let line = format!("echo secret; {}", wait_for(here, "go"));
    let job = format!("[[task]]\nid = \"t\"\ncommand = [\"sh\", \"-c\", {line:?}]\n");
    fs::write(owner.folder.join("job.toml"), job).unwrap();
    let submitted = owner.call(&["submit", "--join", &ticket, "job.toml"]);
    assert_eq!(submitted.status.code(), Some(0), "{}", told(&submitted));
    until("the task to run", || {
        let output = owner.call(&["logs", "1", "--join", &ticket]);
        text(&output.stdout).contains("secret").then_some(())
    });
    let other = Place::here(&here.join("other"));
    for args in [
        &["logs", "1", "t", "-f"][..],
        &["logs", "1", "t"],
        &["logs", "1", "-f"],
    ] {
        let output = other.call(&[args, &["--join", &ticket]].concat());
        assert_eq!(output.status.code(), Some(4), "{}", told(&output));
        assert!(output.stdout.is_empty() && !text(&output.stderr).contains("secret"));
    }
    touch(here, "go");
    assert_eq!(
        json(&owner.call(&["wait", "1", "--json", "--join", &ticket]))["state"],
        "done"
    );
}
