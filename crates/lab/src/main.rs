//! `hedge-lab`: measures grids of real processes, and evaluates policies on virtual ones. The product contains
//! nothing of it.

mod bench;
mod failure;
mod output;
mod sim;

use clap::{Parser, Subcommand};
use failure::Failure;
use output::Output;
use std::process::ExitCode;

/// `hedge-lab` and what follows.
#[derive(Debug, Parser)]
#[command(
    name = "hedge-lab",
    version,
    about = "Measures Hedgerow, and evaluates its policies.",
    after_help = "\
Examples:
  hedge-lab bench latency
  hedge-lab sim compare --workflow job.toml --machines 16

A bench starts a grid of its own with the `hedge` that lies beside `hedge-lab`:
`cargo build --release -p hedge-cli -p hedge-lab` builds both.

Exit codes: 0 done, 1 failed, 2 bad arguments or files.",
    max_term_width = 100,
    disable_help_subcommand = true
)]
struct Cli {
    /// Print JSON instead of text
    #[arg(long, global = true)]
    json: bool,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure a grid on this machine, and a limit of the machine in the same run
    #[command(subcommand)]
    #[command(after_help = "\
Examples:
  hedge-lab bench tasks --runtime noop --count 100000
  hedge-lab bench recovery --kind leader
  hedge-lab bench latency")]
    Bench(bench::args::Bench),
    /// Run the scheduler on a virtual grid
    #[command(subcommand)]
    Sim(sim::args::Sim),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output { json: cli.json };
    let done = match &cli.command {
        Command::Bench(args) => bench::run(output, args),
        Command::Sim(args) => sim::run(output, args),
    };
    match done {
        Ok(()) | Err(Failure::OutputClosed) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("hedge-lab: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
