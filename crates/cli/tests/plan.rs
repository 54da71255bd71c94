//! `hedge plan`: what it reads and prints.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const JOB: &str = include_str!("../../sim/tests/data/small.toml");

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn plan(folder: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hedge"))
        .current_dir(folder)
        .env("HOME", folder)
        .arg("plan")
        .args(args.split(' '))
        .output()
        .unwrap()
}

#[test]
fn a_plan_says_what_each_level_buys_and_costs_and_whether_the_end_comes_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let job = format!("[qos]\nfinish_by = \"40s\"\nconfidence = \"90%\"\n{JOB}");
    let job = job.replace("name = \"small\"\n", "");
    std::fs::write(
        folder.path().join("soon.toml"),
        format!("name = \"soon\"\n{job}"),
    )
    .unwrap();
    let found = json(&plan(
        folder.path(),
        "soon.toml --machines 6 --runs 60 --json",
    ));
    let levels = found["levels"].as_array().unwrap();
    let level = |name: &str| {
        levels
            .iter()
            .find(|level| level["redundancy"] == name)
            .unwrap()
    };
    for name in ["none", "critical", "fill", "speculate", "auto"] {
        assert!(
            level(name)["makespan_s"]["mean"].as_f64() > Some(2.0),
            "{name}"
        );
        assert!(level(name)["cost_micro"].as_f64() > Some(0.0), "{name}");
    }
    assert_eq!(level("none")["copies"], 0.0);
    assert!(level("fill")["copies"].as_f64() > level("auto")["copies"].as_f64());
    assert!(level("fill")["cost_micro"].as_f64() > level("none")["cost_micro"].as_f64());
    assert!(level("auto")["in_time"].as_f64() >= level("none")["in_time"].as_f64());
    assert_eq!(
        found["unknown"], 1,
        "the last task says nothing of its time"
    );
    assert_eq!(level("none")["without_checkpoints"], Value::Null);
    let output = plan(folder.path(), "soon.toml --machines 6 --runs 20");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("IN TIME") && text.contains("ending within"),
        "{text}"
    );
    let output = plan(folder.path(), "soon.toml --runs 20");
    assert_eq!(
        output.status.code(),
        Some(3),
        "there is no grid to plan for"
    );
}

#[test]
fn a_plan_says_what_checkpoints_bring() {
    let folder = tempfile::tempdir().unwrap();
    let job = "name = \"long\"\n[[task]]\nid = \"a\"\ncommand = [\"true\"]\n\
               estimate = { cpu_time = \"1000s\" }\n\
               checkpoint = { files = [\"state\"], every = \"20s\" }\n";
    std::fs::write(folder.path().join("long.toml"), job).unwrap();
    let args = "long.toml --machines 4 --runs 60 --straggling 0.5";
    let found = json(&plan(folder.path(), &format!("{args} --json")));
    let levels = found["levels"].as_array().unwrap();
    let auto = levels.iter().find(|level| level["redundancy"] == "auto");
    let mean = |level: &Value| level["makespan_s"]["mean"].as_f64().unwrap();
    let (with, without) = (auto.unwrap(), &auto.unwrap()["without_checkpoints"]);
    assert!(
        mean(with) < mean(without),
        "copies of stragglers go on from their checkpoints, which costs each attempt 1 %: {found}"
    );
    let output = plan(folder.path(), args);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("without the job's checkpoints"), "{text}");
}
