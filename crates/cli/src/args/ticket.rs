//! `hedge ticket`.

use super::{Grid, duration};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

/// What to do about tickets.
#[derive(Debug, Subcommand)]
pub enum Ticket {
    /// Make a ticket for workers: they run tasks
    Worker(MakeTicket),
    /// Make a ticket for clients: they submit jobs
    Client(MakeTicket),
    /// Make a ticket for administrators: they submit jobs, see and change everything
    Admin(MakeTicket),
    /// Make a ticket for supervisors: they join the group
    Supervisor(MakeTicket),
    /// Make a ticket for relays: they carry packets between peers that cannot reach each other directly
    Relay(MakeTicket),
    /// List all tickets: their ids, what they let in, and who joined by them
    List(Grid),
    /// Let nobody in by a ticket any more; who has joined by it stays
    Revoke(RevokeTicket),
}

/// Arguments of `ticket revoke`.
#[derive(Args, Debug)]
pub struct RevokeTicket {
    /// Beginning of the ticket's id, as `hedge ticket list` shows it, or the ticket: a file, `-` for standard input, or its text
    #[arg(value_name = "ID|FILE", value_parser = NonEmptyStringValueParser::new())]
    pub ticket: String,
    /// Do it without asking first
    #[arg(long)]
    pub yes: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments for a new ticket.
#[derive(Args, Debug)]
pub struct MakeTicket {
    /// How long it lets peers in, like 1d or 30min [default: without end]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub expires: Option<Duration>,
    /// How many peers it lets in [default: any number]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: Option<u32>,
    /// Write it to this file, which only its owner may read, instead of printing it
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}
