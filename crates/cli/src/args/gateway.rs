//! `hedge gateway` and `hedge ui`.

use super::{Grid, duration};
use clap::Args;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `gateway`.
#[derive(Args, Debug)]
pub struct Gateway {
    /// Listen at a Unix socket of this path, which this user alone may open [default: gateway/gateway.sock in the state
    /// folder]
    #[arg(long, value_name = "PATH", conflicts_with = "listen")]
    pub socket: Option<PathBuf>,
    /// Listen at this address on the loopback interface; requests show the token
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// File with the token; made with a new token if it is missing [default: gateway/token in the state folder]
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub token_file: Option<PathBuf>,
    /// End once no client has been connected for so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub exit_when_idle: Option<Duration>,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}

/// Arguments of `ui`.
#[derive(Args, Debug)]
pub struct Ui {
    /// Address on the loopback interface to listen at
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Print the address alone, and open no browser
    #[arg(long)]
    pub no_browser: bool,
    /// The grid.
    #[command(flatten)]
    pub grid: Grid,
}
