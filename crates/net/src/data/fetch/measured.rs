//! What transfers show of the links to others.

use super::{Fetcher, lock};
use hedge_model::PeerId;
use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

/// A shorter transfer says more of waiting than of a link.
const LARGE_BYTES: u64 = 4 << 20;
/// Transfers kept until they are asked for; older ones are dropped.
const LARGE_MAX: usize = 16;

/// A transfer from one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Received, proofs included.
    pub bytes: u64,
    /// From the request to the last byte.
    pub took: Duration,
}

/// What was received so far.
#[derive(Debug, Default)]
pub(super) struct Received(Mutex<(HashMap<PeerId, u64>, VecDeque<Transfer>)>);

impl Received {
    pub fn add(&self, peer: PeerId, bytes: u64, took: Duration) {
        let (all, large) = &mut *lock(&self.0);
        super::super::count(all, peer, bytes);
        if bytes >= LARGE_BYTES {
            large.truncate(LARGE_MAX - 1);
            large.push_front(Transfer { bytes, took });
        }
    }
}

impl Fetcher {
    /// Bytes received from each peer so far, proofs included.
    pub fn fetched_bytes(&self) -> HashMap<PeerId, u64> {
        lock(&self.0.fetched.0).0.clone()
    }

    /// Transfers of 4 MiB or more since this was called last, the latest 16 of them.
    pub fn large_transfers(&self) -> Vec<Transfer> {
        lock(&self.0.fetched.0).1.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_transfers_are_kept_for_a_while_and_all_are_counted() {
        let received = Received::default();
        let (peer, took) = (PeerId([1; 32]), Duration::from_secs(1));
        received.add(peer, LARGE_BYTES - 1, took);
        for _ in 0..2 * LARGE_MAX {
            received.add(peer, LARGE_BYTES, took);
        }
        let (all, large) = &*lock(&received.0);
        assert_eq!(all[&peer], (2 * LARGE_MAX as u64 + 1) * LARGE_BYTES - 1);
        assert_eq!(large.len(), LARGE_MAX);
    }
}
