//! Supervisors join a group, get votes, lose their disks, are cut off, replaced and revoked, in random order, with
//! [`hedge_core::group`] deciding. Afterwards all is well again, and the group must settle.

use hedge_core::group::{Absences, Change, Group, Revocation};
use hedge_model::group::{GroupMember, NodeId, Seat};
use hedge_model::{PeerAddr, PeerId, Time};
use hedge_sim::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const PEERS: u8 = 6;
/// Peers from this one on only stand by: they never ask for a vote.
const STANDBY_FROM: u8 = 4;
const STEPS: u32 = 400;
/// Steps after the last fault within which the group must have settled.
const SETTLE_STEPS: u32 = 2_000;
const STEP: Duration = Duration::from_millis(500);
const PROMOTE_AFTER: Duration = Duration::from_secs(10);

/// A supervisor's process and disk.
struct Process {
    /// The id in the group that its disk names.
    id: NodeId,
    runs: bool,
    cut: bool,
    absences: Absences,
}

struct World {
    dice: Dice,
    now: Time,
    seats: BTreeMap<NodeId, Seat>,
    last: u64,
    leader: Option<NodeId>,
    processes: Vec<Process>,
    revoked: BTreeSet<PeerId>,
    next_id: NodeId,
    /// When each id was last available.
    seen: BTreeMap<NodeId, Time>,
    /// How many voters were replaced.
    replaced: u32,
    log: Vec<String>,
}

fn peer(number: usize) -> PeerId {
    PeerId([number as u8 + 1; 32])
}

fn number(peer: PeerId) -> usize {
    usize::from(peer.0[0]) - 1
}

fn member(number: usize) -> GroupMember {
    let peer = PeerAddr {
        peer: peer(number),
        addrs: Vec::new(),
    };
    GroupMember {
        peer,
        format_max: 1,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let process = |number| Process {
            id: u64::from(number),
            runs: true,
            cut: false,
            absences: Absences::default(),
        };
        let founder = Seat {
            member: member(0),
            voter: true,
            matched: Some(0),
        };
        Self {
            dice: Dice::new(seed),
            now: Time(0),
            seats: BTreeMap::from([(0, founder)]),
            last: 0,
            leader: Some(0),
            processes: (0..PEERS).map(process).collect(),
            revoked: BTreeSet::new(),
            next_id: u64::from(PEERS),
            seen: BTreeMap::new(),
            replaced: 0,
            log: Vec::new(),
        }
    }

    /// Whether the process of this id runs and reaches the others.
    fn is_available(&self, id: NodeId) -> bool {
        let process = self
            .seats
            .get(&id)
            .map(|seat| number(seat.member.peer.peer));
        let process = process.map(|number| &self.processes[number]);
        process.is_some_and(|process| process.id == id && process.runs && !process.cut)
    }

    fn has_majority(&self) -> bool {
        let voters = || self.seats.iter().filter(|(_, seat)| seat.voter);
        let available = voters().filter(|(id, _)| self.is_available(**id));
        available.count() * 2 > voters().count()
    }

    /// Makes a change by consensus. Returns whether the leader learns that it was made.
    fn make(&mut self, change: Change) -> bool {
        if !self.has_majority() || self.dice.permille(100) {
            return false;
        }
        let (before, votes) = (self.seats.clone(), self.votes());
        self.log.push(format!("{:?} {change:?}", self.now));
        let revocation = match &change {
            Change::Remove(id) => {
                let peer = self.seats.get(id).map(|seat| seat.member.peer.peer);
                peer.is_some_and(|peer| self.revoked.contains(&peer))
            }
            _ => false,
        };
        match change {
            Change::Add(id, member) => {
                let seat = Seat {
                    member,
                    voter: false,
                    matched: Some(0),
                };
                assert!(self.seats.insert(id, seat).is_none(), "{id} joins twice");
            }
            Change::Update(id, member) => self.seats.get_mut(&id).unwrap().member = member,
            Change::Promote(id) => self.promote(id),
            Change::Remove(id) => {
                assert_ne!(self.leader, Some(id), "the leader removes itself");
                let seat = self.seats.remove(&id).unwrap();
                let voters = self.seats.values().filter(|seat| seat.voter);
                let mut peers = voters.map(|seat| seat.member.peer.peer);
                let again = peers.any(|peer| peer == seat.member.peer.peer);
                assert!(!seat.voter || again || revocation, "a vote is lost");
            }
            Change::Replace { absent, by } => {
                let seen = self.seen.get(&absent).copied().unwrap_or(Time(0));
                let absence = self.now.since(seen);
                assert!(absence >= PROMOTE_AFTER, "replaced after {absence:?}");
                self.promote(by);
                self.seats.remove(&absent).unwrap();
                assert_eq!(
                    self.votes(),
                    votes,
                    "a replacement changes the number of votes"
                );
                self.replaced += 1;
            }
        }
        if !self.has_majority() {
            // A majority of the voters after the change has to agree on it.
            assert!(revocation, "a change costs the group its majority");
            self.seats = before;
            return false;
        }
        self.last += 1;
        !self.dice.permille(100)
    }

    fn votes(&self) -> usize {
        self.seats.values().filter(|seat| seat.voter).count()
    }

    fn promote(&mut self, id: NodeId) {
        assert!(self.is_available(id), "{id} is not there and gets a vote");
        let seat = self.seats.get_mut(&id).unwrap();
        assert!(!seat.voter, "{id} votes already");
        seat.voter = true;
    }

    /// The group as a member sees it.
    fn view(&self, me: NodeId) -> Group<'_> {
        Group {
            me,
            leading: self.leader == Some(me),
            last: self.last,
            seats: &self.seats,
        }
    }

    fn elect(&mut self) {
        if self.leader.is_some_and(|leader| self.is_available(leader)) && self.has_majority() {
            return;
        }
        self.leader = None;
        let seats = self.seats.iter();
        let able = seats.filter(|(id, seat)| seat.voter && self.is_available(**id));
        let able: Vec<NodeId> = able.map(|(id, _)| *id).collect();
        if !able.is_empty() && self.has_majority() {
            self.leader = Some(*self.dice.pick(&able));
        }
    }

    /// One process does what it does at times; all available logs catch up.
    fn step(&mut self) {
        self.now = self.now + STEP;
        self.elect();
        let ids: Vec<NodeId> = self.seats.keys().copied().collect();
        for id in ids {
            if !self.is_available(id) {
                continue;
            }
            self.seen.insert(id, self.now);
            if self.dice.permille(700) {
                self.seats.get_mut(&id).unwrap().matched = Some(self.last);
            }
        }
        self.last += self.dice.below(100);
        self.lead();
        let it = self.dice.below(u64::from(PEERS)) as usize;
        let (id, away) = (
            self.processes[it].id,
            !self.processes[it].runs || self.processes[it].cut,
        );
        if away || self.revoked.contains(&peer(it)) {
            return;
        }
        let Some(leader) = self.leader else { return };
        let asks_for_vote = it < usize::from(STANDBY_FROM) && self.seats.contains_key(&id);
        let planned = match asks_for_vote {
            true if self.view(id).is_settled(id) => Ok(Vec::new()),
            true => self.view(leader).vote(id),
            false => self.view(leader).join(id, &member(it)),
        };
        for change in planned.unwrap_or_default() {
            if !self.make(change) {
                break;
            }
        }
    }

    /// What the leader does by itself.
    fn lead(&mut self) {
        for it in 0..self.processes.len() {
            let mut absences = std::mem::take(&mut self.processes[it].absences);
            let id = self.processes[it].id;
            let connected = |peer| self.is_available(self.processes[number(peer)].id);
            let (now, view) = (self.now, self.view(id));
            absences.observe(now, &view, connected);
            let change = absences.replacement(now, &view, connected, PROMOTE_AFTER);
            self.processes[it].absences = absences;
            if let Some(change) = change {
                assert_eq!(self.leader, Some(id));
                self.make(change);
            }
        }
        let Some(leader) = self.leader else { return };
        let fit = |peer| self.is_available(self.processes[number(peer)].id);
        let revoked = |peer| self.revoked.contains(&peer);
        for due in self.view(leader).revocations(revoked, fit) {
            match due {
                Revocation::HandOver(to) => {
                    assert!(self.seats[&to].voter && self.is_available(to));
                    self.leader = Some(to);
                    return;
                }
                Revocation::Remove(id) => _ = self.make(Change::Remove(id)),
            }
        }
    }

    fn fault(&mut self) {
        let it = self.dice.below(u64::from(PEERS)) as usize;
        match self.dice.below(12) {
            0 => self.processes[it].runs = false,
            1 | 2 => self.processes[it].runs = true,
            3 => self.processes[it].cut = true,
            4 | 5 => self.processes[it].cut = false,
            // A disk is lost only where the others can go on without it.
            6 if self.can_lose(it) => {
                self.processes[it].id = self.next_id;
                self.processes[it].runs = true;
                self.next_id += 1;
            }
            7 if self.revoked.is_empty() && self.dice.permille(50) => {
                _ = self.revoked.insert(peer(it));
            }
            _ => {}
        }
    }

    fn can_lose(&self, it: usize) -> bool {
        let lost = self.processes[it].id;
        let voters = || self.seats.iter().filter(|(_, seat)| seat.voter);
        let kept = voters().filter(|(id, seat)| {
            let current = self.processes[number(seat.member.peer.peer)].id;
            **id != lost && **id == current
        });
        kept.count() * 2 > voters().count()
    }

    fn heal(&mut self) {
        for process in &mut self.processes {
            (process.runs, process.cut) = (true, false);
        }
    }

    /// What is not yet as it must be once nothing fails any more.
    fn unsettled(&self) -> Option<String> {
        for (it, process) in self.processes.iter().enumerate() {
            let seats = self.seats.values();
            let count = seats
                .filter(|seat| seat.member.peer.peer == peer(it))
                .count();
            if self.revoked.contains(&peer(it)) {
                if count != 0 {
                    return Some(format!("{it} was revoked and has a seat"));
                }
                continue;
            }
            let Some(seat) = self.seats.get(&process.id) else {
                return Some(format!("{it} has no seat"));
            };
            let wants_vote = it < usize::from(STANDBY_FROM);
            if wants_vote && !(seat.voter && count == 1) {
                return Some(format!("{it} has {count} seats, vote {}", seat.voter));
            }
        }
        None
    }
}

fn run(seed: u64) -> Result<u32, (String, Vec<String>)> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.fault();
        world.step();
    }
    world.heal();
    for _ in 0..SETTLE_STEPS {
        world.step();
        if world.unsettled().is_none() {
            return Ok(world.replaced);
        }
    }
    Err((world.unsettled().unwrap_or_default(), world.log))
}

#[test]
fn a_group_keeps_its_majority_and_settles_after_all_faults() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text| text.parse::<u64>().ok())
    };
    let seeds = match number("HEDGE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("HEDGE_SIM_SEEDS").unwrap_or(200) + 1,
    };
    let mut replaced = 0;
    for seed in seeds.clone() {
        let result = std::panic::catch_unwind(|| run(seed));
        let repeat = format!(
            "repeat it with: HEDGE_SIM_SEED={seed} cargo test -p hedge-sim --test random_memberships"
        );
        match result {
            Ok(Ok(count)) => replaced += count,
            Ok(Err((what, log))) => panic!("seed {seed}: {what}\n{}\n{repeat}", log.join("\n")),
            Err(_) => panic!("seed {seed} panicked\n{repeat}"),
        }
    }
    assert!(
        replaced > 0 || seeds.count() < 50,
        "no voter was replaced in any run"
    );
}
