//! The project's own tasks: `cargo xtask test` runs every test there is, `cargo xtask tidy` the
//! style checks alone, `cargo xtask faults` a fault campaign. Depends on no other crate of the workspace.

mod bare;
mod corpus;
mod dist;
mod faults;
mod hooks;
mod python;
mod steps;
mod tidy;
mod tools;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask test     install what the tests need, then run all of them
       cargo xtask tools    install what the tests need
       cargo xtask setup    have git check the subjects of commits in this clone
       cargo xtask tidy     the style checks alone
       cargo xtask tidy --lower
                            the same, and lower the ratchet to what was reached
       cargo xtask corpus unpack|pack TARGET
                            a fuzz target's inputs as the folder that the fuzzer wants, and back
       cargo xtask python   the Python package's tests, against target/debug/hedge
       cargo xtask dist     `hedge` for others, and its debug information beside it, in target/dist
       cargo xtask bare     the default build in a bare system; needs root and debootstrap
       cargo xtask faults [--minutes M] [--seed S] [--hedge PATH] [--keep]
                            a fault campaign against real processes; needs root, else ends with 77
       cargo xtask faults --planted BUG [--minutes M] [--seed S]
                            the same with a known bug in a copy of the sources, which has to be found";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => steps::test(&root()),
        ["tools"] => tools::provide(&root()),
        ["setup"] => hooks::setup(&root()),
        ["tidy"] => tidy::report(&root(), false),
        ["tidy", "--lower"] => tidy::report(&root(), true),
        ["corpus", "unpack", target] => corpus::unpack(&root(), target),
        ["corpus", "pack", target] => corpus::pack(&root(), target),
        ["python"] => python::test(&root()),
        ["dist"] => dist::build(&root()),
        ["bare"] => bare::build(&root()),
        ["faults", args @ ..] => match faults::Campaign::parse(args) {
            Ok(campaign) => campaign.run(&root()),
            Err(error) => {
                eprintln!("{error:#}\n{USAGE}");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            match error.is::<faults::NotRoot>() {
                true => ExitCode::from(faults::CANNOT_RUN),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// The repository's folder: the parent of this package's.
fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}
