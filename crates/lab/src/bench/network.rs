//! Machines of a network of their own for a measured grid: the bench itself sits on the hub, in a network
//! namespace that ends with it, and each peer on a machine beside it. Needs root.

use crate::failure::Failure;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// Set for the bench that runs on the hub.
const INSIDE: &str = "HEDGE_LAB_HUB";
/// Where the addresses of the hub and the machines lie: the last number is the machine's.
const NET: &str = "10.79.0.";
const HUB: u8 = 254;

/// Joined machines; they end with this.
#[derive(Debug)]
pub struct Network {
    names: Vec<String>,
}

/// Whether this process may make networks of its own.
pub fn possible() -> bool {
    rustix::process::geteuid().is_root()
        && ["ip", "nsenter", "unshare"].into_iter().all(|program| {
            let version = Command::new(program).arg("-V").output();
            version.is_ok_and(|output| output.status.success())
        })
}

/// Whether this process is on a hub.
pub fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Becomes the same command on a hub.
///
/// # Errors
/// It cannot be started.
pub fn enter() -> Result<std::convert::Infallible, Failure> {
    let failed =
        |error: std::io::Error| Failure::Local(format!("no network for the grid: {error}"));
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]);
    command.arg(std::env::current_exe().map_err(failed)?);
    command.args(std::env::args_os().skip(1)).env(INSIDE, "1");
    Err(failed(command.exec()))
}

impl Network {
    /// The hub, with no machine yet.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> Result<Network, Failure> {
        ip("link set lo up")?;
        ip("link add hub type bridge")?;
        ip("link set hub up")?;
        ip(&format!("address add {NET}{HUB}/24 dev hub"))?;
        Ok(Network { names: Vec::new() })
    }

    /// Adds a machine; gives its number.
    ///
    /// # Errors
    /// The system refuses.
    pub fn add(&mut self) -> Result<usize, Failure> {
        let number = self.names.len();
        let name = format!("hedge-bench-{}-{number}", std::process::id());
        ip(&format!("netns add {name}"))?;
        self.names.push(name.clone());
        let port = format!("port{number}");
        ip(&format!(
            "link add {port} type veth peer name eth0 netns {name}"
        ))?;
        ip(&format!("link set {port} master hub up"))?;
        ip(&format!(
            "-n {name} address add {}/24 dev eth0",
            address(number)
        ))?;
        ip(&format!("-n {name} link set lo up"))?;
        ip(&format!("-n {name} link set eth0 up"))?;
        Ok(number)
    }

    /// What starts a program on a machine.
    pub fn enter(&self, machine: usize) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.names[machine]));
        command.arg("--");
        command
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.names {
            _ = ip(&format!("netns del {name}"));
        }
    }
}

/// A machine's address.
pub fn address(machine: usize) -> String {
    format!("{NET}{}", machine + 1)
}

fn ip(line: &str) -> Result<(), Failure> {
    let failed = |why: String| Failure::Local(format!("`ip {line}` failed: {why}"));
    let output = Command::new("ip").args(line.split(' ')).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(
            String::from_utf8_lossy(&output.stderr).trim().into(),
        )),
    }
}
