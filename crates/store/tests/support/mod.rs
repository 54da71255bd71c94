//! What the tests share: a grid of journals in one process, and a core that only counts.

#![allow(dead_code, reason = "each test file uses its part")]

pub mod faulty_disk;

use bytes::Bytes;
use hedge_model::record::{JobEnd, Record};
use hedge_model::{JobId, PeerAddr, PeerId, TaskId, Time};
use hedge_store::{
    Group, GroupMember, Journal, JournalEvent, NodeId, Options, Place, StoreError, Timing,
    Transport,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::mpsc;

/// The longest that anything here may take, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(120);

/// Of groups whose leader is to stay one until a test ends it: on a busy machine a process may be silent for longer
/// than the usual timings allow.
pub const PATIENT: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_millis(2_500),
    election_max: Duration::from_millis(3_000),
};

/// Options of a member of such a group.
pub fn patient(place: Place, number: u8) -> Options {
    Options {
        timing: PATIENT,
        ..Options::new(place, member(number))
    }
}

/// Waits for something that must happen.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("no {what} within {LIMIT:?}"),
    }
}

pub fn peer(number: u8) -> PeerId {
    PeerId([number; 32])
}

pub fn member(number: u8) -> GroupMember {
    GroupMember {
        peer: PeerAddr {
            peer: peer(number),
            addrs: Vec::new(),
        },
        format_max: 1,
    }
}

pub fn record(number: u64) -> Record {
    Record::OutputsLost {
        task: TaskId {
            job: JobId(number),
            number: 0,
        },
        generation: 1,
        at: Time(0),
    }
}

/// A record of so many bytes, and some.
pub fn long_record(number: u64, bytes: usize) -> Record {
    Record::JobEnded {
        job: JobId(number),
        end: JobEnd::Failed {
            task: None,
            why: "x".repeat(bytes),
        },
        stopped: Vec::new(),
        at: Time(0),
    }
}

pub fn number(record: &Record) -> u64 {
    match record {
        Record::JobEnded { job, .. } => job.0,
        Record::OutputsLost { task, .. } => task.job.0,
        other => panic!("no such record was proposed: {other:?}"),
    }
}

/// Joins journals of one process. A process that is cut off neither asks nor answers.
#[derive(Clone, Default)]
pub struct Hub(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    journals: BTreeMap<PeerId, Journal>,
    cut: BTreeSet<PeerId>,
    deaf: BTreeSet<PeerId>,
    longest: usize,
}

impl Hub {
    pub fn join(&self, peer: PeerId, journal: Journal) {
        self.0.lock().unwrap().journals.insert(peer, journal);
    }

    pub fn leave(&self, peer: PeerId) {
        self.0.lock().unwrap().journals.remove(&peer);
    }

    /// The length of the longest message.
    pub fn longest(&self) -> usize {
        self.0.lock().unwrap().longest
    }

    fn note(&self, bytes: usize) {
        let mut wires = self.0.lock().unwrap();
        wires.longest = wires.longest.max(bytes);
    }

    pub fn cut(&self, peer: PeerId) {
        self.0.lock().unwrap().cut.insert(peer);
    }

    /// From now on nobody can ask this one, but it can ask.
    pub fn deafen(&self, peer: PeerId) {
        self.0.lock().unwrap().deaf.insert(peer);
    }

    pub fn mend(&self, peer: PeerId) {
        self.0.lock().unwrap().cut.remove(&peer);
    }

    fn find(&self, from: PeerId, to: PeerId) -> Option<Journal> {
        let wires = self.0.lock().unwrap();
        if wires.cut.contains(&from) || wires.cut.contains(&to) || wires.deaf.contains(&to) {
            return None;
        }
        wires.journals.get(&to).cloned()
    }
}

/// One member's end of the hub.
pub struct Line {
    pub hub: Hub,
    pub from: PeerId,
}

impl Transport for Line {
    async fn call(&self, to: &GroupMember, request: Bytes, _limit: Duration) -> io::Result<Bytes> {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let journal = self.hub.find(self.from, to.peer.peer).ok_or_else(gone)?;
        self.hub.note(request.len());
        let reply = journal.answer(self.from, request).await;
        self.hub.note(reply.len());
        // Cut in the meantime: the answer is lost.
        self.hub.find(self.from, to.peer.peer).ok_or_else(gone)?;
        Ok(reply)
    }
}

/// A core that keeps the numbers it was told, in order, and nothing else.
#[derive(Clone, Default)]
pub struct Heard(Arc<Mutex<Told>>);

#[derive(Default)]
pub struct Told {
    pub numbers: Vec<u64>,
    /// Names of own proposals that were committed.
    pub own: Vec<u64>,
    pub leads: u32,
    pub leading: bool,
    pub restored: u32,
    pub snapshots: u32,
    pub removed: bool,
    pub failed: Option<StoreError>,
    pub last_index: u64,
}

impl Heard {
    pub fn with<T>(&self, look: impl FnOnce(&mut Told) -> T) -> T {
        look(&mut self.0.lock().unwrap())
    }

    /// Follows what a journal says until it ends.
    pub async fn follow(self, mut said: mpsc::Receiver<JournalEvent>) {
        while let Some(one) = said.recv().await {
            self.hear(one);
        }
    }

    pub fn hear(&self, said: JournalEvent) {
        self.with(|told| match said {
            JournalEvent::Restore { index, state } => {
                told.restored += 1;
                told.last_index = index;
                let numbers = state.chunks_exact(8);
                told.numbers = numbers
                    .map(|one| u64::from_le_bytes(one.try_into().unwrap()))
                    .collect();
            }
            JournalEvent::Committed {
                index,
                first,
                records,
            } => {
                assert!(index > told.last_index, "entries come in order, each once");
                told.last_index = index;
                told.numbers.extend(records.iter().map(number));
                told.own.extend(
                    first
                        .into_iter()
                        .flat_map(|first| first..first + records.len() as u64),
                );
            }
            JournalEvent::Snapshot(request) => {
                told.snapshots += 1;
                let numbers = told.numbers.clone();
                request.give(Box::new(move |out| {
                    numbers
                        .iter()
                        .try_for_each(|one| out.write_all(&one.to_le_bytes()))
                }));
            }
            JournalEvent::Lead { .. } => {
                told.leads += 1;
                told.leading = true;
            }
            JournalEvent::Deposed { .. } => told.leading = false,
            JournalEvent::Removed => told.removed = true,
            JournalEvent::Failed(error) => told.failed = Some(error),
        });
    }

    /// Waits until something is so.
    pub async fn until(&self, what: &str, mut so: impl FnMut(&Told) -> bool) {
        within(what, async {
            while !self.with(|told| so(told)) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    }
}

/// One member of a test's group.
pub struct Node {
    pub journal: Journal,
    pub heard: Heard,
    pub peer: PeerId,
    pub number: u8,
}

impl Node {
    /// Opens a journal and follows it.
    pub async fn open(hub: &Hub, number: u8, place: Place) -> Result<Self, StoreError> {
        Self::open_with(hub, Options::new(place, member(number))).await
    }

    pub async fn open_with(hub: &Hub, options: Options) -> Result<Self, StoreError> {
        // RUST_LOG shows what the agreement does.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let peer = options.me.peer.peer;
        let line = Line {
            hub: hub.clone(),
            from: peer,
        };
        let (journal, said) = within("open journal", Journal::open(options, line)).await?;
        hub.join(peer, journal.clone());
        let heard = Heard::default();
        tokio::spawn(heard.clone().follow(said));
        Ok(Self {
            journal,
            heard,
            peer,
            number: peer.0[0],
        })
    }

    pub fn id(&self) -> NodeId {
        self.journal.id()
    }

    /// Proposes numbers, one entry, as often as the queue is full.
    pub async fn propose(&self, numbers: std::ops::Range<u64>) {
        let mut records: Vec<_> = numbers.clone().map(record).collect();
        within("room in the queue", async {
            while let Err(refused) = self.journal.propose(numbers.start, records) {
                records = refused.records;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// Proposes numbers and waits until they are committed.
    pub async fn commit(&self, numbers: std::ops::Range<u64>) {
        self.propose(numbers.clone()).await;
        let last = numbers.end - 1;
        self.heard
            .until("commit", |told| told.own.last() == Some(&last))
            .await;
    }

    pub async fn until(&self, what: &str, mut so: impl FnMut(&Group) -> bool) {
        let mut group = self.journal.group();
        within(what, group.wait_for(|group| so(group)))
            .await
            .unwrap();
    }

    pub async fn close(self, hub: &Hub) {
        hub.leave(self.peer);
        within("end", self.journal.close()).await;
    }
}

pub fn disk(folder: &Path) -> Place {
    Place::Disk(folder.to_owned())
}

/// A group of voters, the first of which leads.
pub async fn group(hub: &Hub, places: Vec<Place>) -> Vec<Node> {
    group_with(hub, places, PATIENT).await
}

/// The same with other timings.
pub async fn group_with(hub: &Hub, places: Vec<Place>, timing: Timing) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for (at, place) in places.into_iter().enumerate() {
        let options = Options {
            timing,
            ..patient(place, at as u8 + 1)
        };
        let node = Node::open_with(hub, options).await.unwrap();
        if nodes.is_empty() {
            node.journal.found().await.unwrap();
            node.heard.until("leader", |told| told.leading).await;
        } else {
            join(&nodes[0], &node).await;
        }
        nodes.push(node);
    }
    nodes
}

/// Adds a member through the leader and gives it its vote.
pub async fn join(leader: &Node, node: &Node) {
    let id = node.id();
    leader.journal.add(id, member(node.number)).await.unwrap();
    leader.journal.promote(id).await.unwrap();
    leader
        .until("voter", |group| {
            group.seats.get(&id).is_some_and(|seat| seat.voter)
        })
        .await;
}

/// The leader.
pub async fn leader<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> &'a Node {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    within("leader", async {
        loop {
            if let Some(node) = nodes
                .iter()
                .find(|node| node.heard.with(|told| told.leading))
            {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await
}
