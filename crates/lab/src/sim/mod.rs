//! `hedge-lab sim`: the same scheduler on a virtual grid.

pub mod args;
mod compare;
pub mod estimates;
mod scale;

use crate::failure::Failure;
use crate::output::Output;
use args::Sim;
use std::path::Path;

/// Simulates, and prints what came of it.
///
/// # Errors
/// Wrong arguments or files, or a chart that cannot be written.
pub fn run(output: Output, args: &Sim) -> Result<(), Failure> {
    match args {
        Sim::Compare(args) => compare::run(output, args),
        Sim::Scale(args) => scale::run(output, args),
        Sim::Estimates(args) => estimates::run(output, args),
    }
}

pub(super) fn failed(error: hedge_sim::Error) -> Failure {
    match error {
        hedge_sim::Error::Run(_) => Failure::Local(error.to_string()),
        _ => Failure::Arguments(error.to_string()),
    }
}

pub(super) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::Arguments(format!(
            "cannot read {}: {error}; nothing was run",
            path.display()
        ))
    })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text).map_err(|error| {
        Failure::Local(format!(
            "cannot write {}: {error}; the figures above stand",
            path.display()
        ))
    })
}
