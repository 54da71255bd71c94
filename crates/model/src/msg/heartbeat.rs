//! Heartbeats and requests for them: datagrams between a worker and the supervisor.

use crate::AttemptId;
use crate::owner::OwnerNote;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A heartbeat, or the answer to a [`StatusRequest`]; sent as a datagram of at most [`Heartbeat::BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts from 1 on each connection.
    pub seq: u64,
    /// The worker's clock when it was sent; compared with its earlier heartbeats only.
    pub sent_ns: u64,
    /// The plan that it follows; 0 before the first is heard of.
    pub plan: u32,
    /// The question that it answers; 0 where nobody asked.
    pub answers: u64,
    /// Attempts in hand.
    pub in_hand: u32,
    /// Some of them, by turns: those that changed since they were last told of, first.
    pub attempts: Vec<AttemptHeartbeat>,
    /// How the worker stands to its owner, once that has changed since it started. Behind all the rest, where earlier
    /// versions neither write nor look.
    #[serde(skip)]
    pub owner: Option<OwnerNote>,
}

impl Heartbeat {
    /// What fits into one packet on any path.
    pub const BYTES_MAX: usize = 1_200;

    /// As it travels.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let bytes = postcard::to_stdvec(self)?;
        match &self.owner {
            Some(note) => postcard::to_extend(note, bytes),
            None => Ok(bytes),
        }
    }

    /// From what arrived; what a later version may write behind it is not looked at.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (mut heartbeat, rest): (Self, _) = postcard::take_from_bytes(bytes)?;
        if !rest.is_empty() {
            heartbeat.owner = Some(postcard::from_bytes(rest)?);
        }
        Ok(heartbeat)
    }
}

/// One attempt, in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptHeartbeat {
    /// Which.
    pub attempt: AttemptId,
    /// Where it is.
    pub phase: Phase,
    /// CPU time it has used, in microseconds.
    pub cpu_us: u64,
    /// Bytes it has written.
    pub written: u64,
    /// Thousandths of its work that are done, where the task says so.
    pub permille: Option<u16>,
    /// Counts what the task said about its progress.
    pub notes: u32,
}

/// Where an attempt is on its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits for resources.
    Queued,
    /// Its inputs are fetched.
    Staging,
    /// Its process runs.
    Running,
    /// Its process runs and says that it waits for something.
    Waiting,
    /// It is over, and the report not settled.
    Ended,
}

/// How a worker is to send heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatPlan {
    /// Counts from 1 on each connection; heartbeats repeat it. A worker sends a heartbeat at once when it hears of a plan.
    pub number: u32,
    /// How often it sends heartbeats by itself; none where it is asked instead.
    pub every: Option<Duration>,
    /// How often it looks at its attempts' progress.
    pub progress_every: Duration,
}

/// Asks a worker for a [`Heartbeat`] at once; sent as a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {
    /// Repeated by the answer.
    pub seq: u64,
}
