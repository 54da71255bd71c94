//! What can go wrong, for the user.

use hedge_model::msg::Refusal;
use hedge_store::StoreError;

/// Why a supervisor or a worker ended, or could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// Of the network or the content store.
    #[error(transparent)]
    Net(#[from] hedge_net::NetError),
    /// Of the way tasks are run.
    #[error(transparent)]
    Exec(#[from] hedge_exec::ExecError),
    /// Of the journal.
    #[error(transparent)]
    Store(#[from] hedge_store::StoreError),
    /// It had to end while it was running.
    #[error("{0}")]
    Ended(std::sync::Arc<NodeError>),
    /// A ticket cannot be read.
    #[error(transparent)]
    Ticket(#[from] hedge_net::TicketError),
    /// A file or folder of its own.
    #[error("cannot {what} {path}: {source}; nothing was changed")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Another process has the folder.
    #[error(
        "{} is in use by {by}; nothing was changed: end that process, or give this one another --dir", dir.display()
    )]
    InUse {
        /// The folder.
        dir: std::path::PathBuf,
        /// Who has it.
        by: String,
    },
    /// The grid does not let this peer in; trying again would not help.
    #[error("{0}")]
    NotAllowed(String),
    /// Anything else, in a sentence.
    #[error("{0}")]
    Other(String),
}

impl NodeError {
    pub(crate) fn io(what: &'static str, path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io {
            what,
            path: path.to_owned(),
            source,
        }
    }
}

/// Why a client did not get what it asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No supervisor answers.
    #[error("{0}")]
    Unreachable(String),
    /// Another process has what is needed.
    #[error("{0}")]
    Busy(String),
    /// The supervisor refused this request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The grid does not let this peer in.
    #[error("{0}")]
    NotAllowed(String),
    /// Something on this machine.
    #[error("{0}")]
    Local(String),
}

impl From<NodeError> for ClientError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::NotAllowed(why) => Self::NotAllowed(why),
            in_use @ (NodeError::InUse { .. } | NodeError::Store(StoreError::InUse { .. })) => {
                Self::Busy(in_use.to_string())
            }
            NodeError::Ended(why) => match &*why {
                NodeError::NotAllowed(why) => Self::NotAllowed(why.clone()),
                other => Self::Local(other.to_string()),
            },
            other => Self::Local(other.to_string()),
        }
    }
}
