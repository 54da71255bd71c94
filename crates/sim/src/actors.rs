//! Who takes part in a virtual grid, what joins them, and what can happen next.

use crate::worker::Input;
use hedge_core::supervisor;
use hedge_model::msg::{Answer, Beat, BeatPlan};
use hedge_model::{AttemptId, Epoch, Hash, PeerAddr, PeerId, Source, Time};
use std::cmp::Ordering;

/// A connection's place in the grid's list; never used again.
pub(crate) type ConnId = usize;

/// Everybody but the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Peer {
    Worker(usize),
    Client(usize),
}

impl Peer {
    pub fn id(self) -> PeerId {
        let (kind, ix) = match self {
            Peer::Worker(ix) => (1, ix),
            Peer::Client(ix) => (2, ix),
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

/// The supervisor's identity.
pub(crate) fn supervisor_id() -> PeerId {
    PeerId([9; 32])
}

/// A connection between a peer and one life of the supervisor.
#[derive(Debug)]
pub(crate) struct Conn {
    pub peer: Peer,
    pub life: u64,
    pub epoch: Epoch,
    pub up: bool,
    /// When the last message of each direction arrives: messages keep their order.
    pub last_up: Time,
    pub last_down: Time,
}

/// What happens next somewhere.
#[derive(Debug)]
pub(crate) enum Event {
    /// A message reaches the supervisor.
    Up(ConnId, supervisor::Event),
    /// A heartbeat reaches the supervisor.
    BeatUp(ConnId, Beat),
    /// A message reaches a worker, or something ends there.
    AtWorker(usize, Input),
    /// The same, in one life of the worker's process.
    InLife(usize, u32, Input),
    /// An order of an old leader that woke reaches a worker.
    Late(usize, Epoch, hedge_model::msg::ToWorker),
    /// An answer reaches a client.
    Answered(ConnId, Answer),
    /// The worker beats again.
    Beat(usize, ConnId, u64),
    /// How to beat reaches a worker.
    Planned(usize, ConnId, BeatPlan),
    /// A question for a sign of life reaches a worker.
    Asked(usize, ConnId, u64),
    /// The monitor's deadline.
    Check(u64),
    /// A peer notices that its connection is closed.
    Closed(ConnId),
    /// The supervisor notices it.
    Gone(ConnId),
    /// A peer tries to connect.
    Connect(Peer),
    /// The oldest record in flight is durable.
    Commit(u64),
    /// A pull of content into the supervisor's store ends.
    Pulled(u64, Hash, Vec<Source>),
    /// The supervisor's deadline.
    Tick(u64),
    /// The supervisor's process runs on.
    ThawLeader(u64),
    /// The supervisor's process starts again.
    Restart,
    /// A deposed leader that was frozen wakes.
    Ghost,
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

/// An attempt that a worker was told to run over its present connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    pub attempt: AttemptId,
    pub conn: ConnId,
    pub worker: usize,
}
