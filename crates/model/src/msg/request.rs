//! The requests of clients: what each asks for, what it is about, and what it changes.
//!
//! A new request is a variant here and an arm in the supervisor's `api/requests.rs`.

use super::{InputServer, PrintedRequest, Role};
use crate::view::TaskFilter;
use crate::{Data, Hash, JobId, PeerId, SubmitKey};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Tasks whose outputs are asked for in one request, at most: each is named in it, and looked up.
pub const OUTPUT_TASKS_MAX: usize = 1000;
/// Names of tasks whose outputs are released in one request, at most: each is looked up.
pub const RELEASES_MAX: usize = 10_000;

/// What a client can ask for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Take this job. Harmless to repeat with the same key.
    Submit {
        /// The submission's name.
        key: SubmitKey,
        /// The job, see [`crate::JobSpec::encode`]: here, or a blob that the client serves.
        spec: Data,
        /// Where the client serves its inputs.
        from: InputServer,
    },
    /// The jobs behind this one, by their number; from the first, without. The answer is bounded, see
    /// [`super::Reply::Jobs`].
    Jobs(Option<JobId>),
    /// One job, now.
    Job(JobId),
    /// One job, each time it changes, until it has ended.
    Watch(JobId),
    /// End a job.
    Cancel(JobId),
    /// An ended job's results, a page of them.
    Results {
        /// The job.
        job: JobId,
        /// Position of the page's first file: 0, or what the page before says.
        from: u64,
    },
    /// What a task printed; the task by number or label.
    Logs(JobId, String),
    /// Why a job or task is where it is.
    Explain(JobId, Option<String>),
    /// All workers.
    Workers,
    /// Let a worker finish and leave; by the beginning of its id, or its host name.
    Drain(String),
    /// Make a ticket.
    Ticket {
        /// For whom.
        role: Role,
        /// How long it lets peers in.
        valid_for: Option<Duration>,
        /// How many peers it lets in.
        uses: Option<u32>,
    },
    /// All peers that were let in.
    Members,
    /// Shut a member out for good, by the beginning of its id, or a worker's host name.
    Revoke(String),
    /// All settings of the grid.
    Settings,
    /// Change a setting of the grid.
    Set {
        /// Its name.
        name: String,
        /// Its value, as text.
        value: String,
    },
    /// Drop an ended job: its record, its results and what it printed.
    Forget(JobId),
    /// Let the whole group use the newest format that all its members speak.
    Upgrade,
    /// Whether a relay may carry packets of a peer: a member, a supervisor, or one that holds a ticket.
    MayRelay {
        /// The peer, proven by its key.
        peer: PeerId,
        /// The hash of its ticket's secret, where it showed one.
        ticket: Option<Hash>,
    },
    /// All tickets.
    Tickets,
    /// Let nobody in by this ticket any more, named by the beginning of its id.
    RevokeTicket(String),
    /// Tasks of a job, from this number on.
    Tasks {
        /// The job.
        job: JobId,
        /// Which.
        filter: TaskFilter,
        /// The number of the first: 0, or what the answer before says.
        from: u32,
    },
    /// What an attempt of a task has printed so far.
    Printed(PrintedRequest),
    /// Let a job that failed go on: what of it is not done is tried again.
    Retry(JobId),
    /// What tasks left that are done, a page of it, like [`Request::Results`]; also while the job runs.
    Outputs {
        /// The job.
        job: JobId,
        /// The tasks by number or label, [`OUTPUT_TASKS_MAX`] at most.
        tasks: Vec<String>,
        /// Position of the page's first file: 0, or what the page before says.
        from: u64,
    },
    /// Groups of a job, from this position on.
    Groups {
        /// The job.
        job: JobId,
        /// Position of the first: 0, or what the answer before says.
        from: u32,
    },
    /// Attempts of a job's tasks: those that may still succeed, and those that ended lately.
    Attempts {
        /// The job.
        job: JobId,
        /// The number of the first task: 0, or what the answer before says.
        from: u32,
        /// Of attempts that ended, only those that did so later than this behind the job's acceptance.
        since: Duration,
    },
    /// Add groups to an open job. Harmless to repeat with the same key.
    Extend {
        /// The job.
        job: JobId,
        /// The extension's name.
        key: SubmitKey,
        /// The groups, see [`crate::spec::Extension::encode`]: here, or a blob that the client serves.
        extension: Data,
        /// Where the client serves the inputs of the groups.
        from: InputServer,
    },
    /// Add nothing more to an open job: it ends once its tasks have.
    Close(JobId),
    /// Keep no longer what tasks of an open job leave, once the tasks that it has have read it.
    Release {
        /// The job.
        job: JobId,
        /// Tasks by number or label, or arrays by their id; [`RELEASES_MAX`] at most.
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
            | Self::Release { job: id, .. } => Concern::Job(*id),
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
            | Self::Workers
            | Self::Members
            | Self::Settings
            | Self::Tickets
            | Self::MayRelay { .. } => return None,
        })
    }
}
