//! Errors of peers and clients, worded for users.

use hedge_model::msg::Refusal;
use hedge_store::StoreError;

/// Why a supervisor or worker ended or could not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The network or the blob store failed.
    #[error(transparent)]
    Net(#[from] hedge_net::NetError),
    /// Running tasks failed.
    #[error(transparent)]
    Exec(#[from] hedge_exec::ExecError),
    /// The journal failed.
    #[error(transparent)]
    Store(#[from] hedge_store::StoreError),
    /// It had to end while it was running.
    #[error("{0}")]
    Ended(std::sync::Arc<NodeError>),
    /// A ticket cannot be read.
    #[error(transparent)]
    Ticket(#[from] hedge_net::TicketError),
    /// A file or directory of the peer failed.
    #[error("cannot {what} {path}: {source}; nothing was changed")]
    Io {
        /// The operation.
        what: &'static str,
        /// The path.
        path: std::path::PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// Another process uses the directory.
    #[error(
        "{} is in use by {by}; nothing was changed: end that process, or give this one another --dir", dir.display()
    )]
    InUse {
        /// The directory.
        dir: std::path::PathBuf,
        /// The other process.
        by: String,
    },
    /// The grid does not admit this peer; trying again would not help.
    #[error("{0}")]
    NotAllowed(String),
    /// Any other error, as a sentence.
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

/// Why a client's request failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No supervisor answers, or nobody who has the content that is wanted.
    #[error("{0}")]
    Unreachable(String),
    /// Another process uses something that is needed.
    #[error("{0}")]
    Busy(String),
    /// The supervisor refused this request.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The grid does not admit this peer.
    #[error("{0}")]
    NotAllowed(String),
    /// Something on this machine failed.
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
