//! `cargo xtask setup`: has git run the checks of this repository.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::Command;

/// The folder of the hooks, from the repository's root.
const HOOKS: &str = ".githooks";

/// Sets git's `core.hooksPath` for this clone.
///
/// # Errors
/// Git could not be run, or refused.
pub fn setup(root: &Path) -> Result<()> {
    let status = Command::new("git")
        .args(["config", "core.hooksPath", HOOKS])
        .current_dir(root)
        .status()
        .context("cannot run git")?;
    ensure!(status.success(), "git did not take the hooks of {HOOKS}");
    println!("git checks the subjects of commits in this clone now ({HOOKS}/commit-msg)");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(message: &str) -> bool {
        let folder = std::env::temp_dir();
        let file = folder.join(format!(
            "hedge-subject-{}-{}",
            std::process::id(),
            message.len()
        ));
        std::fs::write(&file, message).expect("a file for the message");
        let hook = crate::root().join(HOOKS).join("commit-msg");
        let output = Command::new(hook).arg(&file).output();
        std::fs::remove_file(&file).expect("the file is there");
        output.expect("the hook runs").status.success()
    }

    #[test]
    fn subjects_are_short_imperative_and_without_a_prefix() {
        for good in [
            "Cancel sibling attempts in one place\n\nThe reason.\n",
            "# a comment of git\nName the limit in every ending\n",
            "Merge branch 'main'",
        ] {
            assert!(accepts(good), "{good}");
        }
        let long = "A".repeat(73);
        for bad in [
            "",
            "cancel attempts",
            "core: cancel attempts",
            "Core: cancel attempts",
            "Added a test",
            "Cancel attempts.",
            &long,
        ] {
            assert!(!accepts(bad), "{bad}");
        }
    }
}
