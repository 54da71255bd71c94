//! Replies of a supervisor to clients.

use super::{Grants, PrintedView};
use crate::view::{
    AttemptsView, EndsView, ExplainView, GroupsView, JobView, LogView, MemberView, ResultsView,
    SettingView, TasksView, TicketView, WorkerView,
};
use crate::{Epoch, JobId, PeerAddr};
use serde::{Deserialize, Serialize};

/// The most jobs in one reply. Even with the longest names and reasons, they fit into one message.
pub const JOBS_MAX: usize = 1000;

/// The reply to an [`Ask`](super::Ask).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request id.
    pub id: u64,
    /// The reply.
    pub reply: Reply,
}

/// A reply or notice to a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// The job is accepted, and the grid holds its inputs.
    Accepted(JobId),
    /// Jobs in the order of their ids, at most [`JOBS_MAX`]. Empty after the last.
    Jobs(Vec<JobView>),
    /// One job. A watch sends one for each change; the last one has ended.
    Job(Box<JobView>),
    /// The request was carried out.
    Ok,
    /// Result files, with grants to read them.
    Results(Box<ResultsView>, Grants),
    /// The printed output of a task, with grants to read it.
    Log(Box<LogView>, Grants),
    /// Why a job and its tasks are in their states.
    Explain(Box<ExplainView>),
    /// Workers.
    Workers(Vec<WorkerView>),
    /// A ticket's secret, from which the client's node makes the ticket.
    Ticket(String),
    /// Members.
    Members(Vec<MemberView>),
    /// Settings.
    Settings(Vec<SettingView>),
    /// Unrequested, with id 0: this supervisor leads in this epoch. Send it the requests that are pending elsewhere.
    Lead(Epoch),
    /// Unrequested, with id 0: all supervisors of the grid.
    Supervisors(Vec<PeerAddr>),
    /// The request is refused.
    No(Refusal),
    /// Unrequested, with id 0: the grid's relays.
    Relays(Vec<PeerAddr>),
    /// Tickets.
    Tickets(Vec<TicketView>),
    /// Tasks of a job.
    Tasks(Box<TasksView>),
    /// What an attempt of a task has printed so far.
    Printed(PrintedView),
    /// Groups of a job.
    Groups(Box<GroupsView>),
    /// Attempts of a job's tasks.
    Attempts(Box<AttemptsView>),
    /// The groups were added to the open job, and the grid holds their inputs.
    Extended(Extended),
    /// Tasks of an open job that ended.
    Ends(Box<EndsView>),
}

/// A reply that is sent with grants for the blobs that it names.
#[derive(Clone, Debug, PartialEq)]
pub enum GrantedReply {
    /// Result files.
    Results(Box<ResultsView>),
    /// The printed output of a task.
    Log(Box<LogView>),
    /// The printed output of an attempt that is over.
    Printed {
        /// Its output.
        log: Box<LogView>,
        /// Whether this is the task's final output, as in [`PrintedView::Over`].
        last: bool,
    },
}

impl GrantedReply {
    /// Returns the reply with these grants.
    pub fn with(self, grants: Grants) -> Reply {
        match self {
            Self::Results(view) => Reply::Results(view, grants),
            Self::Log(view) => Reply::Log(view, grants),
            Self::Printed { log, last } => Reply::Printed(PrintedView::Over { log, grants, last }),
        }
    }
}

/// The tasks that an extension added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extended {
    /// The job.
    pub job: JobId,
    /// The number of the first task.
    pub first: u32,
    /// How many tasks. Those of each group are consecutive.
    pub tasks: u32,
}

/// Why a request is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// The kind, which decides the exit code.
    pub kind: RefusalKind,
    /// A sentence that says what happened and what to do.
    pub why: String,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// The request itself is wrong.
    Bad,
    /// The named thing does not exist.
    Unknown,
    /// The requester may not do this.
    NotAllowed,
    /// Not possible now; try again later.
    Busy,
    /// Another supervisor leads: ask it.
    NotLeading,
}
