//! The hedge command.
fn main() {}
