//! `hedge supervisor` and `hedge worker`.

use super::{TaskRules, amount, bytes, cpus, gpus, label};
use clap::Args;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Arguments of `supervisor`.
#[derive(Args, Debug)]
pub struct Supervisor {
    /// Address and UDP port to listen at [default: as at the last start, else any free port on every address]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Find peers of the grid on the local network, and be found there, also at other addresses than known
    /// [default: as at the last start]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub mdns: Option<bool>,
    /// File with a ticket of the group to join, with the role supervisor, or - for standard input
    #[arg(long, value_name = "FILE")]
    pub join: Option<String>,
    /// Join without a vote: take the place of a supervisor that is gone [default: as at the last start]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub standby: Option<bool>,
    /// Go on alone with what this supervisor has, when most supervisors of its group are lost for good
    #[arg(long, conflicts_with_all = ["join", "in_memory"])]
    pub recover: bool,
    /// Keep the journal in memory: the grid and its jobs end with this process
    #[arg(long, conflicts_with = "join")]
    pub in_memory: bool,
    /// Notice the end of a leader in half the time; for machines that are never overloaded [default: as at the
    /// last start]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub fast: Option<bool>,
    /// Show metrics to scrapers at this address, or at this port of 127.0.0.1; everybody who reaches it may read them
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
}

/// Arguments of `worker`.
#[derive(Args, Debug)]
pub struct Worker {
    /// File with a ticket of the grid to join, or - for standard input [default: this machine's supervisor]
    #[arg(long, value_name = "FILE")]
    pub join: Option<String>,
    /// Stand by as a supervisor too, with the ticket of the role supervisor in this file: take the place of one
    /// that is gone for long
    #[arg(long, value_name = "FILE")]
    pub standby: Option<String>,
    /// CPUs to offer [default: all]
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub cpus: Option<u64>,
    /// Memory to offer, like '4 GiB' [default: all]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub memory: Option<u64>,
    /// Disk to offer, like '20 GiB' [default: what is free at the start]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub disk: Option<u64>,
    /// Disk for trees, the folders that tasks name in `mounts`, at most; those that were not used for longest are
    /// evicted [default: 10 GiB]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub tree_cache: Option<u64>,
    /// GPUs to offer, at most: a number, or none [default: all]
    #[arg(long, value_name = "N", value_parser = gpus)]
    pub gpus: Option<u64>,
    /// Another resource to offer, like licence=1
    #[arg(long, value_name = "NAME=N", value_parser = amount)]
    pub resource: Vec<(String, u64)>,
    /// A label that tasks can ask for, like room=12
    #[arg(long, value_name = "NAME=TEXT", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Address and UDP port to listen at [default: as at the last start, else any free port on every address]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Find peers of the grid on the local network, and be found there, also at other addresses than known
    /// [default: as at the last start]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub mdns: Option<bool>,
    /// The machine is the grid's alone: nobody's activity keeps the worker from working (also where
    /// HEDGE_DEDICATED is set)
    #[arg(long)]
    pub dedicated: bool,
    /// What to do about the machine's owner [default: owner.toml in the worker's folder, if it is there]
    #[arg(long, value_name = "FILE", conflicts_with = "dedicated")]
    pub owner: Option<PathBuf>,
    /// Print such a file with all defaults, and end
    #[arg(long, exclusive = true)]
    pub show_owner: bool,
    /// End when standard input closes: the process that started this one has ended then
    #[arg(long, hide = true)]
    pub leash: bool,
    /// Exchange large blobs as files with the peers of this user that meet in this folder
    #[arg(long, hide = true, value_name = "FOLDER")]
    pub neighbours: Option<PathBuf>,
    /// Show metrics to scrapers at this address, or at this port of 127.0.0.1; everybody who reaches it may read them
    #[arg(long, value_name = "ADDR", value_parser = metrics_address)]
    pub metrics: Option<SocketAddr>,
    /// How tasks are treated.
    #[command(flatten)]
    pub rules: TaskRules,
}

/// An address for scrapers; a port alone is one of the loopback interface.
fn metrics_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.parse() {
        return Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    }
    let address = text.parse();
    address.map_err(|_| format!("{text:?} is no address: write 9464, or 192.0.2.7:9464"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_this_machine() {
        assert_eq!(
            metrics_address("9464").unwrap().to_string(),
            "127.0.0.1:9464"
        );
        assert_eq!(
            metrics_address("0.0.0.0:1").unwrap().to_string(),
            "0.0.0.0:1"
        );
        assert!(metrics_address("grid.example:9464").is_err());
    }
}
