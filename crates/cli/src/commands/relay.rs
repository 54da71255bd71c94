//! `hedge relay`: carries packets for members that cannot reach each other directly.

use super::interrupt::Interrupts;
use super::worker::{note_options, start_options};
use super::{Context, access, block_on};
use crate::args::Relay;
use crate::exit::{Exit, Failure};
use crate::show;
use hedge_model::PeerAddr;
use hedge_model::msg::Role;
use hedge_node::StartOptions;
use hedge_node::relay::{self, RelayConfig};
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Where a relay listens that was never told anything else.
const LISTEN: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 7434));

/// Runs until it is told to end.
///
/// # Errors
/// It cannot start, or the grid does not let it in.
pub fn run(context: &Context, args: &Relay) -> Result<Exit, Failure> {
    show::events::show("warn,hedge_node=info,hedge_net=info");
    block_on(async {
        let ticket = access::read(&args.join, "--join", &[Role::Relay])?;
        let dir = context.folders.relay();
        let given = StartOptions {
            listen: args.listen,
            ..StartOptions::default()
        };
        let options = start_options(given, &dir)?;
        let listen = options.listen.unwrap_or(LISTEN);
        let config = RelayConfig::new(&context.folders, ticket, listen);
        let mut interrupts = Interrupts::new()?;
        let mut told = Ok(());
        let started = |addr: &PeerAddr| {
            note_options(&options, &dir);
            let each = addr.addrs.iter().map(|at| PeerAddr {
                peer: addr.peer,
                addrs: vec![*at],
            });
            let relays: Vec<String> = each.map(|relay| relay.to_string()).collect();
            let value = json!({ "peer": addr.peer.to_string(), "relays": relays });
            told = context.look.print(&value, || {
                format!(
                    "relay listens; on a supervisor's machine, with the address at which all peers reach it:\n\
                     hedge config set relay {}\n",
                    relays.join("\nhedge config set relay ")
                )
            });
        };
        let stop = async {
            interrupts.next().await;
            show::note("stopping; once more quits at once");
            interrupts.quit_on_next(Exit::Done);
        };
        relay::run(config, started, stop).await?;
        told?;
        Ok(Exit::Done)
    })
}
