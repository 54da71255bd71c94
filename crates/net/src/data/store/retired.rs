//! Blobs that were given up a short while ago. Nobody can list, read or serve them; one that is wanted again does not
//! have to be transferred again.

use super::catalog::Held;
use super::{DataStore, Inner, lock};
use hedge_model::Hash;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long a blob can be had back.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// How often the older ones are removed.
const LOOK_EVERY: Duration = Duration::from_secs(30);
const COUNT_MAX: usize = 50_000;
const BYTES_MAX: u64 = 1 << 30;

#[derive(Debug, Default)]
pub(super) struct Retired {
    blobs: HashMap<Hash, (Held, Instant)>,
    /// In the order of their retirement; one that was had back meanwhile may still be in it.
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

    /// The next blob to be removed: one that is too old or too much, or any.
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
    /// Holds a blob again that was given up a short while ago; false where it is not there any more.
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

    /// Moves a blob's file away unless the blob is held.
    pub(super) fn retire(&self, hash: Hash, held: Held) {
        let catalog = self.catalog();
        if catalog.contains_key(&hash) || held.outside.is_some() {
            return;
        }
        if self.0.folder.retire(hash) {
            lock(&self.0.retired).add(hash, held);
        }
    }

    /// Removes what is too old or too much, or all of it.
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

/// Removes old blobs as long as the store is used.
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
