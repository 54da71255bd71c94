//! Answers requests of other members.

use crate::entry::{Session, Slot, SnapshotMeta, Types, Vote};
use crate::machine::Machine;
use crate::rpc::{self, Network, Part, Piece, Reply, Request};
use crate::snapshot::Image;
use crate::{GroupMember, NodeId};
use bytes::Bytes;
use hedge_model::PeerId;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::VoteRequest;
use openraft::{Raft, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, mpsc};

/// The largest snapshot that is accepted from another member, in bytes. It must fit in memory, several times.
const STATE_BYTES_MAX: u64 = 16 << 30;

/// The most messages that are assembled from parts at once. Only the leader sends such messages, but leaders change.
const PARTS_MAX: usize = 3;

/// How often a removed member is told so, and at which interval. It also learns it when it stands for election.
const TELL_TIMES: u32 = 5;
const TELL_EVERY: Duration = Duration::from_millis(200);

/// Answers requests. Clones share the snapshot that is being received.
#[derive(Clone)]
pub(crate) struct Server {
    id: NodeId,
    raft: Raft<Types, Machine>,
    receiving: Arc<Mutex<Option<Receiving>>>,
    parts: Arc<Mutex<VecDeque<Parts>>>,
    lost: Arc<Notify>,
    removed: mpsc::Sender<u64>,
}

/// A snapshot that is received in pieces.
struct Receiving {
    vote: Vote,
    meta: SnapshotMeta,
    total: u64,
    state: Vec<u8>,
}

/// A message that is received in parts.
struct Parts {
    from: PeerId,
    message: u64,
    total: u64,
    bytes: Vec<u8>,
}

impl Server {
    pub fn new(
        id: NodeId,
        raft: Raft<Types, Machine>,
        lost: Arc<Notify>,
        removed: mpsc::Sender<u64>,
    ) -> Self {
        Self {
            id,
            raft,
            receiving: Arc::default(),
            parts: Arc::default(),
            lost,
            removed,
        }
    }

    /// Returns a place among the open proposals.
    pub fn slot(&self, permit: OwnedSemaphorePermit, session: Arc<Session>) -> Slot {
        Slot {
            lost: self.lost.clone(),
            session,
            _permit: permit,
        }
    }

    pub async fn answer(&self, from: PeerId, request: Bytes) -> Bytes {
        let reply = match self.question(request).await {
            Ok(Request::Part(part)) => match self.part(from, part).await {
                Ok(Some(whole)) => match self.question(Bytes::from(whole)).await {
                    Ok(request) => self.reply(request).await,
                    Err(why) => Err(why),
                },
                Ok(None) => Ok(Reply::Noted),
                Err(why) => Err(why),
            },
            Ok(request) => self.reply(request).await,
            Err(why) => Err(why),
        };
        let reply = reply.unwrap_or_else(|why| {
            tracing::debug!(peer = %from.short(), why, "a journal message was not answered");
            Reply::Failed(why)
        });
        // An answer is far below the limit.
        rpc::encode(&reply).unwrap_or_default()
    }

    /// Decodes a request, and refuses one for an earlier incarnation of this member.
    async fn question(&self, bytes: Bytes) -> Result<Request, String> {
        let read = rpc::decode_aside::<(rpc::To, Request)>(bytes).await;
        match read.map_err(|error| error.to_string())? {
            (to, request) if to == self.id => Ok(request),
            _ => Err("this is for an earlier life of this member, which lost its log".to_owned()),
        }
    }

    async fn reply(&self, request: Request) -> Result<Reply, String> {
        let told = |error: &dyn std::fmt::Display| error.to_string();
        match request {
            Request::Append(rpc) => {
                let reply = self.raft.append_entries(rpc).await;
                reply.map(Reply::Append).map_err(|error| told(&error))
            }
            Request::Vote(rpc) => match self.stranger(&rpc) {
                Some(reply) => Ok(reply),
                None => {
                    let reply = self.raft.vote(rpc).await;
                    reply.map(Reply::Vote).map_err(|error| told(&error))
                }
            },
            Request::PreVote(rpc) => match self.stranger(&rpc) {
                Some(reply) => Ok(reply),
                None => {
                    let reply = self.raft.pre_vote(rpc).await;
                    reply.map(Reply::Vote).map_err(|error| told(&error))
                }
            },
            Request::Transfer(request) => {
                let reply = self.raft.handle_transfer_leader(request).await;
                reply.map(Reply::Transfer).map_err(|error| told(&error))
            }
            Request::Piece(piece) => self.piece(piece).await,
            Request::Part(_) => Err("a part within a part".to_owned()),
            Request::Removed { id, index } => {
                if id == self.id {
                    // Full means that it is known already.
                    let _ = self.removed.try_send(index);
                }
                Ok(Reply::Noted)
            }
        }
    }

    /// Returns the reply for a candidate that is not a member by the entries committed here.
    fn stranger(&self, rpc: &VoteRequest<Types>) -> Option<Reply> {
        let metrics = self.raft.metrics();
        let now = metrics.borrow_watched();
        let (committed, effective) = (&now.committed_membership_config, &now.membership_config);
        let candidate = rpc.vote.leader_id.node_id;
        let index = committed.log_id().as_ref()?.index;
        let known =
            committed.get_node(&candidate).is_some() || effective.get_node(&candidate).is_some();
        let newer = rpc
            .last_log_id
            .is_some_and(|id| id > committed.log_id().unwrap_or(id));
        (!known && !newer).then_some(Reply::NotMember { index })
    }

    /// Adds a part to its message. Returns the message when it is whole.
    async fn part(&self, from: PeerId, part: Part) -> Result<Option<Vec<u8>>, String> {
        let data = part.data.0;
        let mut all = self.parts.lock().await;
        if part.offset == 0 {
            if part.total > rpc::MESSAGE_BYTES_MAX as u64 {
                return Err(format!("a message of {} bytes is too long", part.total));
            }
            // One message at a time from each member, and from few members.
            all.retain(|one| one.from != from);
            if all.len() == PARTS_MAX {
                all.pop_front();
            }
            all.push_back(Parts {
                from,
                message: part.message,
                total: part.total,
                bytes: Vec::new(),
            });
        }
        let same = |one: &Parts| {
            one.from == from
                && one.message == part.message
                && one.total == part.total
                && one.bytes.len() as u64 == part.offset
                && part.offset.saturating_add(data.len() as u64) <= part.total
        };
        let Some(at) = all.iter().position(same) else {
            all.retain(|one| one.from != from);
            return Err("this part of a message does not follow on the one before".to_owned());
        };
        all[at].bytes.extend_from_slice(&data);
        if (all[at].bytes.len() as u64) < part.total {
            return Ok(None);
        }
        Ok(all.remove(at).map(|whole| whole.bytes))
    }

    async fn piece(&self, piece: Piece) -> Result<Reply, String> {
        let mut receiving = self.receiving.lock().await;
        let data = piece.data.0;
        if piece.offset == 0 {
            if piece.total > STATE_BYTES_MAX {
                return Err(format!(
                    "a snapshot of {} bytes is over the limit of {STATE_BYTES_MAX}",
                    piece.total
                ));
            }
            *receiving = Some(Receiving {
                vote: piece.vote,
                meta: piece.meta.clone(),
                total: piece.total,
                state: Vec::new(),
            });
        }
        let same = |one: &&mut Receiving| {
            one.vote == piece.vote
                && one.meta == piece.meta
                && one.total == piece.total
                && one.state.len() as u64 == piece.offset
                && piece.offset.saturating_add(data.len() as u64) <= piece.total
        };
        let Some(one) = receiving.as_mut().filter(same) else {
            *receiving = None;
            return Err("this piece of a snapshot does not follow on the one before".to_owned());
        };
        one.state.extend_from_slice(&data);
        if (one.state.len() as u64) < one.total {
            let vote = self.raft.metrics().borrow_watched().vote;
            return Ok(Reply::Taken(vote));
        }
        let Some(whole) = receiving.take() else {
            return Err("no snapshot is being received".to_owned());
        };
        drop(receiving);
        let snapshot = Snapshot {
            meta: whole.meta,
            snapshot: Image::Memory(Bytes::from(whole.state)),
        };
        let reply = self.raft.install_full_snapshot(whole.vote, snapshot).await;
        reply
            .map(Reply::Snapshot)
            .map_err(|error| error.to_string())
    }
}

/// Tells a member that it was removed, until it replies.
pub(crate) async fn tell_removed(network: Network, id: NodeId, member: GroupMember, index: u64) {
    for _ in 0..TELL_TIMES {
        let request = Request::Removed { id, index };
        if network.ask(id, &member, &request, TELL_EVERY).await.is_ok() {
            return;
        }
        tokio::time::sleep(TELL_EVERY).await;
    }
}
