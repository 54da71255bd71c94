//! Decides about the group of supervisors: who joins it, who gets a vote, who replaces an absent voter, and who leads
//! next. The journal makes each [`Change`] by consensus; nothing here decides about jobs.

mod absence;

pub use absence::Absences;

use hedge_model::PeerId;
use hedge_model::group::{GroupMember, NodeId, Seat};
use std::collections::BTreeMap;

/// A member whose log ends so many entries before the leader's counts as up to date: it receives the rest before the
/// group agrees on its vote.
pub const LAG_ENTRIES_MAX: u64 = 200;

/// One change of the group, which the leader's journal makes as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add a member that follows without a vote.
    Add(NodeId, GroupMember),
    /// Record a member's new address or format. It keeps its id and its vote.
    Update(NodeId, GroupMember),
    /// Give a member a vote.
    Promote(NodeId),
    /// Remove a member, with or without a vote.
    Remove(NodeId),
    /// Give the vote of `absent` to `by`, and remove `absent`.
    Replace {
        /// The voter that is gone.
        absent: NodeId,
        /// A member without a vote.
        by: NodeId,
    },
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This supervisor does not lead: the member asks another one.
    NotLeading,
    /// The member asks again: it joins first, or its log is not up to date.
    NotYet,
    /// The seat belongs to another peer.
    SeatTaken,
}

/// What the supervisors do about a peer of theirs that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The leader removes it.
    Remove(NodeId),
    /// It leads, and a leader cannot remove itself: it hands over leadership to this member, which removes it.
    HandOver(NodeId),
}

/// The group as one member knows it.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The member that looks.
    pub me: NodeId,
    /// Whether it leads.
    pub leading: bool,
    /// The last entry of its log.
    pub last: u64,
    /// The seats of the group; empty until it is founded or joined.
    pub seats: &'a BTreeMap<NodeId, Seat>,
}

impl Group<'_> {
    /// The changes that let a member follow, in order; none where it is in the group as it is. A peer that starts with
    /// an empty log joins under a new id: its former ids without a vote are removed. One with a vote stays until the
    /// new id has its vote, so that the number of votes does not fall.
    ///
    /// # Errors
    /// Not the leader, or another peer has this id.
    pub fn join(&self, id: NodeId, member: &GroupMember) -> Result<Vec<Change>, Refusal> {
        self.must_lead()?;
        let peer = member.peer.peer;
        if let Some(seat) = self.seats.get(&id) {
            return match seat.member.peer.peer == peer {
                false => Err(Refusal::SeatTaken),
                true if seat.member == *member => Ok(Vec::new()),
                true => Ok(vec![Change::Update(id, member.clone())]),
            };
        }
        let former = self.seats_of(peer).filter(|(_, seat)| !seat.voter);
        let mut changes: Vec<Change> = former.map(|(id, _)| Change::Remove(id)).collect();
        changes.push(Change::Add(id, member.clone()));
        Ok(changes)
    }

    /// The changes that give a member a vote and remove its former ids, in order.
    ///
    /// # Errors
    /// Not the leader, or the member has not joined or is not up to date.
    pub fn vote(&self, id: NodeId) -> Result<Vec<Change>, Refusal> {
        self.must_lead()?;
        // Where it is unknown, its joining was lost with the leader that it had asked.
        let seat = self.seats.get(&id).ok_or(Refusal::NotYet)?;
        if !seat.voter && !self.is_up_to_date(seat) {
            return Err(Refusal::NotYet);
        }
        let promote = (!seat.voter).then_some(Change::Promote(id));
        let former = self.seats_of(seat.member.peer.peer);
        let former = former.filter(|(other, _)| *other != id);
        let remove = former.map(|(former, _)| Change::Remove(former));
        Ok(promote.into_iter().chain(remove).collect())
    }

    /// The voter that leads best after this member: of those that are `fit` to lead, the one whose log is longest.
    pub fn successor(&self, fit: impl Fn(PeerId) -> bool) -> Option<NodeId> {
        let others = self
            .seats
            .iter()
            .filter(|(id, seat)| **id != self.me && seat.voter && fit(seat.member.peer.peer));
        let best = others.max_by_key(|(_, seat)| seat.matched);
        best.map(|(id, _)| *id)
    }

    /// What the leader does about the members whose peers are `revoked`.
    pub fn revocations(
        &self,
        revoked: impl Fn(PeerId) -> bool,
        fit: impl Fn(PeerId) -> bool,
    ) -> Vec<Revocation> {
        if !self.leading {
            return Vec::new();
        }
        let mine = self.seats.get(&self.me).map(|seat| seat.member.peer.peer);
        let seats = self.seats.iter();
        let revoked_seats = seats.filter(|(_, seat)| revoked(seat.member.peer.peer));
        let due = revoked_seats.filter_map(|(id, seat)| {
            if *id == self.me {
                // A leader that nobody can follow goes on: a group without a leader helps nobody.
                let successor = self.successor(|other| fit(other) && !revoked(other));
                return successor.map(Revocation::HandOver);
            }
            // A former id of the leader goes with the leadership.
            (Some(seat.member.peer.peer) != mine).then_some(Revocation::Remove(*id))
        });
        due.collect()
    }

    /// Whether a member has its vote, and its peer no other seat.
    pub fn is_settled(&self, id: NodeId) -> bool {
        let seat = self.seats.get(&id).filter(|seat| seat.voter);
        seat.is_some_and(|seat| self.seats_of(seat.member.peer.peer).count() == 1)
    }

    fn must_lead(&self) -> Result<(), Refusal> {
        match self.leading {
            true => Ok(()),
            false => Err(Refusal::NotLeading),
        }
    }

    fn seats_of(&self, peer: PeerId) -> impl Iterator<Item = (NodeId, &Seat)> {
        let seats = self.seats.iter().map(|(id, seat)| (*id, seat));
        seats.filter(move |(_, seat)| seat.member.peer.peer == peer)
    }

    fn is_up_to_date(&self, seat: &Seat) -> bool {
        let matched = seat.matched;
        matched.is_some_and(|matched| matched + LAG_ENTRIES_MAX >= self.last)
    }
}
