//! What can go wrong around an attempt.

use crate::Weakness;
use crate::shortage::worker_ending;
use hedge_model::Ending;
use hedge_model::ending::Shortage;
use std::io;
use std::path::PathBuf;

/// Why something around an attempt failed. An attempt's own end is an [`crate::Exit`], never an error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// No sandbox can be made here. Nothing was started.
    #[error(
        "this machine offers no sandbox: {why}. No task was started; allow user namespaces or a kernel \
         with Landlock, or start with --no-sandbox if all tasks can be trusted"
    )]
    NoSandbox {
        /// What was tried and what was said.
        why: String,
    },
    /// The sandbox that can be made here keeps less from tasks than it should. Nothing was started.
    #[error(
        "the sandbox that this machine allows does not keep everything from tasks: {}. No task was started; \
         {}, or accept that with --accept-weak-sandbox",
        clauses(.weaknesses),
        advice(.weaknesses, .why.as_deref())
    )]
    WeakSandbox {
        /// What it does not keep from tasks.
        weaknesses: Vec<Weakness>,
        /// Why there is no better one.
        why: Option<String>,
    },
    /// A folder that tasks must not see lies in one that they may read. Nothing was started.
    #[error(
        "{hidden:?} must be hidden from tasks, but lies in {visible:?}, which they may read. Nothing was \
         started; choose another --dir"
    )]
    Exposed {
        /// What must not be seen.
        hidden: PathBuf,
        /// The folder that would show it.
        visible: PathBuf,
    },
    /// A folder cannot be shared with tasks. Nothing was started.
    #[error(
        "{path:?} cannot be shared with tasks: {why}. Nothing was started; share another folder"
    )]
    Share {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The spawner could not be started, or spoke nonsense. Nothing runs.
    #[error(
        "cannot start the process that runs tasks: {why}. Nothing was started; see `hedge doctor`"
    )]
    SpawnerStart {
        /// What happened.
        why: String,
    },
    /// Another worker uses this folder. Nothing was changed.
    #[error("{folder:?} is in use by another worker. Nothing was changed; give each its own --dir")]
    ScratchInUse {
        /// The folder for scratch folders.
        folder: PathBuf,
    },
    /// The disk is full. What was half written has been removed.
    #[error(
        "no space left while writing {path:?}; what was half written has been removed. Free some space, or \
         give the worker another --dir"
    )]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// A path of an input or output is not one inside the attempt's folder. Nothing was written.
    #[error(
        "{path:?} is not a path inside the task's folder: it {why}. Nothing was written; use a relative path without `..`"
    )]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Two inputs have the same path, or one is a folder of the other. The first was kept.
    #[error("two inputs want the path {path:?}; the first was kept. Give them different names")]
    AlreadyThere {
        /// The path.
        path: String,
    },
    /// The system refused something.
    #[error("cannot {doing} {path:?}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn clauses(weaknesses: &[Weakness]) -> String {
    let all: Vec<String> = weaknesses.iter().map(|weakness| weakness.text()).collect();
    all.join("; ")
}

fn advice(weaknesses: &[Weakness], why: Option<&str>) -> String {
    match why {
        Some(why) => format!("allow user namespaces ({why})"),
        None if weaknesses
            .iter()
            .any(|one| matches!(one, Weakness::Root { .. })) =>
        {
            "run the worker as an ordinary user, or let it change users (CAP_SETUID, CAP_SETGID)"
                .to_owned()
        }
        None => "see `hedge doctor`".to_owned(),
    }
}

impl ExecError {
    /// How an attempt ended for which this went wrong.
    pub fn ending(&self) -> Ending {
        match self {
            ExecError::DiskFull { path } => Ending::Short {
                of: Shortage::Disk,
                doing: format!("write {path:?}"),
            },
            ExecError::Io {
                doing,
                path,
                source,
            } => worker_ending(format!("{doing} {path:?}"), source),
            // No other worker could place them either.
            ExecError::BadPath { .. } | ExecError::AlreadyThere { .. } => Ending::NotStarted {
                why: self.to_string(),
            },
            _ => Ending::worker(self.to_string()),
        }
    }

    /// An [`ExecError::Io`], or [`ExecError::DiskFull`] where that is the reason.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
        source: io::Error,
    ) -> ExecError {
        let path = path.into();
        match source.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => ExecError::DiskFull { path },
            _ => ExecError::Io {
                doing,
                path,
                source,
            },
        }
    }
}
