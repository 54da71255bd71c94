//! What members say to each other, as bytes, and the side that asks.

use crate::entry::{Raw, SnapshotMeta, Types, Vote};
use crate::snapshot::Image;
use crate::{CALL_BYTES_MAX, GroupMember, NodeId, Transport};
use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    VoteRequest, VoteResponse,
};
use openraft::{RaftNetworkFactory, RaftNetworkV2};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// The first byte of every message: how the rest is to be read.
const WIRE_VERSION: u8 = 2;

/// Which life of a member a question is for. One that lost its log is reached where its earlier life was, and must
/// not answer in its name: it knows nothing of the votes that it gave and the entries that it had.
pub(crate) type To = NodeId;

/// How much goes in one call: longer messages, such as one with a very large job, go in parts.
const CALL_BYTES: usize = 4 << 20;
const _: () = assert!(CALL_BYTES + 1024 < CALL_BYTES_MAX);

/// The longest message that is put together from parts: the longest entry that a log takes, and some.
pub(crate) const MESSAGE_BYTES_MAX: usize = crate::frame::BODY_MAX + (1 << 20);

/// How much of a snapshot goes in one message: small beside a heartbeat's patience on a slow link.
const PIECE_BYTES: usize = 1 << 20;

/// How long an append with entries may take. Its loss is noticed by heartbeats, which have a path of their
/// own; this only bounds how long a link that swallowed a message is waited for.
const APPEND_LIMIT: Duration = Duration::from_secs(1);

/// How long one piece of a snapshot may take; the last one waits until the whole is installed.
const PIECE_LIMIT: Duration = Duration::from_secs(5);
const INSTALL_LIMIT: Duration = Duration::from_secs(60);

/// How long an unreachable member is left alone: 20 ms served with hundreds of restarts; the library's own
/// 200 to 500 ms would add to every fail-over.
const BACKOFF: Duration = Duration::from_millis(20);

/// A question.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Transfer(TransferLeaderRequest<Types>),
    Piece(Piece),
    Part(Part),
    /// You are no member any more, by the membership at this index.
    Removed {
        id: NodeId,
        index: u64,
    },
}

impl Request {
    /// Whether it takes long to encode.
    fn is_long(&self) -> bool {
        match self {
            Self::Append(rpc) => {
                let bytes = rpc
                    .entries
                    .iter()
                    .map(crate::log::payload_bytes)
                    .sum::<u64>();
                bytes > LONG_BYTES as u64
            }
            Self::Piece(_) => true,
            _ => false,
        }
    }
}

/// A part of a message that is too long for one call.
#[derive(Serialize, Deserialize)]
pub(crate) struct Part {
    /// Which message.
    pub message: u64,
    pub offset: u64,
    pub total: u64,
    pub data: Raw,
}

/// A part of a snapshot.
#[derive(Serialize, Deserialize)]
pub(crate) struct Piece {
    pub vote: Vote,
    pub meta: SnapshotMeta,
    pub offset: u64,
    pub total: u64,
    pub data: Raw,
}

/// An answer.
#[derive(Serialize, Deserialize)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Transfer(openraft::raft::TransferLeaderResponse<Types>),
    /// The piece is taken; more is awaited.
    Taken(Vote),
    Snapshot(SnapshotResponse<Types>),
    /// The requester is no member, by the membership at this index.
    NotMember {
        index: u64,
    },
    Noted,
    /// It could not be answered.
    Failed(String),
}

pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Bytes> {
    let bytes = postcard::to_extend(message, vec![WIRE_VERSION]).map_err(io::Error::other)?;
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!(
            "a message of {} bytes is over the limit of {MESSAGE_BYTES_MAX}",
            bytes.len()
        )));
    }
    Ok(Bytes::from(bytes))
}

/// How long a message is that is encoded and decoded where others wait; longer ones go to threads of their own.
const LONG_BYTES: usize = 64 << 10;

/// Reads a message without holding up what else runs on this thread.
pub(crate) async fn decode_aside<T>(bytes: Bytes) -> io::Result<T>
where
    T: for<'a> Deserialize<'a> + Send + 'static,
{
    if bytes.len() <= LONG_BYTES {
        return decode(&bytes);
    }
    let decoded = tokio::task::spawn_blocking(move || decode(&bytes));
    decoded.await.map_err(io::Error::other)?
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> io::Result<T> {
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    match bytes.split_first() {
        Some((&WIRE_VERSION, rest)) => {
            postcard::from_bytes(rest).map_err(|error| bad(error.to_string()))
        }
        Some((version, _)) => Err(bad(format!(
            "journal message of version {version}, this build speaks {WIRE_VERSION}"
        ))),
        None => Err(bad("an empty journal message".to_owned())),
    }
}

type Call = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// A transport whose type is forgotten.
pub(crate) trait Carry: Send + Sync + 'static {
    fn carry(self: Arc<Self>, to: GroupMember, request: Bytes, limit: Duration) -> Call;
}

impl<T: Transport> Carry for T {
    fn carry(self: Arc<Self>, to: GroupMember, request: Bytes, limit: Duration) -> Call {
        Box::pin(async move { self.call(&to, request, limit).await })
    }
}

/// Makes the asking sides.
#[derive(Clone)]
pub(crate) struct Network {
    pub carry: Arc<dyn Carry>,
    /// Where it is said that this member was told to be none.
    pub removed: mpsc::Sender<u64>,
    /// How long a question without entries may take.
    pub limit: Duration,
}

/// The asking side towards one member.
pub(crate) struct Peer {
    network: Network,
    id: To,
    member: GroupMember,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &GroupMember) -> Peer {
        Peer {
            network: self.clone(),
            id: target,
            member: node.clone(),
        }
    }
}

impl Network {
    /// Asks a member.
    pub async fn ask(
        &self,
        id: To,
        to: &GroupMember,
        request: &Request,
        limit: Duration,
    ) -> io::Result<Reply> {
        let encoded = || encode(&(id, request));
        // Heartbeats must not wait behind much that is encoded.
        let bytes = match request.is_long() {
            true => tokio::task::block_in_place(encoded)?,
            false => encoded()?,
        };
        if bytes.len() <= CALL_BYTES {
            return self.call(to, bytes, limit).await;
        }
        let message = crate::open::random().map_err(io::Error::other)?;
        let total = bytes.len();
        let mut offset = 0;
        loop {
            let data = bytes.slice(offset..total.min(offset + CALL_BYTES));
            let next = offset + data.len();
            let part = Request::Part(Part {
                message,
                offset: offset as u64,
                total: total as u64,
                data: Raw(data),
            });
            let reply = self
                .call(to, encode(&(id, part))?, limit.max(PIECE_LIMIT))
                .await?;
            if next == total {
                return Ok(reply);
            }
            offset = next;
        }
    }

    /// One call, which runs on its own, so that a caller that stops waiting leaves it whole.
    async fn call(&self, to: &GroupMember, request: Bytes, limit: Duration) -> io::Result<Reply> {
        let call = self.carry.clone().carry(to.clone(), request, limit);
        let call = tokio::spawn(tokio::time::timeout(limit, call));
        let bytes = call
            .await
            .map_err(io::Error::other)?
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        match decode(&bytes)? {
            Reply::NotMember { index } => {
                // Full means that it is known already.
                let _ = self.removed.try_send(index);
                Err(io::Error::other("this member was removed from the group"))
            }
            Reply::Failed(why) => Err(io::Error::other(why)),
            reply => Ok(reply),
        }
    }
}

impl Peer {
    async fn ask(&self, request: Request, limit: Duration) -> Result<Reply, RPCError<Types>> {
        self.network
            .ask(self.id, &self.member, &request, limit)
            .await
            .map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))
    }
}

fn unexpected() -> RPCError<Types> {
    RPCError::Network(NetworkError::from_string("an answer to another question"))
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Image;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let limit = match rpc.entries.is_empty() {
            true => self.network.limit,
            false => self.network.limit.max(APPEND_LIMIT),
        };
        match self.ask(Request::Append(rpc), limit).await? {
            Reply::Append(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Request::Vote(rpc), option.hard_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(Request::PreVote(rpc), option.hard_ttl()).await? {
            Reply::Vote(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: crate::entry::Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut cancel = std::pin::pin!(cancel);
        tokio::select! {
            closed = &mut cancel => Err(closed.into()),
            sent = self.send_snapshot(vote, snapshot.meta, snapshot.snapshot) => {
                sent.map_err(|error| StreamingError::Unreachable(Unreachable::new(&error)))
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<openraft::raft::TransferLeaderResponse<Types>, RPCError<Types>> {
        match self
            .ask(Request::Transfer(request), option.hard_ttl())
            .await?
        {
            Reply::Transfer(reply) => Ok(reply),
            _ => Err(unexpected()),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

impl Peer {
    async fn send_snapshot(
        &self,
        vote: Vote,
        meta: SnapshotMeta,
        image: Image,
    ) -> io::Result<SnapshotResponse<Types>> {
        let state = tokio::task::spawn_blocking(move || image.load())
            .await
            .map_err(io::Error::other)?
            .map_err(io::Error::other)?;
        let mut offset = 0;
        loop {
            let data = state.slice(offset..state.len().min(offset + PIECE_BYTES));
            let next = offset + data.len();
            let piece = Piece {
                vote,
                meta: meta.clone(),
                offset: offset as u64,
                total: state.len() as u64,
                data: Raw(data),
            };
            let limit = match next == state.len() {
                true => INSTALL_LIMIT,
                false => PIECE_LIMIT,
            };
            match self
                .network
                .ask(self.id, &self.member, &Request::Piece(piece), limit)
                .await?
            {
                // A newer leader is known there.
                Reply::Taken(other) if other > vote => return Ok(SnapshotResponse::new(other)),
                Reply::Taken(_) => offset = next,
                Reply::Snapshot(reply) => return Ok(reply),
                _ => return Err(io::Error::other("an answer to another question")),
            }
        }
    }
}
