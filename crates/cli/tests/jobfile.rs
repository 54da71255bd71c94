//! Job files with mistakes, through the real binary: exit code 2, nothing started, and a text that shows file,
//! line, column, what is wrong and what would be right.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const GOOD: &str = "[[task]]\nid = \"a\"\ncommand = [\"true\"]\n";

fn hedge(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hedge"))
        .args(args)
        .current_dir(folder)
        .env("HOME", folder)
        .env("XDG_STATE_HOME", folder.join("state"))
        .env("COLUMNS", "100")
        .output()
        .unwrap()
}

/// What `hedge run` says of a job file; it must refuse it and leave nothing behind.
fn told(file: &str, text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(file), text).unwrap();
    let output = hedge(folder.path(), &["run", file]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(output.stdout.is_empty());
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "something was left behind: {left:?}");
    told
}

macro_rules! refused {
    ($($name:ident: $text:expr;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(told("job.toml", $text));
        }
    )*};
}

refused! {
    a_syntax_error: "name = \"zoom\n[[task]]\n";
    a_list_that_is_not_closed: "[[task]]\nid = \"a\"\ncommand = [\"true\"\ndeps = [\"b\"]\n";
    an_unknown_key: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninptus = [\"x\"]\n";
    a_key_known_elsewhere: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\nstdout = \"log\"\n";
    an_unknown_key_of_the_job: "nam = \"x\"\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n";
    a_wrong_type: "[qos]\ncopies = \"2\"\n[[task]]\nid = \"a\"\ncommand = \"true\"\n";
    a_wrong_unit: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\nresources = { memory = \"32 MX\" }\n";
    a_missing_unit: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ntime_limit = 10\n";
    several_mistakes: "[qos]\nneed = \"0%\"\nredundancy = \"twice\"\n[critical]\nby = [\"weight\"]\ntop = \"120%\"\n[[task]]\ncommand = [\"true\"]\n";
    a_duplicate_id: &format!("{GOOD}\n{GOOD}");
    an_id_that_cannot_be: "[[task]]\nid = \"a b\"\ncommand = [\"true\"]\n";
    an_unknown_dependency: "[[task]]\nid = \"frame\"\ncommand = [\"true\"]\n[[task]]\nid = \"b\"\ncommand = [\"true\"]\ndeps = [\"fram\"]\n";
    an_input_of_an_unknown_task: "[[task]]\nid = \"frame\"\ncommand = [\"true\"]\ninputs = [{ task = \"fram\" }]\n";
    a_cycle: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ndeps = [\"b\"]\n[[task]]\nid = \"b\"\ncommand = [\"true\"]\ninputs = [{ task = \"a\" }]\n";
    an_array_of_none: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\narray = \"3..3\"\n";
    an_array_of_more_than_ten_million: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\narray = \"0..10000001\"\n";
    an_array_that_is_none: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\narray = \"0-60\"\n";
    too_many_tasks_together: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\narray = \"0..9000000\"\n[[task]]\nid = \"b\"\ncommand = [\"true\"]\narray = \"0..9000000\"\n";
    an_input_that_does_not_exist: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninputs = [\"scene.pov\"]\n";
    an_input_that_was_misspelled: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninputs = [\"jop.toml\"]\n";
    an_input_outside_the_folder: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\ninputs = [\"../secret\"]\n";
    a_stdin_that_does_not_exist: "[[task]]\nid = \"a\"\ncommand = [\"cat\"]\nstdin = \"list.txt\"\n";
    an_output_above_the_folder: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\noutputs = [\"good\", \"../x\"]\n";
    an_output_somewhere_else: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\noutputs = [\"/etc/x\"]\n";
    a_variable_without_an_array: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\noutputs = [\"x-${index}\"]\n";
    an_empty_command: "[[task]]\nid = \"a\"\ncommand = []\n";
    a_wrong_environment: "[[task]]\nid = \"a\"\ncommand = [\"true\"]\nenv = { \"A=B\" = \"x\" }\n";
    no_task: "name = \"n\"\n";
    an_empty_file: "";
}

#[test]
fn json_with_a_syntax_error() {
    insta::assert_snapshot!(told("job.json", "{ \"task\": [ { \"id\": \"a\", } ] }"));
}

#[test]
fn json_with_an_unknown_key() {
    let text = "{ \"task\": [\n  { \"id\": \"a\",\n    \"comand\": [\"true\"] } ] }\n";
    insta::assert_snapshot!(told("job.json", text));
}

#[test]
fn json_with_a_key_twice() {
    let text = "{ \"name\": \"a\",\n  \"name\": \"b\" }\n";
    insta::assert_snapshot!(told("job.json", text));
}

#[test]
fn a_job_file_that_does_not_exist() {
    let folder = tempfile::tempdir().unwrap();
    let output = hedge(folder.path(), &["run", "none.toml"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap());
}

#[test]
fn a_job_file_that_is_no_text() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.toml"), b"name = \"\xff\"").unwrap();
    let output = hedge(folder.path(), &["run", "job.toml"]);
    assert_eq!(output.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap());
}

#[test]
fn json_output_tells_the_place_to_programs() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(
        folder.path().join("job.toml"),
        "[[task]]\nid = \"ä\" # é\nno = 1\n",
    )
    .unwrap();
    let output = hedge(folder.path(), &["run", "job.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let told: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(told["exit_code"], 2);
    let places: Vec<_> = told["mistakes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (&m["line"], &m["column"]))
        .collect();
    assert_eq!(places, [(&1.into(), &1.into()), (&3.into(), &1.into())]);
}

#[test]
fn submit_checks_the_file_before_it_looks_for_a_grid() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.toml"), "nothing").unwrap();
    let output = hedge(folder.path(), &["submit", "job.toml"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn deep_nesting_is_refused_without_harm() {
    for (name, open, close) in [("job.json", "[", "]"), ("job.toml", "[", "]")] {
        let text = format!("x = {}{}", open.repeat(100_000), close.repeat(100_000));
        let text = if name.ends_with("json") {
            text.trim_start_matches("x = ").to_owned()
        } else {
            text
        };
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(name), text).unwrap();
        let output = hedge(folder.path(), &["run", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
    }
}
