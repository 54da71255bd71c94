//! The journal's interface for the node.

use crate::entry::{Batch, Head, Session, Types};
use crate::machine::{EventPublisher, Machine};
use crate::rpc::Network;
use crate::serve::Server;
use crate::writer::{Command, Writer};
use crate::{
    Group, GroupMember, JournalEvent, NodeId, Options, ProposalId, StoreError, Timing, Transport,
    succession,
};
use bytes::Bytes;
use hedge_model::PeerId;
use hedge_model::record::Record;
use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Raft};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// Why records were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The most entries wait to be committed. Try again after the next event.
    Full,
    /// This member does not lead: [`JournalEvent::Deposed`] was published or is about to be.
    NotLeading,
}

/// Refused records, which are returned.
#[derive(Debug)]
pub struct NotTaken {
    /// Why.
    pub why: Refused,
    /// The records.
    pub records: Vec<Record>,
}

/// The time limit for a change of the group: several failovers.
const CHANGE_LIMIT: Duration = Duration::from_secs(5);

/// The journal's threads: one for openraft, one for tasks that read and send.
const THREADS: usize = 2;

/// The niceness of the journal's threads, as of the transport's: heartbeats must not wait for tasks.
const NICE: i32 = -10;

/// A journal; clones are the same one. It ends with [`Journal::close`].
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    id: NodeId,
    raft: Raft<Types, Machine>,
    me: GroupMember,
    timing: Timing,
    group: watch::Receiver<Group>,
    server: Server,
    network: Network,
    publisher: Arc<EventPublisher>,
    proposals: mpsc::Sender<Proposal>,
    slots: Arc<Semaphore>,
    format: AtomicU32,
    writer: Option<Writer>,
    runtime: Threads,
}

/// The runtime. It must not be dropped in an asynchronous task, because that blocks.
struct Threads(Option<Runtime>);

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Records that wait to be passed to openraft.
pub(crate) struct Proposal {
    pub batch: Batch,
    pub term: crate::entry::Term,
    pub slot: crate::entry::Slot,
}

impl Journal {
    /// Opens the journal of a folder, or an empty one, which belongs to no group until it is founded here or
    /// a leader adds it. The existing log is checked first, and published again in order.
    ///
    /// # Errors
    /// Damage, a newer format, a folder in use, or the system's refusal. Nothing was changed.
    pub async fn open<T: Transport>(
        options: Options,
        transport: T,
    ) -> Result<(Self, mpsc::Receiver<JournalEvent>), StoreError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("hedge-journal")
            .on_thread_start(raise_priority)
            .enable_all()
            .build()
            .map_err(|error| StoreError::State {
                why: format!("its threads cannot be started: {error}"),
            })?;
        let threads = Threads(Some(runtime));
        let handle = threads.handle()?;
        let timing = options.timing;
        let opened = handle.spawn(crate::open::open(options, Arc::new(transport)));
        let parts = opened.await.map_err(|_| StoreError::Closed)??;
        let journal = Self(Arc::new(Inner {
            id: parts.id,
            raft: parts.raft,
            me: parts.me,
            timing,
            group: parts.group,
            server: parts.server,
            network: parts.network,
            publisher: parts.publisher,
            proposals: parts.proposals,
            slots: parts.slots,
            format: AtomicU32::new(1),
            writer: parts.writer,
            runtime: threads,
        }));
        Ok((journal, parts.events))
    }

    /// Returns this member's id in the group.
    pub fn id(&self) -> NodeId {
        self.0.id
    }

    /// Returns the view of the group. Leadership changes in it at once, sizes some milliseconds later.
    pub fn group(&self) -> watch::Receiver<Group> {
        self.0.group.clone()
    }

    /// Returns whether a group was founded or joined here, by this or an earlier process.
    pub fn founded(&self) -> bool {
        !self.0.group.borrow().seats.is_empty()
    }

    /// Founds a new group of this member alone, which then leads.
    ///
    /// # Errors
    /// It is in a group already, or the file could not be written.
    pub async fn found(&self) -> Result<(), StoreError> {
        let members = BTreeMap::from([(self.0.id, self.0.me.clone())]);
        let raft = self.0.raft.clone();
        self.run(async move {
            match raft.initialize(members).await {
                Ok(()) => Ok(()),
                Err(error) if error.fatal().is_some() => Err(StoreError::Closed),
                Err(_) => Err(StoreError::Founded),
            }
        })
        .await?;
        let mut group = self.group();
        let seated = group.wait_for(|group| !group.seats.is_empty()).await;
        seated.map(drop).map_err(|_| StoreError::Closed)
    }

    /// Returns the reply to another member's request, which came over the node's [`Transport`] from `from`, a supervisor of
    /// the grid. The reply to an invalid request is an error.
    pub async fn answer(&self, from: PeerId, request: Bytes) -> Bytes {
        self.0.server.answer(from, request).await
    }

    /// Reports that another member's process has ended, which the node knows without missed heartbeats. If it led, this
    /// member or another takes over at once, without waiting for the end of its lease. If the process still runs, it is
    /// replaced all the same, and until it hears of that it answers from a lease that it no longer has. So a caller must be
    /// sure.
    pub fn ended(&self, peer: PeerId) {
        if let Ok(handle) = self.0.runtime.handle() {
            let raft = self.0.raft.clone();
            handle.spawn(succession::stand_in(raft, self.0.id, peer, self.0.timing));
        }
    }

    /// Proposes records as one entry; the first is named `first`, the next `first + 1`, and so on. Returns
    /// at once. They are committed together and published as [`JournalEvent::Committed`], or never, after [`JournalEvent::Deposed`].
    /// An entry proposed in one term is never committed in another.
    ///
    /// An entry may have up to 255 MiB; a few thousand records make the best use of one flush.
    ///
    /// # Errors
    /// The queue is full, or this member does not lead; nothing was taken.
    pub fn propose(&self, first: ProposalId, records: Vec<Record>) -> Result<(), NotTaken> {
        self.propose_under(None, first, records)
    }

    /// The same for records that were decided in the term of a [`JournalEvent::Lead`]. Refuses them if this member leads in
    /// a later term by now.
    ///
    /// # Errors
    /// As for [`Journal::propose`].
    pub fn propose_in(
        &self,
        term: u64,
        first: ProposalId,
        records: Vec<Record>,
    ) -> Result<(), NotTaken> {
        self.propose_under(Some(term), first, records)
    }

    fn propose_under(
        &self,
        term: Option<u64>,
        first: ProposalId,
        records: Vec<Record>,
    ) -> Result<(), NotTaken> {
        let session = self.0.publisher.now();
        let meant = |one: &Arc<Session>| term.is_none_or(|term| term == one.term.term);
        let Some(session) = session.filter(meant) else {
            let why = Refused::NotLeading;
            return Err(NotTaken { why, records });
        };
        if records.is_empty() {
            return Ok(());
        }
        let why = Refused::Full;
        let Ok(permit) = self.0.slots.clone().try_acquire_owned() else {
            return Err(NotTaken { why, records });
        };
        let Ok(place) = self.0.proposals.try_reserve() else {
            return Err(NotTaken { why, records });
        };
        let head = Head {
            level: self.0.format.load(Ordering::Relaxed),
            proposer: self.0.id,
            session: session.id,
            first,
            count: u32::try_from(records.len()).unwrap_or(u32::MAX),
        };
        place.send(Proposal {
            batch: Batch::new(head, records.into()),
            term: session.term,
            slot: self.0.server.slot(permit, session),
        });
        Ok(())
    }

    /// Sets the format of records proposed here; it is 1 at first. The node sets it to the group's format. A format that
    /// this build does not know counts as the newest that it knows.
    pub fn use_format(&self, level: u32) {
        let level = level.clamp(1, self.0.me.format_max.clamp(1, crate::FORMAT_MAX));
        self.0.format.store(level, Ordering::Relaxed);
    }

    /// Adds a member that follows without a vote; the leader brings it up to date. Returns when the group
    /// knows it.
    ///
    /// # Errors
    /// Not the leader, not possible, or undecided.
    pub async fn add(&self, id: NodeId, member: GroupMember) -> Result<(), StoreError> {
        self.reads_what_is_written(&member)?;
        let nodes = BTreeMap::from([(id, member)]);
        self.change("adding the member", ChangeMembers::AddNodes(nodes))
            .await
    }

    /// Records a member's new address or format. Its id and its vote stay.
    ///
    /// # Errors
    /// Not the leader, not possible, or undecided.
    pub async fn update_member(&self, id: NodeId, member: GroupMember) -> Result<(), StoreError> {
        self.reads_what_is_written(&member)?;
        let nodes = BTreeMap::from([(id, member)]);
        self.change("the member's new address", ChangeMembers::SetNodes(nodes))
            .await
    }

    fn reads_what_is_written(&self, member: &GroupMember) -> Result<(), StoreError> {
        let (level, reads) = (self.0.format.load(Ordering::Relaxed), member.format_max);
        match reads < level {
            true => Err(StoreError::TooOld { level, reads }),
            false => Ok(()),
        }
    }

    /// Gives a member its vote. It must be nearly up to date: see [`crate::Seat::matched`].
    ///
    /// # Errors
    /// Not the leader, not possible, or undecided.
    pub async fn promote(&self, id: NodeId) -> Result<(), StoreError> {
        let voters = [id].into();
        self.change("the member's vote", ChangeMembers::AddVoterIds(voters))
            .await
    }

    /// Removes a member, voter or not, and tells it. To remove this member itself, hand over leadership first and ask the
    /// new leader.
    ///
    /// # Errors
    /// Not the leader, not possible (itself, the last voter), or undecided.
    pub async fn remove(&self, id: NodeId) -> Result<(), StoreError> {
        self.keeps_itself(id)?;
        let change = match self.0.raft.voter_ids().any(|voter| voter == id) {
            true => ChangeMembers::RemoveVoters([id].into()),
            false => ChangeMembers::RemoveNodes([id].into()),
        };
        self.remove_by(id, "removing the member", change).await
    }

    /// Gives the vote of `absent` to `by`, a member without a vote that is nearly up to date, and removes `absent`. This is
    /// one change, which needs a majority of the old and of the new voters.
    ///
    /// # Errors
    /// Not the leader, not possible (itself), or undecided.
    pub async fn replace(&self, absent: NodeId, by: NodeId) -> Result<(), StoreError> {
        self.keeps_itself(absent)?;
        let others = self.0.raft.voter_ids().filter(|voter| *voter != absent);
        let voters = others.chain([by]).collect();
        let change = ChangeMembers::ReplaceAllVoters(voters);
        self.remove_by(absent, "replacing the member", change).await
    }

    fn keeps_itself(&self, removed: NodeId) -> Result<(), StoreError> {
        if removed != self.0.id {
            return Ok(());
        }
        Err(StoreError::Members {
            why: "a leader does not take itself out: hand over leadership first, then ask the new leader".to_owned(),
        })
    }

    /// Makes a change that removes a member, and tells that member.
    async fn remove_by(
        &self,
        id: NodeId,
        what: &'static str,
        change: ChangeMembers<NodeId, GroupMember>,
    ) -> Result<(), StoreError> {
        let membership = || {
            self.0
                .raft
                .metrics()
                .borrow_watched()
                .membership_config
                .clone()
        };
        let member = membership().get_node(&id).cloned();
        self.change(what, change).await?;
        if let (Some(member), Ok(handle)) = (member, self.0.runtime.handle()) {
            let index = membership().log_id().map_or(0, |id| id.index);
            handle.spawn(crate::serve::tell_removed(
                self.0.network.clone(),
                id,
                member,
                index,
            ));
        }
        Ok(())
    }

    /// Hands leadership over to a voter. Returns when this member no longer leads.
    ///
    /// # Errors
    /// Not the leader, not possible, or the other did not take it in time.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), StoreError> {
        let raft = self.0.raft.clone();
        let id = self.0.id;
        if !raft.is_leader() {
            return Err(self.not_leading());
        }
        if to == id || !raft.voter_ids().any(|voter| voter == to) {
            return Err(StoreError::Members {
                why: format!("member {to:016x} is no other voter"),
            });
        }
        self.run(async move {
            raft.trigger()
                .transfer_leader(to)
                .await
                .map_err(|_| StoreError::Closed)?;
            let mut metrics = raft.server_metrics();
            let taken = async {
                loop {
                    let leader = metrics.borrow_and_update().current_leader;
                    if leader.is_some_and(|leader| leader != id) {
                        return Ok(());
                    }
                    metrics.changed().await.map_err(|_| StoreError::Closed)?;
                }
            };
            match tokio::time::timeout(CHANGE_LIMIT, taken).await {
                Ok(taken) => taken,
                Err(_) => Err(undecided("handing over leadership")),
            }
        })
        .await
    }

    /// Flushes what was appended and stops. If there are other voters, hand over leadership first.
    pub async fn close(&self) {
        let raft = self.0.raft.clone();
        let writer = self.0.writer.clone();
        let stopped = self.run(async move {
            // It may have stopped already.
            let _ = raft.shutdown().await;
            if let Some(writer) = writer {
                let (reply, done) = oneshot::channel();
                if writer.send(Command::Stop(reply)).await.is_ok() {
                    let _ = done.await;
                }
            }
            Ok(())
        });
        // The threads are there as long as this is.
        let _ = stopped.await;
    }

    async fn change(
        &self,
        what: &'static str,
        change: ChangeMembers<NodeId, GroupMember>,
    ) -> Result<(), StoreError> {
        use openraft::errors::{ClientWriteError, RaftError};
        if !self.0.raft.is_leader() {
            return Err(self.not_leading());
        }
        let raft = self.0.raft.clone();
        self.run(async move {
            let changed = raft.change_membership(change, false);
            match tokio::time::timeout(CHANGE_LIMIT, changed).await {
                Err(_) => Err(undecided(what)),
                Ok(Ok(_)) => Ok(()),
                Ok(Err(RaftError::Fatal(_))) => Err(StoreError::Closed),
                Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => {
                    Err(StoreError::NotLeading {
                        leader: to.leader_id,
                    })
                }
                Ok(Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_)))) => {
                    Err(undecided(what))
                }
                Ok(Err(RaftError::APIError(error))) => Err(StoreError::Members {
                    why: error.to_string(),
                }),
            }
        })
        .await
    }

    fn not_leading(&self) -> StoreError {
        StoreError::NotLeading {
            leader: self.0.raft.metrics().borrow_watched().current_leader,
        }
    }

    /// Runs something on the journal's own threads.
    async fn run<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let task = self.0.runtime.handle()?.spawn(future);
        task.await.map_err(|_| StoreError::Closed)?
    }
}

impl Threads {
    fn handle(&self) -> Result<Handle, StoreError> {
        let runtime = self.0.as_ref().ok_or(StoreError::Closed)?;
        Ok(runtime.handle().clone())
    }
}

fn undecided(what: &'static str) -> StoreError {
    StoreError::Undecided {
        what,
        limit_ms: CHANGE_LIMIT.as_millis() as u64,
    }
}

/// Gives the calling thread low priority, for work that nobody waits for.
pub(crate) fn lower_priority() {
    // SAFETY: a plain system call without pointers; on Linux it concerns the calling thread alone.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, -NICE);
    }
}

/// Raises the priority of the calling thread, if the system allows it.
pub(crate) fn raise_priority() {
    // SAFETY: a plain system call without pointers; on Linux it concerns the calling thread alone.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, NICE);
    }
}
