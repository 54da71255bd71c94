//! A terminal for `hedge`, by `script` of util-linux.

use super::{Place, ended, text};
use std::process::Stdio;

/// What `hedge` shows on a terminal of so many columns, both streams together; its lines end in `\n`.
pub fn on_terminal(place: &Place, columns: u16, args: &[&str]) -> String {
    on_terminal_as(place, columns, &[("TERM", "xterm")], args)
}

/// The same with this in the environment.
pub fn on_terminal_as(place: &Place, columns: u16, env: &[(&str, &str)], args: &[&str]) -> String {
    let quoted = args
        .iter()
        .map(|arg| format!("'{}'", arg.replace('\'', "'\\''")));
    let quoted: Vec<String> = quoted.collect();
    let inner = format!(
        "stty cols {columns} rows 50; exec {} {}",
        env!("CARGO_BIN_EXE_hedge"),
        quoted.join(" ")
    );
    let mut command = place.program("script");
    command
        .args(["-q", "-e", "-c", &inner, "/dev/null"])
        .envs(env.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = ended(command.spawn().unwrap(), &args.join(" "));
    text(&output.stdout).replace("\r\n", "\n")
}
