//! What needs no grid: help, completions, closed pipes, wrong arguments, a grid that is not there.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn hedge(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hedge"));
    command
        .current_dir(folder)
        .env("HOME", folder)
        .env_remove("XDG_STATE_HOME")
        .env_remove("HEDGE_TICKET");
    command
}

fn call(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    hedge(folder.path()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let output = call(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    insta::assert_snapshot!(text(&output.stdout));
}

#[test]
fn every_command_has_help() {
    for command in [
        "run",
        "supervisor",
        "ticket",
        "worker",
        "submit",
        "jobs",
        "job",
        "tasks",
        "wait",
        "cancel",
        "fetch",
        "manifest",
        "logs",
        "explain",
        "workers",
        "pack",
        "gateway",
        "ui",
        "drain",
        "doctor",
        "screensaver",
        "plan",
        "completions",
    ] {
        let output = call(&[command, "--help"]);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text(&output.stdout).contains("Usage: hedge"), "{command}");
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = call(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = text(&output.stdout);
        assert!(
            script.contains("submit") && script.contains("explain"),
            "{shell}"
        );
    }
    let output = call(&["completions", "bash"]);
    let mut bash = Command::new("bash")
        .args(["-n"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin
        .take()
        .unwrap()
        .write_all(&output.stdout)
        .unwrap();
    assert!(
        bash.wait().unwrap().success(),
        "bash does not understand the script"
    );
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["completions", "zsh"][..], &["--help"], &["doctor"]] {
        let mut child = hedge(folder.path())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // Nobody reads, so that the first or a later write meets a closed pipe.
        drop(child.stdout.take());
        let mut told = String::new();
        child
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut told)
            .unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), &*told), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn wrong_arguments_are_refused_with_what_would_be_right() {
    for (args, part) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["run"], "required"),
        (&["run", "x.toml", "--", "true"], "cannot be used with"),
        (
            &["run", "--array", "1-3", "--", "true"],
            "write --array 0..60",
        ),
        (&["run", "--array", "3..3", "--", "true"], "holds no task"),
        (&["run", "--", "./none"], "./none does not exist"),
        (&["run", "--workers", "0", "--", "true"], "1..=1024"),
        (&["submit", "--key", "12", "--", "true"], "not an id"),
        (&["ticket", "worker", "--expires", "3"], "is not a duration"),
        (&["worker", "--memory", "3"], "is not an amount of bytes"),
        (&["job", "seven"], "is no job: write its number, or last"),
        (&["wait", "1", "2", "--out", "x"], "the results of one job"),
        (
            &["run", "--env", "NO_SUCH_VARIABLE", "--", "true"],
            "is not set here",
        ),
        (
            &["run", "--input", "none.csv", "--", "true"],
            "\"none.csv\" does not exist",
        ),
        (
            &["run", "--output", "x-${index}", "--", "true"],
            "add --array 0..60",
        ),
        (&["drain", ""], "a value is required"),
        (&["revoke", "", "--yes"], "a value is required"),
        (&["members", "remove", ""], "a value is required"),
        (&["logs", "1", ""], "a value is required"),
        (&["explain", "1", ""], "a value is required"),
        (&["revoke", "3f9a"], "--yes"),
        (&["members", "remove", "3f9a"], "--yes"),
        (&["members", "--upgrade"], "--yes"),
        (&["forget", "1"], "--yes"),
        (&["supervisor", "--standby"], "--standby needs a group"),
    ] {
        let output = call(args);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        assert!(told.contains(part), "{args:?}: {told}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

#[test]
fn an_option_that_would_have_no_effect_is_refused() {
    for args in [
        &["run", "--array", "0..3", "job.toml"][..],
        &["submit", "--array", "0..3", "job.toml"],
        &["run", "--critical", "job.toml"],
        &["submit", "--critical", "job.toml"],
        &["run", "--out", "there", "--", "true"],
        &["submit", "--wait", "--out", "there", "--", "true"],
        &["submit", "--out", "there", "job.toml"],
        &["run", "--cpus", "2", "job.toml"],
        &["submit", "--input", "x", "job.toml"],
        &["submit", "--exit-code", "--", "true"],
        &["run", "--dir", "there", "--", "true"],
        &["plan", "job.toml", "--machines", "3", "--join", "ticket"],
        &["plan", "job.toml", "--machines", "3", "--dir", "there"],
        &["plan", "job.toml", "--availability", "trace.csv"],
        &["cost", "1", "--csv", "--json"],
        &["worker", "--json"],
        &["worker", "--show-owner", "--cpus", "2"],
        &["worker", "--owner", "rules.toml", "--dedicated"],
        &["members", "--yes"],
        &["members", "--upgrade", "remove", "3f9a"],
        &["completions", "bash", "--json"],
        &["supervisor", "--in-memory", "--recover"],
    ] {
        let output = call(args);
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        let says = ["cannot be used with", "has no effect", "required"];
        assert!(
            says.iter().any(|part| told.contains(part)),
            "{args:?}: {told}"
        );
    }
}

#[test]
fn an_out_that_is_a_file_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("taken"), "").unwrap();
    let job = "[[task]]\nid = \"t\"\ncommand = [\"true\"]\n";
    std::fs::write(folder.path().join("job.toml"), job).unwrap();
    let output = hedge(folder.path())
        .args(["run", "--out", "taken", "job.toml"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("results cannot go to taken"));
}

#[test]
fn without_a_grid_the_exit_code_says_so() {
    for args in [
        &["jobs"][..],
        &["job", "1"],
        &["wait", "1"],
        &["cancel", "1", "2"],
        &["tasks", "last"],
        &["fetch", "1"],
        &["logs", "1", "a"],
        &["explain", "1"],
        &["workers"],
        &["drain", "x"],
        &["ticket", "worker"],
        &["submit", "--", "true"],
        &["jobs", "--join", "no ticket"],
    ] {
        let output = call(args);
        let told = text(&output.stderr);
        let expected = if args.contains(&"--join") {
            [2, 3, 4]
        } else {
            [3; 3]
        };
        let code = output.status.code().unwrap();
        assert!(expected.contains(&code), "{args:?}: {code}, {told}");
        assert!(told.starts_with("hedge: "), "{args:?}: {told}");
    }
}

#[test]
fn no_colour_reaches_a_file() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("job.toml"), "x").unwrap();
    let output = hedge(folder.path())
        .args(["run", "job.toml"])
        .output()
        .unwrap();
    assert!(!output.stderr.contains(&0x1b), "{}", text(&output.stderr));
}
