//! `hedge-lab sim`: what it reads, prints and draws.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const FORKJOIN: &str = include_str!("../../sim/tests/data/forkjoin.json");
const TRACE: &str = include_str!("../../sim/tests/data/trace.csv");
const JOB: &str = include_str!("../../sim/tests/data/small.toml");

fn sim(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hedge-lab"))
        .current_dir(folder)
        .env("HOME", folder)
        .arg("sim")
        .args(args)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn files() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("flow.json", FORKJOIN);
    write("trace.csv", TRACE);
    write("job.toml", JOB);
    folder
}

#[test]
fn a_comparison_says_what_each_policy_reaches_and_costs_and_repeats_by_its_seed() {
    let folder = files();
    let args = "compare --workflow flow.json --availability trace.csv --lifetime 2 --runs 10 --seed 1 --json";
    let args: Vec<&str> = args.split(' ').collect();
    let first = json(&sim(folder.path(), &args));
    assert_eq!(first, json(&sim(folder.path(), &args)), "the same seed");
    let cases = first["cases"].as_array().unwrap();
    let names: Vec<&str> = cases
        .iter()
        .filter_map(|case| case["name"].as_str())
        .collect();
    assert_eq!(
        names.len(),
        6,
        "three models of stragglers, two errors of estimates: {names:?}"
    );
    assert_eq!(cases[2]["model"]["straggling"], 0.05, "{names:?}");
    let rows = cases[2]["tables"][0]["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["policy"].as_str())
        .collect();
    for name in ["none", "clock", "late", "spark", "boinc", "clone", "auto"] {
        assert!(names.contains(&name), "{name} of {names:?}");
    }
    for row in rows {
        for measure in ["clairvoyant", "bound"] {
            for figure in ["mean", "p50", "p95", "p99"] {
                let ratio = row[measure][figure].as_f64().unwrap();
                assert!((0.9..1000.0).contains(&ratio), "{measure} {figure}: {row}");
            }
        }
        assert!(row["net"].is_number() && row["second_copies"].is_number());
        assert!(
            row["clairvoyant_error"]["mean"].as_f64() > Some(0.0),
            "{row}"
        );
        assert!(row["cost_micro"].as_f64() > Some(0.0), "{row}");
    }
    let other = sim(folder.path(), &[&args[..], &["--seed", "2"]].concat());
    assert_eq!(other.status.code(), Some(2), "an option is given once");
}

#[test]
fn job_files_are_compared_and_charts_drawn() {
    let folder = files();
    let args = "compare --workflow job.toml --workflow flow.json --machines 3 --runs 3 --policies none,auto --plot charts";
    let output = sim(folder.path(), &args.split(' ').collect::<Vec<_>>());
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        text.contains("small: 5 tasks of 2 kinds") && text.contains("all together"),
        "{text}"
    );
    for chart in ["makespan.svg", "run-none.svg", "run-auto.svg"] {
        let svg = std::fs::read_to_string(folder.path().join("charts").join(chart)).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{chart}"
        );
    }
}

#[test]
fn what_cannot_be_simulated_is_refused_with_a_reason() {
    let folder = files();
    for (args, word) in [
        ("compare --workflow none.json", "none.json"),
        ("compare --workflow flow.json --policies nobody", "nobody"),
        (
            "compare --workflow flow.json --availability job.toml",
            "line",
        ),
        ("compare --workflow flow.json --runs 0", "runs"),
        ("compare --workflow flow.json --straggling 2", "stragglers"),
        ("compare --workflow flow.json --stragglers few", "few"),
        ("scale --tasks 0", "tasks"),
    ] {
        let output = sim(folder.path(), &args.split(' ').collect::<Vec<_>>());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args}: {errors}");
        assert!(errors.contains(word), "{args}: {errors}");
    }
}

#[test]
fn one_big_job_says_what_a_task_costs_the_core() {
    let folder = files();
    let args = "scale --tasks 200 --tasks 400 --workers 20 --plot scale.svg --json";
    let found = json(&sim(folder.path(), &args.split(' ').collect::<Vec<_>>()));
    let sizes: Vec<u64> = found
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|one| one["tasks"].as_u64())
        .collect();
    assert_eq!(sizes, [200, 400]);
    for one in found.as_array().unwrap() {
        assert!(one["core_us_per_task"].as_f64() > Some(0.0), "{one}");
    }
    assert!(folder.path().join("scale.svg").exists());
}
