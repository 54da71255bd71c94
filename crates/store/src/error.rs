//! What can go wrong with a journal.

use hedge_model::record::RecordError;
use std::io;
use std::path::PathBuf;

/// Why the journal did not do something, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("the journal cannot {doing} {}: {source}; everything acknowledged is kept. Make room or mend the disk, then start again", path.display())]
    File {
        /// What was tried: "write", "read", …
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what was written.
    #[error("{} is damaged at byte {offset}: {what}; nothing was changed. With other supervisors, move the folder aside and join again: nothing is lost. Alone, `hedge journal repair` keeps what can be read and names the jobs that are affected", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where the damage was found: at or after the first wrong byte of the entry, at its start.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// A file or a record is of a format that this build does not know.
    #[error(
        "{what} is of format {found}, this build reads up to {known}; nothing was changed. Start a newer build"
    )]
    Newer {
        /// What.
        what: String,
        /// Its format.
        found: u32,
        /// The newest known.
        known: u32,
    },
    /// Records are of a format that this build does not know, or not what they are said to be.
    #[error("an entry of the journal cannot be read: {0}")]
    Records(#[from] RecordError),
    /// Another process has the folder open.
    #[error("the journal in {} is open in another process; nothing was changed. Stop that process first", path.display())]
    InUse {
        /// Which folder.
        path: PathBuf,
    },
    /// A group is there already.
    #[error("this journal belongs to a group already; nothing was changed")]
    Founded,
    /// Only the leader can do that.
    #[error("this member does not lead; nothing was changed. Ask the leader{}", leader.map(|id| format!(", member {id:016x}")).unwrap_or_default())]
    NotLeading {
        /// Who leads, if known.
        leader: Option<u64>,
    },
    /// The change of members was not made.
    #[error("the group's members were not changed: {why}; the group goes on as it was")]
    Members {
        /// Why.
        why: String,
    },
    /// A member cannot read what the group writes.
    #[error(
        "the group writes its journal in format {level}, this supervisor reads up to {reads}; nothing was changed: \
         start a newer version of hedge there"
    )]
    TooOld {
        /// The group's format.
        level: u32,
        /// The newest that the member reads.
        reads: u32,
    },
    /// It was not agreed on in time: unknown whether it will be.
    #[error(
        "{what} was not agreed on within {limit_ms} ms; it may still be. Look at the members before trying again"
    )]
    Undecided {
        /// What.
        what: &'static str,
        /// The limit in milliseconds.
        limit_ms: u64,
    },
    /// The state could not be written into a snapshot.
    #[error(
        "the state could not be written for a snapshot: {why}; everything acknowledged is kept in the log. Start again"
    )]
    State {
        /// Why.
        why: String,
    },
    /// The journal is closed, or failed before.
    #[error("the journal is closed; nothing was changed")]
    Closed,
}
