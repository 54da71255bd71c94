//! How `hedge` ends: one table of exit codes.

use hedge_job::BadJobFile;
use hedge_model::msg::RefusalKind;
use hedge_node::ClientError;
use std::process::ExitCode;

/// How a command ended. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// The job failed, or its results could not be brought.
    Failed,
    /// The arguments or the job file are wrong.
    Bad,
    /// The grid cannot be reached.
    Unreachable,
    /// The grid does not allow it.
    NotAllowed,
    /// The job was cancelled.
    Cancelled,
    /// A bug in `hedge`.
    Bug,
    /// As the only program of a job ended, where the user asked for that: its exit status, or 128 and the number of the
    /// signal that ended it.
    Program(u8),
}

impl Exit {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Bad => 2,
            Exit::Unreachable => 3,
            Exit::NotAllowed => 4,
            Exit::Cancelled => 5,
            Exit::Bug => 70,
            Exit::Program(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a command did not do what was asked; each kind has its exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A job file with mistakes. Nothing was submitted.
    #[error("{0}")]
    JobFile(#[from] BadJobFile),
    /// Wrong arguments. Nothing was changed.
    #[error("{0}")]
    Arguments(String),
    /// Something on this machine failed; the sentence says what was kept.
    #[error("{0}")]
    Local(String),
    /// The grid did not answer as hoped.
    #[error("{0}")]
    Grid(#[from] ClientError),
    /// The user wants no more; the sentence says what was kept.
    #[error("{0}")]
    Interrupted(String),
    /// Nobody reads what is printed any more.
    #[error("the output was closed")]
    OutputClosed,
}

impl Failure {
    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::JobFile(_) | Failure::Arguments(_) => Exit::Bad,
            Failure::Local(_) | Failure::Grid(ClientError::Local(_)) => Exit::Failed,
            Failure::Grid(ClientError::Unreachable(_) | ClientError::Busy(_)) => Exit::Unreachable,
            Failure::Grid(ClientError::NotAllowed(_)) => Exit::NotAllowed,
            Failure::Grid(ClientError::Refused(refusal)) => match refusal.kind {
                RefusalKind::Bad | RefusalKind::Unknown => Exit::Bad,
                RefusalKind::NotAllowed => Exit::NotAllowed,
                RefusalKind::Busy | RefusalKind::NotLeading => Exit::Unreachable,
            },
            Failure::Interrupted(_) => Exit::Cancelled,
            Failure::OutputClosed => Exit::Done,
        }
    }
}

/// From now on a panic, which is always a bug, ends the process with its own code and says how to report it.
/// A supervisor or worker with one dead thread would be worse than one that is restarted.
pub fn end_on_bugs() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        eprintln!(
            "hedge {} met a bug and has to end. Please report it with the text above, the command you \
             ran, and a backtrace (set RUST_BACKTRACE=1 and run it again).",
            env!("CARGO_PKG_VERSION")
        );
        std::process::exit(Exit::Bug.code().into());
    }));
}
