//! `hedge-lab bench`: what it refuses, and that it measures the `hedge` beside it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn bench(args: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let mut lab = Command::new(env!("CARGO_BIN_EXE_hedge-lab"));
    lab.arg("bench").args(args).env("HOME", folder.path());
    lab.output().unwrap()
}

#[test]
fn an_option_that_would_have_no_effect_is_refused() {
    for args in [
        &["recovery", "--kind", "leader", "--records", "5"][..],
        &["recovery", "--kind", "restart", "--loopback"],
        &["recovery", "--kind", "kill", "--fast"],
        &["recovery", "--kind", "kill", "--stall-after", "1s"],
        &["tasks", "--in-memory", "--supervisors", "3"],
    ] {
        let output = bench(args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {told}");
        let says = ["has no effect", "cannot be used with"];
        assert!(
            says.iter().any(|part| told.contains(part)),
            "{args:?}: {told}"
        );
    }
}

#[test]
fn a_grid_of_the_hedge_beside_it_is_measured() {
    let hedge = Path::new(env!("CARGO_BIN_EXE_hedge-lab")).with_file_name("hedge");
    assert!(
        hedge.is_file(),
        "there is no {}: this test needs it, `cargo build -p hedge-cli`",
        hedge.display()
    );
    let figures = |args: &[&str]| -> Value {
        let output = bench(&[args, &["--json"]].concat());
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {told}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let tasks = figures(&["tasks", "--runtime", "noop", "--count", "200"]);
    let leader = figures(&["recovery", "--kind", "leader", "--runs", "1", "--loopback"]);
    for one in [&tasks, &leader] {
        assert!(
            one.as_object().is_some_and(|figures| figures.len() > 2),
            "{one}"
        );
    }
}

#[test]
fn without_hedge_beside_it_nothing_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("hedge-lab");
    std::fs::copy(env!("CARGO_BIN_EXE_hedge-lab"), &alone).unwrap();
    let output = Command::new(alone)
        .args(["bench", "latency"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("there is no") && told.contains("nothing was measured"),
        "{told}"
    );
}
