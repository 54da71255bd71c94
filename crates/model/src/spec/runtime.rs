//! How tasks are executed.

use super::Group;
use super::validate::{Checked, Place, wrong};
use serde::{Deserialize, Serialize};

/// Most modules that one interpreter imports before attempts are forked from it.
pub const PRELOAD_MAX: usize = 64;
/// Longest name of such a module, bytes.
const MODULE_BYTES_MAX: usize = 256;

/// How a task is executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Runtime {
    /// As a process in a scratch directory.
    #[default]
    Process,
    /// The worker reports success at once, without a process, to measure the engine itself.
    Noop,
    /// Like [`Runtime::Process`], forked from a Python interpreter that has started already.
    Python,
}

impl Runtime {
    /// Each runtime's name in job files, and its description.
    pub const WORDS: [(&'static str, Runtime, &'static str); 3] = [
        (
            "process",
            Runtime::Process,
            "the command runs as a process in a scratch directory",
        ),
        (
            "python",
            Runtime::Python,
            "the same, for a command like `python3 -m module`, `python3 script.py` or `python3 -c code`: the process is \
             forked from an interpreter that has started already and has imported the modules of `preload`, which \
             takes about a millisecond",
        ),
        (
            "noop",
            Runtime::Noop,
            "nothing runs, and the worker reports success at once, to measure the grid itself",
        ),
    ];

    /// Returns whether it executes the task's command.
    pub fn runs_command(self) -> bool {
        match self {
            Self::Process | Self::Python => true,
            Self::Noop => false,
        }
    }
}

/// Checks the modules that a group preloads.
pub(super) fn check_preload(at: usize, group: &Group) -> Checked<()> {
    let place = |item| Place {
        group: Some(at),
        key: "preload",
        item,
    };
    if group.preload.is_empty() {
        return Ok(());
    }
    if group.runtime != Runtime::Python {
        return wrong(
            place(None),
            "only the runtime \"python\" imports modules beforehand",
            "add runtime = \"python\", or remove `preload`",
        );
    }
    if group.preload.len() > PRELOAD_MAX {
        return wrong(
            place(None),
            format!(
                "{} modules are to be imported beforehand",
                group.preload.len()
            ),
            format!("name at most {PRELOAD_MAX}; what they import themselves need not be named"),
        );
    }
    for (item, name) in group.preload.iter().enumerate() {
        if !is_module(name) {
            return wrong(
                place(Some(item)),
                format!("{name:?} is not the name of a module"),
                "write it as in an import statement, like \"numpy\" or \"package.module\"",
            );
        }
    }
    Ok(())
}

fn is_module(name: &str) -> bool {
    let part = |part: &str| {
        let first = part.chars().next();
        first.is_some_and(|c| c == '_' || c.is_alphabetic())
            && part.chars().all(|c| c == '_' || c.is_alphanumeric())
    };
    name.len() <= MODULE_BYTES_MAX && name.split('.').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_named_as_in_an_import_statement_and_for_python_alone() {
        let group = |runtime, names: &[&str]| Group {
            runtime,
            preload: names.iter().map(|name| (*name).into()).collect(),
            ..Group::program("a", &["python3"])
        };
        let ok = |group: &Group| check_preload(0, group).is_ok();
        let python = |names: &[&str]| group(Runtime::Python, names);
        assert!(ok(&python(&["numpy", "a.b_c.d2", "_x", "größe"])));
        assert!(ok(&group(Runtime::Process, &[])));
        assert!(!ok(&group(Runtime::Process, &["numpy"])));
        for bad in ["", ".", "a.", "a b", "2a", "a-b", "a;b", "../a", "a\0"] {
            assert!(!ok(&python(&["json", bad])), "{bad:?}");
        }
        assert!(!ok(&python(&vec!["a"; PRELOAD_MAX + 1])));
    }
}
