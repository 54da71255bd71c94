//! What is fetched together, and what became of it.

use super::super::digest::GROUP_BYTES;
use super::super::wire::{BATCH_HASHES_MAX, Wanted};
use super::super::{DataStore, Grant};
use super::{FetchError, Fetched, SourceFailure};
use hedge_model::{Hash, PeerAddr, PeerId};
use std::collections::{HashMap, HashSet};

/// Small blobs that one request asks for have at most this length together, which is held in memory.
const BATCH_BYTES_MAX: u64 = 4 << 20;

/// Whom to ask, and what to show.
#[derive(Debug)]
pub(super) struct Origin {
    pub sources: Vec<PeerAddr>,
    pub grant: Option<Grant>,
}

/// Blobs that are fetched together: one large one, or small ones.
#[derive(Debug)]
pub(super) struct Batch {
    pub left: Vec<(Hash, u64)>,
    /// What the source that is asked now does not deliver.
    pub refused: HashSet<Hash>,
    /// What one source has sent from its first byte to its last, and which.
    pub delivered: Vec<(Hash, PeerId)>,
    failures: HashMap<Hash, Vec<(PeerId, SourceFailure)>>,
}

impl Batch {
    pub fn new(left: Vec<(Hash, u64)>) -> Batch {
        Batch {
            left,
            refused: HashSet::new(),
            delivered: Vec::new(),
            failures: HashMap::new(),
        }
    }

    pub fn is_large(&self) -> bool {
        self.left.iter().any(|(_, size)| *size > GROUP_BYTES as u64)
    }

    pub fn bytes(&self) -> u64 {
        self.left.iter().map(|(_, size)| size).sum()
    }

    /// The next request for what the source has neither delivered nor refused, with the lengths.
    pub fn next(&self, store: &DataStore) -> Option<(Wanted, Vec<u64>)> {
        let open = |(hash, _): &&(Hash, u64)| !self.refused.contains(hash);
        let (hashes, sizes): (Vec<Hash>, Vec<u64>) = self.left.iter().filter(open).copied().unzip();
        let hash = *hashes.first()?;
        let wanted = match sizes[0] > GROUP_BYTES as u64 {
            true => Wanted::Large {
                hash,
                group: store.arrived(hash),
            },
            false => Wanted::Small(hashes),
        };
        Some((wanted, sizes))
    }

    pub fn refuse(&mut self, hash: Hash, peer: PeerId, failure: SourceFailure) {
        self.refused.insert(hash);
        self.failures.entry(hash).or_default().push((peer, failure));
    }

    /// The source delivers no more.
    pub fn fail_left(&mut self, peer: PeerId, failure: &SourceFailure) {
        let left: Vec<Hash> = self.left.iter().map(|(hash, _)| *hash).collect();
        for hash in left {
            if !self.refused.contains(&hash) {
                self.refuse(hash, peer, failure.clone());
            }
        }
    }

    /// This machine cannot keep what is left.
    pub fn fail_here(self, why: &str) -> Fetched {
        let failed = self.left.into_iter().map(|(hash, _)| FetchError::Local {
            hash,
            why: why.to_owned(),
        });
        Fetched {
            failed: failed.collect(),
            delivered: self.delivered,
        }
    }

    pub fn into_fetched(mut self) -> Fetched {
        let left = std::mem::take(&mut self.left).into_iter();
        let failed = left.map(|(hash, _)| match self.failures.remove(&hash) {
            Some(failures) => FetchError::Sources { hash, failures },
            None => FetchError::NoSource { hash },
        });
        Fetched {
            failed: failed.collect(),
            delivered: self.delivered,
        }
    }
}

/// Cuts a list into what is fetched together.
pub(super) fn batches_of(blobs: &[(Hash, u64)]) -> Vec<Vec<(Hash, u64)>> {
    let mut batches = Vec::new();
    let (mut small, mut bytes) = (Vec::new(), 0);
    for (hash, size) in blobs {
        if *size > GROUP_BYTES as u64 {
            batches.push(vec![(*hash, *size)]);
            continue;
        }
        if bytes + size > BATCH_BYTES_MAX || small.len() >= BATCH_HASHES_MAX {
            batches.push(std::mem::take(&mut small));
            bytes = 0;
        }
        small.push((*hash, *size));
        bytes += size;
    }
    if !small.is_empty() {
        batches.push(small);
    }
    batches
}
