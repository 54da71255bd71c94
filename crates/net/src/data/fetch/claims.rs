//! Who fetches what: no blob is transferred twice at a time.

use super::lock;
use hedge_model::Hash;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    claimed: Mutex<HashSet<Hash>>,
    released: Notify,
}

/// Blobs that nobody else fetches until this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Claims,
    hashes: HashSet<Hash>,
}

impl Claims {
    /// Claims what nobody has claimed.
    pub fn claim(&self, blobs: &[(Hash, u64)]) -> Claim {
        let mut claimed = lock(&self.0.claimed);
        let hashes = blobs.iter().map(|(hash, _)| *hash);
        let hashes = hashes.filter(|hash| claimed.insert(*hash)).collect();
        let claims = self.clone();
        Claim { claims, hashes }
    }

    /// Waits until none of these is claimed.
    pub async fn released(&self, blobs: &[(Hash, u64)]) {
        loop {
            let released = self.0.released.notified();
            let claimed = {
                let claimed = lock(&self.0.claimed);
                blobs.iter().any(|(hash, _)| claimed.contains(hash))
            };
            if !claimed {
                return;
            }
            released.await;
        }
    }
}

impl Claim {
    pub fn hashes(&self) -> &HashSet<Hash> {
        &self.hashes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = lock(&self.claims.0.claimed);
        claimed.retain(|hash| !self.hashes.contains(hash));
        drop(claimed);
        self.claims.0.released.notify_waiters();
    }
}
