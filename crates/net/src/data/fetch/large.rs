//! Takes large blobs group by group, over TCP where that is possible.

use super::super::digest::GROUP_BYTES;
use super::super::sealed::{Expected, TCP_BYTES_MIN};
use super::transfer::{Incoming, Tcp};
use super::{Failure, Fetcher, SourceFailure, lock};
use hedge_model::{Hash, PeerId};
use iroh::endpoint::Connection;
use std::io;

/// Peers without TCP that are remembered, until all are tried again.
const WITHOUT_TCP_MAX: usize = 4096;

impl Fetcher {
    /// Adds a large blob from this group on. One group is stored while the next one arrives.
    pub(super) async fn take_large(
        &self,
        connection: &Connection,
        (hash, size): (Hash, u64),
        first: u64,
        incoming: &mut Incoming,
    ) -> Result<(), Failure> {
        let local = |error: io::Error| Failure::Local(error.to_string());
        let proof = incoming.proof(hash, size).await?;
        let opened = incoming.open_way(connection).await;
        if matches!(opened, Ok(false) | Err(SourceFailure::NoTcp)) {
            self.note_without_tcp(PeerId(*connection.remote_id().as_bytes()));
        }
        opened?;
        let mut arrived = None;
        for group in first..=proof.count() {
            let storing = async {
                match arrived.take() {
                    Some(bytes) => {
                        let store = &self.0.store;
                        store.add_group(hash, &proof, group - 1, bytes).await
                    }
                    None => Ok(true),
                }
            };
            let arriving = async {
                match group < proof.count() {
                    true => incoming.group(proof.group_len(group)).await.map(Some),
                    false => Ok(None),
                }
            };
            let (stored, arriving) = tokio::join!(storing, arriving);
            if !stored.map_err(local)? {
                return Err(SourceFailure::Unverified.into());
            }
            arrived = arriving?;
        }
        self.0.store.complete(hash, &proof).await.map_err(local)
    }

    /// How the groups of a large blob may come from this one on.
    pub(super) fn tcp_for(
        &self,
        connection: &Connection,
        peer: PeerId,
        size: u64,
        first: u64,
    ) -> Tcp {
        let left = size.saturating_sub(first.saturating_mul(GROUP_BYTES as u64));
        let fails = lock(&self.0.without_tcp).contains(&peer);
        if left < TCP_BYTES_MIN || fails || crate::link::is_relayed(connection) {
            return Tcp::None;
        }
        match self.0.net.tcp().map(Expected::at) {
            Some(None) => Tcp::None,
            expected => Tcp::Offered(expected.flatten()),
        }
    }

    fn note_without_tcp(&self, peer: PeerId) {
        tracing::debug!(peer = %peer.short(), "no way by TCP");
        let mut peers = lock(&self.0.without_tcp);
        if peers.len() >= WITHOUT_TCP_MAX {
            peers.clear();
        }
        peers.insert(peer);
    }
}
