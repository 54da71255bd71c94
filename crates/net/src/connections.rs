//! The open connections of this peer, by the peer at their other end.

use crate::CloseReason;
use hedge_model::PeerId;
use iroh::endpoint::{Connection, WeakConnectionHandle};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Control and data connections of both directions; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Mutex<Open>>);

#[derive(Debug, Default)]
struct Open {
    by_peer: HashMap<PeerId, Vec<WeakConnectionHandle>>,
    /// Connections that were added since those that ended were removed.
    added: usize,
}

impl Connections {
    /// Adds a connection. It is removed some time after it has ended.
    pub(crate) fn add(&self, connection: &Connection) {
        let mut open = self.lock();
        let peer = PeerId(*connection.remote_id().as_bytes());
        let same = open.by_peer.entry(peer).or_default();
        same.retain(is_open);
        same.push(connection.weak_handle());
        open.added += 1;
        // Each connection is looked at a constant number of times for each that is added.
        if open.added > open.by_peer.len() {
            open.added = 0;
            open.by_peer.retain(|_, same| {
                same.retain(is_open);
                !same.is_empty()
            });
        }
    }

    /// Closes all connections with a peer.
    pub(crate) fn close(&self, peer: PeerId) {
        let all = self.lock().by_peer.remove(&peer);
        let all = all.into_iter().flatten();
        for connection in all.filter_map(|weak| weak.upgrade()) {
            CloseReason::Lost.close(&connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_open(weak: &WeakConnectionHandle) -> bool {
    weak.upgrade()
        .is_some_and(|connection| connection.close_reason().is_none())
}
