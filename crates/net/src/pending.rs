//! Connections that have not authenticated yet, bounded in total and per source.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// Bounds the connections that have not authenticated yet. A newcomer always gets a place; where a bound is
/// reached, the oldest connection of the busiest source loses its own. A source that opens connections and stays
/// silent therefore displaces its own connections, and a peer that authenticates within a few round trips is not
/// kept out.
#[derive(Clone, Debug)]
pub(crate) struct PendingConnections {
    table: Arc<Mutex<Table>>,
    total_max: usize,
    per_source_max: usize,
}

/// Where a connection comes from, as far as one party can be told from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// An IPv4 address, or the /64 network of an IPv6 address: one machine has all of that.
    Network(IpAddr),
    /// A peer behind a relay, which has authenticated the peer's key.
    Relayed([u8; 32]),
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Source {
        Source::Network(match ip.to_canonical() {
            IpAddr::V4(ip) => ip.into(),
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into(),
        })
    }
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    /// By age: keys grow.
    places: BTreeMap<u64, (Source, oneshot::Sender<()>)>,
    by_source: BTreeMap<Source, BTreeSet<u64>>,
}

/// The place of one connection; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Pending {
    key: u64,
    evicted: oneshot::Receiver<()>,
    table: Arc<Mutex<Table>>,
}

impl PendingConnections {
    pub(crate) fn new(total_max: usize, per_source_max: usize) -> PendingConnections {
        PendingConnections {
            table: Arc::default(),
            total_max,
            per_source_max,
        }
    }

    /// Gives a connection from this source a place.
    pub(crate) fn enter(&self, source: Source) -> Pending {
        let mut table = lock(&self.table);
        let same = table.by_source.get(&source).map_or(0, BTreeSet::len);
        let loser = if same >= self.per_source_max {
            table.oldest_of(&source)
        } else if table.places.len() >= self.total_max {
            table.oldest_of_busiest()
        } else {
            None
        };
        if let Some(loser) = loser {
            // Dropping its sender tells the connection.
            table.remove(loser);
        }
        table.last += 1;
        let key = table.last;
        let (evict, evicted) = oneshot::channel();
        table
            .by_source
            .entry(source.clone())
            .or_default()
            .insert(key);
        table.places.insert(key, (source, evict));
        drop(table);
        Pending {
            key,
            evicted,
            table: self.table.clone(),
        }
    }

    /// Whether half of the places are taken: then a newcomer is to prove its address first.
    pub(crate) fn is_crowded(&self) -> bool {
        lock(&self.table).places.len() * 2 > self.total_max
    }
}

impl Pending {
    /// Waits until this place is needed for another connection. It may be waited for again and again.
    pub(crate) async fn evicted(&mut self) {
        if !self.evicted.is_terminated() {
            // Nothing is ever sent: the sender is dropped.
            _ = (&mut self.evicted).await;
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        lock(&self.table).remove(self.key);
    }
}

impl Table {
    fn oldest_of(&self, source: &Source) -> Option<u64> {
        self.by_source.get(source)?.first().copied()
    }

    fn oldest_of_busiest(&self) -> Option<u64> {
        let busiest = self.by_source.values().max_by_key(|keys| keys.len())?;
        busiest.first().copied()
    }

    fn remove(&mut self, key: u64) {
        let Some((source, _)) = self.places.remove(&key) else {
            return;
        };
        if let Some(keys) = self.by_source.get_mut(&source) {
            keys.remove(&key);
            if keys.is_empty() {
                self.by_source.remove(&source);
            }
        }
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(last: u8) -> Source {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn is_evicted(pending: &mut Pending) -> bool {
        pending.evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn a_source_at_its_bound_displaces_its_own_oldest() {
        let pending = PendingConnections::new(10, 2);
        let mut other = pending.enter(source(2));
        let mut same = [(); 3].map(|()| pending.enter(source(1)));
        assert_eq!(same.each_mut().map(is_evicted), [true, false, false]);
        assert!(!is_evicted(&mut other));
    }

    #[test]
    fn in_a_full_table_the_busiest_source_loses_its_oldest() {
        let pending = PendingConnections::new(4, 3);
        let mut quiet = pending.enter(source(1));
        let mut busy = [(); 3].map(|()| pending.enter(source(2)));
        let mut new = pending.enter(source(3));
        assert_eq!(busy.each_mut().map(is_evicted), [true, false, false]);
        assert!(!is_evicted(&mut quiet) && !is_evicted(&mut new));
    }

    #[test]
    fn a_freed_place_displaces_nobody() {
        let pending = PendingConnections::new(2, 2);
        let mut first = pending.enter(source(1));
        drop(pending.enter(source(1)));
        let _third = pending.enter(source(1));
        assert!(!is_evicted(&mut first));
        drop(first);
        assert_eq!(lock(&pending.table).places.len(), 1);
    }

    #[test]
    fn one_machine_has_all_addresses_of_an_ipv6_network() {
        let ip = |text: &str| Source::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(ip("2001:db8:1:2::1"), ip("2001:db8:1:2:ffff::9"));
        assert_ne!(ip("2001:db8:1:2::1"), ip("2001:db8:1:3::1"));
        assert_eq!(ip("::ffff:10.0.0.1"), ip("10.0.0.1"));
        assert_ne!(ip("10.0.0.1"), ip("10.0.0.2"));
    }
}
