//! The hedge command. Started with [`hedge_exec::spawner::ARGUMENT`] as its first argument, the program is a spawner.

use clap::Parser;
use std::process::ExitCode;

mod args;
mod argv;
mod commands;
mod exit;
mod owner;
mod saver;
mod show;
mod top;
mod trace;

fn main() -> ExitCode {
    // The spawner must have no other thread, and is started often: nothing comes before it.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == hedge_exec::spawner::ARGUMENT)
    {
        // A worker that was killed while its spawner starts is no news; only a person is told.
        let by_worker = rustix::net::sockopt::socket_type(std::io::stdin()).is_ok();
        let why = hedge_exec::spawner::main();
        if !by_worker {
            show::note(&format!("hedge: {why}"));
        }
        return exit::Exit::Bad.into();
    }
    exit::install_panic_hook();
    let cli = match args::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help that nobody reads is no trouble.
            let _ = error.print();
            return if error.use_stderr() {
                exit::Exit::Bad
            } else {
                exit::Exit::Done
            }
            .into();
        }
    };
    let json = cli.json;
    match commands::run(cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            show::failure(&failure, json);
            failure.exit().into()
        }
    }
}
