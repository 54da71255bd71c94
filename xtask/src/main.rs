//! The project's own tasks: `cargo xtask test` runs every test there is, `cargo xtask tidy` the
//! style checks alone. Depends on no other crate of the workspace.

mod steps;
mod tidy;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test     install what the tests need, then run all of them
       cargo xtask tidy     the style checks alone
       cargo xtask tidy --lower
                            the same, and lower the ratchet to what was reached";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => steps::test(&root()),
        ["tidy"] => tidy::report(&root(), false),
        ["tidy", "--lower"] => tidy::report(&root(), true),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's folder: the parent of this package's.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
