//! Exit codes and failures of the command.

use hedge_job::BadJobFile;
use hedge_model::msg::RefusalKind;
use hedge_node::ClientError;
use std::process::ExitCode;

/// The kinds of exit codes. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// The job failed, its results are incomplete, or something on this machine failed.
    Failed,
    /// The arguments or the job file are wrong, or name something that does not exist.
    Bad,
    /// The grid cannot be reached or serve the request now, or another process uses the folder.
    Unreachable,
    /// The grid refuses this peer, its ticket or its request.
    NotAllowed,
    /// The job was cancelled, or the user interrupted or declined.
    Cancelled,
    /// A bug in `hedge`.
    Bug,
    /// As the only program of a job ended, where the user asked for that: its exit status, or 128 plus the number of the
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

/// Why a command failed; each kind has its exit code.
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
    /// The request failed.
    #[error("{0}")]
    Grid(#[from] ClientError),
    /// The user interrupted the command or declined; the sentence says what was kept.
    #[error("{0}")]
    Interrupted(String),
    /// The reader of standard output closed it, as `head` does once it has enough.
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

/// Makes a panic, which is always a bug, exit with code 70 and say how to report it: a supervisor or worker that is
/// restarted is safer than one that continues with a dead thread.
pub fn install_panic_hook() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        eprintln!(
            "hedge {} hit a bug and exits. Please report it with the text above, the command you \
             ran, and a backtrace (set RUST_BACKTRACE=1 and run it again).",
            env!("CARGO_PKG_VERSION")
        );
        std::process::exit(Exit::Bug.code().into());
    }));
}
