//! Tickets: admission of peers, and which clients share quotas.

use crate::supervisor::NotAdmitted;
use crate::supervisor::durable::change::Stale;
use crate::supervisor::durable::state::{Member, State};
use hedge_model::msg::Role;
use hedge_model::record::Ticket;
use hedge_model::{Hash, PeerId, Time};

/// From this many tickets on, spent tickets are forgotten.
const SPENT_TICKETS_MAX: usize = 1000;

impl State {
    /// Returns the ticket with which a member joined, if known.
    pub(crate) fn joined_by(&self, peer: PeerId) -> Option<Hash> {
        self.members.get(&peer)?.ticket
    }

    /// Stores a new or changed ticket.
    pub(crate) fn note_ticket(&mut self, ticket: &Ticket) {
        self.forget_spent_tickets();
        self.tickets.insert(ticket.hash, ticket.clone());
    }

    pub(crate) fn join(
        &mut self,
        peer: PeerId,
        role: Role,
        ticket: Hash,
        at: Time,
    ) -> Result<(), Stale> {
        if self.members.contains_key(&peer) || self.revoked.contains_key(&peer) {
            return Err("the peer is or was a member");
        }
        let Some(known) = self.tickets.get_mut(&ticket) else {
            return Err("the ticket is not known");
        };
        if let Some(uses) = &mut known.uses {
            if *uses == 0 {
                return Err("the ticket is used up");
            }
            *uses -= 1;
        }
        self.now = self.now.max(at);
        let member = Member {
            role,
            joined: at,
            ticket: Some(ticket),
        };
        self.members.insert(peer, member);
        Ok(())
    }

    /// Returns whether a peer is admitted: with the ticket to use if it is not a member yet, without one if it is.
    pub(crate) fn admission(
        &self,
        now: Time,
        peer: PeerId,
        role: Role,
        ticket: Option<Hash>,
    ) -> Result<Option<Hash>, NotAdmitted> {
        if let Some(known) = self.member(peer) {
            return if known == role {
                Ok(None)
            } else {
                Err(NotAdmitted::WrongRole)
            };
        }
        if self.revoked.contains_key(&peer) {
            return Err(NotAdmitted::Revoked);
        }
        let ticket = ticket.ok_or(NotAdmitted::Stranger)?;
        self.invitation(now, ticket, role).map(|()| Some(ticket))
    }

    pub(crate) fn invitation(
        &self,
        now: Time,
        ticket: Hash,
        role: Role,
    ) -> Result<(), NotAdmitted> {
        match self.tickets.get(&ticket) {
            None => Err(NotAdmitted::Stranger),
            Some(Ticket { role: wanted, .. }) if *wanted != role => Err(NotAdmitted::WrongRole),
            Some(Ticket {
                expires: Some(end), ..
            }) if *end <= now => Err(NotAdmitted::Expired),
            Some(Ticket { uses: Some(0), .. }) => Err(NotAdmitted::Expired),
            Some(_) => Ok(()),
        }
    }

    /// Forgets tickets that admit nobody any more. While there are few tickets they are kept, so that lists show
    /// them.
    fn forget_spent_tickets(&mut self) {
        if self.tickets.len() < SPENT_TICKETS_MAX {
            return;
        }
        let expired = |ticket: &Ticket| ticket.expires.is_some_and(|end| end <= self.now);
        let spent = |ticket: &Ticket| ticket.uses == Some(0) || expired(ticket);
        let left = self.tickets.iter().filter(|(_, ticket)| !spent(ticket));
        self.tickets = left.map(|(hash, ticket)| (*hash, ticket.clone())).collect();
    }

    /// Returns whether two clients share quotas. Clients with the same ticket do, because the holder of a ticket can
    /// make any number of keys.
    pub(crate) fn share_limits(&self, one: PeerId, other: PeerId) -> bool {
        let ticket = self.joined_by(one);
        one == other || ticket.is_some() && ticket == self.joined_by(other)
    }
}
