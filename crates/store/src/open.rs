//! Opens a journal: its files, Raft, and the tasks that observe Raft.

use crate::entry::{Batch, Head, Session, Term, Types};
use crate::files::Files;
use crate::journal::Proposal;
use crate::log::{Known, Log};
use crate::machine::{EventPublisher, Growth, Machine};
use crate::options::Place;
use crate::rpc::{Carry, Network};
use crate::serve::Server;
use crate::writer::{self, Failure, Work, Writer};
use crate::{
    Group, GroupMember, JournalEvent, LogSize, NodeId, Options, Seat, StoreError, Timing, folder,
};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::Fatal;
use openraft::type_config::async_runtime::Instant as _;
use openraft::{Config, Raft, RaftMetrics, ServerState, SnapshotPolicy};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, Semaphore, mpsc, watch};

/// How many entries stay after a snapshot, for members that are a little behind.
const KEEP_ENTRIES: u64 = 1000;

/// The minimum interval at which sizes are updated. They are for views, and for deciding on snapshots.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The delay before the first entry of a leader is proposed again. The replies of a majority take about as long.
const MARK_EVERY: Duration = Duration::from_millis(2);

/// The most proposals that are passed to openraft at once.
const PROPOSALS_AT_ONCE: usize = 1024;

/// The parts of an open journal.
pub(crate) struct Parts {
    pub id: NodeId,
    pub raft: Raft<Types, Machine>,
    pub me: GroupMember,
    pub group: watch::Receiver<Group>,
    pub server: Server,
    pub network: Network,
    pub publisher: Arc<EventPublisher>,
    pub proposals: mpsc::Sender<Proposal>,
    pub slots: Arc<Semaphore>,
    pub writer: Option<Writer>,
    pub events: mpsc::Receiver<JournalEvent>,
}

/// Opens a journal. Runs on its own threads.
pub(crate) async fn open(options: Options, carry: Arc<dyn Carry>) -> Result<Parts, StoreError> {
    let failure = Failure::default();
    let Store {
        id,
        log,
        kept,
        disk,
    } = store(&options, &failure).await?;
    let (sender, events) = mpsc::channel(options.events_max.max(1));
    let publisher = Arc::new(EventPublisher {
        events: sender,
        lead: Default::default(),
        now: Default::default(),
    });
    let growth = Arc::new(growth(&options));
    let (removed_to, removed) = mpsc::channel(1);
    let network = Network {
        carry,
        removed: removed_to,
        limit: options.timing.heartbeat,
    };
    let machine = Machine {
        id,
        format_max: options.me.format_max,
        publisher: publisher.clone(),
        failure: failure.clone(),
        growth: growth.clone(),
        applied: None,
        membership: Default::default(),
        kept: Arc::new(Mutex::new(kept)),
        disk,
    };
    let writer = log.writer.clone();
    let raft = agree(&options.timing, network.clone(), log.clone(), machine).await?;
    go_on(&raft, id).await?;
    let (group_to, group) = watch::channel(look(id, &raft.metrics().borrow_watched(), None));
    let (proposals, waiting) = mpsc::channel(options.open_max.max(1));
    let watcher = Watcher {
        id,
        raft: raft.clone(),
        log,
        publisher: publisher.clone(),
        growth,
        failure,
        group: group_to,
        lost: Arc::new(Notify::new()),
    };
    let server = Server::new(
        id,
        raft.clone(),
        watcher.lost.clone(),
        network.removed.clone(),
    );
    tokio::spawn(propose(raft.clone(), waiting));
    watcher.start(removed);
    Ok(Parts {
        id,
        me: options.me,
        raft,
        group,
        server,
        network,
        publisher,
        proposals,
        slots: Arc::new(Semaphore::new(options.open_max.max(1))),
        writer,
        events,
    })
}

/// Returns the growth since the last snapshot, which is none yet.
fn growth(options: &Options) -> Growth {
    Growth {
        records: AtomicU64::new(0),
        records_max: options.snapshot_records.max(1),
        bytes_max: options.snapshot_bytes.max(1),
        due: Notify::new(),
        snapshot_bytes: AtomicU64::new(0),
    }
}

/// Starts openraft. If that fails because of the files, returns what is wrong with them.
async fn agree(
    timing: &Timing,
    network: Network,
    log: Log,
    machine: Machine,
) -> Result<Raft<Types, Machine>, StoreError> {
    let config = Arc::new(config(timing)?);
    let (id, failure) = (machine.id, machine.failure.clone());
    let raft = Raft::new(id, config, network, log, machine).await;
    raft.map_err(|error| {
        taken(&failure).unwrap_or(StoreError::State {
            why: error.to_string(),
        })
    })
}

/// Continues a journal that was founded before: leads at once if it is the only voter, and waits until its group is known.
async fn go_on(raft: &Raft<Types, Machine>, id: NodeId) -> Result<(), StoreError> {
    if !raft
        .is_initialized()
        .await
        .map_err(|_| StoreError::Closed)?
    {
        return Ok(());
    }
    // A single supervisor need not wait for others to lead.
    if raft.voter_ids().all(|voter| voter == id) {
        raft.trigger()
            .elect(false)
            .await
            .map_err(|_| StoreError::Closed)?;
    }
    // The first metrics show the group already.
    let mut metrics = raft.metrics();
    while metrics
        .borrow_and_update()
        .membership_config
        .nodes()
        .next()
        .is_none()
    {
        metrics.changed().await.map_err(|_| StoreError::Closed)?;
    }
    Ok(())
}

struct Store {
    id: NodeId,
    log: Log,
    kept: Option<crate::snapshot::Kept>,
    disk: Option<(Files, PathBuf)>,
}

async fn store(options: &Options, failure: &Failure) -> Result<Store, StoreError> {
    let new_id = random()?;
    let folder = match &options.place {
        Place::Memory => {
            return Ok(Store {
                id: new_id,
                log: Log {
                    known: Arc::new(Mutex::new(Known::default())),
                    writer: None,
                },
                kept: None,
                disk: None,
            });
        }
        Place::Disk(folder) => folder.clone(),
    };
    let files = Files::new(options.disk.clone());
    let work = (files.clone(), folder.clone(), failure.clone());
    let segment_bytes = options.segment_bytes.min(u64::from(u32::MAX) / 2);
    let opened = tokio::task::spawn_blocking(move || {
        let (files, folder, failure) = work;
        let lock = folder::lock(&folder)?;
        let found = folder::open(&files, &folder, new_id)?;
        let known = Arc::new(Mutex::new(found.known));
        let writer = writer::start(Work {
            files,
            folder: folder.clone(),
            known: known.clone(),
            failure,
            segment_bytes,
            chain: found.chain,
            id: found.id,
            _lock: lock,
        });
        let writer = writer.map_err(|error| crate::files::file_error("write", &folder, error))?;
        let log = Log {
            known,
            writer: Some(writer),
        };
        Ok::<_, StoreError>((found.id, log, found.snapshot))
    });
    let (id, log, kept) = opened.await.map_err(|_| StoreError::Closed)??;
    Ok(Store {
        id,
        log,
        kept,
        disk: Some((files, folder)),
    })
}

fn config(timing: &Timing) -> Result<Config, StoreError> {
    let ms = |time: Duration| time.as_millis().max(1) as u64;
    Config {
        cluster_name: "hedgerow".to_owned(),
        heartbeat_interval: ms(timing.heartbeat),
        election_timeout_min: ms(timing.election_min),
        election_timeout_max: ms(timing.election_max),
        max_payload_entries: 4096,
        max_in_snapshot_log_to_keep: KEEP_ENTRIES,
        // Entries that are still in the log are sent as entries. Members that need older ones get a snapshot.
        replication_lag_threshold: u64::MAX / 2,
        snapshot_policy: SnapshotPolicy::Never,
        enable_pre_vote: Some(true),
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        ..Config::default()
    }
    .validate()
    .map_err(|error| StoreError::State {
        why: format!("these timings do not fit together: {error}"),
    })
}

/// Passes proposals to openraft, in order.
async fn propose(raft: Raft<Types, Machine>, mut waiting: mpsc::Receiver<Proposal>) {
    let mut some = Vec::with_capacity(PROPOSALS_AT_ONCE);
    while waiting.recv_many(&mut some, PROPOSALS_AT_ONCE).await > 0 {
        for proposal in some.drain(..) {
            let write = raft.write(proposal.batch).with_leader(proposal.term);
            if write.responder(proposal.slot).await.is_err() {
                return;
            }
        }
    }
}

/// How much the log has grown since the newest snapshot.
#[derive(Default)]
struct LogGrowth {
    snapshot: Option<u64>,
    /// Bytes of the log when that snapshot was first seen, or fewer after a purge.
    bytes: u64,
}

impl LogGrowth {
    /// Whether a snapshot is due, where that is so from `most` bytes on: many entries came since the last, or as many
    /// bytes.
    fn snapshot_due(&mut self, log: &LogSize, most: u64) -> bool {
        if log.snapshot != self.snapshot {
            (self.snapshot, self.bytes) = (log.snapshot, log.bytes);
        }
        self.bytes = self.bytes.min(log.bytes);
        let many = log.applied > log.snapshot.map(|index| index + KEEP_ENTRIES);
        log.bytes >= most && (many || log.bytes - self.bytes >= most)
    }
}

/// Observes openraft and publishes what the core needs to know.
#[derive(Clone)]
struct Watcher {
    id: NodeId,
    raft: Raft<Types, Machine>,
    log: Log,
    publisher: Arc<EventPublisher>,
    growth: Arc<Growth>,
    failure: Failure,
    group: watch::Sender<Group>,
    /// Notified when a proposal was refused although this member leads.
    lost: Arc<Notify>,
}

impl Watcher {
    /// Starts a task for each thing that is observed.
    fn start(self, removed: mpsc::Receiver<u64>) {
        tokio::spawn(self.clone().lead());
        tokio::spawn(self.clone().snapshots());
        tokio::spawn(self.clone().sizes());
        tokio::spawn(self.removed(removed));
    }

    /// Observes who leads. If this member does, proposes the entry whose commit publishes that.
    async fn lead(self) {
        let mut metrics = self.raft.server_metrics();
        loop {
            let (leading, leader) = {
                let now = metrics.borrow_and_update();
                let leading = now.state == ServerState::Leader && now.vote.committed;
                let leader = now
                    .current_leader
                    .and_then(|id| Some(now.membership_config.get_node(&id)?.peer.peer));
                (leading.then_some(now.vote.leader_id), leader)
            };
            let session = self.publisher.lead.lock().await.session.clone();
            let known = session.as_ref().map(|one| one.term);
            if known != leading {
                self.publisher.depose(leader).await;
                if let Some(term) = leading {
                    self.begin(term).await;
                }
            }
            tokio::select! {
                changed = metrics.changed() => if changed.is_err() {
                    return;
                },
                () = self.lost.notified() => {
                    let session = self.publisher.now();
                    if session.is_some_and(|one| one.refused.load(Ordering::Relaxed)) {
                        // What was refused will never be committed, so the core starts anew.
                        tracing::info!("a proposal was refused: leadership is being handed over, or no majority was heard of for too long");
                        self.publisher.depose(None).await;
                    }
                }
            }
        }
    }

    async fn begin(&self, term: Term) {
        let Ok(id) = random() else {
            return;
        };
        let session = Arc::new(Session {
            term,
            id,
            refused: AtomicBool::new(false),
        });
        self.publisher.lead.lock().await.session = Some(session);
        let head = Head {
            level: 1,
            proposer: self.id,
            session: id,
            first: 0,
            count: 0,
        };
        tokio::spawn(self.clone().mark(Batch::new(head, Arc::new([]))));
    }

    /// Proposes the entry by which this member learns that it has applied all earlier ones. It is refused until a majority
    /// has replied for the first time.
    async fn mark(self, batch: Batch) {
        while self.raft.client_write(batch.clone()).await.is_err() {
            let now = self.publisher.lead.lock().await.session.clone();
            if now.is_none_or(|one| one.id != batch.head().session) {
                return;
            }
            tokio::time::sleep(MARK_EVERY).await;
        }
    }

    /// Asks for a snapshot when one is due.
    async fn snapshots(self) {
        loop {
            self.growth.due.notified().await;
            if self.raft.trigger().snapshot().await.is_err() {
                return;
            }
        }
    }

    /// Keeps the view of the group up to date, and notices when openraft stops.
    async fn sizes(self) {
        let mut metrics = self.raft.metrics();
        let mut panicked = false;
        let mut growth = LogGrowth::default();
        loop {
            let group = {
                let now = metrics.borrow_and_update();
                if let Err(end) = &now.running_state {
                    panicked = matches!(end, Fatal::Panicked);
                    break;
                }
                look(self.id, &now, Some((&self.log, &self.publisher)))
            };
            let snapshot_bytes = self.growth.snapshot_bytes.load(Ordering::Relaxed);
            if growth.snapshot_due(&group.log, self.growth.bytes_max.max(snapshot_bytes)) {
                self.growth.due.notify_one();
            }
            // If entries are long, those kept for members a little behind are bounded in bytes, too.
            if let Some(upto) = group.log.snapshot
                && group.log.purged < Some(upto)
                && group.log.bytes >= self.growth.bytes_max
                && self.raft.trigger().purge_log(upto).await.is_err()
            {
                break;
            }
            self.group.send_replace(group);
            if metrics.changed().await.is_err() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.publisher.depose(None).await;
        let bug = || StoreError::State {
            why: "the agreement ended by itself, which is a bug".to_owned(),
        };
        if let Some(error) = taken(&self.failure).or_else(|| panicked.then(bug)) {
            self.publisher.publish(JournalEvent::Failed(error)).await;
        }
    }

    /// Stops openraft when this member learns that it was removed from the group.
    async fn removed(self, mut removed: mpsc::Receiver<u64>) {
        while let Some(index) = removed.recv().await {
            let known = self
                .raft
                .metrics()
                .borrow_watched()
                .membership_config
                .log_id()
                .map_or(0, |id| id.index);
            if index < known {
                continue;
            }
            // It may have stopped already.
            let _ = self.raft.shutdown().await;
            self.publisher.depose(None).await;
            self.publisher.publish(JournalEvent::Removed).await;
            return;
        }
    }
}

/// Returns the first failure, only once. After a failure the writer writes nothing more.
fn taken(failure: &Failure) -> Option<StoreError> {
    let mut failure = failure
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    failure
        .is_some()
        .then(|| failure.replace(StoreError::Closed))
        .flatten()
}

pub(crate) fn random() -> Result<u64, StoreError> {
    getrandom::u64().map_err(|error| StoreError::State {
        why: format!("the system gives no random numbers: {error}"),
    })
}

fn look(id: NodeId, now: &RaftMetrics<Types>, parts: Option<(&Log, &EventPublisher)>) -> Group {
    let voters: Vec<NodeId> = now.membership_config.voter_ids().collect();
    let seats = now.membership_config.nodes().map(|(id, member)| {
        let matched = now
            .replication
            .as_ref()
            .and_then(|all| all.get(id).copied().flatten());
        let seat = Seat {
            member: member.clone(),
            voter: voters.contains(id),
            matched: matched.map(|log_id| log_id.index),
        };
        (*id, seat)
    });
    let index = |id: &Option<crate::entry::LogId>| id.map(|id| id.index);
    Group {
        me: id,
        seats: seats.collect(),
        leader: now.current_leader,
        leading: parts.is_some_and(|(_, publisher)| publisher.now().is_some()),
        term: now.current_term,
        quorum_at: now
            .last_quorum_acked
            .and_then(|at| Instant::now().checked_sub(at.elapsed())),
        log: LogSize {
            purged: index(&now.purged),
            last: now.last_log_index,
            applied: index(&now.last_applied),
            snapshot: index(&now.snapshot),
            bytes: parts.map_or(0, |(log, _)| log.bytes()),
        },
    }
}
