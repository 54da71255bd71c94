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

/// What this sandbox guarantees whatever its [`hedge_exec::Weakness`]es; `None` without a sandbox.
pub fn guaranteed(report: &Report) -> Option<&'static str> {
    match report.sandbox {
        Sandbox::View { .. } => Some(
            "tasks cannot reach the owner's or other tasks' files (names included), processes, keys, shared memory or \
             local sockets",
        ),
        Sandbox::Landlock { .. } => Some(
            "tasks cannot read or change the owner's or other tasks' files, signal, slow down or inspect other \
             processes, or reach keys, shared memory or local sockets",
        ),
        Sandbox::None => None,
    }
}
