//! The ready queues: the order in which tasks that can start are offered to workers. Offers are ordered by priority,
//! then by the client with the smallest share of the pool. Clients with equal shares take turns. Of one client, copies
//! of critical tasks come first, then critical tasks, then the others; of these the oldest job first, and within a job
//! the highest bottom level.
//!
//! Offers of equal resource shape form a lane. A lane without free slots on any worker is full: it offers nothing until
//! a worker has one, so a pass over a busy pool costs nothing, however many groups wait.

use crate::supervisor::durable::job::Job;
use hedge_model::msg::WorkerInfo;
use hedge_model::spec::{Group, Network};
use hedge_model::{JobId, PeerId, Resources};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Offers that may fail to be placed before a pass ends: bounds the work of a pass over a full pool.
const MISSES_MAX: usize = 32;

/// What kind of attempts an entry offers, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Class {
    /// Redundant attempts of critical tasks that have a first one. They come before other first attempts, because a
    /// full pool would never start them otherwise.
    Copy,
    /// First attempts of critical tasks.
    Critical,
    /// First attempts of the other tasks.
    Normal,
}

/// Offers that could not be placed in this pass.
#[derive(Debug, Default)]
pub(crate) struct Skip {
    missed: BTreeSet<Entry>,
    copies: usize,
}

impl Skip {
    /// Records an offer that could not be placed.
    pub fn add(&mut self, entry: Entry) {
        self.copies += usize::from(entry.class == Class::Copy && self.missed.insert(entry));
        self.missed.insert(entry);
    }

    /// Returns whether the pass is over.
    pub fn is_full(&self) -> bool {
        self.missed.len() >= MISSES_MAX
    }

    /// Returns whether to skip an offer. Copies that cannot be placed, because the workers with free slots have the
    /// task already, must not keep the pass from later offers.
    fn rules_out(&self, entry: &Entry) -> bool {
        (entry.class == Class::Copy && self.copies >= MISSES_MAX / 2) || self.missed.contains(entry)
    }
}

/// One group's offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub class: Class,
    pub job: JobId,
    /// The rank of the group, see [`crate::supervisor::leader::jobs::group::ActiveGroup::rank`].
    pub rank: u32,
    pub group: u32,
}

/// Offers with equal resource shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    /// Whether the tasks are short enough to be queued at busy workers.
    pub short: bool,
    /// Thousandths of CPUs that each task needs.
    pub cpus_milli: u64,
    /// The number of the shape in [`Shapes`].
    pub shape: u32,
}

/// What a task needs from a worker: resources, labels, and access that its owner allows.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub resources: Resources,
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// Names of shared folders.
    pub shares: Vec<Arc<str>>,
    pub network: Option<Network>,
}

impl Shape {
    /// Returns whether a worker that reported this could ever run such a task.
    pub fn fits(&self, worker: &WorkerInfo) -> bool {
        worker.resources.covers(&self.resources)
            && self
                .labels
                .iter()
                .all(|label| worker.labels.contains(label))
            && self.is_allowed_by(worker)
    }

    /// Returns the shape for the next attempt of a task, if that gets other memory than its group.
    pub fn raised(&self, job: &Job, number: u32) -> Option<Shape> {
        let memory = job.memory_of_next(number)?;
        let mut shape = self.clone();
        shape.resources.memory = memory;
        Some(shape)
    }

    /// Returns whether a worker's owner allows such a task what it uses.
    pub fn is_allowed_by(&self, worker: &WorkerInfo) -> bool {
        self.network.is_none_or(|network| network <= worker.network)
            && self.shares.iter().all(|name| offers_share(worker, name))
    }
}

/// Returns whether a worker's owner shares a folder under this name.
pub(crate) fn offers_share(worker: &WorkerInfo, name: &str) -> bool {
    worker.shares.iter().any(|(known, _)| **known == *name)
}

type Names = Vec<(Arc<str>, u64)>;
type Labels = Vec<(Arc<str>, Arc<str>)>;
type Access = (Vec<Arc<str>>, Option<Network>);

/// The distinct shapes, numbered in order of their first use.
#[derive(Debug, Default)]
pub(crate) struct Shapes {
    all: Vec<Shape>,
    numbers: BTreeMap<(u64, u64, u64, Names, Labels, Access), u32>,
}

impl Shapes {
    /// Returns the number of the shape of a group's tasks, which it adds if it is new.
    pub fn number(&mut self, group: &Group) -> u32 {
        let (resources, labels) = (&group.resources, &group.labels);
        let key = (
            resources.cpus_milli,
            resources.memory,
            resources.disk,
            resources.named.clone(),
            labels.clone(),
            (group.shares.to_vec(), group.network),
        );
        let all = &mut self.all;
        *self.numbers.entry(key).or_insert_with(|| {
            all.push(Shape {
                resources: resources.clone(),
                labels: labels.clone(),
                shares: group.shares.to_vec(),
                network: group.network,
            });
            all.len() as u32 - 1
        })
    }

    pub fn get(&self, number: u32) -> &Shape {
        &self.all[number as usize]
    }
}

type Lanes = BTreeMap<Lane, BTreeSet<Entry>>;

/// The ready queues.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    levels: BTreeMap<Reverse<i32>, BTreeMap<PeerId, Lanes>>,
    /// Thousandths of CPUs that the attempts of each client have in hand.
    share: BTreeMap<PeerId, u64>,
    /// The client that got an attempt last: of clients with equal shares the next one in the order of ids is served.
    served: Option<PeerId>,
    /// Lanes for which no worker has free slots.
    full: BTreeSet<Lane>,
}

impl Ready {
    /// Adds or removes an offer.
    pub fn set(&mut self, priority: i32, client: PeerId, lane: Lane, entry: Entry, present: bool) {
        let level = Reverse(priority);
        if present {
            let clients = self.levels.entry(level).or_default();
            let lanes = clients.entry(client).or_default();
            lanes.entry(lane).or_default().insert(entry);
        } else if let Some(clients) = self.levels.get_mut(&level)
            && let Some(lanes) = clients.get_mut(&client)
            && let Some(entries) = lanes.get_mut(&lane)
        {
            entries.remove(&entry);
            if entries.is_empty() {
                lanes.remove(&lane);
            }
            if lanes.is_empty() {
                clients.remove(&client);
            }
            if clients.is_empty() {
                self.levels.remove(&level);
            }
        }
    }

    /// Returns the first offer, in order, that `skip` does not rule out and whose lane is not full. It needs at most
    /// `free_max` thousandths of CPUs or may be queued at a busy worker.
    pub fn first(&self, free_max: u64, skip: &Skip) -> Option<(Lane, Entry)> {
        self.levels.values().find_map(|clients| {
            let offers = clients.iter().filter_map(|(client, lanes)| {
                let (lane, entry) = self.first_of(lanes, free_max, skip)?;
                let share = self.share.get(client).copied().unwrap_or(0);
                let had_turn = self.served.is_some_and(|served| *client <= served);
                Some(((share, had_turn, *client), (lane, entry)))
            });
            let first = offers.min_by_key(|(turn, _)| *turn);
            first.map(|(_, offer)| offer)
        })
    }

    fn first_of(&self, lanes: &Lanes, free_max: u64, skip: &Skip) -> Option<(Lane, Entry)> {
        let lane = |short, cpus_milli, shape| Lane {
            short,
            cpus_milli,
            shape,
        };
        let with_free_slots = lanes.range(lane(false, 0, 0)..=lane(false, free_max, u32::MAX));
        let ahead = lanes.range(lane(true, 0, 0)..);
        with_free_slots
            .chain(ahead)
            .filter(|(lane, _)| !self.full.contains(*lane))
            .filter_map(|(lane, entries)| {
                let entry = entries.iter().find(|entry| !skip.rules_out(entry))?;
                Some((*lane, *entry))
            })
            .min_by_key(|(_, entry)| *entry)
    }

    /// All offers in a lane.
    pub fn in_lane(&self, lane: Lane) -> impl Iterator<Item = Entry> + '_ {
        let lanes = self.levels.values().flat_map(BTreeMap::values);
        lanes
            .filter_map(move |lanes| lanes.get(&lane))
            .flatten()
            .copied()
    }

    /// All lanes with offers.
    pub fn lanes(&self) -> BTreeSet<Lane> {
        let lanes = self.levels.values().flat_map(BTreeMap::values);
        lanes.flat_map(BTreeMap::keys).copied().collect()
    }

    /// Stops the offers of a lane for which no worker has free slots.
    pub fn set_full(&mut self, lane: Lane) {
        self.full.insert(lane);
    }

    /// Offers those full lanes again for which there may be `free_slots` now.
    pub fn retry(&mut self, mut free_slots: impl FnMut(Lane) -> bool) {
        if !self.full.is_empty() {
            self.full.retain(|lane| !free_slots(*lane));
        }
    }

    /// The client that got an attempt last.
    pub fn served(&self) -> Option<PeerId> {
        self.served
    }

    /// Adds an attempt to a client's share of the pool.
    pub fn charge(&mut self, client: PeerId, cpus_milli: u64) {
        self.served = Some(client);
        *self.share.entry(client).or_default() += cpus_milli.max(1);
    }

    /// Removes an attempt from a client's share of the pool.
    pub fn refund(&mut self, client: PeerId, cpus_milli: u64) {
        if let Some(share) = self.share.get_mut(&client) {
            *share = share.saturating_sub(cpus_milli.max(1));
            if *share == 0 {
                self.share.remove(&client);
            }
        }
    }

    /// Checks that the shares equal those of the attempts in hand.
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
