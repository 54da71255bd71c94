//! What `hedge-lab bench` measures, and with what.

use clap::{Subcommand, ValueEnum};
use hedge_model::units::parse_duration;
use std::time::Duration;

/// What `bench` measures.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Tasks a second, beside a plain loop that starts processes on the same CPUs
    Tasks {
        /// What a task is
        #[arg(long, value_enum, default_value_t = BenchRuntime::Process)]
        runtime: BenchRuntime,
        /// How many tasks
        #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        count: u32,
        /// How many workers
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
        workers: u16,
        /// With the supervisor's journal in memory
        #[arg(long)]
        in_memory: bool,
        /// How many supervisors
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=7), conflicts_with = "in_memory")]
        supervisors: u16,
        /// So many loops keep the CPUs busy meanwhile
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
        busy: u16,
    },
    /// From the end of a part of the grid to the next assignment
    Recovery {
        /// What ends, and how
        #[arg(long, value_enum)]
        kind: BenchKind,
        /// How often
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
        /// Send heartbeats at this interval, like 1ms, instead of a new grid's; for stop and kill
        #[arg(long, value_parser = duration)]
        interval: Option<Duration>,
        /// The supervisor sends status requests instead of the workers sending heartbeats
        #[arg(long, requires = "interval")]
        asks: bool,
        /// How often a task's progress is looked at; for a stall [default: 1ms]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        progress_interval: Option<Duration>,
        /// How long a task may make no progress; for a stall [default: 100ms]
        #[arg(long, value_name = "TIME", value_parser = duration)]
        stall_after: Option<Duration>,
        /// With the supervisors' fast timeouts; for a leader
        #[arg(long)]
        fast: bool,
        /// All on this machine, rather than each in a network namespace of its own as root has it; not for a restart,
        /// a stall or an owner
        #[arg(long)]
        loopback: bool,
        /// How many records the journal has; for a restart [default: 1000000]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
        records: Option<u32>,
    },
    /// What redundancy is worth: a fork-join job on six workers, two of them slow and one killed in each run,
    /// with `auto` beside `none`; and how soon a second job starts on workers that copies fill
    Live {
        /// How often
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
    },
    /// How good the estimates of the time remaining are: jobs of 50 to 500 tasks that sleep, on four workers that other
    /// jobs use too
    Estimates {
        /// How many jobs are recorded
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        runs: u32,
        /// What the tasks and their times follow from
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Heartbeats of many workers: how many arrive, and what they cost the supervisor
    Heartbeats {
        /// How many workers
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1000))]
        workers: u16,
        /// How often each sends a heartbeat
        #[arg(long, default_value = "1ms", value_parser = duration)]
        interval: Duration,
        /// The supervisor sends status requests instead of the workers sending heartbeats
        #[arg(long)]
        asks: bool,
        /// For how long
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
        /// Whole workers, each a process of its own, rather than the heartbeats of all from the bench's process
        #[arg(long)]
        processes: bool,
    },
    /// Suspicions and deaths of workers that are well, while their tasks keep every processor busy
    Alarms {
        /// How many workers; all but two of them have tasks, and those may get copies
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(3..=1000))]
        workers: u16,
        /// How often each sends a heartbeat
        #[arg(long, default_value = "1ms", value_parser = duration)]
        interval: Duration,
        /// For how long, with the detector of unusual gaps and again without it
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
        minutes: u32,
        /// Processes beside the grid that want all the processor they can get
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=256))]
        load: u16,
    },
    /// What a link carries as the supervisor measures it, beside a plain TCP connection
    Link {
        /// The rate that is asked for, which says how long to measure
        #[arg(long, default_value = "1 Gbit/s")]
        rate: String,
    },
    /// What a worker without tasks costs while it watches for its owner; needs Xvfb
    Idle {
        /// For how long
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
        seconds: u32,
    },
    /// The HTTP interface: submissions and tasks a second, a small task beside the native client, and what open pages cost
    /// the supervisor
    Gateway {
        /// How long each part lasts
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
        seconds: u32,
        /// Workers that only send heartbeats, for the pages
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..=1000))]
        workers: u16,
        /// Pages that are open
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=60))]
        pages: u16,
        /// Keep the grid of the pages until Ctrl-C, so that it can be looked at
        #[arg(long)]
        hold: bool,
    },
    /// A large file in, through a task, and out again: on a grid, and by `hedge run`
    Bulk {
        /// Length of the file
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=100_000))]
        megabytes: u32,
        /// How often
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
        runs: u32,
    },
    /// From submission to result, for one small task at a time
    Latency {
        /// How many tasks
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        count: u32,
    },
}

/// What may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchKind {
    /// The leading supervisor of three, killed
    Leader,
    /// A supervisor that is alone, killed and started again on a long journal
    Restart,
    /// A worker's process and its task are frozen
    Stop,
    /// A worker's process is killed
    Kill,
    /// A worker of a critical task is killed while another runs its copy: what that costs the job
    Pair,
    /// A task gets nowhere any more while its worker is well
    Stall,
    /// A key is pressed at a worker's machine; needs Xvfb
    Owner,
}

/// What a measured task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BenchRuntime {
    /// A process that ends at once
    Process,
    /// A process that is forked from a Python interpreter, beside one that starts an interpreter
    Python,
    /// Nothing: the worker answers at once, which measures the engine itself
    Noop,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}
