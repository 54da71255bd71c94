//! The arguments of `hedge-lab sim`.

use clap::{Args, Subcommand};
use hedge_sim::eval::{ESTIMATE_ERRORS, STRAGGLERS};
use std::path::PathBuf;

/// What to simulate.
#[derive(Debug, Subcommand)]
pub enum Sim {
    /// Run redundancy policies side by side on recorded workflows and machine failures
    #[command(after_help = "\
Examples:
  hedge-lab sim compare --workflow montage.json --availability trace.csv --lifetime 5
  hedge-lab sim compare --workflow job.toml --machines 16 --runs 1000 --policies none,auto
  hedge-lab sim compare --workflow job.toml --office 60 --stragglers usual --estimate-error 0.2
  hedge-lab sim compare --workflow a.json --workflow b.json --office 40 --plot charts

A workflow is WfFormat (JSON, schema 1.5 or 1.6) or a job file; a job file's times are its estimates. A trace
has lines `milliseconds,add|remove,node`, or spans under the heading `node,up_ms,down_ms`, or series of
digits under `node,step_ms=N`. Makespans are given as ratios to a clairvoyant schedule, which knows
every task's time without straggling and when each machine comes and goes, and to a lower bound, with
standard errors. The policies are compared under three models of stragglers and two errors of
estimates, unless others are given. All policies meet the same luck, and the same seed gives the same
figures on every machine.")]
    Compare(Box<Compare>),
    /// Run one big array on many machines, and measure the scheduling core
    #[command(after_help = "\
Examples:
  hedge-lab sim scale --tasks 1000000 --workers 100000
  hedge-lab sim scale --tasks 10000 --tasks 100000 --workers 1000 --plot scale.svg")]
    Scale(Scale),
    /// Measure how good the estimates of remaining times and deadlines are
    #[command(after_help = "\
Runs jobs of 50 to 500 tasks of mixed lengths on grids that other clients use too.

Example:
  hedge-lab sim estimates --runs 200")]
    Estimates(Estimates),
}

/// `hedge-lab sim estimates`.
#[derive(Args, Debug)]
pub struct Estimates {
    /// Jobs, each on a grid of its own
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub runs: u64,
    /// What all random numbers follow from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
}

/// `hedge-lab sim compare`.
#[derive(Args, Debug)]
pub struct Compare {
    /// Workflow or job file; may be given several times
    #[arg(long = "workflow", value_name = "FILE", required = true)]
    pub workflows: Vec<PathBuf>,
    /// Trace of when machines come and go; each run starts at another moment of it
    #[arg(long, value_name = "FILE", group = "pool")]
    pub availability: Option<PathBuf>,
    /// So many machines that never go, instead of a trace
    #[arg(long, value_name = "N", group = "pool")]
    pub machines: Option<usize>,
    /// So many desktops that are free when their owners are away, over a week, instead of a trace
    #[arg(long, value_name = "N", group = "pool")]
    pub office: Option<usize>,
    /// Scale the trace's time so that a machine's median lifetime is X longest paths of the workflow
    #[arg(long, value_name = "X", conflicts_with = "machines")]
    pub lifetime: Option<f64>,
    /// Runs of each workflow
    #[arg(long, default_value_t = 200, value_name = "N")]
    pub runs: u32,
    /// What all random numbers follow from
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Policies to compare, of those that the report names [default: all]
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    pub policies: Vec<String>,
    /// Seconds until the loss of a machine is noticed
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub detect: f64,
    /// Let each policy learn from so many earlier runs first
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub learn: u32,
    /// Jobs of the workflow that share the machines in each run, a quarter of its longest path apart on average
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub jobs: u32,
    /// Move each stay of a machine by a random time, so that machines come and go independently of each other
    #[arg(long, conflicts_with = "machines")]
    pub scatter: bool,
    /// Threads [default: one for each CPU]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Write charts into this folder: box plots, and for each policy what the machines did in the first run
    #[arg(long, value_name = "DIR")]
    pub plot: Option<PathBuf>,
    /// Randomness.
    #[command(flatten)]
    pub luck: Luck,
}

fn stragglers() -> Vec<String> {
    STRAGGLERS.map(|(name, _)| name.to_owned()).to_vec()
}

/// The model of luck; spreads are standard deviations of logarithms.
#[derive(Args, Debug)]
#[command(next_help_heading = "Randomness")]
pub struct Luck {
    /// Spread of task times around the recorded ones
    #[arg(long, default_value_t = 0.2, value_name = "SPREAD")]
    pub noise: f64,
    /// Spreads of estimates around task times, each compared by itself
    #[arg(long, value_delimiter = ',', default_values_t = ESTIMATE_ERRORS, value_name = "SPREAD,…")]
    pub estimate_error: Vec<f64>,
    /// Spread of machines' speeds around the standard
    #[arg(long, default_value_t = 0.3, value_name = "SPREAD")]
    pub speed_spread: f64,
    /// Spread of what is known of a speed around it
    #[arg(long, default_value_t = 0.15, value_name = "SPREAD")]
    pub speed_error: f64,
    /// Models of stragglers, each compared by itself: `none`, `usual` (5 % take 3 to 10 times as long), `heavy` (15 %,
    /// 1.5 to 30 times)
    #[arg(long, value_delimiter = ',', default_values_t = stragglers(), value_name = "NAME,…")]
    pub stragglers: Vec<String>,
    /// Share of executions that straggle, instead of these models
    #[arg(long, value_name = "SHARE", conflicts_with = "stragglers")]
    pub straggling: Option<f64>,
    /// A straggler takes so many times as long at least
    #[arg(
        long,
        default_value_t = 3.0,
        value_name = "FACTOR",
        requires = "straggling"
    )]
    pub straggle_min: f64,
    /// And so many times at most
    #[arg(
        long,
        default_value_t = 10.0,
        value_name = "FACTOR",
        requires = "straggling"
    )]
    pub straggle_max: f64,
    /// Shape of the Pareto distribution of the factor between them
    #[arg(long, default_value_t = 1.5, value_name = "SHAPE")]
    pub straggle_shape: f64,
    /// Machines that are there at a run's start stay, and no others come
    #[arg(long)]
    pub no_losses: bool,
    /// Seconds that a machine needs before it starts a task
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub startup: f64,
    /// Share of tasks whose programs report how much of their work is done
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    pub reports: f64,
    /// Share of stragglers that lack CPU time; the others use it all the time
    #[arg(long, default_value_t = 0.5, value_name = "SHARE")]
    pub starved: f64,
    /// Programs save checkpoints after 5 % of their work or 60 s, whichever comes first, and run 1 % longer
    #[arg(long)]
    pub checkpoints: bool,
    /// Save checkpoints after this share of the work
    #[arg(
        long,
        default_value_t = 0.05,
        value_name = "SHARE",
        requires = "checkpoints"
    )]
    pub checkpoint_share: f64,
    /// Save checkpoints after this many seconds, if they pass first
    #[arg(
        long,
        default_value_t = 60.0,
        value_name = "SECONDS",
        requires = "checkpoints"
    )]
    pub checkpoint_every: f64,
    /// With checkpoints a task runs longer by this share
    #[arg(
        long,
        default_value_t = 0.01,
        value_name = "SHARE",
        requires = "checkpoints"
    )]
    pub checkpoint_cost: f64,
    /// Median rate of machines' links: inputs are fetched from the machine that made them or holds them, once per
    /// machine [default: data costs no time]
    #[arg(long, value_name = "BYTES/S")]
    pub bandwidth: Option<f64>,
    /// Spread of links around that rate
    #[arg(
        long,
        default_value_t = 0.5,
        value_name = "SPREAD",
        requires = "bandwidth"
    )]
    pub link_spread: f64,
}

/// `hedge-lab sim scale`.
#[derive(Args, Debug)]
pub struct Scale {
    /// Tasks of the job; several sizes run one after the other
    #[arg(long = "tasks", default_values_t = [10_000u32], value_name = "N")]
    pub tasks: Vec<u32>,
    /// Machines, of one CPU each
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub workers: u32,
    /// The job's redundancy
    #[arg(long, default_value = "auto", value_name = "NAME")]
    pub redundancy: String,
    /// Write a chart of the core's time for each task
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}
