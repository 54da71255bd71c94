//! A supervisor as an earlier version was, for tests of groups of mixed versions: there is no earlier version to run.
//!
//! `FORMAT supervisor [--join TICKET] …`: like `hedge supervisor`, with no newer record format than FORMAT, on any free
//! port of the loopback interface. Other arguments are ignored.

use hedge_node::Folders;
use hedge_node::supervisor::{self, Supervisor, SupervisorConfig};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let format = args.first().ok_or("no format is named")?;
    let join = args.iter().position(|arg| arg == "--join");
    let join = join.and_then(|at| args.get(at + 1));
    let mut config = SupervisorConfig::new(&Folders::new(None)?);
    config.format_max = format.parse()?;
    config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.join = join.map(|ticket| ticket.parse()).transpose()?;
    let started = |supervisor: &Supervisor| {
        let peer = supervisor.addr().peer.to_string();
        println!("{}", serde_json::json!({ "peer": peer }));
    };
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(supervisor::run(config, started, std::future::pending()))?;
    Ok(())
}
