//! The order in which startable work is offered to workers: priority first, then the client that has least
//! of the pool, then critical tasks, copies of critical tasks, and the rest, oldest job first.

use hedge_model::{JobId, PeerId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// What kind of attempts an entry offers, in the order of their turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// First attempts of critical tasks.
    Critical,
    /// Redundant attempts of critical tasks.
    Copy,
    /// First attempts of the others.
    Normal,
}

/// One group's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub class: Class,
    pub job: JobId,
    pub group: u32,
}

/// All offers.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    clients: BTreeMap<Reverse<i32>, BTreeMap<PeerId, BTreeSet<Entry>>>,
    /// Thousandths of CPUs that each client's attempts hold now.
    share: BTreeMap<PeerId, u64>,
}

impl Ready {
    /// Makes or withdraws an offer.
    pub fn set(&mut self, priority: i32, client: PeerId, entry: Entry, present: bool) {
        let level = Reverse(priority);
        if present {
            self.clients
                .entry(level)
                .or_default()
                .entry(client)
                .or_default()
                .insert(entry);
        } else if let Some(clients) = self.clients.get_mut(&level)
            && let Some(entries) = clients.get_mut(&client)
        {
            entries.remove(&entry);
            if entries.is_empty() {
                clients.remove(&client);
            }
            if clients.is_empty() {
                self.clients.remove(&level);
            }
        }
    }

    /// Whether nothing waits for a worker.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    /// The first offer in order that `skip` does not hold.
    pub fn first(&self, skip: &BTreeSet<Entry>) -> Option<Entry> {
        for clients in self.clients.values() {
            let mut order: Vec<&PeerId> = clients.keys().collect();
            order.sort_by_key(|client| (self.share.get(*client).copied().unwrap_or(0), **client));
            for client in order {
                if let Some(entry) = clients[client].iter().find(|entry| !skip.contains(*entry)) {
                    return Some(*entry);
                }
            }
        }
        None
    }

    /// A client's attempt took part of the pool.
    pub fn took(&mut self, client: PeerId, cpus_milli: u64) {
        *self.share.entry(client).or_default() += cpus_milli.max(1);
    }

    /// A client's attempt gave its part back.
    pub fn gave(&mut self, client: PeerId, cpus_milli: u64) {
        if let Some(share) = self.share.get_mut(&client) {
            *share = share.saturating_sub(cpus_milli.max(1));
            if *share == 0 {
                self.share.remove(&client);
            }
        }
    }

    /// Whether the shares are what the attempts in hand say.
    pub fn check_shares(&self, expected: &BTreeMap<PeerId, u64>) -> Result<(), String> {
        if self.share == *expected {
            Ok(())
        } else {
            Err(format!(
                "clients' shares are {:?}, attempts in hand say {expected:?}",
                self.share
            ))
        }
    }
}
