//! `hedge ticket`: what lets peers join.

use super::access::{self, Right};
use super::confirm::irreversible;
use super::{Context, ask, unexpected};
use crate::args::{Grid, MakeTicket, RevokeTicket, Ticket};
use crate::exit::{Exit, Failure};
use crate::show::{
    self,
    table::{Column, table},
};
use hedge_model::msg::{Reply, Request, Role};
use hedge_model::view::TicketView;
use serde_json::json;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much of a ticket's id is shown; enough to name it.
const ID_SHOWN: usize = 10;

/// Makes, lists or revokes tickets.
///
/// # Errors
/// The grid cannot be reached, or this peer may not make tickets.
pub fn run(context: &Context, what: Ticket) -> Result<Exit, Failure> {
    match what {
        Ticket::Worker(args) => make(context, Role::Worker, &args),
        Ticket::Client(args) => make(context, Role::Client, &args),
        Ticket::Admin(args) => make(context, Role::Admin, &args),
        Ticket::Supervisor(args) => make(context, Role::Supervisor, &args),
        Ticket::Relay(args) => make(context, Role::Relay, &args),
        Ticket::List(grid) => list(context, &grid),
        Ticket::Revoke(args) => revoke(context, &args),
    }
}

fn make(context: &Context, role: Role, args: &MakeTicket) -> Result<Exit, Failure> {
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        let request = Request::Ticket {
            role,
            valid_for: args.expires,
            uses: args.uses,
        };
        let Reply::Ticket(ticket) = ask(client, request).await? else {
            return Err(unexpected());
        };
        if let Some(path) = &args.out {
            write(path, &ticket)?;
            let text = || format!("the ticket is in {}\n", path.display());
            let shown = json!({ "file": path, "role": role });
            context.look.print(&shown, text)?;
            return Ok(Exit::Done);
        }
        let shown = json!({ "ticket": ticket, "role": role });
        context.look.print(&shown, || format!("{ticket}\n"))?;
        Ok(Exit::Done)
    })
}

fn list(context: &Context, grid: &Grid) -> Result<Exit, Failure> {
    context.on_grid_as(Right::Admin, grid, async |client| {
        let Reply::Tickets(tickets) = ask(client, Request::Tickets).await? else {
            return Err(unexpected());
        };
        context.look.print(&tickets, || rows(&tickets))?;
        Ok(Exit::Done)
    })
}

fn rows(tickets: &[TicketView]) -> String {
    let row = |ticket: &TicketView| {
        let expires = ticket.expires_unix_s.filter(|_| ticket.state != "revoked");
        let expires = expires.map(|end| {
            let end = UNIX_EPOCH.checked_add(Duration::from_secs(end));
            let left = end.and_then(|end| end.duration_since(SystemTime::now()).ok());
            left.map_or(String::new(), |left| {
                format!("in {}", show::time(left.as_secs_f64() * 1e3))
            })
        });
        vec![
            ticket.ticket.chars().take(ID_SHOWN).collect(),
            ticket.role.clone(),
            ticket.state.clone(),
            expires.unwrap_or_default(),
            ticket
                .uses_left
                .map_or(String::new(), |uses| uses.to_string()),
            ticket.members.to_string(),
        ]
    };
    const COLUMNS: [Column; 6] = [
        Column::new("TICKET"),
        Column::new("ROLE"),
        Column::new("STATE"),
        Column::new("EXPIRES"),
        Column::drop("USES LEFT#", 1),
        Column::drop("MEMBERS#", 2),
    ];
    table(&COLUMNS, tickets.iter().map(row).collect())
}

fn revoke(context: &Context, args: &RevokeTicket) -> Result<Exit, Failure> {
    let name = match Path::new(&args.ticket).is_file() {
        true => access::read_any(&args.ticket, "the ticket")?
            .secret_hash()
            .to_string(),
        false => args.ticket.clone(),
    };
    let shown: String = name.chars().take(ID_SHOWN).collect();
    irreversible(
        &format!("the ticket {shown} admits nobody any more"),
        args.yes,
    )?;
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        ask(client, Request::RevokeTicket(name.clone())).await?;
        let value = json!({ "ticket": name, "revoked": true });
        let text = || {
            format!(
                "the ticket {shown} admits nobody any more; peers that joined by it stay members\n"
            )
        };
        context.look.print(&value, text)?;
        Ok(Exit::Done)
    })
}

/// Writes a new file: one that is there may be open to others.
fn write(path: &Path, ticket: &str) -> Result<(), Failure> {
    let opened = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let written = opened.and_then(|mut file| writeln!(file, "{ticket}"));
    written.map_err(|error| {
        Failure::Local(format!(
            "the ticket cannot be written to {}: {error}; it is lost and admits nobody: make another one with a \
             path that can be written and does not exist",
            path.display()
        ))
    })
}
