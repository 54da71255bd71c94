//! Encodes the durable state for the journal's snapshots and decodes it.
//!
//! A group that writes records of format 1 or 2 also writes the snapshots of that time, because its members may be
//! older.

use crate::supervisor::durable::bounded;
use crate::supervisor::durable::failures::Failures;
use crate::supervisor::durable::job::{EndedAttempt, Job, Task};
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::durable::open::Growth;
use crate::supervisor::durable::retention::Ended;
use crate::supervisor::durable::state::{Member, State};
use crate::supervisor::durable::submitted::Submitted;
use hedge_model::ledger::{Charge, Cost, Tariff};
use hedge_model::msg::Role;
use hedge_model::record::{JobEnd, RecordError, Ticket};
use hedge_model::spec::positional;
use hedge_model::view::AttemptCounts;
use hedge_model::{AttemptId, Epoch, Hash, JobId, JobSpec, PeerId, Settings, SubmitKey, Time};
use imbl::{OrdMap, Vector};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// The current snapshot format. Its number begins a snapshot.
const SNAPSHOT_FORMAT: u32 = 3;
/// The second format: specifications do not name their fields.
const POSITIONAL: u32 = 2;
/// The first format: members do not name their tickets, and submission keys have no digest of their job.
const WITHOUT_TICKETS: u32 = 1;

/// [`Job`] in the first and second format.
#[derive(Clone, Serialize, Deserialize)]
struct FormerJob {
    client: PeerId,
    key: SubmitKey,
    #[serde(with = "positional")]
    spec: Arc<JobSpec>,
    accepted: Time,
    #[serde(deserialize_with = "bounded::vector")]
    tasks: Vector<Task>,
    #[serde(deserialize_with = "bounded::vector")]
    open: Vector<u32>,
    done: u32,
    ended: Option<(JobEnd, Time)>,
    #[serde(deserialize_with = "bounded::map")]
    history: OrdMap<AttemptId, Arc<EndedAttempt>>,
    counts: AttemptCounts,
    cpu: Duration,
    cost: Cost,
    tariff: Arc<Tariff>,
    #[serde(deserialize_with = "bounded::map")]
    stopped: OrdMap<AttemptId, Charge>,
    #[serde(deserialize_with = "bounded::vector")]
    remade: Vector<(AttemptId, Charge)>,
    result_bytes: u64,
}

/// [`State`] in the second format.
#[derive(Serialize, Deserialize)]
struct FormerState {
    epoch: Epoch,
    now: Time,
    secret: Option<[u8; 32]>,
    format: u32,
    last_job: u64,
    #[serde(deserialize_with = "bounded::map")]
    jobs: OrdMap<JobId, FormerJob>,
    #[serde(deserialize_with = "bounded::map")]
    keys: OrdMap<(PeerId, SubmitKey), Submitted>,
    #[serde(deserialize_with = "bounded::map")]
    members: OrdMap<PeerId, Member>,
    #[serde(deserialize_with = "bounded::map")]
    revoked: OrdMap<PeerId, Time>,
    #[serde(deserialize_with = "bounded::map")]
    tickets: OrdMap<Hash, Ticket>,
    settings: Arc<Settings>,
    learned: Learned,
}

/// [`State`] in the first format.
#[derive(Deserialize)]
struct StateWithoutTickets {
    epoch: Epoch,
    now: Time,
    secret: Option<[u8; 32]>,
    format: u32,
    last_job: u64,
    #[serde(deserialize_with = "bounded::map")]
    jobs: OrdMap<JobId, FormerJob>,
    #[serde(deserialize_with = "bounded::map")]
    keys: OrdMap<(PeerId, SubmitKey), JobId>,
    #[serde(deserialize_with = "bounded::map")]
    members: OrdMap<PeerId, (Role, Time)>,
    #[serde(deserialize_with = "bounded::map")]
    revoked: OrdMap<PeerId, Time>,
    #[serde(deserialize_with = "bounded::map")]
    tickets: OrdMap<Hash, Ticket>,
    settings: Arc<Settings>,
    learned: Learned,
}

impl From<&Job> for FormerJob {
    fn from(job: &Job) -> Self {
        Self {
            client: job.client,
            key: job.key,
            spec: job.spec.clone(),
            accepted: job.accepted,
            tasks: job.tasks.clone(),
            open: job.open.clone(),
            done: job.done,
            ended: job.ended.clone(),
            history: job.history.clone(),
            counts: job.counts,
            cpu: job.cpu,
            cost: job.cost,
            tariff: job.tariff.clone(),
            stopped: job.stopped.clone(),
            remade: job.remade.clone(),
            result_bytes: job.result_bytes,
        }
    }
}

impl From<FormerJob> for Job {
    fn from(job: FormerJob) -> Self {
        Self {
            client: job.client,
            key: job.key,
            spec: job.spec,
            accepted: job.accepted,
            tasks: job.tasks,
            open: job.open,
            done: job.done,
            ended: job.ended,
            history: job.history,
            counts: job.counts,
            cpu: job.cpu,
            cost: job.cost,
            tariff: job.tariff,
            stopped: job.stopped,
            remade: job.remade,
            result_bytes: job.result_bytes,
            growth: Growth::None,
            ends: Vector::new(),
            released_of: OrdMap::new(),
            checkpoints: OrdMap::new(),
            failures: Failures::default(),
        }
    }
}

impl From<&State> for FormerState {
    fn from(state: &State) -> Self {
        let jobs = state.jobs.iter();
        let jobs = jobs.map(|(id, job)| (*id, FormerJob::from(&**job)));
        Self {
            epoch: state.epoch,
            now: state.now,
            secret: state.secret,
            format: state.format,
            last_job: state.last_job,
            jobs: jobs.collect(),
            keys: state.keys.clone(),
            members: state.members.clone(),
            revoked: state.revoked.clone(),
            tickets: state.tickets.clone(),
            settings: state.settings.clone(),
            learned: state.learned.clone(),
        }
    }
}

impl From<FormerState> for State {
    fn from(old: FormerState) -> Self {
        let jobs = old.jobs.into_iter();
        let jobs = jobs.map(|(id, job)| (id, Arc::new(job.into())));
        Self {
            epoch: old.epoch,
            now: old.now,
            secret: old.secret,
            format: old.format,
            last_job: old.last_job,
            jobs: jobs.collect(),
            keys: old.keys,
            members: old.members,
            revoked: old.revoked,
            tickets: old.tickets,
            settings: old.settings,
            learned: old.learned,
            ended: Ended::default(),
        }
    }
}

impl From<StateWithoutTickets> for FormerState {
    fn from(old: StateWithoutTickets) -> Self {
        let member = |(peer, (role, joined))| {
            let ticket = None;
            let member = Member {
                role,
                joined,
                ticket,
            };
            (peer, member)
        };
        let key = |(key, job)| (key, Submitted { job, digest: None });
        Self {
            epoch: old.epoch,
            now: old.now,
            secret: old.secret,
            format: old.format,
            last_job: old.last_job,
            jobs: old.jobs,
            keys: old.keys.into_iter().map(key).collect(),
            members: old.members.into_iter().map(member).collect(),
            revoked: old.revoked,
            tickets: old.tickets,
            settings: old.settings,
            learned: old.learned,
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    postcard::from_bytes(bytes).map_err(|error| RecordError::Damaged(error.to_string()))
}

impl State {
    /// Decodes the state from a snapshot.
    ///
    /// # Errors
    /// Another version wrote it, or it is damaged.
    pub fn restore(bytes: &[u8]) -> Result<Self, RecordError> {
        let (format, bytes) = postcard::take_from_bytes::<u32>(bytes)
            .map_err(|error| RecordError::Damaged(error.to_string()))?;
        let mut state: Self = match format {
            SNAPSHOT_FORMAT => read(bytes)?,
            POSITIONAL => read::<FormerState>(bytes)?.into(),
            WITHOUT_TICKETS => FormerState::from(read::<StateWithoutTickets>(bytes)?).into(),
            other => return Err(RecordError::Format(other)),
        };
        state.rebuild_derived();
        Ok(state)
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    /// Writing to `out` failed.
    pub fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let failed = |error: postcard::Error| std::io::Error::other(error.to_string());
        let former = self.format() < 3;
        let form = if former { POSITIONAL } else { SNAPSHOT_FORMAT };
        let out = postcard::to_io(&form, out).map_err(failed)?;
        let written = match former {
            true => postcard::to_io(&FormerState::from(self), out),
            false => postcard::to_io(self, out),
        };
        written.map(drop).map_err(failed)
    }
}
