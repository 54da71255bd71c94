//! Who takes part in a virtual grid, what joins them, and what can happen next.

use crate::worker::Input;
use hedge_core::supervisor;
use hedge_model::msg::{Answer, Heartbeat, HeartbeatPlan, Reply};
use hedge_model::{AttemptId, Epoch, Hash, PeerAddr, PeerId, Source, Time};
use std::cmp::Ordering;

/// A connection's place in the grid's list; never used again.
pub(crate) type ConnId = usize;

/// Everybody who can be at the other end of a supervisor's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Worker(usize),
    Client(usize),
    Supervisor(usize),
}

impl Peer {
    pub fn id(self) -> PeerId {
        let (kind, ix) = match self {
            Peer::Worker(ix) => (1, ix),
            Peer::Client(ix) => (2, ix),
            Peer::Supervisor(ix) => (9, ix),
        };
        let mut id = [0; 32];
        id[0] = kind;
        id[1..5].copy_from_slice(&(ix as u32).to_be_bytes());
        PeerId(id)
    }

    pub fn of(id: PeerId) -> Option<Self> {
        let ix = id.0[1..5]
            .iter()
            .fold(0, |ix, byte| ix << 8 | usize::from(*byte));
        match id.0[0] {
            1 => Some(Peer::Worker(ix)),
            2 => Some(Peer::Client(ix)),
            9 => Some(Peer::Supervisor(ix)),
            _ => None,
        }
    }
}

/// Where a peer is dialled; a virtual grid needs no addresses.
pub(crate) fn addr(peer: PeerId) -> PeerAddr {
    PeerAddr {
        peer,
        addrs: Vec::new(),
    }
}

/// A connection between a peer and a supervisor; nothing more arrives over it once it is not up.
#[derive(Debug)]
pub(crate) struct Conn {
    pub peer: Peer,
    pub sup: usize,
    /// In which epoch the supervisor said over it that it leads, as far as the peer has heard.
    pub epoch: Option<Epoch>,
    pub up: bool,
    /// When the last message of each direction arrives: messages keep their order.
    pub last_up: Time,
    pub last_down: Time,
}

/// What happens next somewhere.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message reaches the supervisor of a connection.
    Up(ConnId, supervisor::Event),
    /// A message reaches the supervisor at the other end of a connection between two.
    Down(ConnId, supervisor::Event),
    /// A heartbeat reaches the supervisor.
    HeartbeatArrives(ConnId, Heartbeat),
    /// A message reaches a worker, or something ends there.
    AtWorker(usize, Input),
    /// The same, in one life of the worker's process.
    InLife(usize, u32, Input),
    /// An answer reaches a client, or something that it did not ask for.
    Answered(ConnId, Answer),
    Told(ConnId, Reply),
    /// The worker sends heartbeats again.
    Heartbeat(usize, ConnId, u64),
    /// How to send heartbeats reaches a worker.
    Planned(usize, ConnId, HeartbeatPlan),
    /// A status request reaches a worker.
    Asked(usize, ConnId, u64),
    /// The deadline of a supervisor's monitor.
    Check(usize, u64),
    /// A peer notices that its connection is closed.
    Closed(ConnId),
    /// The supervisor notices it.
    Gone(ConnId),
    /// A peer tries to connect to a supervisor.
    Connect(Peer, usize),
    /// The oldest record in flight is held by most supervisors, if this term lasts.
    Commit(u64),
    /// A supervisor, in one life of its process, hears of what is committed, up to so many records.
    Apply(usize, u64, usize),
    /// A supervisor that can be elected is, unless the leader of this term is well; or in any case.
    Elect(u64, bool),
    /// A supervisor hears that it leads no more.
    Depose(usize, u64),
    /// A fetch of a blob into a supervisor's store ends.
    Fetched(usize, u64, Hash, Vec<Source>),
    /// A peer was asked to prove that it holds blobs of a supervisor's store.
    Proved(usize, u64, PeerId, Vec<Hash>),
    /// A supervisor's deadline.
    Tick(usize, u64),
    /// A supervisor's process runs on.
    ThawSupervisor(usize, u64),
    /// A supervisor's process starts again.
    Restart(usize),
    /// A message of a peer that was revoked reaches a supervisor all the same.
    Stray(usize, supervisor::Event),
    /// A worker's process runs on, or starts again.
    Thaw(usize),
    Reboot(usize),
    /// A client does something.
    Client(usize),
    /// Something breaks.
    Fault,
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub at: Time,
    pub seq: u64,
    pub event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    /// Earliest first in a heap that gives its greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.seq).cmp(&(self.at, self.seq))
    }
}

/// An attempt that a worker was told to run by one supervisor over its present connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub attempt: AttemptId,
    pub conn: ConnId,
    pub worker: usize,
}
