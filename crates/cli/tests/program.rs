//! A program on the command line: what it is given, what it leaves, how it ends; and jobs named in several ways.

mod common;

use common::{Grid, Place, json, text, told};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::process::Stdio;

#[test]
fn a_program_gets_what_it_needs_and_its_files_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    fs::write(folder.path().join("table.csv"), "3\n1\n2\n").unwrap();
    fs::write(folder.path().join("other.csv"), "x\n").unwrap();
    let args = [
        "run",
        "--name",
        "sorted",
        "--input",
        "table.csv",
        "--output",
        "out.txt",
        "--env",
        "MODE=fast",
        "--",
        "sh",
        "-c",
        "sort table.csv > out.txt; echo $MODE; test ! -e other.csv",
    ];
    let output = place.call(&args);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(text(&output.stdout), "fast\n");
    let told = text(&output.stderr);
    assert!(told.contains("names other.csv"), "{told}");
    assert!(told.contains("`--input other.csv` sends it"), "{told}");
    assert!(!told.contains("names table.csv"), "{told}");
    let made = fs::read_to_string(folder.path().join("sorted-results/out.txt"));
    assert_eq!(made.unwrap(), "1\n2\n3\n");
}

#[test]
fn standard_input_is_a_programs_or_a_job_file() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let piped = |args: &[&str], input: &[u8]| {
        let mut command = place.hedge(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        child.wait_with_output().unwrap()
    };
    // Short input travels within the job, long input as a file.
    for lines in [3, 50_000] {
        let output = piped(
            &["run", "--stdin", "-", "--", "wc", "-l"],
            "a line\n".repeat(lines).as_bytes(),
        );
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert_eq!(text(&output.stdout).trim(), lines.to_string());
    }
    let job = "[[task]]\nid = \"a\"\ncommand = [\"true\"]\n";
    let output = piped(&["run", "-", "--json"], job.as_bytes());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(json(&output)["done"], 1);
    let output = piped(&["run", "-"], b"[[task]]\nid = 3\n");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("stdin:"), "{}", told(&output));
}

#[test]
fn how_a_program_ended_is_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    for (line, code, exit_code, signal) in [
        ("exit 0", 0, 0.into(), Value::Null),
        ("exit 3", 3, 3.into(), Value::Null),
        ("kill -KILL $$", 128 + 9, Value::Null, 9.into()),
    ] {
        let args = ["run", "--exit-code", "--json", "--", "sh", "-c", line];
        let output = place.call(&args);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{line}: {}",
            told(&output)
        );
        let ended = json(&output);
        assert_eq!(
            (&ended["exit_code"], &ended["signal"]),
            (&exit_code, &signal),
            "{line}"
        );
    }
}

#[test]
fn tasks_are_listed_and_their_lines_named() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let job = "[qos]\nredundancy = \"none\"\n[[task]]\nid = \"part\"\narray = \"0..3\"\nretries = 0\n\
               command = [\"sh\", \"-c\", \"echo this is $HEDGE_INDEX; test $HEDGE_INDEX != 2 || { sleep 1; exit 7; }\"]\n";
    fs::write(folder.path().join("job.toml"), job).unwrap();
    let submitted = grid.place.call(&["submit", "--wait", "job.toml"]);
    assert_eq!(submitted.status.code(), Some(1), "{}", told(&submitted));
    let lines = |args: &[&str]| -> Vec<Value> {
        let output = grid.place.call(args);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let lines = text(&output.stdout).lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let failed = lines(&["tasks", "last", "--failed", "--json"]);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(
        (&failed[0]["task"], &failed[0]["exit_code"]),
        (&"part.2".into(), &7.into())
    );
    assert_eq!(lines(&["tasks", "1", "--done", "--json"]).len(), 2);
    assert_eq!(lines(&["tasks", "1", "--json"]).len(), 3);
    let logs = grid.place.call(&["logs", "last"]);
    assert_eq!(
        text(&logs.stdout),
        "part.0: this is 0\npart.1: this is 1\npart.2: this is 2\n",
        "{}",
        told(&logs)
    );
    let listed = grid.place.ask(&["jobs", "--failed"]);
    assert_eq!(listed[0]["id"], 1);
    assert_eq!(
        grid.place.ask(&["jobs", "--running"]),
        serde_json::json!([])
    );
}
