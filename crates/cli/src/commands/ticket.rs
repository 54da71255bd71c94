//! `hedge ticket`: makes, lists and revokes tickets.

use super::access::{self, Right};
use super::confirm::confirm_irreversible;
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
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Characters of a ticket's id that are shown; enough to name it.
const ID_SHOWN: usize = 10;

/// Makes, lists or revokes tickets.
///
/// # Errors
/// The grid cannot be reached, this peer may not make tickets, the file cannot be written, or the user declines.
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
    let file = match &args.out {
        Some(path) => Some((path, create(path)?)),
        None => None,
    };
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        let request = Request::Ticket {
            role,
            valid_for: args.expires,
            uses: args.uses,
        };
        let Reply::Ticket(ticket) = ask(client, request).await? else {
            return Err(unexpected());
        };
        if let Some((path, mut file)) = file {
            writeln!(file, "{ticket}").map_err(|error| not_written(path, &error))?;
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
        context.look.print(&tickets, || listing(&tickets))?;
        Ok(Exit::Done)
    })
}

fn listing(tickets: &[TicketView]) -> String {
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
    let is_id = args.ticket.chars().all(|c| c.is_ascii_hexdigit());
    let name = if is_id && !Path::new(&args.ticket).is_file() {
        args.ticket.clone()
    } else {
        // Its id alone leaves this machine, never the secret.
        let ticket = access::read_any(&args.ticket, "the ticket")?;
        ticket.secret_hash().to_string()
    };
    let shown: String = name.chars().take(ID_SHOWN).collect();
    confirm_irreversible(
        &format!("nobody will be able to join with the ticket {shown}"),
        args.yes,
    )?;
    context.on_grid_as(Right::Admin, &args.grid, async |client| {
        ask(client, Request::RevokeTicket(name.clone())).await?;
        let value = json!({ "ticket": name, "revoked": true });
        let text =
            || format!("the ticket {shown} is revoked; peers that joined by it stay members\n");
        context.look.print(&value, text)?;
        Ok(Exit::Done)
    })
}

/// Makes the file for a ticket with mode 0600. It must not exist: others may be able to read it.
fn create(path: &Path) -> Result<File, Failure> {
    let opened = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    opened.map_err(|error| {
        Failure::Local(format!(
            "no ticket was made: {} cannot be created: {error}. Give a path that can be written and does not exist",
            path.display()
        ))
    })
}

fn not_written(path: &Path, error: &io::Error) -> Failure {
    Failure::Local(format!(
        "the ticket cannot be written to {}: {error}. It is valid and was not shown: revoke it, `hedge ticket list` has \
         its id",
        path.display()
    ))
}
