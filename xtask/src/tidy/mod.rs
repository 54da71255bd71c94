//! Style checks, which run with the tests: whatever the project promises about its own text.

mod crates;
mod layers;
mod length;
mod owners;
mod promises;
mod rust;
mod source;
mod terms;
mod words;

use std::fmt;
use std::path::Path;

use anyhow::{Result, bail};

use source::Repository;

/// Something that a check found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The file, and the line or item where there is one.
    place: String,
    /// What is wrong, and what to do.
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Finding {
        Finding {
            place: place.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Runs all checks on the repository at `root`; with `lower` also lowers the ratchet.
///
/// # Errors
/// What was found, or why a check could not run.
pub fn report(root: &Path, lower: bool) -> Result<()> {
    let repository = Repository::read(root)?;
    if lower {
        length::lower(&repository, root)?;
        terms::lower(&repository, root)?;
        return report(root, false);
    }
    let findings = findings(&repository, root)?;
    if findings.is_empty() {
        println!("tidy: {} files", repository.files.len());
        return Ok(());
    }
    for finding in &findings {
        eprintln!("{finding}");
    }
    bail!("tidy: {} findings", findings.len())
}

fn findings(repository: &Repository, root: &Path) -> Result<Vec<Finding>> {
    let mut findings = repository.broken.clone();
    findings.extend(layers::check(repository));
    findings.extend(length::check(repository));
    findings.extend(owners::check(repository));
    findings.extend(rust::check(repository));
    findings.extend(words::check(repository));
    findings.extend(terms::check(repository));
    findings.extend(promises::check(repository));
    findings.extend(crates::check(&crates::read(root)?));
    findings.sort();
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let root = crate::root();
        let repository = Repository::read(&root).expect("a readable repository");
        let findings = findings(&repository, &root).expect("checks that run");
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(shown.is_empty(), "\n{}", shown.join("\n"));
    }
}
