//! The durable state as bytes, for the journal's snapshots.

use crate::supervisor::durable::bounded;
use crate::supervisor::durable::learned::Learned;
use crate::supervisor::durable::retention::Ended;
use crate::supervisor::durable::state::{Job, Member, State};
use crate::supervisor::durable::submitted::Submitted;
use hedge_model::msg::Role;
use hedge_model::record::{RecordError, Ticket};
use hedge_model::{Epoch, Hash, JobId, PeerId, Settings, SubmitKey, Time};
use imbl::OrdMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The form of a snapshot, which says how the rest is to be read.
const SNAPSHOT_FORMAT: u32 = 2;
/// In the first one members do not say by which ticket they joined, and keys of submissions not for which job.
const WITHOUT_TICKETS: u32 = 1;

/// [`State`] in the first form.
#[derive(Deserialize)]
struct StateWithoutTickets {
    epoch: Epoch,
    now: Time,
    secret: Option<[u8; 32]>,
    format: u32,
    last_job: u64,
    #[serde(deserialize_with = "bounded::map")]
    jobs: OrdMap<JobId, Arc<Job>>,
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

impl From<StateWithoutTickets> for State {
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
            ended: Ended::default(),
        }
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    postcard::from_bytes(bytes).map_err(|error| RecordError::Damaged(error.to_string()))
}

impl State {
    /// The state in a snapshot.
    ///
    /// # Errors
    /// Another version wrote it, or it is damaged.
    pub fn restore(bytes: &[u8]) -> Result<Self, RecordError> {
        let (format, bytes) = postcard::take_from_bytes::<u32>(bytes)
            .map_err(|error| RecordError::Damaged(error.to_string()))?;
        let mut state: Self = match format {
            SNAPSHOT_FORMAT => read(bytes)?,
            WITHOUT_TICKETS => read::<StateWithoutTickets>(bytes)?.into(),
            other => return Err(RecordError::Format(other)),
        };
        state.retire_again();
        Ok(state)
    }

    /// Writes a snapshot.
    ///
    /// # Errors
    /// What writing to `out` says.
    pub fn write(&self, out: &mut dyn std::io::Write) -> std::io::Result<()> {
        let failed = |error: postcard::Error| std::io::Error::other(error.to_string());
        let out = postcard::to_io(&SNAPSHOT_FORMAT, out).map_err(failed)?;
        postcard::to_io(self, out).map(drop).map_err(failed)
    }
}
