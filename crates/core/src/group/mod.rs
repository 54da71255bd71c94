//! Manages the group of supervisors: who joins it, who gets a vote, who replaces an absent voter, and who leads next.
//! The journal makes each [`Change`] by consensus; nothing here decides about jobs.

mod absence;

pub use absence::Absences;

use hedge_model::PeerId;
use hedge_model::group::{GroupMember, NodeId, Seat};
use std::collections::BTreeMap;

/// A member is up to date if its log ends at most this many entries before the leader's. It receives the rest before
/// the group agrees on its vote.
pub const LAG_ENTRIES_MAX: u64 = 200;

/// A change of the group. The leader's journal makes it atomically.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Add a member without a vote.
    Add(NodeId, GroupMember),
    /// Record a member's new address or format. It keeps its id and its vote.
    Update(NodeId, GroupMember),
    /// Give a member a vote.
    Promote(NodeId),
    /// Remove a member, with or without a vote.
    Remove(NodeId),
    /// Give the vote of `absent` to `by`, and remove `absent`.
    Replace {
        /// The voter to remove.
        absent: NodeId,
        /// The member without a vote that gets it.
        by: NodeId,
    },
}

/// Why a request of a member is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This supervisor does not lead. The member must ask another one.
    NotLeading,
    /// The member has not joined, or its log is not up to date. It must ask again later.
    NotYet,
    /// The id belongs to another peer.
    SeatTaken,
}

/// How the supervisors remove a revoked member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The leader removes it.
    Remove(NodeId),
    /// The revoked member leads and cannot remove itself. It hands leadership over to this member, which removes it.
    HandOver(NodeId),
}

/// The group as one member sees it.
#[derive(Clone, Copy, Debug)]
pub struct Group<'a> {
    /// The member whose view this is.
    pub me: NodeId,
    /// Whether it leads.
    pub leading: bool,
    /// The index of the last entry of its log.
    pub last: u64,
    /// The seats of the group; empty until it is founded or joined.
    pub seats: &'a BTreeMap<NodeId, Seat>,
}

impl Group<'_> {
    /// Returns the changes that add a member, in order; none if it is in the group already, unchanged. A peer that
    /// starts with an empty log joins under a new id, and its former ids without a vote are removed. A former id with
    /// a vote stays until the new id has its vote, so that the number of votes does not fall.
    ///
    /// # Errors
    /// This member does not lead, or the id belongs to another peer.
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

    /// Returns the changes that give a member a vote and remove its former ids, in order.
    ///
    /// # Errors
    /// This member does not lead, or the member has not joined or is not up to date.
    pub fn vote(&self, id: NodeId) -> Result<Vec<Change>, Refusal> {
        self.must_lead()?;
        // If it is unknown, its joining was lost together with the leader that it had asked.
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

    /// Returns the best voter to lead after this member: the one with the longest log of those that are `fit` to
    /// lead.
    pub fn successor(&self, fit: impl Fn(PeerId) -> bool) -> Option<NodeId> {
        let others = self
            .seats
            .iter()
            .filter(|(id, seat)| **id != self.me && seat.voter && fit(seat.member.peer.peer));
        let best = others.max_by_key(|(_, seat)| seat.matched);
        best.map(|(id, _)| *id)
    }

    /// Returns how the leader removes the members whose peers are `revoked`.
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
                // A leader without a successor continues: a group without a leader helps nobody.
                let successor = self.successor(|other| fit(other) && !revoked(other));
                return successor.map(Revocation::HandOver);
            }
            // The leader's former ids are removed after it has handed over.
            (Some(seat.member.peer.peer) != mine).then_some(Revocation::Remove(*id))
        });
        due.collect()
    }

    /// Returns whether a member has its vote and its peer has no other seat.
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
