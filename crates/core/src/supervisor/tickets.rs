//! Tickets: they let peers in, are listed and revoked, and say whose limits a client's jobs count towards.

use super::durable::{Member, State, Verdict};
use super::{Action, Pending, Supervisor, name};
use hedge_model::msg::{RefusalKind, Role};
use hedge_model::record::{Record, Ticket};
use hedge_model::view::TicketView;
use hedge_model::{Hash, PeerId, Time};

/// Tickets from which on those that are spent are forgotten.
const SPENT_TICKETS_MAX: usize = 1000;

impl State {
    /// The ticket by which a member joined, as far as it is known.
    pub(crate) fn joined_by(&self, peer: PeerId) -> Option<Hash> {
        self.members.get(&peer)?.ticket
    }

    /// A ticket was made, or changed.
    pub(super) fn note_ticket(&mut self, ticket: &Ticket) {
        self.forget_spent_tickets();
        self.tickets.insert(ticket.hash, ticket.clone());
    }

    pub(super) fn join(&mut self, peer: PeerId, role: Role, ticket: Hash, at: Time) -> Verdict {
        if self.members.contains_key(&peer) || self.revoked.contains_key(&peer) {
            return Verdict::Stale("the peer is or was a member");
        }
        let Some(known) = self.tickets.get_mut(&ticket) else {
            return Verdict::Stale("the ticket is not known");
        };
        if let Some(uses) = &mut known.uses {
            if *uses == 0 {
                return Verdict::Stale("the ticket is used up");
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
        Verdict::Applied
    }

    /// Tickets that let nobody in any more are kept only as long as they are few, to say so when shown.
    fn forget_spent_tickets(&mut self) {
        if self.tickets.len() < SPENT_TICKETS_MAX {
            return;
        }
        let expired = |ticket: &Ticket| ticket.expires.is_some_and(|end| end <= self.now);
        let spent = |ticket: &Ticket| ticket.uses == Some(0) || expired(ticket);
        let left = self.tickets.iter().filter(|(_, ticket)| !spent(ticket));
        self.tickets = left.map(|(hash, ticket)| (*hash, ticket.clone())).collect();
    }
}

impl Supervisor {
    pub(crate) fn ticket_views(&self) -> Vec<TicketView> {
        let tickets = self.state.tickets.values();
        tickets.map(|ticket| self.ticket_view(ticket)).collect()
    }

    fn ticket_view(&self, ticket: &Ticket) -> TicketView {
        let ended = ticket.expires.is_some_and(|end| end <= self.now);
        let state = match ticket.uses {
            _ if ticket.is_revoked() => "revoked",
            _ if ended => "expired",
            Some(0) => "used up",
            _ => "valid",
        };
        let members = self.state.members.values();
        let members = members.filter(|member| member.ticket == Some(ticket.hash));
        TicketView {
            ticket: ticket.hash.to_string(),
            role: ticket.role.to_string(),
            state: state.to_owned(),
            expires_unix_s: ticket.expires.map(|end| end.0 / 1_000_000_000),
            uses_left: ticket.uses,
            members: u32::try_from(members.count()).unwrap_or(u32::MAX),
        }
    }

    /// Appends a new ticket; whoever asks gets `text` once it is committed.
    pub(crate) fn make_ticket(
        &mut self,
        client: PeerId,
        ask: u64,
        ticket: Ticket,
        text: String,
        out: &mut Vec<Action>,
    ) {
        let pending = Pending::Ticket {
            client,
            ask,
            secret: text,
        };
        self.append(Record::TicketMade(ticket), Some(pending), out);
    }

    /// Asks for the end of a ticket, named by the beginning of its id.
    pub(crate) fn revoke_ticket_named(&self, name: &str) -> Result<Record, (RefusalKind, String)> {
        let tickets = self.state.tickets.values();
        let tickets = tickets.map(|ticket| (ticket, ticket.hash, None));
        let ticket = name::only(name, "ticket", "hedge ticket list", tickets)?;
        if ticket.is_revoked() {
            let why = format!("the ticket {name} was revoked before; nothing was changed");
            return Err((RefusalKind::Bad, why));
        }
        Ok(Record::TicketMade(ticket.revoked()))
    }

    /// The end of the ticket by which a member joined: who is shut out would come back by it under another key.
    pub(crate) fn revoke_ticket_of(&self, peer: PeerId) -> Option<Record> {
        let ticket = self.state.tickets.get(&self.state.joined_by(peer)?)?;
        (!ticket.is_revoked()).then(|| Record::TicketMade(ticket.revoked()))
    }

    /// Whether the jobs of two clients count towards the same limits: a ticket gives as many keys as its holder wants.
    pub(crate) fn share_limits(&self, one: PeerId, other: PeerId) -> bool {
        let ticket = self.state.joined_by(one);
        one == other || ticket.is_some() && ticket == self.state.joined_by(other)
    }
}
