//! `cargo xtask faults --planted NAME`: a known bug is put into a copy of the sources, and has to be found.

use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// One bug.
#[derive(Debug)]
pub struct Bug {
    /// What it is called.
    pub name: &'static str,
    /// Who finds it.
    pub found_by: FoundBy,
    changes: &'static [Change],
}

/// Who finds a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// A fault campaign.
    Campaign,
    /// `random_groups` in the simulator, within this many seeds.
    Simulator(u32),
}

#[derive(Debug)]
struct Change {
    file: &'static str,
    find: &'static str,
    put: &'static str,
}

const BUGS: &[Bug] = &[
    // The core hears that a record is committed as soon as it is proposed.
    Bug {
        name: "reply-before-durable",
        found_by: FoundBy::Campaign,
        changes: &[
            Change {
                file: "crates/store/src/journal.rs",
                find: "        place.send(Proposal {\n",
                put: "        let told = Said::Committed {\n            index: 0,\n            first: Some(first),\n            \
                      records: records.clone().into(),\n        };\n        let _ = self.0.mouth.said.try_send(told);\n        \
                      place.send(Proposal {\n",
            },
            Change {
                file: "crates/store/src/machine.rs",
                find: "        let records = batch.records()?;\n        let first =",
                put: "        let records = batch.records()?;\n        if own.is_some() && lead.told {\n            \
                      return Ok(());\n        }\n        let first =",
            },
        ],
    },
    // A leader that was replaced and does not know it can still assign, cancel and settle.
    Bug {
        name: "no-fence",
        found_by: FoundBy::Simulator(100),
        changes: &[Change {
            file: "crates/core/src/worker/mod.rs",
            find: "Event::Order(epoch, _) if epoch < self.epoch => {}",
            put: "Event::Order(epoch, _) if epoch < Epoch(0) => {}",
        }],
    },
];

impl Bug {
    /// The bug of this name.
    ///
    /// # Errors
    /// There is none; names those that there are.
    pub fn named(name: &str) -> Result<&'static Bug> {
        let names: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
        let known = BUGS.iter().find(|bug| bug.name == name);
        known.with_context(|| format!("there are these bugs to plant: {}", names.join(", ")))
    }

    /// Copies the sources and puts the bug into the copy. Gives the copy's folder.
    ///
    /// # Errors
    /// It cannot be copied, or the place of the bug is not found.
    pub fn plant(&self, root: &Path) -> Result<PathBuf> {
        let copy = target(root).join("sources");
        let listed = Command::new("git")
            .args(["ls-files", "-z"])
            .current_dir(root)
            .output()?;
        ensure!(listed.status.success(), "git does not list the sources");
        let listed = String::from_utf8(listed.stdout)?;
        for name in listed.split_terminator('\0') {
            let change = self.changes.iter().find(|change| change.file == name);
            let bytes = match (change, fs::read(root.join(name))) {
                (Some(change), Ok(bytes)) => change.apply(&String::from_utf8(bytes)?)?.into(),
                (None, Ok(bytes)) => bytes,
                // Removed, and the removal is not committed.
                (_, Err(_)) => continue,
            };
            let to = copy.join(name);
            if fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            fs::create_dir_all(to.parent().context("a file without a folder")?)?;
            fs::write(&to, bytes)?;
        }
        Ok(copy)
    }

    /// Has the simulator look for it.
    ///
    /// # Errors
    /// It was not found.
    pub fn simulate(&self, root: &Path, copy: &Path, seeds: u32) -> Result<()> {
        let output = Command::new("cargo")
            .args([
                "test",
                "--locked",
                "-p",
                "hedge-sim",
                "--test",
                "random_groups",
            ])
            .env("CARGO_TARGET_DIR", target(root))
            .env("HEDGE_SIM_SEEDS", seeds.to_string())
            .current_dir(copy)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        let found: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("seed "))
            .collect();
        if output.status.success() || found.is_empty() {
            bail!("{} was not found within {seeds} seeds:\n{said}", self.name);
        }
        println!("{} was found:\n  {}", self.name, found.join("\n  "));
        Ok(())
    }
}

impl Change {
    fn apply(&self, text: &str) -> Result<String> {
        let places = text.matches(self.find).count();
        ensure!(
            places == 1,
            "{}: {places} places for the bug; bring `planted.rs` up to date",
            self.file
        );
        Ok(text.replace(self.find, self.put))
    }
}

/// Where planted builds go, apart from all others.
pub fn target(root: &Path) -> PathBuf {
    super::target(root).join("planted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bug_has_its_place_in_the_sources() {
        for change in BUGS.iter().flat_map(|bug| bug.changes) {
            let text = fs::read_to_string(crate::root().join(change.file)).unwrap();
            assert_ne!(change.apply(&text).unwrap(), text);
        }
    }
}
