//! Recently dropped blobs. They cannot be listed, read or served, but one that is needed again does not have to be
//! transferred again.

use super::catalog::Held;
use super::{DataStore, Inner, lock};
use hedge_model::Hash;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A dropped blob is kept for this long.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// The interval at which older ones are removed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// The most dropped blobs. Beyond it the oldest is removed.
const COUNT_MAX: usize = 50_000;
/// The most bytes of dropped blobs. Beyond it the oldest is removed.
const BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Default)]
pub(super) struct Retired {
    blobs: HashMap<Hash, (Held, Instant)>,
    /// In the order in which they were dropped. Also holds blobs that were restored meanwhile.
    order: VecDeque<(Hash, Instant)>,
    bytes: u64,
}

impl Retired {
    pub fn add(&mut self, hash: Hash, held: Held) {
        let now = Instant::now();
        self.bytes += held.size;
        self.order.push_back((hash, now));
        if let Some((before, _)) = self.blobs.insert(hash, (held, now)) {
            self.bytes -= before.size;
        }
    }

    pub fn take(&mut self, hash: Hash) -> Option<Held> {
        let (held, _) = self.blobs.remove(&hash)?;
        self.bytes -= held.size;
        Some(held)
    }

    /// Removes and returns the next blob to delete: one that is too old or beyond a limit, or the oldest if `any`.
    fn next(&mut self, any: bool) -> Option<Hash> {
        loop {
            let (hash, at) = *self.order.front()?;
            let full = self.order.len() > COUNT_MAX || self.bytes > BYTES_MAX;
            if !any && !full && at.elapsed() < KEPT_FOR {
                return None;
            }
            self.order.pop_front();
            if self.blobs.get(&hash).is_some_and(|(_, since)| *since == at) {
                self.take(hash);
                return Some(hash);
            }
        }
    }
}

impl DataStore {
    /// Restores a recently dropped blob. Returns false if it is no longer there.
    pub(in super::super) fn revive(&self, hash: Hash) -> bool {
        let mut catalog = self.catalog();
        let Some(held) = lock(&self.0.retired).take(hash) else {
            return false;
        };
        let there = self.0.folder.revive(hash);
        if there {
            catalog.insert(hash, held);
        }
        there
    }

    /// Moves the file of a dropped blob away, unless the blob is held again.
    pub(super) fn retire(&self, hash: Hash, held: Held) {
        let catalog = self.catalog();
        if catalog.contains_key(&hash) || held.outside.is_some() {
            return;
        }
        if self.0.folder.retire(hash) {
            lock(&self.0.retired).add(hash, held);
        }
    }

    /// Deletes dropped blobs that are too old or beyond a limit, or all of them.
    pub(super) fn remove_retired(&self, all: bool) {
        loop {
            let _catalog = self.catalog();
            let Some(hash) = lock(&self.0.retired).next(all) else {
                return;
            };
            self.0.folder.remove_retired(hash);
        }
    }
}

/// Deletes old dropped blobs for as long as the store is used.
pub(super) async fn remove_old(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(inner) = store.upgrade() else { return };
        let store = DataStore(Arc::clone(&inner));
        let removed = store.blocking(|store| {
            store.remove_retired(false);
            Ok(())
        });
        _ = removed.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_blobs_make_room_and_one_that_was_had_back_stays() {
        let mut retired = Retired::default();
        let hash = |number: u8| Hash([number; 32]);
        retired.add(hash(1), Held::unchecked(BYTES_MAX / 2));
        retired.add(hash(2), Held::unchecked(BYTES_MAX / 2));
        assert_eq!(retired.next(false), None);
        assert!(retired.take(hash(1)).is_some() && retired.take(hash(1)).is_none());
        retired.add(hash(3), Held::unchecked(BYTES_MAX / 2));
        assert_eq!(retired.next(false), None);
        retired.add(hash(4), Held::unchecked(1));
        retired.add(hash(2), Held::unchecked(BYTES_MAX / 2));
        assert_eq!(retired.next(false), Some(hash(3)));
        assert_eq!(retired.next(false), None);
        assert_eq!(
            (retired.next(true), retired.next(true)),
            (Some(hash(4)), Some(hash(2)))
        );
        assert_eq!((retired.next(true), retired.bytes), (None, 0));
    }
}
