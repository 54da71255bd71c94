//! The requests of clients: what each asks for, what it is about, and what it changes.
//!
//! A new request is a variant here and an arm in the supervisor's `api/requests.rs`.

use super::{PrintedRequest, Role};
use crate::spec::Extension;
use crate::view::TaskFilter;
use crate::{Data, Hash, InputServer, JobId, JobSpec, PeerId, SubmitKey};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The most tasks whose outputs one request names. Each is looked up.
pub const OUTPUT_TASKS_MAX: usize = 1000;
/// The most names of tasks that one request releases or cancels. Each is looked up.
pub const TASK_NAMES_MAX: usize = 10_000;

/// A client's request, as it is sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ask {
    /// Chosen by the client; the reply repeats it.
    pub id: u64,
    /// The request.
    pub request: Request,
}

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Submit a job. Repeating it with the same key has no further effect.
    Submit {
        /// The submission key.
        key: SubmitKey,
        /// The encoded job, see [`crate::JobSpec::encode`]: inline, or a blob that the client serves.
        spec: Data,
        /// The peer that serves the job's inputs.
        from: InputServer,
    },
    /// List jobs after this one by their ids; from the first if none. The reply is bounded, see
    /// [`super::Reply::Jobs`].
    Jobs(Option<JobId>),
    /// Return one job.
    Job(JobId),
    /// Return one job, and again each time it changes, until it has ended.
    Watch(JobId),
    /// Cancel a job.
    Cancel(JobId),
    /// Return a page of an ended job's results.
    Results {
        /// The job.
        job: JobId,
        /// Position of the page's first file: 0, or `next` of the page before.
        from: u64,
    },
    /// Return what a task printed. The task is given by number or label.
    Logs(JobId, String),
    /// Explain the state of a job or task.
    Explain(JobId, Option<String>),
    /// List all workers.
    Workers,
    /// Drain a worker, given by the beginning of its id or by its host name.
    Drain(String),
    /// Make a ticket.
    Ticket {
        /// The role of the peers that it admits.
        role: Role,
        /// How long it admits peers.
        valid_for: Option<Duration>,
        /// How many peers it admits.
        uses: Option<u32>,
    },
    /// List all members.
    Members,
    /// Revoke a member for good, given by the beginning of its id or by a worker's host name.
    Revoke(String),
    /// List all settings of the grid.
    Settings,
    /// Change a setting of the grid.
    Set {
        /// Its name.
        name: String,
        /// Its value, as text.
        value: String,
    },
    /// Remove an ended job: its record, its results and its printed output.
    Forget(JobId),
    /// Switch the group to the newest record format that all its members support.
    Upgrade,
    /// Ask whether a relay may carry packets of a peer: a member, a supervisor, or a holder of a ticket.
    MayRelay {
        /// The peer, which has proven its key.
        peer: PeerId,
        /// The hash of its ticket's secret, if it showed one.
        ticket: Option<Hash>,
    },
    /// List all tickets.
    Tickets,
    /// Revoke a ticket, given by the beginning of its id.
    RevokeTicket(String),
    /// List tasks of a job from this number on.
    Tasks {
        /// The job.
        job: JobId,
        /// The tasks to list.
        filter: TaskFilter,
        /// Number of the first task: 0, or `next` of the reply before.
        from: u32,
    },
    /// Return what an attempt of a task has printed so far.
    Printed(PrintedRequest),
    /// Run a failed job again. Tasks that are not done are retried.
    Retry(JobId),
    /// Return a page of the outputs of done tasks, like [`Request::Results`], also while the job runs.
    Outputs {
        /// The job.
        job: JobId,
        /// The tasks by number or label, at most [`OUTPUT_TASKS_MAX`].
        tasks: Vec<String>,
        /// Position of the page's first file: 0, or `next` of the page before.
        from: u64,
    },
    /// List groups of a job from this position on.
    Groups {
        /// The job.
        job: JobId,
        /// Position of the first group: 0, or `next` of the reply before.
        from: u32,
    },
    /// List attempts of a job's tasks: active ones, and those that ended recently.
    Attempts {
        /// The job.
        job: JobId,
        /// Number of the first task: 0, or `next` of the reply before.
        from: u32,
        /// Leave out attempts that ended earlier than this after the job was accepted.
        since: Duration,
    },
    /// Add groups to an open job. Repeating it with the same key has no further effect.
    Extend {
        /// The job.
        job: JobId,
        /// The key of the extension.
        key: SubmitKey,
        /// The encoded groups, see [`crate::spec::Extension::encode`]: inline, or a blob that the client serves.
        extension: Data,
        /// The peer that serves the groups' inputs.
        from: InputServer,
    },
    /// Close an open job: it ends once its tasks have.
    Close(JobId),
    /// Release outputs of tasks of an open job: drop them once the present tasks of the job have read them.
    Release {
        /// The job.
        job: JobId,
        /// Tasks by number or label, or arrays by their id; at most [`TASK_NAMES_MAX`].
        tasks: Vec<String>,
    },
    /// The tasks of an open job that were done or given up, in that order. Where the client knows all of them, the
    /// answer waits for the next one, or for the job's end.
    Ends {
        /// The job.
        job: JobId,
        /// How many ends the client knows: 0, or what the answer before says.
        after: u64,
    },
    /// Give up tasks that have not ended; those that have stay as they are.
    CancelTasks {
        /// The job.
        job: JobId,
        /// Tasks by number or label, or arrays by their id; [`TASK_NAMES_MAX`] at most.
        tasks: Vec<String>,
    },
}

/// What a request is about, which decides who may make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// The requester's own submissions: any client may make it.
    Requester,
    /// A job: the client that submitted it may make it, and administrators.
    Job(JobId),
    /// What every member of the grid may know.
    Grid,
    /// The administration of the grid: only administrators may make it.
    Administration,
    /// Which peers a relay may serve: only relays and administrators may make it.
    Relay,
}

impl Request {
    /// Returns what the request is about.
    pub fn concern(&self) -> Concern {
        match self {
            Self::Submit { .. } | Self::Jobs(_) => Concern::Requester,
            Self::Job(id)
            | Self::Watch(id)
            | Self::Cancel(id)
            | Self::Results { job: id, .. }
            | Self::Outputs { job: id, .. }
            | Self::Logs(id, _)
            | Self::Explain(id, _)
            | Self::Tasks { job: id, .. }
            | Self::Groups { job: id, .. }
            | Self::Attempts { job: id, .. }
            | Self::Printed(PrintedRequest { job: id, .. })
            | Self::Retry(id)
            | Self::Forget(id)
            | Self::Close(id)
            | Self::Extend { job: id, .. }
            | Self::Release { job: id, .. }
            | Self::Ends { job: id, .. }
            | Self::CancelTasks { job: id, .. } => Concern::Job(*id),
            Self::Workers | Self::Settings => Concern::Grid,
            Self::Drain(_)
            | Self::Ticket { .. }
            | Self::Members
            | Self::Revoke(_)
            | Self::Set { .. }
            | Self::Upgrade
            | Self::Tickets
            | Self::RevokeTicket(_) => Concern::Administration,
            Self::MayRelay { .. } => Concern::Relay,
        }
    }

    /// Describes the change that the request asks for, for the audit log. Returns nothing for a request that changes
    /// nothing. The text holds no secret.
    pub fn change(&self) -> Option<String> {
        Some(match self {
            Self::Submit { key, .. } => format!("submit key {key}"),
            Self::Extend { job, key, .. } => format!("extend job {job} key {key}"),
            Self::Close(job) => format!("close job {job}"),
            Self::Release { job, tasks } => {
                format!("release outputs of job {job}, {} names", tasks.len())
            }
            Self::CancelTasks { job, tasks } => {
                format!("cancel tasks of job {job}, {} names", tasks.len())
            }
            Self::Cancel(job) => format!("cancel job {job}"),
            Self::Retry(job) => format!("retry job {job}"),
            Self::Forget(job) => format!("forget job {job}"),
            Self::Drain(worker) => format!("drain {worker}"),
            Self::Ticket {
                role,
                valid_for,
                uses,
            } => {
                let valid = valid_for.map(|span| format!(" valid for {} s", span.as_secs()));
                let uses = uses.map(|uses| format!(" for {uses} peers"));
                let (valid, uses) = (valid.unwrap_or_default(), uses.unwrap_or_default());
                format!("ticket {role}{valid}{uses}")
            }
            Self::RevokeTicket(name) => format!("revoke ticket {name}"),
            Self::Revoke(name) => format!("revoke {name}"),
            Self::Set { name, value } => format!("set {name} = {value}"),
            Self::Upgrade => "upgrade the format".to_owned(),
            Self::Jobs(_)
            | Self::Job(_)
            | Self::Watch(_)
            | Self::Results { .. }
            | Self::Outputs { .. }
            | Self::Logs(..)
            | Self::Printed(_)
            | Self::Explain(..)
            | Self::Tasks { .. }
            | Self::Groups { .. }
            | Self::Attempts { .. }
            | Self::Ends { .. }
            | Self::Workers
            | Self::Members
            | Self::Settings
            | Self::Tickets
            | Self::MayRelay { .. } => return None,
        })
    }
}

/// A job decoded from [`Request::Submit`].
pub type SharedSpec = Arc<JobSpec>;

/// Groups decoded from [`Request::Extend`].
pub type SharedExtension = Arc<Extension>;
