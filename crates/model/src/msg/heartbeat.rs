//! Heartbeats and status requests: datagrams between a worker and the supervisor.

use crate::AttemptId;
use crate::owner::OwnerNote;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A heartbeat, or the answer to a [`StatusRequest`]. Sent as a datagram of at most [`Heartbeat::BYTES_MAX`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Counts from 1 on each connection.
    pub seq: u64,
    /// The worker's clock at sending. It is compared only with that of its other heartbeats.
    pub sent_ns: u64,
    /// The plan that the worker follows; 0 before it has received one.
    pub plan: u32,
    /// The status request that it answers; 0 if none.
    pub answers: u64,
    /// The number of attempts in hand.
    pub in_hand: u32,
    /// Some of these attempts, in turn; first those that changed since they were last included.
    pub attempts: Vec<AttemptHeartbeat>,
    /// The worker's response to its owner, if it has changed since the worker started. Encoded after all other
    /// fields, where earlier versions neither write nor read.
    #[serde(skip)]
    pub owner: Option<OwnerNote>,
}

impl Heartbeat {
    /// The most bytes that fit into one packet on any path.
    pub const BYTES_MAX: usize = 1_200;

    /// Encodes the heartbeat as a datagram.
    pub fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let bytes = postcard::to_stdvec(self)?;
        match &self.owner {
            Some(note) => postcard::to_extend(note, bytes),
            None => Ok(bytes),
        }
    }

    /// Decodes a datagram. Bytes that a later version adds at the end are ignored.
    pub fn decode(bytes: &[u8]) -> Result<Self, postcard::Error> {
        let (mut heartbeat, rest): (Self, _) = postcard::take_from_bytes(bytes)?;
        if !rest.is_empty() {
            heartbeat.owner = Some(postcard::from_bytes(rest)?);
        }
        Ok(heartbeat)
    }
}

/// The state of one attempt in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptHeartbeat {
    /// The attempt.
    pub attempt: AttemptId,
    /// Its phase.
    pub phase: Phase,
    /// CPU time used so far, in microseconds.
    pub cpu_us: u64,
    /// Bytes written so far.
    pub written: u64,
    /// Thousandths of its work that are done, if the task reports them.
    pub permille: Option<u16>,
    /// Counts the task's progress reports.
    pub notes: u32,
}

/// The phase of an attempt on its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// It waits for resources.
    Queued,
    /// Its inputs are fetched.
    Staging,
    /// Its process runs.
    Running,
    /// Its process runs and reports that it waits for something.
    Waiting,
    /// It is over, and its report is not settled.
    Ended,
}

/// How a worker must send heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatPlan {
    /// Counts from 1 on each connection; heartbeats repeat it. A worker sends a heartbeat at once when it receives a
    /// plan.
    pub number: u32,
    /// The interval of its heartbeats; none if it only answers status requests.
    pub every: Option<Duration>,
    /// How often it samples its attempts' progress.
    pub progress_every: Duration,
}

/// Requests a [`Heartbeat`] at once. Sent as a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusRequest {
    /// The answer repeats it.
    pub seq: u64,
}
