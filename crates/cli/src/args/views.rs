//! Commands that show the grid or a job in other forms: `top`, `watch`, `trace` and `report`.

use super::{Grid, JobName};
use clap::Args;
use std::path::PathBuf;

/// Examples of `watch`.
pub const WATCH: &str = "\
Examples:
  hedge watch                                everything as it is, then what changes
  hedge watch last                           one job, until it has ended
  hedge watch | jq -c 'select(.event == \"worker\") | .data | {host, liveness}'

Each line is an object with `event` and `data`, as docs/gateway.md describes them. It goes on after a change of
leader. Ctrl-C ends it.";

/// Examples of `trace`.
pub const TRACE: &str = "\
Examples:
  hedge trace last -o job.pftrace            open it at https://ui.perfetto.dev
  hedge trace 7 -o - | gzip > job.pftrace.gz

It has a track for each slot of each worker, arrows from tasks to those that waited for them, and marks where an
attempt failed or was lost. Copies are of the category `redundant`.";

/// Examples of `report`.
pub const REPORT: &str = "\
Examples:
  hedge report last -o report.html           open it in a browser, or mail it

The file has everything in it and loads nothing: graph, attempts over time, cost, what failed and what it printed.";

/// Keys of `top`.
pub const TOP: &str = "\
Keys: 1 jobs, 2 machines, 3 faults; arrows or j and k move, Enter opens a job, Esc goes back, q ends it.
It fits 80 columns and 24 rows, also over ssh.";

/// Arguments of `top`.
#[derive(Args, Debug)]
pub struct Top {
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `watch`.
#[derive(Args, Debug)]
pub struct Watch {
    /// Only this job, by its number, or last
    #[arg(value_name = "JOB")]
    pub job: Option<JobName>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `trace` and `report`.
#[derive(Args, Debug)]
pub struct Export {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// Write to this file, which is replaced; - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}
