//! Finds the ticket that a command uses, and so its grid.

use crate::args::Grid;
use crate::exit::Failure;
use hedge_model::msg::Role;
use hedge_net::{Ticket, TicketError};
use hedge_node::{ClientError, Folders};
use std::fs::File;
use std::io::{self, BufRead, ErrorKind, Read};
use std::path::Path;

/// The longest ticket that is read, in bytes.
const TICKET_BYTES_MAX: u64 = 64 << 10;
/// The environment variable with the ticket of commands that name none.
const VARIABLE: &str = "HEDGE_TICKET";
/// All roles.
const ALL: &[Role] = &[
    Role::Client,
    Role::Admin,
    Role::Worker,
    Role::Supervisor,
    Role::Relay,
];
/// The roles that may send requests to a grid.
const CLIENTS: &[Role] = &[Role::Client, Role::Admin];

/// The rights that a command needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Those of a client.
    Client,
    /// Those of an administrator.
    Admin,
}

/// Returns the ticket that a command uses: that of `--join`, else of HEDGE_TICKET, else of this machine's supervisor. A
/// command for administrators uses the supervisor's if HEDGE_TICKET is a client's of the same grid.
///
/// # Errors
/// There is none, it cannot be read, or it is for another role.
pub fn ticket(folders: &Folders, grid: &Grid, right: Right) -> Result<Ticket, Failure> {
    if let Some(given) = &grid.join {
        return read(given, "--join", CLIENTS);
    }
    let set = std::env::var_os(VARIABLE).unwrap_or_default();
    let set = set.to_string_lossy();
    if set.trim().is_empty() {
        return local(folders);
    }
    let ticket = read(&set, VARIABLE, CLIENTS)?;
    if right == Right::Admin
        && ticket.role == Role::Client
        && let Ok(own) = local(folders)
        && same_grid(&own, &ticket)
    {
        return Ok(own);
    }
    Ok(ticket)
}

fn same_grid(one: &Ticket, other: &Ticket) -> bool {
    let there = |peer| other.supervisors.iter().any(|addr| addr.peer == peer);
    one.supervisors.iter().any(|addr| there(addr.peer))
}

/// Reads the ticket that this machine's supervisor wrote for clients.
///
/// # Errors
/// No supervisor has run here, or its ticket cannot be read.
pub fn local(folders: &Folders) -> Result<Ticket, Failure> {
    let path = folders.client_ticket();
    match file(&path) {
        Ok(text) => parse(&text, &path.display().to_string(), CLIENTS),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let why = format!(
                "no supervisor has run on this machine (there is no {}): start one with `hedge supervisor`, \
                 or name a grid with --join FILE",
                path.display()
            );
            Err(ClientError::Unreachable(why).into())
        }
        Err(error) => {
            let why = format!(
                "the ticket of this machine's supervisor, {}, cannot be read: {error}; run the command as the \
                 supervisor's user, or name a grid with --join FILE",
                path.display()
            );
            Err(ClientError::NotAllowed(why).into())
        }
    }
}

/// Reads the ticket that this machine's supervisor wrote for workers.
///
/// # Errors
/// There is none.
pub fn local_worker(folders: &Folders) -> Result<Ticket, Failure> {
    let path = folders.worker_ticket();
    let text = file(&path).map_err(|error| {
        Failure::Arguments(format!(
            "which grid? This machine's supervisor left no ticket ({}: {error}); name the grid with --join FILE: \
             `hedge ticket worker --out FILE` on a supervisor's machine writes one",
            path.display()
        ))
    })?;
    parse(&text, &path.display().to_string(), &[Role::Worker])
}

/// Reads a ticket from `given`: a file that holds it, `-` for a line of standard input, or the ticket itself. `from`
/// says where `given` stood.
///
/// # Errors
/// It cannot be read, is no ticket, or is for none of these roles.
pub fn read(given: &str, from: &str, roles: &[Role]) -> Result<Ticket, Failure> {
    let trimmed = given.trim();
    if trimmed.is_empty() {
        return Err(Failure::Arguments(format!(
            "{from} is empty; name a file that holds a ticket, or - for standard input"
        )));
    }
    if trimmed == "-" {
        return parse(&line()?, "the line on standard input", roles);
    }
    let path = trimmed.strip_prefix('@');
    if path.is_none() && trimmed.parse::<Ticket>() != Err(TicketError::Prefix) {
        crate::argv::hide(trimmed);
        return parse(trimmed, from, roles);
    }
    let path = path.unwrap_or(trimmed);
    let text = file(Path::new(path)).map_err(|error| {
        Failure::Arguments(format!(
            "{from}: {path:?} is no ticket and cannot be read as a file that holds one: {error}; nothing was changed"
        ))
    })?;
    parse(&text, path, roles)
}

/// Reads a ticket of any role like [`read`].
///
/// # Errors
/// It cannot be read, or is no ticket.
pub fn read_any(given: &str, from: &str) -> Result<Ticket, Failure> {
    read(given, from, ALL)
}

fn parse(text: &str, from: &str, roles: &[Role]) -> Result<Ticket, Failure> {
    let not_allowed = |why: String| Failure::from(ClientError::NotAllowed(why));
    let ticket: Ticket = text
        .trim()
        .parse()
        .map_err(|error: TicketError| not_allowed(format!("{from}: {error}")))?;
    if roles.contains(&ticket.role) {
        return Ok(ticket);
    }
    let wanted = roles.first().copied().unwrap_or(Role::Client);
    Err(not_allowed(format!(
        "{from} holds a ticket of the role {}, and the role {wanted} is needed here; nothing was changed: \
         `hedge ticket {wanted}` makes one",
        ticket.role
    )))
}

fn line() -> Result<String, Failure> {
    let mut line = String::new();
    let read = io::stdin()
        .lock()
        .take(TICKET_BYTES_MAX)
        .read_line(&mut line);
    match read {
        Ok(0) => Err(Failure::Arguments(
            "standard input is empty; a line with a ticket is expected there".to_owned(),
        )),
        Ok(_) => Ok(line),
        Err(error) => Err(Failure::Arguments(format!(
            "no ticket on standard input: {error}"
        ))),
    }
}

fn file(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(TICKET_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}
