//! What keeps tasks from the machine, in a line.

use hedge_exec::{Report, Sandbox};

/// The kind of sandbox and what it is made of.
pub fn line(report: &Report) -> String {
    match report.sandbox {
        Sandbox::View { landlock: 0 } => {
            "a view of its own for each task (namespaces, a filter of system calls)".to_owned()
        }
        Sandbox::View { landlock } => format!(
            "a view of its own for each task (namespaces, a filter of system calls, Landlock ABI {landlock})"
        ),
        Sandbox::Landlock { abi } => {
            format!("no namespaces: Landlock (ABI {abi}) and a filter of system calls alone")
        }
        Sandbox::None => "none: tasks may do whatever this user may".to_owned(),
    }
}
