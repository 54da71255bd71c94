//! `hedge relay`.

use clap::Args;
use std::net::SocketAddr;

/// Arguments of `relay`.
#[derive(Args, Debug)]
pub struct Relay {
    /// File with a ticket of the grid to serve, with the role relay, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub join: String,
    /// Address and port to listen at, TCP and UDP [default: as at the last start, else 0.0.0.0:7434]
    #[arg(long, value_name = "ADDR", value_parser = fixed_port)]
    pub listen: Option<SocketAddr>,
}

fn fixed_port(text: &str) -> Result<SocketAddr, String> {
    let addr: SocketAddr = text
        .parse()
        .map_err(|_| format!("{text:?} is no ADDRESS:PORT"))?;
    match addr.port() {
        0 => Err("a relay needs a port that stays the same; name one".to_owned()),
        _ => Ok(addr),
    }
}
