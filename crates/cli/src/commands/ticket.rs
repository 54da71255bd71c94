//! `hedge ticket`: what lets peers join.

use super::{Context, ask, unexpected};
use crate::args::{Ticket, TicketRole};
use crate::exit::{Exit, Failure};
use hedge_model::msg::{Reply, Request, Role};
use serde_json::json;

/// Prints a ticket.
///
/// # Errors
/// The grid cannot be reached, or this peer may not make tickets.
pub fn run(context: &Context, args: Ticket) -> Result<Exit, Failure> {
    context.on_grid(&args.grid, async |client| {
        let role = match args.role {
            TicketRole::Worker => Role::Worker,
            TicketRole::Client => Role::Client,
            TicketRole::Admin => Role::Admin,
            TicketRole::Supervisor => Role::Supervisor,
            TicketRole::Relay => Role::Relay,
        };
        let request = Request::Ticket {
            role,
            valid_for: args.expires,
            uses: args.uses,
        };
        let Reply::Ticket(ticket) = ask(client, request).await? else {
            return Err(unexpected());
        };
        context
            .look
            .print(&json!({ "ticket": ticket, "role": role }), || {
                format!("{ticket}\n")
            })?;
        Ok(Exit::Done)
    })
}
