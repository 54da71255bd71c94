//! `cargo xtask test`: every check and every test, in the order in which mistakes show soonest.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::faults::Campaign;
use crate::{python, tidy, tools};

/// One step: its name, and what it does.
type Step = (&'static str, fn(&Path) -> Result<()>);

const STEPS: &[Step] = &[
    ("tools", tools::provide),
    ("format", |root| {
        cargo(root, &["fmt", "--all", "--check"], &[])
    }),
    ("tidy", |root| tidy::report(root, false)),
    ("wasm", |root| {
        let target = [
            "build",
            "--locked",
            "--package",
            "hedge-core",
            "--target",
            tools::WASM,
        ];
        cargo(root, &target, &[])
    }),
    ("clippy", |root| {
        let all = [
            "clippy",
            "--locked",
            "--workspace",
            "--all-targets",
            "--",
            "--deny",
            "warnings",
        ];
        cargo(root, &all, &[])
    }),
    ("tests", |root| {
        cargo(root, &["nextest", "run", "--locked", "--workspace"], &[])
    }),
    ("python", python::test),
    ("examples in docs", |root| {
        cargo(root, &["test", "--locked", "--workspace", "--doc"], &[])
    }),
    ("docs", |root| {
        let all = [
            "doc",
            "--locked",
            "--workspace",
            "--no-deps",
            "--document-private-items",
        ];
        cargo(root, &all, &[("RUSTDOCFLAGS", "--deny warnings")])
    }),
    ("faults", Campaign::tests),
];

/// Runs every step, up to the first that fails, and ends with one line that sums up.
///
/// # Errors
/// The step that failed.
pub fn test(root: &Path) -> Result<()> {
    let start = Instant::now();
    let mut times = Vec::new();
    for (name, step) in STEPS {
        println!("\n── {name}");
        let since = Instant::now();
        let outcome = step(root);
        times.push(format!("{name} {}", minutes(since.elapsed())));
        if let Err(error) = outcome {
            let times = times.join(", ");
            bail!(
                "{error:#}\n\nFAILED at {name} after {} ({times})",
                minutes(start.elapsed())
            );
        }
    }
    let (count, times) = (STEPS.len(), times.join(", "));
    println!(
        "\nPASSED: {count} steps in {} ({times})",
        minutes(start.elapsed())
    );
    Ok(())
}

fn cargo(root: &Path, args: &[&str], env: &[(&str, &str)]) -> Result<()> {
    let mut command = Command::new("cargo");
    command
        .args(args)
        .envs(env.iter().copied())
        .current_dir(root);
    tools::run(&mut command)
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}
