//! Requests of administrators about tickets.

use crate::supervisor::api::name;
use crate::supervisor::contract::Pending;
use crate::supervisor::leader::{LeaderView, Leadership};
use hedge_model::PeerId;
use hedge_model::msg::RefusalKind;
use hedge_model::record::{Record, Ticket};
use hedge_model::view::TicketView;

impl Leadership<'_> {
    /// Appends a new ticket. The requester gets `text` once the record is committed.
    pub(crate) fn make_ticket(
        &mut self,
        client: PeerId,
        request_id: u64,
        ticket: Ticket,
        text: String,
    ) {
        let pending = Pending::Ticket {
            client,
            request_id,
            secret: text,
        };
        self.append(Record::TicketMade(ticket), Some(pending));
    }
}

impl LeaderView<'_> {
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

    /// Returns the record that revokes a ticket. `name` is the beginning of its id.
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

    /// Returns the record that revokes the ticket with which a member joined. Otherwise a revoked member could join
    /// again under another key.
    pub(crate) fn revoke_ticket_of(&self, peer: PeerId) -> Option<Record> {
        let ticket = self.state.tickets.get(&self.state.joined_by(peer)?)?;
        (!ticket.is_revoked()).then(|| Record::TicketMade(ticket.revoked()))
    }
}
