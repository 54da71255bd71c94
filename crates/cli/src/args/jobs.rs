//! Commands on jobs.

use super::{Grid, duration, label};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use hedge_model::SubmitKey;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The word for the newest job.
const LAST: &str = "last";

/// How people name a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobName {
    /// By its number.
    Number(u64),
    /// The newest that this client may see.
    Last,
}

impl FromStr for JobName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == LAST {
            return Ok(Self::Last);
        }
        let number = text.parse().map(Self::Number);
        number.map_err(|_| format!("{text:?} is no job: write its number, or {LAST}"))
    }
}

/// Arguments of `job`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Job {
    /// What to do with an open job.
    #[command(subcommand)]
    pub open: Option<OpenJob>,
    /// Number of the job, or last; several are shown one after the other
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<JobName>,
    /// Show it each time it changes, until it has ended
    #[arg(long)]
    pub watch: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// What to do with an open job.
#[derive(Debug, Subcommand)]
pub enum OpenJob {
    /// Submit a job that tasks can be added to until it is closed
    Open(Open),
    /// Add tasks to an open job
    Extend(Extend),
    /// Add nothing more to open jobs: each ends once its tasks have
    Close(Several),
    /// Keep no longer what tasks of an open job left, once the tasks that it has have read it
    Release(Release),
}

/// Arguments of `job open`.
#[derive(Args, Debug)]
pub struct Open {
    /// Job file with the first tasks, if there are any: TOML, or JSON with the ending .json; - for standard input
    #[arg(value_name = "JOB")]
    pub job: Option<PathBuf>,
    /// Name of the job [default: what the job file says, else open]
    #[arg(long, value_name = "NAME", conflicts_with = "job", value_parser = NonEmptyStringValueParser::new())]
    pub name: Option<String>,
    /// Close the job once its client has been gone for so long [default: what the job file says, else 1h]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub timeout: Option<Duration>,
    /// Set a parameter of the job file, in the place of its default there. Repeatable
    #[arg(long, value_name = "NAME=VALUE", requires = "job", value_parser = label)]
    pub set: Vec<(String, String)>,
    /// Name of this submission, 32 hexadecimal digits: repeating it with the same name is harmless
    #[arg(long, value_name = "KEY")]
    pub key: Option<SubmitKey>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `job extend`.
#[derive(Args, Debug)]
pub struct Extend {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// File with the tasks, as in a job file; - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Set a parameter of the file, in the place of its default there. Repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub set: Vec<(String, String)>,
    /// Name of this extension, 32 hexadecimal digits: repeating it with the same name is harmless
    #[arg(long, value_name = "KEY")]
    pub key: Option<SubmitKey>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `job release`.
#[derive(Args, Debug)]
pub struct Release {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// Tasks: an id for a task or a whole array, or an id and an index, like frame.12
    #[arg(value_name = "TASK", required = true, value_parser = NonEmptyStringValueParser::new())]
    pub tasks: Vec<String>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of a command on one job.
#[derive(Args, Debug)]
pub struct One {
    /// Number of the job, or last
    #[arg(value_name = "JOB")]
    pub job: JobName,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of a command on any number of jobs.
#[derive(Args, Debug)]
pub struct Several {
    /// Numbers of the jobs, or last
    #[arg(value_name = "JOB", required = true)]
    pub jobs: Vec<JobName>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}
