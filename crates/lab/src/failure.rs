//! Why something was not measured.

use hedge_node::ClientError;

/// Why something was not measured. Nothing of the measured grid is kept.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong arguments or files.
    #[error("{0}")]
    Arguments(String),
    /// Something on this machine failed.
    #[error("{0}")]
    Local(String),
    /// The measured grid did not answer as it should.
    #[error("{0}")]
    Grid(#[from] ClientError),
    /// Nobody reads what is printed any more.
    #[error("the output was closed")]
    OutputClosed,
}

impl Failure {
    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Failure::Arguments(_) => 2,
            Failure::Local(_) | Failure::Grid(_) => 1,
            Failure::OutputClosed => 0,
        }
    }
}

/// A reply that does not belong to its request.
pub fn unexpected() -> Failure {
    Failure::Local("the measured grid sent a reply of the wrong kind: `hedge` beside `hedge-lab` may be of another version; build both".to_owned())
}
