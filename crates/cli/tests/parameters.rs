//! Parameters of jobs and tasks, on real grids: their values reach commands, environments, inputs and outputs.

mod common;

use common::{Grid, Place, json, text, told};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

/// Relative paths and contents of all files in a folder.
fn files(folder: &Path) -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read_to_string(entry.path()).unwrap())
        })
        .collect()
}

#[test]
fn each_combination_is_a_task_and_gets_its_own_file() {
    let folder = tempfile::tempdir().unwrap();
    let grid = Grid::start(folder.path(), 2);
    let place = &grid.place;
    fs::create_dir(place.folder.join("reads")).unwrap();
    fs::write(place.folder.join("reads/a.txt"), "first").unwrap();
    fs::write(place.folder.join("reads/b c.txt"), "second").unwrap();
    fs::write(place.folder.join("reads/d.md"), "none").unwrap();
    fs::write(place.folder.join("names.txt"), "x\n\ny $z\n").unwrap();
    let job = r#"
[parameters]
scale = 2
suffix = "txt"

[[task]]
id = "fit"
each = { lr = [0.10, 1e-3], seed = "3..5" }
command = ["sh", "-c", "echo ${lr} ${seed} ${scale} $LR $* > fit-${lr}-${seed}.${suffix}", "sh", "${seed}-${index}"]
env = { LR = "lr=${lr}" }
outputs = ["fit-${lr}-${seed}.${suffix}"]

[[task]]
id = "align"
each_file = "reads/*.txt"
command = ["sh", "-c", 'ls reads > "$1.out"; cat "$2" >> "$1.out"', "sh", "${stem}", "${file}"]
outputs = ["${stem}.out"]

[[task]]
id = "name"
each_line = "names.txt"
command = ["sh", "-c", 'echo "$1" > name-${index}', "sh", "${line}"]
outputs = ["name-${index}"]
"#;
    fs::write(place.folder.join("job.toml"), job).unwrap();
    let args = [
        "submit", "--wait", "--out", "made", "--set", "scale=5", "--json", "job.toml",
    ];
    let output = place.call(&args);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(json(&output)["tasks"], 8);
    let expected = [
        ("fit-0.10-3.txt", "0.10 3 5 lr=0.10 3-0\n"),
        ("fit-0.10-4.txt", "0.10 4 5 lr=0.10 4-1\n"),
        ("fit-1e-3-3.txt", "1e-3 3 5 lr=1e-3 3-2\n"),
        ("fit-1e-3-4.txt", "1e-3 4 5 lr=1e-3 4-3\n"),
        ("a.out", "a.txt\nfirst"),
        ("b c.out", "b c.txt\nsecond"),
        ("name-0", "x\n"),
        ("name-1", "y $z\n"),
    ];
    let expected: BTreeMap<String, String> = expected
        .map(|(name, content)| (name.to_owned(), content.to_owned()))
        .into();
    assert_eq!(files(&place.folder.join("made")), expected);
}

#[test]
fn a_program_runs_once_for_each_line_of_a_file_or_of_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    for name in ["one", "two"] {
        fs::write(place.folder.join(format!("{name}.csv")), name).unwrap();
    }
    fs::write(place.folder.join("list"), "one\ntwo\n").unwrap();
    let run = |each: &str, out: &str| {
        let args = [
            "run",
            "--each",
            each,
            "--input",
            "${line}.csv",
            "--output",
            "${line}.out",
            "--out",
            out,
            "--",
            "sh",
            "-c",
            "cp \"$1\" \"$2\"",
            "sh",
            "${line}.csv",
            "${line}.out",
        ];
        place.hedge(&args)
    };
    let output = run("list", "made").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let mut command = run("-", "piped");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"one\ntwo\n")
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let expected: BTreeMap<String, String> = [("one.out", "one"), ("two.out", "two")]
        .map(|(name, content)| (name.to_owned(), content.to_owned()))
        .into();
    for made in ["made", "piped"] {
        assert_eq!(files(&place.folder.join(made)), expected);
    }
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::here(folder.path());
    let job = "[parameters]\nrate = 1\n[[task]]\nid = \"a\"\ncommand = [\"echo\", \"${rate}\"]\n";
    fs::write(place.folder.join("job.toml"), job).unwrap();
    for (args, said) in [
        (&["run", "--set", "rat=2", "job.toml"][..], "job.toml:1:2"),
        (
            &["run", "--set", "rat=2", "job.toml"],
            "`rat` is set, but is no parameter of this job",
        ),
        (
            &["plan", "--set", "rate=x", "--machines", "1", "job.toml"],
            "its default is a number",
        ),
        (&["run", "--set", "rate", "job.toml"], "write NAME=VALUE"),
        (
            &["run", "--set", "rate=1", "--", "true"],
            "cannot be used with",
        ),
        (
            &["run", "--each", "job.toml", "--array", "0..2", "--", "true"],
            "cannot be used with",
        ),
        (
            &["run", "--each", "none", "--", "true"],
            "the file \"none\" does not exist",
        ),
        (
            &["run", "--each", "job.toml", "--output", "x", "--", "true"],
            "would leave the output \"x\"",
        ),
        (
            &["run", "--", "echo", "${line}"],
            "`${line}` is not known here",
        ),
        (
            &["run", "--", "echo", "${index}"],
            "`${index}` has no meaning here",
        ),
        (
            &["run", "--", "sh", "-c", "echo ${index}"],
            "`${index}` has no meaning here",
        ),
        (
            &["run", "--each", "-", "--stdin", "-", "--", "cat"],
            "would both read the standard input",
        ),
    ] {
        let output = place.call(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", told(&output));
        assert!(
            text(&output.stderr).contains(said),
            "{args:?}: {}",
            told(&output)
        );
    }
    let left = fs::read_dir(&place.folder).unwrap().count();
    assert_eq!(left, 1, "nothing was started");
}
