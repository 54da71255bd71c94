//! Machines of a network of their own: each is a network namespace with an address, joined by a bridge. Links can
//! be cut, and packets dropped in one direction only. Needs root.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Begins the names of all namespaces that campaigns make; the process id follows.
const PREFIX: &str = "hedge-faults-";

/// Joined machines. Removed with all their namespaces at the end.
pub struct Lab {
    name: String,
    machines: usize,
}

impl Lab {
    /// So many machines, numbered from 0.
    ///
    /// # Errors
    /// The machine cannot make network namespaces.
    pub fn new(machines: usize) -> Result<Lab> {
        remove_stale();
        let name = format!("{PREFIX}{}", std::process::id());
        let lab = Lab { name, machines };
        let hub = lab.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        (0..machines).try_for_each(|machine| lab.add(machine))?;
        Ok(lab)
    }

    fn add(&self, machine: usize) -> Result<()> {
        let (hub, own, port) = (self.hub(), self.namespace(machine), port(machine));
        ip(&["netns", "add", &own])?;
        ip(&[
            "-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &own,
        ])?;
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
        let address = format!("{}/24", address(machine));
        ip(&["-n", &own, "address", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        ip(&["-n", &own, "link", "set", "eth0", "up"])?;
        self.nft(
            machine,
            "add table inet faults\n\
             add chain inet faults incoming { type filter hook input priority 0; }\n\
             add chain inet faults outgoing { type filter hook output priority 0; }",
        )
    }

    /// A command to be run on a machine, in its folder, with all state below it.
    pub fn command(&self, machine: usize, folder: &Path, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.namespace(machine)))
            .arg("--")
            .arg(program)
            .current_dir(folder)
            .env("HOME", folder)
            .env("XDG_STATE_HOME", folder.join("state"))
            .env_remove("HEDGE_TICKET")
            .stdin(Stdio::null());
        command
    }

    /// Takes a machine's link down, as if its cable were pulled at the other end.
    pub fn cut(&self, machine: usize) -> Result<()> {
        ip(&["-n", &self.hub(), "link", "set", &port(machine), "down"])
    }

    /// What these machines send does not reach a machine any more.
    pub fn deafen(&self, machine: usize, to: &[usize]) -> Result<()> {
        let rule = format!("add rule inet faults incoming ip saddr {} drop", set(to));
        self.nft(machine, &rule)
    }

    /// What a machine sends does not reach these any more.
    pub fn mute(&self, machine: usize, to: &[usize]) -> Result<()> {
        let rule = format!("add rule inet faults outgoing ip daddr {} drop", set(to));
        self.nft(machine, &rule)
    }

    /// Undoes all of it.
    pub fn mend(&self, machine: usize) -> Result<()> {
        ip(&["-n", &self.hub(), "link", "set", &port(machine), "up"])?;
        self.nft(
            machine,
            "flush chain inet faults incoming\nflush chain inet faults outgoing",
        )
    }

    fn nft(&self, machine: usize, rules: &str) -> Result<()> {
        let own = self.namespace(machine);
        run("ip", &["netns", "exec", &own, "nft", rules])
    }

    fn hub(&self) -> String {
        format!("{}-hub", self.name)
    }

    fn namespace(&self, machine: usize) -> String {
        format!("{}-{machine}", self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let own = (0..self.machines).map(|machine| self.namespace(machine));
        for name in own.chain([self.hub()]) {
            _ = ip(&["netns", "del", &name]);
        }
    }
}

/// A machine's address.
pub fn address(machine: usize) -> String {
    format!("10.78.0.{}", machine + 1)
}

/// Runs a program of the system to its end.
///
/// # Errors
/// It cannot be run, or fails; says what it printed.
pub fn run(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output();
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    ensure!(
        output.status.success(),
        "{program} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Removes what campaigns left that were killed.
fn remove_stale() {
    let Ok(all) = fs::read_dir("/run/netns") else {
        return;
    };
    for name in all
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
    {
        let pid = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            _ = ip(&["netns", "del", &name]);
        }
    }
}

fn set(machines: &[usize]) -> String {
    let all: Vec<String> = machines.iter().map(|one| address(*one)).collect();
    format!("{{ {} }}", all.join(", "))
}

fn port(machine: usize) -> String {
    format!("port{machine}")
}

fn ip(args: &[&str]) -> Result<()> {
    run("ip", args)
}
