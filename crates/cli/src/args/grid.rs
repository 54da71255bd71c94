//! Arguments of the commands that look after the grid itself.

use super::Grid;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// Arguments of `members`.
#[derive(Args, Debug)]
pub struct Members {
    /// What to do; without it they are listed.
    #[command(subcommand)]
    pub what: Option<MembersDo>,
    /// Let the supervisors use the newest format that all of them speak
    #[arg(long)]
    pub upgrade: bool,
    /// Do it without asking first
    #[arg(long, requires = "upgrade")]
    pub yes: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// What to do with a member.
#[derive(Debug, Subcommand)]
pub enum MembersDo {
    /// Take a member out: a supervisor leaves its group, a worker or client is revoked
    Remove(Revoke),
}

/// Arguments of `revoke`.
#[derive(Args, Debug)]
pub struct Revoke {
    /// Beginning of the member's id, or a worker's host name
    #[arg(value_name = "PEER", value_parser = NonEmptyStringValueParser::new())]
    pub peer: String,
    /// Do it without asking first
    #[arg(long)]
    pub yes: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `config`.
#[derive(Args, Debug)]
pub struct Config {
    /// Get or set.
    #[command(subcommand)]
    pub what: ConfigDo,
}

/// What to do with settings.
#[derive(Debug, Subcommand)]
pub enum ConfigDo {
    /// Show all settings, or one
    Get {
        /// The setting's name
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// The grid.
        #[command(flatten)]
        grid: Grid,
    },
    /// Change a setting for the whole grid
    Set {
        /// The setting's name
        #[arg(value_name = "NAME")]
        name: String,
        /// Its value, like 500ms, 10 GiB or 3
        #[arg(value_name = "VALUE")]
        value: String,
        /// The grid.
        #[command(flatten)]
        grid: Grid,
    },
}

/// What to do with the journal of this folder's supervisor, which is stopped for `check` and `repair`.
#[derive(Clone, Debug, Subcommand)]
pub enum Journal {
    /// Print every entry, one a line
    Dump,
    /// Look for damage; nothing is changed
    Check,
    /// Keep what can be read of a damaged journal, and name the jobs that are affected
    Repair,
    /// Copy it, also while the supervisor runs
    Backup {
        /// Folder for the copy, new or empty
        #[arg(value_name = "FOLDER")]
        to: PathBuf,
    },
}
