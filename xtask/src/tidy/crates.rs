//! Which crate may use which: the design's picture, as a table.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Finding;

/// One crate of the workspace: whom of the others it may use, and whom even its tests may.
struct Rule {
    name: &'static str,
    uses: &'static [&'static str],
    tests_use: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        name: "hedge-model",
        uses: &[],
        tests_use: &[],
    },
    Rule {
        name: "hedge-core",
        uses: &["hedge-model"],
        tests_use: &["hedge-sim"],
    },
    Rule {
        name: "hedge-sim",
        uses: &["hedge-core", "hedge-model"],
        tests_use: &[],
    },
    Rule {
        name: "hedge-net",
        uses: &["hedge-model"],
        tests_use: &[],
    },
    Rule {
        name: "hedge-store",
        uses: &["hedge-model"],
        tests_use: &["hedge-core"],
    },
    Rule {
        name: "hedge-exec",
        uses: &["hedge-model"],
        tests_use: &[],
    },
    Rule {
        name: "hedge-host",
        uses: &["hedge-model"],
        tests_use: &[],
    },
    Rule {
        name: "hedge-node",
        uses: &[
            "hedge-core",
            "hedge-exec",
            "hedge-host",
            "hedge-model",
            "hedge-net",
            "hedge-store",
        ],
        tests_use: &[],
    },
    Rule {
        name: "hedge-job",
        uses: &["hedge-model"],
        tests_use: &[],
    },
    Rule {
        name: "hedge-cli",
        uses: &[
            // For its build script alone.
            "deepzoom",
            "hedge-core",
            "hedge-exec",
            "hedge-gateway",
            "hedge-host",
            "hedge-job",
            "hedge-model",
            "hedge-net",
            "hedge-node",
            "hedge-sim",
            "hedge-store",
        ],
        tests_use: &[],
    },
    Rule {
        name: "hedge-gateway",
        uses: &["hedge-job", "hedge-model", "hedge-node", "hedge-sim"],
        tests_use: &[],
    },
    Rule {
        name: "hedge-lab",
        uses: &[
            "hedge-exec",
            "hedge-job",
            "hedge-model",
            "hedge-net",
            "hedge-node",
            "hedge-sim",
            "hedge-store",
        ],
        tests_use: &[],
    },
    Rule {
        name: "deepzoom",
        uses: &[],
        tests_use: &[],
    },
    Rule {
        name: "xtask",
        uses: &[],
        tests_use: &[],
    },
];

/// Crates without clocks, sockets, files or the system's randomness: all that the pure ones may use.
const PURE: &[&str] = &[
    "arrayvec",
    "blake3",
    "bytes",
    "globset",
    "humantime",
    "imbl",
    "indexmap",
    "postcard",
    "rand_chacha",
    "rand_core",
    "rmp-serde",
    "rustc-hash",
    "serde",
    "serde_bytes",
    "serde_json",
    "slab",
    "smallvec",
    "strsim",
    "thiserror",
    "utoipa",
];

/// The crates that use nothing but [`PURE`] ones and each other.
const PURE_OWN: &[&str] = &["hedge-core", "hedge-model"];

/// A dependency as the manifest states it.
#[derive(Debug)]
pub struct Dependency {
    by: String,
    on: String,
    for_tests: bool,
}

/// Reads the dependencies of the workspace's crates.
///
/// # Errors
/// `cargo metadata` failed.
pub fn read(root: &Path) -> Result<Vec<Dependency>> {
    let answer = Command::new("cargo")
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(
        answer.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&answer.stderr)
    );
    let answer: Value =
        serde_json::from_slice(&answer.stdout).context("cargo metadata is not JSON")?;
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut dependencies = Vec::new();
    for package in list(&answer, "packages") {
        let by = text(&package, "name");
        // The crate itself, so that one without any dependency is known too.
        dependencies.push(Dependency {
            by: by.clone(),
            on: by.clone(),
            for_tests: false,
        });
        for on in list(&package, "dependencies") {
            let for_tests = on["kind"] == "dev";
            dependencies.push(Dependency {
                by: by.clone(),
                on: text(&on, "name"),
                for_tests,
            });
        }
    }
    ensure!(!dependencies.is_empty(), "cargo metadata names no packages");
    Ok(dependencies)
}

/// Checks them against the table.
pub fn check(dependencies: &[Dependency]) -> Vec<Finding> {
    dependencies
        .iter()
        .filter_map(|dependency| wrong(dependency).map(|what| Finding::new(&dependency.by, what)))
        .collect()
}

fn wrong(Dependency { by, on, for_tests }: &Dependency) -> Option<String> {
    let Some(rule) = RULES.iter().find(|rule| rule.name == by) else {
        return (by == on).then(|| {
            "a new crate: give it a row in xtask/src/tidy/crates.rs and in ARCHITECTURE.md"
                .to_owned()
        });
    };
    if by == on {
        return None;
    }
    if RULES.iter().any(|rule| rule.name == on) {
        let allowed =
            rule.uses.contains(&on.as_str()) || *for_tests && rule.tests_use.contains(&on.as_str());
        return (!allowed).then(|| format!("must not use {on}: see the map in ARCHITECTURE.md"));
    }
    let pure = !PURE_OWN.contains(&by.as_str()) || *for_tests || PURE.contains(&on.as_str());
    (!pure).then(|| format!("must not use {on}, unless that has no clock, socket, file or randomness of the system: then add it to the list in xtask/src/tidy/crates.rs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(by: &str, on: &str, for_tests: bool) -> usize {
        check(&[Dependency {
            by: by.to_owned(),
            on: on.to_owned(),
            for_tests,
        }])
        .len()
    }

    #[test]
    fn the_designs_rules_hold() {
        assert_eq!(found("hedge-core", "hedge-model", false), 0);
        assert_eq!(found("hedge-core", "hedge-net", true), 1);
        assert_eq!(found("hedge-core", "hedge-sim", true), 0);
        assert_eq!(found("hedge-core", "hedge-sim", false), 1);
        assert_eq!(found("hedge-core", "tokio", false), 1);
        assert_eq!(found("hedge-core", "proptest", true), 0);
        assert_eq!(found("hedge-net", "tokio", false), 0);
        assert_eq!(found("hedge-model", "hedge-core", false), 1);
        for hidden in ["hedge-net", "hedge-node", "hedge-exec", "hedge-host"] {
            assert_eq!(found("hedge-sim", hidden, true), 1, "{hidden}");
        }
        assert_eq!(found("xtask", "hedge-model", false), 1);
        assert_eq!(found("hedge-new", "hedge-new", false), 1);
    }

    #[test]
    fn manifests_are_read() {
        let dependencies = read(&crate::root()).expect("metadata");
        assert!(
            dependencies
                .iter()
                .any(|one| one.by == "hedge-core" && one.on == "hedge-model" && !one.for_tests)
        );
    }
}
