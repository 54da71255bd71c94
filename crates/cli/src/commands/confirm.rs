//! Asking before something that cannot be undone.

use crate::exit::Failure;
use crate::show;
use std::io::{self, IsTerminal};

/// Lets the command go on where `--yes` was given or the person at the terminal says so. `what` is a clause with its
/// subject, like "job 7 and its results are dropped".
///
/// # Errors
/// The person says no, or there is none to ask.
pub fn irreversible(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Arguments(format!(
            "{what}, which cannot be undone; nothing was changed: repeat the command with --yes to do it"
        )));
    }
    show::note(&format!(
        "{what}, which cannot be undone. Type yes to go on:"
    ));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "yes" | "y") => Ok(()),
        _ => Err(Failure::Arguments(
            "not confirmed; nothing was changed".to_owned(),
        )),
    }
}
