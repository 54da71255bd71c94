//! Asks the user before something that cannot be undone.

use crate::exit::Failure;
use crate::show;
use std::io::{self, IsTerminal};

/// Returns if `--yes` was given or the user confirms. `what` is a clause in the future tense with its subject, like
/// "job 7 and its results will be dropped".
///
/// # Errors
/// The user declines, or standard input or standard error is no terminal.
pub fn confirm_irreversible(what: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::Arguments(format!(
            "nothing was changed. This cannot be undone: {what}. Repeat the command with --yes to do it"
        )));
    }
    show::note(&format!("this cannot be undone: {what}. Continue? [y/N]"));
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    match read {
        Ok(_) if matches!(answer.trim(), "yes" | "y") => Ok(()),
        _ => Err(Failure::Interrupted(
            "not confirmed; nothing was changed".to_owned(),
        )),
    }
}
