//! The state machine of the consensus. It only publishes events: the core holds the state.

use crate::entry::{Batch, LogId, Session, SnapshotMeta, StoredMembership, Types};
use crate::event::{JournalEvent, SnapshotRequest, WriteState};
use crate::files::Files;
use crate::snapshot::{self, Image, Kept};
use crate::writer::{Failure, fail};
use crate::{NodeId, StoreError};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use hedge_model::PeerId;
use hedge_model::record::RecordError;
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Mutex, Notify, mpsc, oneshot};

/// Publishes all events, one after the other, so that changes of leadership and commits keep their order.
pub(crate) struct EventPublisher {
    pub events: mpsc::Sender<JournalEvent>,
    pub lead: Mutex<Lead>,
    /// The session of proposals, while this member's leadership is published.
    pub now: std::sync::Mutex<Option<Arc<Session>>>,
}

/// Whether this member leads, and whether that was published.
#[derive(Default)]
pub(crate) struct Lead {
    pub session: Option<Arc<Session>>,
    pub told: bool,
}

impl EventPublisher {
    /// Says something. Waits while the channel is full. Nobody listens any more when the core is gone.
    pub async fn publish(&self, event: JournalEvent) {
        let _ = self.events.send(event).await;
    }

    fn set_now(&self, now: Option<Arc<Session>>) {
        *self
            .now
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = now;
    }

    pub fn now(&self) -> Option<Arc<Session>> {
        self.now
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }

    /// This member leads no longer, if it did.
    pub async fn depose(&self, leader: Option<PeerId>) {
        let mut lead = self.lead.lock().await;
        lead.session = None;
        self.set_now(None);
        if std::mem::take(&mut lead.told) {
            self.publish(JournalEvent::Deposed { leader }).await;
        }
    }

    /// Says a committed batch, or that this member leads where the batch is the sign for that.
    async fn committed(&self, index: u64, id: NodeId, batch: &Batch) -> Result<(), StoreError> {
        let head = batch.head();
        let mut lead = self.lead.lock().await;
        let session = lead.session.clone().filter(|one| one.id == head.session);
        let own = session.filter(|_| head.proposer == id);
        if head.count == 0 {
            if let Some(session) = own.filter(|_| !lead.told) {
                lead.told = true;
                let term = session.term.term;
                self.set_now(Some(session));
                self.publish(JournalEvent::Lead { term }).await;
            }
            return Ok(());
        }
        let records = batch.records()?;
        let first = (own.is_some() && lead.told).then_some(head.first);
        self.publish(JournalEvent::Committed {
            index,
            first,
            records,
        })
        .await;
        Ok(())
    }
}

/// How much was published since the last snapshot, which decides when the next is due.
pub(crate) struct Growth {
    pub records: AtomicU64,
    pub records_max: u64,
    pub bytes_max: u64,
    /// The bytes of log that were there when the last snapshot was made.
    pub due: Notify,
    pub snapshot_bytes: AtomicU64,
}

/// The state machine.
pub(crate) struct Machine {
    pub id: NodeId,
    /// The newest format of records that is read here.
    pub format_max: u32,
    pub publisher: Arc<EventPublisher>,
    pub failure: Failure,
    pub growth: Arc<Growth>,
    pub applied: Option<LogId>,
    pub membership: StoredMembership,
    pub kept: Arc<std::sync::Mutex<Option<Kept>>>,
    /// None in memory.
    pub disk: Option<(Files, PathBuf)>,
}

impl Machine {
    fn kept(&self) -> Option<Kept> {
        self.kept
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .clone()
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Image;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok((self.applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut records = 0;
        while let Some((entry, responder)) = entries.try_next().await? {
            let log_id = entry.log_id();
            match &entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(members) => {
                    self.membership = StoredMembership::new(Some(log_id), members.clone());
                }
                EntryPayload::Normal(batch) => {
                    records += u64::from(batch.head().count);
                    if batch.head().level > self.format_max {
                        let level = RecordError::Format(batch.head().level);
                        return Err(fail(&self.failure, level.into()));
                    }
                    self.publisher
                        .committed(log_id.index, self.id, batch)
                        .await
                        .map_err(|error| fail(&self.failure, error))?;
                }
            }
            self.applied = Some(log_id);
            if let Some(responder) = responder {
                responder.send(());
            }
        }
        let growth = &self.growth;
        let records = growth.records.fetch_add(records, Ordering::Relaxed) + records;
        if records >= growth.records_max {
            growth.due.notify_one();
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (reply, write) = oneshot::channel();
        self.growth.records.store(0, Ordering::Relaxed);
        self.publisher
            .publish(JournalEvent::Snapshot(SnapshotRequest { reply }))
            .await;
        Builder {
            meta: SnapshotMeta {
                last_log_id: self.applied,
                last_membership: self.membership.clone(),
            },
            write: Some(write),
            kept: self.kept.clone(),
            disk: self.disk.clone(),
            failure: self.failure.clone(),
            growth: self.growth.clone(),
        }
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        image: Image,
    ) -> Result<(), io::Error> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let (meta, disk) = (meta.clone(), self.disk.clone());
        let (applied, membership) = (meta.last_log_id, meta.last_membership.clone());
        let done = tokio::task::spawn_blocking(move || install(meta, image, disk));
        let (state, kept) = done
            .await
            .map_err(io::Error::other)?
            .map_err(|error| fail(&self.failure, error))?;
        keep(&self.kept, &self.growth, kept);
        self.applied = applied;
        self.membership = membership;
        self.growth.records.store(0, Ordering::Relaxed);
        self.publisher
            .publish(JournalEvent::Restore { index, state })
            .await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<crate::entry::Snapshot>, io::Error> {
        Ok(self.kept().map(|kept| openraft::Snapshot {
            meta: kept.meta,
            snapshot: kept.image,
        }))
    }
}

/// Loads a snapshot's state, and gives it a file of its own if it came from another member.
fn install(
    meta: SnapshotMeta,
    image: Image,
    disk: Option<(Files, PathBuf)>,
) -> Result<(Bytes, Kept), StoreError> {
    let state = image.load()?;
    let bytes = state.len() as u64;
    let image = match (image, disk) {
        (Image::Memory(state), Some((files, folder))) => {
            let write: WriteState = Box::new(move |out| out.write_all(&state));
            store(&files, &folder, &meta, write)?.0
        }
        (image, _) => image,
    };
    Ok((state, Kept { meta, image, bytes }))
}

/// Writes a snapshot into its file and removes the others.
fn store(
    files: &Files,
    folder: &std::path::Path,
    meta: &SnapshotMeta,
    write: WriteState,
) -> Result<(Image, u64), StoreError> {
    let (path, bytes) = snapshot::write_file(files, folder, meta, write)?;
    let name = snapshot::file_name(meta.last_log_id.map_or(0, |id| id.index));
    files.rename(folder, &path, &name)?;
    let path = folder.join(name);
    for other in snapshot::list(folder)? {
        if other < path {
            files.remove(&other)?;
        }
    }
    Ok((Image::File(Arc::new(path)), bytes))
}

/// Keeps a snapshot, unless there is a newer one: another member's may have come while an own one was written.
fn keep(kept: &std::sync::Mutex<Option<Kept>>, growth: &Growth, new: Kept) {
    let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if kept
        .as_ref()
        .is_some_and(|old| old.meta.last_log_id > new.meta.last_log_id)
    {
        return;
    }
    growth.snapshot_bytes.store(new.bytes, Ordering::Relaxed);
    *kept = Some(new);
}

/// Makes one snapshot.
pub(crate) struct Builder {
    meta: SnapshotMeta,
    write: Option<oneshot::Receiver<WriteState>>,
    kept: Arc<std::sync::Mutex<Option<Kept>>>,
    disk: Option<(Files, PathBuf)>,
    failure: Failure,
    growth: Arc<Growth>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Image;

    async fn build_snapshot(&mut self) -> Result<crate::entry::Snapshot, io::Error> {
        let kept = self.build().await;
        let kept = kept.map_err(|error| fail(&self.failure, error))?;
        keep(&self.kept, &self.growth, kept.clone());
        Ok(openraft::Snapshot {
            meta: kept.meta,
            snapshot: kept.image,
        })
    }
}

impl Builder {
    async fn build(&mut self) -> Result<Kept, StoreError> {
        let gone = || StoreError::State {
            why: "nobody gave it".to_owned(),
        };
        let write = self
            .write
            .take()
            .ok_or_else(gone)?
            .await
            .map_err(|_| gone())?;
        let (meta, disk) = (self.meta.clone(), self.disk.clone());
        let (reply, done) = oneshot::channel();
        // A thread of its own at low priority: what commits goes first.
        let thread = std::thread::Builder::new()
            .name("hedge-snapshot".to_owned())
            .spawn(move || {
                crate::journal::lower_priority();
                let _ = reply.send(build(meta, disk, write));
            });
        thread.map_err(|error| StoreError::State {
            why: error.to_string(),
        })?;
        done.await.map_err(|_| gone())?
    }
}

fn build(
    meta: SnapshotMeta,
    disk: Option<(Files, PathBuf)>,
    write: WriteState,
) -> Result<Kept, StoreError> {
    let (image, bytes) = match disk {
        Some((files, folder)) => store(&files, &folder, &meta, write)?,
        None => {
            let mut state = Vec::new();
            write(&mut state).map_err(|error| StoreError::State {
                why: error.to_string(),
            })?;
            let bytes = state.len() as u64;
            (Image::Memory(Bytes::from(state)), bytes)
        }
    };
    Ok(Kept { meta, image, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Term;

    #[test]
    fn an_older_snapshot_that_is_done_later_takes_no_newer_ones_place() {
        let growth = Growth {
            records: AtomicU64::new(0),
            records_max: 1,
            bytes_max: 1,
            due: Notify::new(),
            snapshot_bytes: AtomicU64::new(0),
        };
        let kept = std::sync::Mutex::new(None);
        for (index, bytes) in [(5, 1), (9, 2), (7, 3)] {
            let leader_id = Term {
                term: 1,
                node_id: 1,
            };
            let meta = SnapshotMeta {
                last_log_id: Some(LogId { leader_id, index }),
                last_membership: StoredMembership::default(),
            };
            let image = Image::Memory(Bytes::new());
            keep(&kept, &growth, Kept { meta, image, bytes });
        }
        let kept = kept.into_inner().unwrap().unwrap();
        assert_eq!(kept.meta.last_log_id.map(|id| id.index), Some(9));
        assert_eq!(growth.snapshot_bytes.into_inner(), 2);
    }
}
