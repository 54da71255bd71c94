//! `hedge completions`: what a shell needs to complete the command line.

use crate::args::Cli;
use crate::exit::{Exit, Failure};
use crate::show;
use clap::CommandFactory;

/// Prints completions.
///
/// # Errors
/// Nobody reads them.
pub fn run(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hedge", &mut text);
    show::out_bytes(&text)?;
    Ok(Exit::Done)
}
