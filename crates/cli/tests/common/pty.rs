//! A terminal for `hedge`, by `script` of util-linux.

use super::{Place, ended, text};
use std::process::Stdio;

const ROWS: u16 = 50;

/// What `hedge` writes to a terminal of so many columns, both streams together; its lines end in `\n`.
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
        "stty cols {columns} rows {ROWS}; exec {} {}",
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

/// What is on the screen of 80 columns once `hedge` has ended.
pub fn screen(place: &Place, args: &[&str]) -> String {
    let written = on_terminal(place, 80, args).replace('\n', "\r\n");
    let mut terminal = vt100::Parser::new(ROWS, 80, 0);
    terminal.process(written.as_bytes());
    terminal.screen().contents()
}
