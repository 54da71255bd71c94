//! Commands on one job.

use super::Grid;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use std::path::PathBuf;

/// Arguments of `job`.
#[derive(Args, Debug)]
pub struct Job {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Show it each time it changes, until it has ended
    #[arg(long)]
    pub watch: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `wait`.
#[derive(Args, Debug)]
pub struct Wait {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Bring the results into this folder
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of a command on one job.
#[derive(Args, Debug)]
pub struct One {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `forget`.
#[derive(Args, Debug)]
pub struct Forget {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Do it without asking first
    #[arg(long)]
    pub yes: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `fetch`.
#[derive(Args, Debug)]
pub struct Fetch {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Folder for the results [default: a new folder NAME-results]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `logs`.
#[derive(Args, Debug)]
pub struct Logs {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// The task: its id, and its index behind a dot for an array
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    pub task: String,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub struct Explain {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// The task: its id, and its index behind a dot for an array
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    pub task: Option<String>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `cost`.
#[derive(Args, Debug)]
pub struct Cost {
    /// The job's number
    #[arg(value_name = "ID")]
    pub id: u64,
    /// Print comma-separated values
    #[arg(long)]
    pub csv: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}
